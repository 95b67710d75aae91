"""Every kind of image file has a defined result, or an error that says what is wrong with it."""

import io
import os
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mlpcli.data.images import FORMATS, MAX_PIXELS, decode
from mlpcli.errors import DataError

RGB, GREY = (3, 5, 7), (1, 5, 7)


def photo(seed: int = 0, size: tuple[int, int] = (7, 5), mode: str = "RGB") -> Image.Image:
    """Smooth colours, which survive compression. `size` is (width, height)."""
    x, y = np.meshgrid(np.linspace(0, 1, size[0]), np.linspace(0, 1, size[1]))
    channels = [np.sin(3 * x + 2 * y + k + seed) * 100 + 128 for k in range(3)]
    return Image.fromarray(np.stack(channels, axis=2).astype(np.uint8)).convert(mode)


def content(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def hwc(pixels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return pixels.transpose(1, 2, 0)


# --- kinds of files -------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", sorted(FORMATS))
def test_each_format_gives_what_pillow_gives(format: str) -> None:
    options = {"lossless": True} if format == "WEBP" else {}
    file = content(photo(), format, **options)
    with Image.open(io.BytesIO(file)) as image:
        expected = np.asarray(image.convert("RGB"))
    assert np.array_equal(hwc(decode(file, RGB)), expected)


def test_two_photographs_in_one_file_are_the_first_one() -> None:
    file = content(photo(), "MPO", save_all=True, append_images=[photo(3)])
    assert np.array_equal(decode(file, RGB), decode(content(photo(), "JPEG"), RGB))


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP", "TIFF"])
def test_an_animation_is_its_first_frame(format: str) -> None:
    options = {"lossless": True} if format == "WEBP" else {}
    first, second = photo().quantize(8).convert("RGB"), photo(3).quantize(8).convert("RGB")
    file = content(first, format, save_all=True, append_images=[second], **options)
    assert np.array_equal(hwc(decode(file, RGB)), np.asarray(first))


@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P"])
def test_modes_become_rgb_and_grey_as_pillow_has_it(mode: str) -> None:
    image = photo(mode=mode)
    assert np.array_equal(hwc(decode(content(image), RGB)), np.asarray(image.convert("RGB")))
    grey = np.asarray(image.convert("RGB").convert("L"))
    assert np.array_equal(decode(content(image), GREY)[0], grey)


def test_one_bit_is_black_and_white() -> None:
    image = Image.new("1", (7, 5))
    image.putpixel((6, 0), 1)
    pixels = decode(content(image), GREY)[0]
    assert pixels[0, 6] == 255 and pixels.sum() == 255


def test_cmyk() -> None:
    image = Image.new("CMYK", (7, 5), (255, 0, 0, 0))  # all cyan
    for format in ("TIFF", "JPEG"):
        pixels = hwc(decode(content(image, format), RGB)).astype(int)
        assert np.abs(pixels - [0, 255, 255]).max() <= 2


@pytest.mark.parametrize("alpha", [0, 77, 255])
def test_what_is_transparent_lies_on_white(alpha: int) -> None:
    colour = np.array([200, 100, 50])
    expected = np.rint(255 + (colour - 255) * alpha / 255)
    pixels = hwc(decode(content(Image.new("RGBA", (7, 5), (200, 100, 50, alpha))), RGB)).astype(int)
    assert np.abs(pixels - expected).max() <= 1
    grey = decode(content(Image.new("LA", (7, 5), (200, alpha))), GREY).astype(int)
    assert np.abs(grey - (255 - 55 * alpha / 255)).max() <= 1


def test_a_transparent_colour_lies_on_white() -> None:
    palette = Image.new("P", (7, 5), 1)
    palette.putpalette([10, 20, 30, 200, 100, 50])
    palette.putpixel((0, 0), 0)
    grey = Image.new("L", (7, 5), 9)
    grey.putpixel((0, 0), 4)
    for image, transparent, rest in ((palette, 0, [200, 100, 50]), (grey, 4, [9, 9, 9])):
        pixels = hwc(decode(content(image, transparency=transparent), RGB))
        assert pixels[0, 0].tolist() == [255] * 3 and pixels[1, 1].tolist() == rest


@pytest.mark.parametrize("format", ["PNG", "TIFF", "PPM"])
def test_16_bits_are_scaled(format: str) -> None:
    values = np.linspace(0, 65535, 35).astype(np.uint16).reshape(5, 7)
    pixels = decode(content(Image.fromarray(values), format), RGB)
    assert (pixels == pixels[0]).all()
    assert np.array_equal(pixels[0], np.rint(values / 257).astype(np.uint8))


def test_32_bits_are_clipped_to_16() -> None:
    values = np.full((5, 7), 65535, dtype=np.int32)
    values[0, :3] = -5, 70_000, 257
    pixels = decode(content(Image.fromarray(values), "TIFF"), GREY)[0]
    assert pixels[0].tolist() == [0, 255, 1, *[255] * 4]


def test_floats_are_from_0_to_1() -> None:
    values = np.full((5, 7), 0.5, dtype=np.float32)
    values[0, :6] = np.nan, np.inf, -np.inf, 7, -7, 1
    pixels = decode(content(Image.fromarray(values), "TIFF"), GREY)[0]
    assert pixels[0].tolist() == [0, 255, 0, 255, 0, 255, 128]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(orientation: int) -> None:
    """An upright photograph, stored as a camera does that was held that way (EXIF 2.3, tag 274)."""
    upright = np.asarray(photo())
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: upright.transpose(1, 0, 2)[::-1],
        7: upright.transpose(1, 0, 2)[::-1, ::-1],
        8: upright.transpose(1, 0, 2)[:, ::-1],
    }[orientation]
    exif = Image.Exif()
    exif[274] = orientation
    for format in ("PNG", "TIFF"):
        file = content(Image.fromarray(np.ascontiguousarray(stored)), format, exif=exif)
        assert np.array_equal(hwc(decode(file, RGB)), upright)


def test_damaged_exif_data_is_as_none() -> None:
    plain = content(photo(), "JPEG")
    for exif in (b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01\x12"):
        assert np.array_equal(decode(content(photo(), "JPEG", exif=exif), RGB), decode(plain, RGB))


# --- size -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(1, 1), (3, 50), (20, 20), (201, 99)])
def test_every_size_becomes_the_one_that_is_wanted(size: tuple[int, int]) -> None:
    image = photo(size=size)
    expected = np.asarray(image.resize((7, 5), Image.Resampling.BILINEAR))
    assert np.array_equal(hwc(decode(content(image), RGB)), expected)


def test_shrinking_averages() -> None:
    stripes = np.zeros((500, 700), dtype=np.uint8)
    stripes[::2] = 255
    assert np.abs(decode(content(Image.fromarray(stripes)), GREY).astype(int) - 128).max() <= 2


@pytest.mark.parametrize("size", [(1600, 1200), (90, 1500)])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_large_jpeg_decoded_small_is_close_to_one_decoded_whole(size: tuple[int, int], mode: str) -> None:
    file = content(photo(size=size, mode=mode), "JPEG", quality=90)
    with Image.open(io.BytesIO(file)) as image:
        whole = np.asarray(image.convert("RGB").resize((7, 5), Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(hwc(decode(file, RGB)) - whole).max() <= 2


def test_a_large_jpeg_is_turned_after_it_was_decoded_small() -> None:
    exif = Image.Exif()
    exif[274] = 6
    turned = content(photo(size=(1501, 90)).transpose(Image.Transpose.ROTATE_90), "JPEG", exif=exif)
    difference = decode(turned, RGB).astype(int) - decode(content(photo(size=(1501, 90))), RGB)
    assert np.abs(difference).max() <= 2


# --- what is refused ------------------------------------------------------------------------------------


def bomb(width: int, height: int) -> bytes:
    """A PNG whose header says so."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 100))
        + chunk(b"IEND", b"")
    )


REFUSED: dict[str, tuple[bytes, str]] = {
    "a bomb": (bomb(20_000, 20_000), f"too large: it has more than {MAX_PIXELS:,} pixels"),
    "a text": (b"hello, world", "no image, or one with a damaged header"),
    "an empty file": (b"", "no image, or one with a damaged header"),
    "a header only": (content(photo(), "JPEG")[:10], "damaged: "),
    "half a JPEG": (content(photo(size=(99, 99)), "JPEG")[:900], "damaged: image file is truncated"),
    "half a PNG": (content(photo(size=(99, 99)))[:900], "damaged: "),
    "half a TIFF": (content(photo(size=(99, 99)), "TIFF")[:900], "damaged: "),
    "half a WebP": (content(photo(size=(99, 99)), "WEBP")[:200], "damaged: "),
    "half a GIF": (content(photo(size=(99, 99)), "GIF")[:900], "damaged: "),
    "PostScript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "no image, or one with a damaged header"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_image_is_named(name: str, tmp_path: Path) -> None:
    file, expected = REFUSED[name]
    path = tmp_path / "it.jpg"
    path.write_bytes(file)
    with pytest.raises(DataError) as caught:
        decode(path, RGB)
    assert str(caught.value).startswith(f"{path}: {expected}")
    assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match=r"^image: "):
        decode(file, RGB)


def test_a_large_image_that_is_no_bomb_makes_no_warning() -> None:
    """Pillow warns from half of the limit on."""
    with warnings.catch_warnings(), pytest.raises(DataError, match="damaged: "):
        warnings.simplefilter("error")
        decode(bomb(10_000, 10_000), RGB)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read: No such file"):
        decode(tmp_path / "absent.jpg", RGB)
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        decode(tmp_path, RGB)
    locked = tmp_path / "locked.jpg"
    locked.write_bytes(content(photo()))
    locked.chmod(0)
    if not os.access(locked, os.R_OK):  # root reads everything
        with pytest.raises(DataError, match="cannot be read: Permission denied"):
            decode(locked, RGB)


FILES = [content(photo(), format) for format in FORMATS] + [content(photo(mode="P")), content(photo(mode="RGBA"))]


@settings(deadline=None, max_examples=300)
@given(st.sampled_from(FILES), st.data())
def test_no_damage_makes_anything_but_pixels_or_an_error(file: bytes, draw: st.DataObject) -> None:
    at = draw.draw(st.integers(0, len(file) - 1))
    end = draw.draw(st.integers(at, min(len(file), at + 20)))
    damaged = file[:at] + draw.draw(st.binary(max_size=20)) + file[end:]
    try:
        pixels = decode(damaged, RGB)
    except DataError as error:
        assert str(error).startswith("image: ")
    else:
        assert pixels.shape == RGB and pixels.dtype == np.uint8 and pixels.flags.c_contiguous
