"""The grid of samples: every pixel is where it belongs, and the page has the size that it should."""

import errno
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from numpy.typing import NDArray
from PIL import Image, ImageFont

from mlpcli import pictures
from mlpcli.errors import StorageError
from mlpcli.pictures import GAP, HEADING, LABEL, MARGIN, sample_grid


def images(n: int, *shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, *shape), generator=generator, dtype=torch.uint8)


def page(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as picture:
        assert picture.format == "PNG" and picture.mode == "RGB"
        return np.asarray(picture)


def enlarged(image: torch.Tensor, times: int) -> NDArray[np.uint8]:
    """uint8 (channels, height, width) -> (times height, times width, 3)."""
    rgb = image.expand(3, -1, -1).permute(1, 2, 0).numpy()
    return rgb.repeat(times, 0).repeat(times, 1)


@pytest.mark.parametrize("channels", [1, 3])
def test_pairs_stand_side_by_side(tmp_path: Path, channels: int) -> None:
    before = images(5, channels, 20, 24)
    after = before.flip(-1).float() + 0.25
    width, height = sample_grid(before, after, list("abcde"), tmp_path / "grid.png", "heading")
    drawn = page(tmp_path / "grid.png")
    assert drawn.shape == (height, width, 3)

    tile, row = 2 * 96 + GAP + MARGIN, 80 + LABEL + 2 * GAP + MARGIN
    columns = (width - MARGIN) // tile
    assert (width, height) == (MARGIN + columns * tile, 2 * MARGIN + HEADING + -(-5 // columns) * row)
    for index in range(5):
        x, y = MARGIN + index % columns * tile, 2 * MARGIN + HEADING + index // columns * row
        assert_array_equal(drawn[y : y + 80, x : x + 96], enlarged(before[index], 4))
        x += 96 + GAP
        assert_array_equal(drawn[y : y + 80, x : x + 96], enlarged(before[index].flip(-1), 4))
        assert drawn[y + 80 + GAP : y + row - MARGIN, x - 96 - GAP : x].min() < 100, "a label below each"
    assert drawn[MARGIN : MARGIN + HEADING].min() < 100 and drawn[:MARGIN].min() == 255


def test_samples_alone_and_without_a_heading(tmp_path: Path) -> None:
    width, height = sample_grid(images(1, 1, 28, 28), None, ["7"], tmp_path / "grid.png")
    assert (width, height) == (96 + 2 * MARGIN, 2 * MARGIN + 84 + LABEL + 2 * GAP)
    drawn = page(tmp_path / "grid.png")
    assert_array_equal(drawn[MARGIN : MARGIN + 84, MARGIN : MARGIN + 84], enlarged(images(1, 1, 28, 28)[0], 3))


def test_values_out_of_range_are_cut_off(tmp_path: Path) -> None:
    sample_grid(torch.tensor([[[[-50.0, 400.0]]]]), None, [""], tmp_path / "grid.png")
    drawn = page(tmp_path / "grid.png")[MARGIN : MARGIN + 48, MARGIN : MARGIN + 96]
    assert (drawn[:, :48] == 0).all() and (drawn[:, 48:] == 255).all()


def test_large_images_are_shrunk(tmp_path: Path) -> None:
    width, height = sample_grid(
        torch.full((1, 3, 300, 400), 200, dtype=torch.uint8), None, [""], tmp_path / "grid.png"
    )
    assert (width, height) == (96 + 2 * MARGIN, 2 * MARGIN + 72 + LABEL + 2 * GAP)
    assert (page(tmp_path / "grid.png")[MARGIN : MARGIN + 72, MARGIN : MARGIN + 96] == 200).all()


@settings(max_examples=100, deadline=None)
@given(n=st.integers(1, 500), width=st.integers(50, 300), height=st.integers(50, 300))
def test_no_other_number_of_columns_is_much_nearer_to_four_to_three(n: int, width: int, height: int) -> None:
    def distance(columns: int) -> float:
        return abs(np.log(columns * width / (-(-n // columns) * height) / (4 / 3)))

    found = pictures._columns(n, width, height)
    assert 1 <= found <= n
    best = min(map(distance, range(1, n + 1)))
    assert distance(found) <= best + 0.5, "a last row that is nearly empty, or a half of a column"


@given(text=st.text(max_size=60), width=st.integers(20, 200))
def test_labels_fit(text: str, width: int) -> None:
    font = ImageFont.load_default(size=LABEL)
    cut = pictures._cut(text, width, font)
    assert font.getlength(cut) <= width
    assert "\n" not in cut


def test_long_labels_end_in_an_ellipsis() -> None:
    font = ImageFont.load_default(size=LABEL)
    assert pictures._cut("cat", 96, font) == "cat"
    assert pictures._cut("Hündchen", 96, font) == "Hundchen"
    cut = pictures._cut("an English cocker spaniel", 96, font)
    assert cut.endswith("…") and "an English cocker spaniel".startswith(cut[:-1])
    assert font.getlength(cut + "mm") > 96, "no shorter than it must be"


def test_it_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "grid.png"
    sample_grid(images(2, 1, 8, 8), None, ["a", "b"], path)
    old = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StorageError, match=r"cannot write .*grid.png: the disk is full"):
        sample_grid(images(3, 1, 8, 8), None, ["a", "b", "c"], path)
    assert path.read_bytes() == old
    assert [each.name for each in tmp_path.iterdir() if each.suffix] == ["grid.png"]
