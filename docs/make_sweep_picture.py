"""Draws sweep.png: the charts of the page of a sweep, as Chromium shows them.

It takes the directory of a sweep: python docs/make_sweep_picture.py sweeps/digits
"""

import io
import sys
from pathlib import Path

from PIL import Image

sys.path.append(str(Path(__file__).parent.parent / "tests"))
from browser import browser

WIDTH, SHOWN = 1280, 840
"""Of the window, and of what is kept of it: two charts beside each other."""
COLOURS = 255
"""Of the picture, which is a small file with so few."""
TOPS = "['#history', '#slices'].map((each) => document.querySelector(each).getBoundingClientRect().top)"
"""Where the charts begin and end, in pixels from the top of the page."""


def main() -> None:
    """Take the picture of the sweep that the command line names."""
    with browser() as tab:
        tab.open(Path(sys.argv[1]) / "sweep.html", WIDTH)
        start, end = tab.value(TOPS)
        shot = Path("page.png")
        tab.picture(shot)
    whole = Image.open(io.BytesIO(shot.read_bytes())).convert("RGB")
    shot.unlink()
    part = whole.crop((24, round(start) - 8, SHOWN + 24, round(end) - 8))
    part.quantize(COLOURS, dither=Image.Dither.NONE).save(
        Path(__file__).with_name("sweep.png"), "PNG", optimize=True
    )


if __name__ == "__main__":
    main()
