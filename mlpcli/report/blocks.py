"""What a section of the page is made of: plain values, which the template shows and escapes."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from mlpcli.report.drawing import Chart


@dataclass(frozen=True)
class Text:
    """A paragraph: plain, a `verdict` drawn from the numbers, or a `note` on what is missing."""

    text: str
    style: Literal["plain", "verdict", "note"] = "plain"
    kind: str = "text"


@dataclass(frozen=True)
class Tile:
    """A number that stands out, its name above and a detail below."""

    name: str
    value: str
    detail: str = ""


@dataclass(frozen=True)
class Tiles:
    """Several of them."""

    tiles: Sequence[Tile]
    kind: str = "tiles"


@dataclass(frozen=True)
class Table:
    """Rows under a header.

    Attributes:
        title: above it.
        head: names of the columns.
        rows: a text for each column; the first column is left-aligned, as are those in `texts`.
        marked: numbers of the rows that stand out.
        more: how many rows are shown before a reader asks for the others; None for all.
        links: where the first column of each row leads, as a relative URL; empty for nowhere, or for all rows.
    """

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    texts: Sequence[int] = (0,)
    marked: Sequence[int] = ()
    caption: str = ""
    more: int | None = None
    links: Sequence[str] = ()
    kind: str = "table"


@dataclass(frozen=True)
class Charts:
    """Pictures side by side, where there is room."""

    charts: Sequence[Chart]
    kind: str = "charts"


@dataclass(frozen=True)
class Picture:
    """A raster image with what stands below it.

    Attributes:
        data: a data: URI.
        size: width and height in pixels at which it is shown.
        text: what it shows, for a reader who does not see it.
        lines: below it.
        wrong: whether it stands for a mistake.
    """

    data: str
    size: tuple[int, int]
    text: str
    lines: Sequence[str] = ()
    wrong: bool = False


@dataclass(frozen=True)
class Gallery:
    """Raster images in rows."""

    title: str
    pictures: Sequence[Picture]
    caption: str = ""
    kind: str = "gallery"


@dataclass(frozen=True)
class Code:
    """Commands or other text in its own lines; `marked` are the numbers of lines that stand out."""

    title: str
    lines: Sequence[str]
    marked: frozenset[int] = frozenset()
    caption: str = ""
    kind: str = "code"


Block = Text | Tiles | Table | Charts | Gallery | Code


@dataclass(frozen=True)
class Section:
    """A part of the page."""

    id: str
    title: str
    blocks: Sequence[Block] = field(default_factory=list)
