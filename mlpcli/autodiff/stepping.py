"""A page that steps through both passes of a graph, node by node, and works from a file without a network."""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal

from mlpcli.autodiff.diagram import Diagram, finite, number
from mlpcli.autodiff.drawing import NOT_DEFINED, formula, kind
from mlpcli.autodiff.graph import Run
from mlpcli.autodiff.operations import OPERATIONS
from mlpcli.autodiff.painting import inline_svg, style_sheet
from mlpcli.autodiff.scene import scene

TEMPLATE = Path(__file__).with_name("stepping.html")


@dataclass(frozen=True)
class Step:
    """One thing that a pass computes.

    Attributes:
        stage: which pass.
        node: the node that gets a value (forward), or to whose adjoint a term is added (backward).
        edge: the edge along which the term comes, by its number, or None for the leaf's own 1 and forward.
        lines: what happens, as HTML.
        value: y of the node; backward, the term.
        total: y of the node; backward, its adjoint so far.
        complete: whether nothing will be added any more.
    """

    stage: Literal["forward", "backward"]
    node: int
    edge: int | None
    lines: tuple[str, ...]
    value: float
    total: float
    complete: bool = True

    def plain(self) -> dict[str, Any]:
        """For the page's script: numbers with all their digits, and the total as it is shown."""
        return {
            "stage": self.stage,
            "node": self.node,
            "edge": self.edge,
            "value": finite(self.value),
            "total": finite(self.total),
            "shown": number(self.total),
            "complete": self.complete,
        }


def steps(run: Run) -> Iterator[Step]:
    """Both passes: the value of each node, roots first, then each term of each adjoint, leaf first."""
    nodes = run.graph.nodes
    for index, value in enumerate(run.values):
        yield Step("forward", index, None, _forward_lines(run, index), value, value)

    first = [0, *accumulate(len(node.parents) for node in nodes)]  # number of each node's first edge
    waiting = [0] * len(nodes)  # terms of each adjoint that are still to come
    for node in nodes[: run.graph.leaf + 1]:
        for parent in node.parents:
            waiting[parent] += 1
    terms = list(waiting)
    total = [0.0] * len(nodes)
    leaf = run.graph.leaf
    total[leaf] = 1.0
    name = escape(nodes[leaf].name)
    seed = (
        f"{_adjoint(nodes[leaf].name)} = ∂{name}/∂{name} = {_number('adjoint', 1.0)}",
        "the backward pass starts at the leaf",
    )
    yield Step("backward", leaf, None, seed, 1.0, 1.0)
    for child in range(leaf, -1, -1):
        for place, (parent, local) in enumerate(zip(nodes[child].parents, run.local[child], strict=True)):
            term = total[child] * local
            before, total[parent] = total[parent], total[parent] + term
            waiting[parent] -= 1
            count = f"term {terms[parent] - waiting[parent]} of {terms[parent]}"
            state = "a running sum" if waiting[parent] else "the adjoint is complete"
            lines = (
                *_backward_lines(run, child, parent, total[child], local, before, total[parent]),
                NOT_DEFINED if math.isnan(term) else f"{count}: {state}",
            )
            yield Step("backward", parent, first[child] + place, lines, term, total[parent], not waiting[parent])


def _forward_lines(run: Run, index: int) -> tuple[str, ...]:
    node, value = run.graph.nodes[index], _number("value", run.values[index])
    if not node.parents:
        given = "an input" if kind(run, index) == "input" else "a constant"
        lines = [f"{escape(node.name)} = {value}, {given}"]
    else:
        numbers = [_number("value", run.values[parent]) for parent in node.parents]
        lines = [escape(formula(run, index)), f"= {_put_in(node.operation, numbers)} = {value}"]
    if run.tangents is not None:
        lines += _tangent_lines(run, index, run.tangents)
    return tuple(lines)


def _put_in(operation: str, numbers: list[str]) -> str:
    """An operation with numbers instead of its parents; a negative one after a sign is in brackets."""
    symbol = escape(OPERATIONS[operation].symbol).replace("-", "−")
    if symbol.isalpha():
        return f"{symbol}({', '.join(numbers)})"
    bracketed = [f"({each})" if "−" in each else each for each in numbers]
    if len(numbers) == 1:
        return f"{symbol}{bracketed[0]}"
    left = bracketed[0] if operation == "pow" else numbers[0]
    return f"{left} {symbol} {bracketed[1]}"


def _tangent_lines(run: Run, index: int, tangents: list[float]) -> list[str]:
    """ẏ of a node as the sum over its parents of local derivative times tangent."""
    node, nodes = run.graph.nodes[index], run.graph.nodes
    name, own = escape(node.name), _number("tangent", tangents[index])
    if not node.parents:
        return [f"{_tangent(node.name)} = {own}"]
    moving = [
        (parent, local)
        for parent, local in zip(node.parents, run.local[index], strict=True)
        if not math.isnan(local)
    ]
    symbols = " + ".join(
        f"∂{name}/∂{escape(nodes[parent].name)} · {_tangent(nodes[parent].name)}" for parent, _ in moving
    )
    numbers = " + ".join(
        f"{_factor('local', local)} · {_factor('tangent', tangents[parent])}" for parent, local in moving
    )
    return [f"{_tangent(node.name)} = {symbols}", f"= {numbers} = {own}"]


def _backward_lines(
    run: Run, child: int, parent: int, adjoint: float, local: float, before: float, after: float
) -> tuple[str, str]:
    above, below = run.graph.nodes[parent].name, run.graph.nodes[child].name
    rule = f"{_adjoint(above)} += {_adjoint(below)} · ∂{escape(below)}/∂{escape(above)}"
    term = f"{_factor('adjoint', adjoint)} · {_factor('local', local)}"
    return rule, f"= {_number('adjoint', before)} + {term} = {_number('adjoint', after)}"


def _adjoint(name: str) -> str:
    return f'<span class="adjoint">z̄</span>({escape(name)})'


def _tangent(name: str) -> str:
    return f'<span class="tangent">ẏ</span>({escape(name)})'


def _number(role: str, value: float) -> str:
    return f'<span class="{role}">{escape(number(value))}</span>'


def _factor(role: str, value: float) -> str:
    return f"({_number(role, value)})" if value < 0 else _number(role, value)


def page(run: Run, diagram: Diagram) -> str:
    """The whole page.

    Args:
        run: a graph at a point.
        diagram: the picture of it.
    """
    done = list(steps(run))
    placed = scene(diagram)
    data = json.dumps([step.plain() for step in done], allow_nan=False, separators=(",", ":"))
    parts = {
        "HEADING": escape(diagram.heading),
        "STYLE": style_sheet(),
        "PICTURE": inline_svg(placed, diagram.heading),
        "WIDTH": f"{placed.width:.0f}",
        "FORWARD": _listed(done, "forward"),
        "BACKWARD": _listed(done, "backward"),
        "STEPS": data.replace("<", "\\u003c"),
        "LAST": str(len(done)),
    }
    text = TEMPLATE.read_text(encoding="utf-8")
    pieces = text.split("{{")
    return pieces[0] + "".join(
        parts[name] + rest for name, _, rest in (piece.partition("}}") for piece in pieces[1:])
    )


def _listed(done: list[Step], stage: str) -> str:
    return "\n".join(
        f'<li id="step-{index}" value="{index}"><button type="button">'
        + "".join(f"<span>{line}</span> " for line in step.lines)
        + "</button></li>"
        for index, step in enumerate(done, 1)
        if step.stage == stage
    )
