"""A diagram as a file: SVG, PNG, or text for Graphviz or Mermaid."""

from collections.abc import Callable, Iterable
from html import escape
from pathlib import Path

from mlpcli.autodiff.diagram import Diagram
from mlpcli.errors import UsageError
from mlpcli.runs import write_whole

MOST_BOXES = 200
"""In a picture; nobody reads a larger one."""

FILLS = {"input": "#e8f1fc", "constant": "#eceef1", "inner": "#ffffff", "leaf": "#fdf3ea"}
BORDERS = {"input": "#0b5cbf", "constant": "#eceef1", "inner": "#8a929d", "leaf": "#1b1f24"}
INK, LINES = "#1b1f24", "#8a929d"
LETTERS = {"value": "#0b5cbf", "adjoint": "#b8400a", "tangent": "#0a7358"}
"""The light colours of scene.py; neither Graphviz nor Mermaid knows whether the reader's screen is dark."""


def svg(diagram: Diagram) -> bytes:
    """An SVG picture."""
    from mlpcli.autodiff.painting import svg
    from mlpcli.autodiff.scene import scene

    return svg(scene(diagram), diagram.heading).encode()


def png(diagram: Diagram) -> bytes:
    """A PNG picture, in the light colours."""
    from mlpcli.autodiff.painting import png
    from mlpcli.autodiff.scene import scene

    return png(scene(diagram))


def dot(diagram: Diagram) -> bytes:
    """A directed graph in Graphviz' language."""
    shapes = {
        "input": 'style="filled,rounded"',
        "constant": "style=filled",
        "inner": "style=filled",
        "leaf": "style=filled penwidth=2.5",
    }
    lines = [
        "digraph computation {",
        f'  graph [label="{_quoted(diagram.heading)}" labelloc=t rankdir=TB fontname="sans-serif"]',
        f'  node [shape=box fontname="monospace" fontsize=11 fontcolor="{INK}"]',
        f'  edge [fontname="monospace" fontsize=10 color="{LINES}" fontcolor="{INK}"]',
    ]
    for index, box in enumerate(diagram.boxes):
        rows = "".join(
            f'<br/>{escape(row.word)} <font color="{LETTERS[row.role]}">{escape(row.text)}</font>'
            for row in box.rows
        )
        lines.append(
            f"  n{index} [label=<<b>{escape(box.formula)}</b>{rows}> {shapes[box.kind]} "
            f'fillcolor="{FILLS[box.kind]}" color="{BORDERS[box.kind]}"]'
        )
    lines += [f'  n{link.parent} -> n{link.child} [label=" {_quoted(link.label)}"]' for link in diagram.links]
    return _text([*lines, "}"])


def mermaid(diagram: Diagram) -> bytes:
    """A flow chart in Mermaid's language, which Markdown on many sites shows as a picture."""
    frames = {"input": '(["{}"])', "constant": '["{}"]', "inner": '["{}"]', "leaf": '[["{}"]]'}
    lines = ["flowchart TB"]
    for index, box in enumerate(diagram.boxes):
        rows = "".join(f"<br>{_entities(f'{row.word} {row.text}')}" for row in box.rows)
        frame = frames[box.kind].format(f"<b>{_entities(box.formula)}</b>{rows}")
        lines.append(f"  n{index}{frame}:::{box.kind}")
    lines += [f'  n{link.parent} -- "{_entities(link.label)}" --> n{link.child}' for link in diagram.links]
    lines += [f"  classDef {kind} fill:{FILLS[kind]},stroke:{BORDERS[kind]},color:{INK}" for kind in FILLS]
    return _text(lines)


FORMATS: dict[str, Callable[[Diagram], bytes]] = {".svg": svg, ".png": png, ".dot": dot, ".mmd": mermaid}
"""By the ending of the file."""
PICTURES = (".svg", ".png", ".html")


def check_file(path: Path, endings: Iterable[str], boxes: int) -> str:
    """The ending of `path`.

    Raises:
        UsageError: it is none of `endings`, or one of a picture and there are too many boxes for that.
    """
    ending = path.suffix.lower()
    if ending not in endings:
        raise UsageError(f"-o {path}: the ending says the format: {', '.join(endings)}")
    if ending in PICTURES and boxes > MOST_BOXES:
        raise UsageError(
            f"-o {path}: a picture of {boxes:,} nodes cannot be read (at most {MOST_BOXES} are drawn); "
            "choose .dot for Graphviz, .mmd for Mermaid or .json for a program"
        )
    return ending


def draw_diagram(diagram: Diagram, path: Path) -> None:
    """Writes a diagram in the format that the ending of `path` says, whole or not at all.

    Raises:
        UsageError: that is none of FORMATS, or it is too large for a picture.
        StorageError: the file could not be written.
    """
    write_whole(path, FORMATS[check_file(path, FORMATS, len(diagram.boxes))](diagram))


def _text(lines: Iterable[str]) -> bytes:
    return ("\n".join(lines) + "\n").encode()


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ")


def _entities(text: str) -> str:
    """`text` between double quotes in Mermaid, which would read some of these letters as its own."""
    return "".join(f"#{ord(letter)};" if letter in '"#;<>&`*_\\' else letter for letter in text)
