"""Draws a graph at a point: what it computes, both passes, and every local derivative."""

import math
from pathlib import Path
from typing import Any

from mlpcli.autodiff.diagram import Box, Diagram, Explained, Kind, Link, Row, finite, number
from mlpcli.autodiff.formats import FORMATS
from mlpcli.autodiff.formats import check_file as check_file
from mlpcli.autodiff.graph import Run
from mlpcli.runs import to_json, write_whole

ENDINGS = (*FORMATS, ".html", ".json")
"""Of the files that can be drawn: a picture, a page to step through, or text for other programs."""

LEGEND: tuple[tuple[Explained, str], ...] = (
    ("input", "input"),
    ("constant", "constant"),
    ("inner", "operation"),
    ("leaf", "leaf"),
    ("value", "value y, forward pass: from the roots to the leaf"),
    ("tangent", "tangent ẏ, forward pass: change of y along the direction"),
    ("adjoint", "adjoint z, backward pass: derivative of the leaf by the node"),
    ("local", "local derivative of the node below by the node above"),
)

NOT_DEFINED = "none: there is no such derivative, and the gradient by the inputs does not need it"


def draw(run: Run, path: Path) -> None:
    """Draws a graph at a point in the format that the ending of `path` says, whole or not at all.

    Raises:
        UsageError: that is none of ENDINGS, or the graph is too large for a picture.
        StorageError: the file could not be written.
    """
    ending = check_file(path, ENDINGS, len(run.graph.nodes))
    if ending == ".json":
        content = to_json(described(run))
    elif ending == ".html":
        from mlpcli.autodiff.stepping import page

        content = page(run, diagram(run)).encode()
    else:
        content = FORMATS[ending](diagram(run))
    write_whole(path, content)


def diagram(run: Run) -> Diagram:
    """What a picture of it shows."""
    boxes = tuple(_box(run, index) for index in range(len(run.graph.nodes)))
    shown: set[str] = {"local", *(box.kind for box in boxes), *(row.role for box in boxes for row in box.rows)}
    at = ", ".join(f"{name} = {number(value)}" for name, value in run.at.items() if name in run.graph.inputs)
    leaf = run.graph.leaf
    return Diagram(
        f"{run.graph.nodes[leaf].name} = {number(run.values[leaf])}" + (f" at {at}" if at else ""),
        boxes,
        tuple(_links(run)),
        tuple((key, words) for key, words in LEGEND if key in shown),
        (*run.notes, *((NOT_DEFINED,) if any(map(math.isnan, run.adjoints)) else ())),
    )


def formula(run: Run, index: int) -> str:
    """A node and what it computes: `z3 = exp(z1)`; of a root its name alone."""
    node = run.graph.nodes[index]
    return f"{node.name} = {run.graph.formula(index)}" if node.parents else node.name


def kind(run: Run, index: int) -> Kind:
    """How a node is drawn."""
    operation = run.graph.nodes[index].operation
    if index == run.graph.leaf and operation not in ("input", "constant"):
        return "leaf"
    return "input" if operation == "input" else "constant" if operation == "constant" else "inner"


def _box(run: Run, index: int) -> Box:
    name, leaf = run.graph.nodes[index].name, run.graph.nodes[run.graph.leaf].name
    value, adjoint = run.values[index], run.adjoints[index]
    rows = [Row("value", "value", number(value))]
    details = [formula(run, index), f"value y = {value!r}"]
    if run.tangents is not None:
        rows.append(Row("tangent", "tangent", number(run.tangents[index])))
        details.append(f"tangent ẏ = {run.tangents[index]!r}")
    rows.append(Row("adjoint", "adjoint", number(adjoint)))
    details.append(f"adjoint z = ∂{leaf}/∂{name} = {adjoint!r}")
    return Box(kind(run, index), name, formula(run, index), tuple(rows), "\n".join(details))


def _links(run: Run) -> list[Link]:
    nodes = run.graph.nodes
    return [
        Link(parent, child, number(local), f"∂{nodes[child].name}/∂{nodes[parent].name} = {local!r}")
        for child, (node, locals_) in enumerate(zip(nodes, run.local, strict=True))
        for parent, local in zip(node.parents, locals_, strict=True)
    ]


def described(run: Run) -> dict[str, Any]:
    """All of it as plain values with all their digits; null where a number is not defined."""
    nodes = run.graph.nodes
    return {
        "at": dict(run.at),
        "direction": None if run.tangents is None else dict(run.direction),
        "leaf": nodes[run.graph.leaf].name,
        "nodes": [
            {
                "name": node.name,
                "operation": node.operation,
                "formula": formula(run, index),
                "parents": [nodes[parent].name for parent in node.parents],
                "value": finite(run.values[index]),
                "local": [finite(each) for each in run.local[index]],
                "adjoint": finite(run.adjoints[index]),
                **({} if run.tangents is None else {"tangent": finite(run.tangents[index])}),
            }
            for index, node in enumerate(nodes)
        ],
        "edges": [
            {"parent": nodes[parent].name, "child": node.name, "local": finite(local)}
            for node, locals_ in zip(nodes, run.local, strict=True)
            for parent, local in zip(node.parents, locals_, strict=True)
        ],
        "notes": list(run.notes),
    }
