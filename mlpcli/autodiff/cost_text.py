"""What `autodiff cost` measures, prints and draws."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from mlpcli.autodiff import chain, cost
from mlpcli.plots import Curve, Panel
from mlpcli.tables import columns, si

LETTERS = {"width": "w", "depth": "L", "inputs": "d"}
ORDERS = {
    "value": "O(w²L)",
    "differences": "O(dw²L)",
    "forward": "O(dw²L)",
    "backward": "O(w²L)",
    "parameters": "O(w²L)",
}
WORDS = {
    "value": "a value",
    "differences": "finite differences",
    "forward": "forward propagation",
    "backward": "backward propagation",
    "parameters": "backward, by the parameters",
}
EXPLANATION = f"""counted per point: an affine map n → m takes 2nm operations, relu one a unit, its derivative one
gradients by the inputs x, but for the last, by the parameters θ
measured: float32, one thread's own time, {cost.POINTS} points together, the shortest of several calls
ratio: a gradient over a value; the cheap-gradient principle bounds it by 5, backward, whatever the function is
tape: numbers that backward propagation keeps of the value, per point"""
LONG = 2000
"""Letters of a parenthesisation that are shown; --json has all."""


def sweep_report(sweep: cost.Sweep) -> dict[str, Any]:
    """A sweep, counted and measured, as plain values."""
    seconds = cost.measure(sweep)
    counted = [cost.operations(shape) for shape in sweep.shapes]
    first = sweep.shapes[0]
    # on large ones torch's counter takes long, and the formulas are the same
    small = replace(first, depth=min(first.depth, 8), inputs=min(first.inputs, 8))
    return {
        "sweep": sweep.name,
        "values": list(sweep.values),
        "fixed": {name: getattr(sweep.others, name) for name in LETTERS if name != sweep.name},
        "exponents": {
            "theory": cost.THEORY[sweep.name],
            "counted": cost.exponents(sweep, counted),
            "measured": cost.exponents(sweep, seconds),
        },
        "rows": [
            {
                sweep.name: value,
                "operations": operations,
                "seconds": times,
                "ratios": _ratios(operations),
                "measured_ratios": _ratios(times),
                "products_bound": cost.products_bound(shape),
                "tape": cost.tape(shape),
            }
            for value, shape, operations, times in zip(sweep.values, sweep.shapes, counted, seconds, strict=True)
        ],
        "check": {
            "shape": {"inputs": small.inputs, "width": small.width, "depth": small.depth},
            "products": cost.product_operations(small),
            "torch": cost.torch_count(small),
            "tape": cost.tape(small),
            "torch_tape": cost.torch_tape(small),
        },
    }


def _ratios(costs: Mapping[str, float]) -> dict[str, float]:
    return {name: costs[name] / costs["value"] for name in ("backward", "parameters")}


def sweeps_text(reports: Sequence[Mapping[str, Any]]) -> str:
    """Tables for a person."""
    return "\n\n".join([*map(_sweep, reports), EXPLANATION])


def _sweep(report: Mapping[str, Any]) -> str:
    name = report["sweep"]
    fixed = ", ".join(f"{LETTERS[key]} = {value}" for key, value in report["fixed"].items())
    exponents = report["exponents"]
    letter = LETTERS[name]
    orders = [
        (
            WORDS[method],
            ORDERS[method],
            exponents["theory"][method],
            f"{exponents['counted'][method]:.3f}",
            f"{exponents['measured'][method]:.2f}",
        )
        for method in cost.METHODS
    ]
    rows = []
    for row in report["rows"]:
        cells = [f"{si(row['operations'][each])}/ {_seconds(row['seconds'][each])}" for each in cost.METHODS]
        ratios = [
            f"{row['ratios'][each]:.2f} / {row['measured_ratios'][each]:.2f}"
            for each in ("backward", "parameters")
        ]
        rows.append(
            (f"{letter} = {row[name]}", *cells, *ratios, f"{row['products_bound']:.3f}", f"{row['tape']:,}")
        )
    check = report["check"]
    same = check["products"] == check["torch"] and check["tape"] == check["torch_tape"]
    return "\n".join(
        [
            f"{name} {letter}, with {fixed}",
            columns(orders, (f"exponent of {letter}", "theory", "it is", "counted", "measured")),
            "operations / seconds, a point",
            columns(rows, ("", *cost.METHODS, "ratio by x", "by θ", "products", "tape")),
            "torch's FlopCounterMode counts the same matrix products, and torch.autograd keeps as many numbers"
            if same
            else f"torch counts otherwise: {check}",
        ]
    )


def _seconds(seconds: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 1e-9:.3g} ns"


def panels(reports: Sequence[Mapping[str, Any]]) -> list[Panel]:
    """Seconds over each size."""
    return [
        Panel(
            f"{report['sweep']} {LETTERS[report['sweep']]}",
            LETTERS[report["sweep"]],
            "seconds a point",
            tuple(
                Curve(
                    WORDS[method], report["values"], [row["seconds"][method] for row in report["rows"]], i, "dots"
                )
                for i, method in enumerate(cost.METHODS)
            ),
        )
        for report in reports
    ]


def chain_report(sizes: Sequence[int]) -> dict[str, Any]:
    """The orders of a chain of Jacobians, counted and measured, as plain values."""
    orders, parenthesisations = chain.counts(sizes)
    return {
        "sizes": list(sizes),
        "factors": len(sizes) - 1,
        "orders": orders,
        "parenthesisations": parenthesisations,
        "rows": [
            {
                "order": order.name,
                "multiply_adds": order.multiply_adds,
                "seconds": chain.seconds(sizes, order),
                "parenthesisation": str(order),
            }
            for order in chain.orders(sizes)
        ],
    }


def chain_text(report: Mapping[str, Any]) -> str:
    """A table for a person."""
    best = report["rows"][-1]["multiply_adds"]
    rows = [
        (
            row["order"],
            f"{row['multiply_adds']:,}",
            f"{row['multiply_adds'] / best:.2f}" if best else "-",
            "-" if row["seconds"] is None else _seconds(row["seconds"]),
        )
        for row in report["rows"]
    ]
    sizes = report["sizes"]
    count = report["factors"]
    shown = f"J{count} ⋯ J1" if count > 3 else " ".join(f"J{i}" for i in range(count, 0, -1))
    lines = [f"{row['order']:<8}  {_cut(row['parenthesisation'])}" for row in report["rows"]]
    return "\n".join(
        [
            f"{shown}: {sizes[-1]} × {sizes[0]}, {_many(report['orders'], 'order')}, "
            f"{_many(report['parenthesisations'], 'parenthesisation')}",
            columns(rows, ("order", "multiply-adds", "of the best", "time")),
            "",
            *lines,
        ]
    )


def _many(count: int, word: str) -> str:
    digits = len(str(count))
    return f"{count:,} {word}{'s' if count > 1 else ''}" if digits <= 12 else f"about 10^{digits - 1} {word}s"


def _cut(text: str) -> str:
    return text if len(text) <= LONG else text[:LONG] + "…"
