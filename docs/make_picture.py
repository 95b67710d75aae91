"""Draws terminal.svg: real commands, run in a temporary folder, with what they really print.

Run it after a change of what the commands print: python docs/make_picture.py
"""

import io
import os
import re
import subprocess
import sys
import tempfile
from html import unescape
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

FILE = Path(__file__).with_name("terminal.svg")
WIDTH = 114

WRONG = """\
data:
  dataset: digits
  validation: 10%
model:
  widht: [256, 128]
optimizer: {name: sgd, learning_rate: 0.1}
training:
  epochs: 1e3
"""
CHECK = "mlpcli check wrong.yaml"
TRAIN = "mlpcli train digits"
EVAL = "mlpcli eval runs/digits"

INK, PAPER = (214, 218, 225), (24, 26, 31)
RED, GREEN, YELLOW = (232, 104, 99), (126, 191, 118), (220, 180, 100)
BLUE, MAGENTA, CYAN = (98, 165, 232), (190, 130, 215), (90, 185, 195)
THEME = TerminalTheme(PAPER, INK, [PAPER, RED, GREEN, YELLOW, BLUE, MAGENTA, CYAN, INK])


def main() -> None:
    """Run the commands and write the picture."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "wrong.yaml").write_text(WRONG, encoding="utf-8")
        scenes = [
            (CHECK, printed(CHECK, folder)),
            (TRAIN, shortened(printed(TRAIN, folder))),
            (EVAL, printed(EVAL, folder)),
        ]
    FILE.write_text(drawn(scenes), encoding="utf-8")


def printed(command: str, folder: Path) -> list[str]:
    """The lines that a command writes to stdout and stderr."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command.split(),
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.stdout.splitlines()


def shortened(lines: list[str]) -> list[str]:
    """The first and the last epochs, and what comes after them."""
    return [*lines[:3], "…", *lines[-8:]]


def drawn(scenes: list[tuple[str, list[str]]]) -> str:
    """The picture of commands with their output; it needs no font from the network."""
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    for number, (command, lines) in enumerate(scenes):
        if number:
            console.print()
        console.print(Text.assemble(("$ ", "green"), (command, "bold")))
        for line in lines:
            console.print(Text(line), soft_wrap=True)
    svg = console.export_svg(title="mlpcli", theme=THEME, unique_id="mlpcli")
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)
    svg = svg.replace("font-family: Fira Code, monospace", f"font-family: {FONTS}")
    return re.sub(r'x="([\d.]+)" y="([\d.]+)" textLength="([\d.]+)"([^>]*)>((?:&#160;)+)', _indented, svg)


FONTS = "ui-monospace, SFMono-Regular, Menlo, Consolas, DejaVu Sans Mono, monospace"
COLUMN = 12.2
"""Width of a character in rich's picture."""


def _indented(found: re.Match[str]) -> str:
    """A text that starts further right instead of with spaces, which some programs leave out."""
    x, y, length, rest, spaces = found.groups()
    shift = spaces.count(";") * COLUMN
    return f'x="{float(x) + shift:.1f}" y="{y}" textLength="{float(length) - shift:.1f}"{rest}>'


def texts(svg: str) -> list[str]:
    """The lines that a picture shows, without their indentation."""
    shown = (unescape(text).replace("\xa0", " ") for text in re.findall(r"<text[^>]*>([^<]*)</text>", svg))
    return [text for text in shown if text.strip()]


if __name__ == "__main__":
    main()
