"""Pictures of a plane and its regions, to files: PNG, SVG, an interactive page, and animations of many of them."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from mlpcli.errors import UsageError
from mlpcli.plots import MUTED, PAPER
from mlpcli.regions import page, picture_png, picture_svg
from mlpcli.regions.colours import cell_colours
from mlpcli.regions.picture_layout import layout
from mlpcli.regions.view import View
from mlpcli.runs import write_whole

ENDINGS = {".png": "a picture", ".svg": "a drawing", ".html": "an interactive page"}
ANIMATED = {".gif": "an animation", ".html": "a page with a slider"}
SCALE = 2
"""Pixels of a PNG for one of the layout."""
FRAME = 440.0
"""Pixels of the longer side of the plane in an animation."""
FRAME_MS, LAST_MS = 350, 2500
"""How long a frame of an animation stays, and the last one."""
PALETTE = 256
"""Colours of an animation."""
NEARLY_WHITE = 244
"""The least channel of a colour that becomes white."""
SAMPLED = 12
"""Frames from which the palette of all is taken."""


def check_ending(file: Path, *, animated: bool = False) -> None:
    """Raises UsageError unless the ending of `file` says a format that is drawn, of one view or of many."""
    formats = ANIMATED if animated else ENDINGS
    if file.suffix.lower() not in formats:
        known = ", ".join(f"{ending} ({what})" for ending, what in formats.items())
        raise UsageError(f"-o {file}: the ending says the format: {known}")


def draw(view: View, file: Path) -> None:
    """Draw a view to a file, whole or not at all.

    Args:
        view: a window of a plane.
        file: its ending says the format, see `check_ending`.

    Raises:
        UsageError: the ending is unknown, or there are too many cells for the format.
        StorageError: it could not be written.
    """
    check_ending(file)
    match file.suffix.lower():
        case ".png":
            content = png(view)
        case ".svg":
            content = svg(view).encode()
        case _:
            content = page.page(view).encode(errors="replace")  # halves of surrogate pairs, of odd file names
    write_whole(file, content)


def svg(view: View) -> str:
    """A whole SVG file. Raises UsageError where there are too many cells."""
    return picture_svg.svg(layout(view), cell_colours([view])[0])


def png(view: View) -> bytes:
    """A PNG file in the light colours."""
    return picture_png.png(layout(view), cell_colours([view])[0], SCALE)


def animate(views: Sequence[View], captions: Sequence[str], file: Path) -> None:
    """Draw views one after the other, in the same colours, to a GIF or to a page with a slider.

    Args:
        views: at least one, of networks with the same outputs and of windows of the same shape.
        captions: one a view.
        file: its ending says the format, see `check_ending`.

    Raises:
        UsageError: the ending is unknown.
        StorageError: it could not be written.
    """
    check_ending(file, animated=True)
    if file.suffix.lower() == ".gif":
        frames = _frames(views, captions, 1, bar=True)
        content = io.BytesIO()
        durations = [FRAME_MS] * (len(frames) - 1) + [LAST_MS]
        first, rest = frames[0], frames[1:]
        first.save(content, "GIF", save_all=True, append_images=rest, duration=durations, loop=0, disposal=1)
        write_whole(file, content.getvalue())
        return
    frames = _frames(views, captions, SCALE, bar=False)
    write_whole(
        file,
        page.frames_page(views[0].title, captions, [_encoded(each) for each in frames]).encode(errors="replace"),
    )


def _frames(views: Sequence[View], captions: Sequence[str], scale: int, *, bar: bool) -> list[Image.Image]:
    """One picture a view, all with the same palette.

    Args:
        views: what is drawn.
        captions: of each.
        scale: pixels for one of the layout.
        bar: whether a line below tells how far the animation is, which makes every frame another one too: equal
            frames that follow each other would become one.
    """
    pictures = []
    for index, (view, caption, colours) in enumerate(zip(views, captions, cell_colours(views), strict=True)):
        picture = picture_png.paint(layout(view, FRAME, caption), colours, scale)
        if bar:
            width, height = picture.size
            reached = round(width * (index + 1) / len(views))
            ImageDraw.Draw(picture).rectangle((0, height - 4 * scale, reached, height), fill=MUTED[0])
        pictures.append(picture)
    # a legend may be longer in one frame than in another
    size = (max(picture.width for picture in pictures), max(picture.height for picture in pictures))
    pictures = [_on_paper(picture, size) for picture in pictures]
    chosen = sorted(
        set(np.linspace(0, len(pictures) - 1, min(SAMPLED, len(pictures))).round().astype(int).tolist())
    )
    montage = Image.new("RGB", (size[0], size[1] * len(chosen)))
    for place, index in enumerate(chosen):
        montage.paste(pictures[index], (0, place * size[1]))
    palette = montage.quantize(PALETTE, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    entries = np.array(palette.getpalette()).reshape(-1, 3)
    entries[entries.min(1) >= NEARLY_WHITE] = 255  # the paper; no region is that light
    palette.putpalette(entries.ravel().tolist())
    return [picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures]


def _on_paper(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    paper = Image.new("RGB", size, PAPER[0])
    paper.paste(picture)
    return paper


def _encoded(frame: Image.Image) -> bytes:
    content = io.BytesIO()
    frame.save(content, "PNG", compress_level=9)
    return content.getvalue()
