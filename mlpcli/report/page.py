"""The sections as one page that needs no network and runs no script."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import jinja2
from markupsafe import Markup

from mlpcli import __version__
from mlpcli.plots import GRID, INK, MUTED, PAPER
from mlpcli.report.blocks import Charts, Section
from mlpcli.report.drawing import PALETTE, Chart, style_sheet, svg

TEMPLATES = Path(__file__).parent
FAINT, RULE, MARK = ("#f3f4f6", "#20252c"), ("#d5d9de", "#3a414b"), ("#fff0b8", "#4a4018")
"""Colours of the page besides those of the pictures, as (light, dark)."""


def page(title: str, subtitle: str, sections: Sequence[Section], footer: str, refresh: int | None = None) -> str:
    """The whole page. What is shown is escaped, whatever it is.

    Args:
        refresh: seconds after which the page loads itself again; None for never.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["drawn"] = _drawn
    return environment.get_template("page.html").render(
        title=title,
        subtitle=subtitle,
        sections=sections,
        footer=footer,
        refresh=refresh,
        version=__version__,
        colours=Markup(_colours()),
        shapes=Markup(style_sheet()),
    )


def _drawn(chart: Chart) -> Markup:
    """An svg element, whose texts `drawing.svg` has escaped."""
    return Markup(svg(chart))


def _colours() -> str:
    """Light ones, and dark ones on a screen whose reader prefers them; paper is light."""

    def variables(theme: int) -> str:
        named = {
            "paper": PAPER,
            "ink": INK,
            "muted": MUTED,
            "grid": GRID,
            "faint": FAINT,
            "rule": RULE,
            "mark": MARK,
        }
        named |= {f"c{index}": pair for index, pair in enumerate(PALETTE)}
        return ";".join(f"--{name}:{pair[theme]}" for name, pair in named.items())

    return f":root{{{variables(0)}}}\n@media screen and (prefers-color-scheme:dark){{:root{{{variables(1)}}}}}"


def charts_of(sections: Iterable[Section]) -> list[Chart]:
    """Every picture of the page that is drawn as shapes."""
    blocks = (block for section in sections for block in section.blocks)
    return [chart for block in blocks if isinstance(block, Charts) for chart in block.charts]
