"""Draws report.png and report_mistakes.png: parts of the page of a run, as Chromium shows them.

They are of the starter `mnist`: mlpcli train mnist, then python docs/make_report_picture.py runs/mnist
"""

import io
import sys
from pathlib import Path

from PIL import Image

sys.path.append(str(Path(__file__).parent.parent / "tests"))
from browser import browser

WIDTH = 1280
COLOURS = 255
"""Of the pictures, which are small files with so few."""
TOPS = "['{}', '{}'].map((each) => document.querySelector(each).getBoundingClientRect().top)"
"""Where two elements begin, in pixels from the top of the page."""


def main() -> None:
    """Take the pictures of the run that the command line names."""
    page = Path(sys.argv[1]) / "report.html"
    shot = Path("page.png")
    with browser() as tab:
        tab.open(page, WIDTH)
        tab.picture(shot)
        whole = Image.open(io.BytesIO(shot.read_bytes())).convert("RGB")
        shot.unlink()
        end = tab.value(TOPS.format("#headline", "#time"))[1] - 12
        _save(whole.crop((0, 0, whole.width, round(end))), "report.png")
        start, end = tab.value(TOPS.format("#calibration", "#network"))
        _save(whole.crop((0, round(start) - 12, whole.width, round(end))), "report_mistakes.png")


def _save(picture: Image.Image, name: str) -> None:
    small = picture.quantize(COLOURS, dither=Image.Dither.NONE)
    small.save(Path(__file__).with_name(name), "PNG", optimize=True)


if __name__ == "__main__":
    main()
