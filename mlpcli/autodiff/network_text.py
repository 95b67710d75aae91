"""What `autodiff check` and `autodiff model` print for a person. No torch."""

from collections.abc import Mapping, Sequence
from typing import Any

from mlpcli.tables import columns


def check(report: Mapping[str, Any]) -> str:
    """The comparison: a row a parameter, a row a method, and what the signs mean.

    Args:
        report: as `autodiff check --json` prints it.
    """
    methods = [each for each in report["methods"] if not each["because"]]
    compared = [each["name"] for each in methods[1:]]
    rows = [
        (
            row["name"],
            f"{row['numbers']:,}",
            f"{row['scale']:.2g}",
            *(_difference(row, name) for name in compared),
            f"{row['compared']:,}",
            row["skipped"],
        )
        for row in report["rows"]
    ]
    parts = [
        _opening(report),
        columns(rows, ("parameter", "numbers", "largest", *compared, "compared", "kinks")),
        columns(
            [
                (
                    each["name"],
                    *(f"{each[key]:,}" for key in ("samples", "compared", "evaluations")),
                    f"{each['seconds']:.2g} s",
                )
                for each in methods
            ],
            ("method", "samples", "derivatives", "evaluations", "time"),
        ),
    ]
    tolerance = report["tolerance"]
    lines = [f"no {each['name']}: {each['because']}" for each in report["methods"] if each["because"]]
    lines.append(
        f"differences are to autograd, relative to the largest derivative of the layer; tolerance "
        f"{tolerance['exact']:g}, of finite differences {tolerance['differences']:g}"
    )
    if any(row["drowned"] for row in report["rows"]):
        lines.append(f"~ no more than round-off makes of so small a gradient; that of f is {report['noise']:.1g}")
    if report["agree"]:
        lines.append("all methods agree")
    return "\n\n".join([*parts, "\n".join(lines)])


def _difference(row: Mapping[str, Any], method: str) -> str:
    if method not in row["differences"]:
        return "-"
    value = row["differences"][method]
    sign = "!" if method in row["wrong"] else "~" if method in row["drowned"] else ""
    return ("not 0" if value is None else f"{value:.1e}" if value else "0") + sign


def model(report: Mapping[str, Any]) -> str:
    """The graph: a row a node, and what was found.

    Args:
        report: as `autodiff model --json` prints it.
    """
    nodes = report["nodes"]
    rows = [
        (
            node["name"],
            node["operation"],
            " ".join(nodes[parent]["name"] for parent in node["parents"]) or "-",
            "×".join(map(str, node["shape"])) or "1",
            f"{node['value']:.3g}",
            *(_or_dash(node[key], ".3g") for key in ("adjoint", "ratio")),
            *(_or_dash(node[key], ".1%") for key in ("dead", "saturated")),
        )
        for node in nodes
    ]
    header = ("node", "operation", "parents", "shape", "value", "adjoint", "gradient/weight", "dead", "saturated")
    return "\n\n".join([_opening(report), _left(rows, header, 3), "\n".join(report["findings"])])


def _opening(report: Mapping[str, Any]) -> str:
    return f"{report['of']}: objective {report['objective']:.6g}\n{'; '.join(report['notes'])}"


def _or_dash(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _left(rows: Sequence[Sequence[str]], header: Sequence[str], words: int) -> str:
    """As `columns`, with so many columns of words, which are left-aligned."""
    widths = [max(len(row[index]) for row in (header, *rows)) for index in range(words)]
    joined = [
        ("  ".join(cell.ljust(width) for cell, width in zip(row[:words], widths, strict=True)), *row[words:])
        for row in (header, *rows)
    ]
    return columns(joined[1:], joined[0])
