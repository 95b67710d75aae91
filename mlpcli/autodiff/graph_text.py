"""What `autodiff graph` prints for a person. No torch."""

from collections.abc import Mapping, Sequence
from typing import Any

from mlpcli.autodiff.diagram import number
from mlpcli.tables import columns

MOST_NODES = 60
"""Nodes that are all shown; of more, the first and the last ones."""
MOST_INPUTS = 4
"""Derivatives that are shown side by side."""
MOST_CHARACTERS = 400
"""Of a formula."""


def graph(report: Mapping[str, Any]) -> str:
    """The nodes, the gradient in every way, the formulas, and what to know of them.

    Args:
        report: as `autodiff graph --json` prints it.
    """
    methods = report["methods"]
    formulas = [
        f"∂{report['leaf']}/∂{name} = {_formula(formula)}"
        for method in methods
        for name, formula in list((method["formulas"] or {}).items())[:MOST_INPUTS]
    ]
    lines = [f"{method['name']}: {method['note']}" for method in methods if method["note"]]
    parts = [_nodes(report), _methods(report), "\n".join(formulas), "\n".join([*lines, *report["notes"]])]
    return "\n\n".join(part for part in parts if part)


def _nodes(report: Mapping[str, Any]) -> str:
    nodes, forward = report["nodes"], report["direction"] is not None
    header = [
        "node",
        "operation",
        "parents",
        "value y",
        "∂y/∂parents",
        "adjoint z",
        *(["tangent ẏ"] if forward else []),
    ]
    left_out = len(nodes) - MOST_NODES
    shown = nodes if left_out <= 0 else [*nodes[: MOST_NODES // 2], None, *nodes[-MOST_NODES // 2 :]]
    rows: list[Sequence[object]] = [
        _row(node, forward) if node else ("…",) + ("",) * (len(header) - 1) for node in shown
    ]
    text = columns(rows, header)
    return text if left_out <= 0 else f"{text}\n{left_out:,} of {len(nodes):,} nodes are not shown; --json has all"


def _row(node: Mapping[str, Any], forward: bool) -> Sequence[object]:
    return (
        node["name"],
        node["operation"],
        ", ".join(node["parents"]),
        _number(node["value"]),
        ", ".join(map(_number, node["local"])),
        _number(node["adjoint"]),
        *([_number(node["tangent"])] if forward else []),
    )


def _methods(report: Mapping[str, Any]) -> str:
    leaf, methods = report["leaf"], report["methods"]
    names = list(report["gradient"])
    shown = names[:MOST_INPUTS]
    rows = [
        (
            method["name"],
            *("-" if method["gradient"] is None else _number(method["gradient"][name], 10) for name in shown),
            _difference(method["difference"]),
            "-" if method["operations"] is None else f"{method['operations']:,}",
        )
        for method in methods
    ]
    header = ["gradient", *(f"∂{leaf}/∂{name}" for name in shown), "difference", "operations"]
    size = report["size"]
    text = columns(rows, header)
    if len(names) > len(shown):
        text += f"\n{len(names) - len(shown):,} of {len(names):,} derivatives are not shown; --json has all"
    return (
        f"{text}\ndifference: the largest from backward, relative to the largest derivative\n"
        f"operations: a value takes {size['operations']:,}, the local derivatives by {size['edges']:,} edges "
        f"{size['derivatives']:,} more; torch's are not counted"
    )


def _difference(difference: float | None) -> str:
    """To one digit, since the others are those of rounding, which is not the same on every machine."""
    return "-" if difference is None else f"{difference:.0e}" if difference > 1e-14 else "< 1e-14"


def _formula(formula: str) -> str:
    return formula if len(formula) <= MOST_CHARACTERS else f"a formula of {len(formula):,} characters"


def _number(value: float | None, digits: int = 6) -> str:
    return "none" if value is None else number(value, digits)
