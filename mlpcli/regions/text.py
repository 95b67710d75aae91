"""What `mlpcli regions` prints for a person."""

from collections.abc import Mapping, Sequence
from typing import Any

from mlpcli import tables

MOST_UNITS = 24
"""Runs of active units that are printed of a layer; --json has all."""


def plane(report: Mapping[str, Any]) -> str:
    """Counts, layers, sizes and the decision in a plane."""
    x, y = report["window"]["x"], report["window"]["y"]
    neurons = report["neurons"]
    parts = [
        f"{report['of']}\nwindow {x[1] - x[0]:.4g} × {y[1] - y[0]:.4g}: {_axes(report['axes'])}",
        tables.columns(
            [
                ("activation regions", f"{report['activation_regions']:,}"),
                ("affine regions", f"{report['affine_regions']:,}"),
                (f"N²/2 of {neurons:,} neurons", f"{report['half_neurons_squared']:,.0f}"),
            ],
            ("in the window", "number"),
        ),
    ]
    if report["layers"]:
        layers = [
            (
                f"layer {row['layer']}",
                f"{row['units']:,}",
                f"{row['units_with_a_boundary']:,}",
                f"{row['regions']:,}",
                f"{row['boundary_length']:.4g}",
            )
            for row in report["layers"]
        ]
        parts.append(
            tables.columns(layers, ("after", "units", "with a boundary", "regions", "length of its boundaries"))
        )
    sizes = [("area", report["area"]), ("in-radius", report["in_radius"])]
    parts.append(_spreads("of a region", sizes))
    if "decision" in report:
        decision = report["decision"]
        rows = [
            (name, f"{100 * share:.2f} %")
            for name, share in sorted(decision["area_shares"].items(), key=lambda pair: -pair[1])
            if share > 0
        ]
        parts.append(f"decision regions: {decision['regions']:,}, boundary {decision['boundary_length']:.4g} long")
        parts.append(tables.columns(rows, ("largest output", "share of the window")))
    return "\n\n".join(parts)


def _axes(labels: Sequence[str]) -> str:
    return labels[0] if labels[0].startswith("distance from the middle") else f"{labels[0]} by {labels[1]}"


def _spreads(of: str, rows: Sequence[tuple[str, Mapping[str, float]]]) -> str:
    names = list(rows[0][1])
    return tables.columns(
        [(name, *(f"{values[each]:.3g}" for each in names)) for name, values in rows], (of, *names)
    )


def line(report: Mapping[str, Any]) -> str:
    """Counts, layers and lengths on a segment."""
    low, high = report["window"]
    rows = [
        ("activation regions", f"{report['activation_regions']:,}"),
        ("affine regions", f"{report['affine_regions']:,}"),
        ("neurons N", f"{report['neurons']:,}"),
    ]
    parts = [
        f"{report['of']}\nlength {high - low:.4g}: {report['axis']}",
        tables.columns(rows, ("on the segment", "number")),
    ]
    layers = [(f"layer {layer}", f"{count:,}") for layer, count in enumerate(report["by_layer"], 1)]
    if layers:
        parts.append(tables.columns(layers, ("after", "regions")))
    return "\n\n".join([*parts, _spreads("of a region", [("length", report["length"])])])


def at(report: Mapping[str, Any]) -> str:
    """The affine map at a sample, the active units, and the distances."""
    outputs, unit = report["outputs"], report["unit"]
    rows, columns = len(report["weight"]), len(report["weight"][0])
    parts = [
        report["of"],
        f"here the network is W x + b, W {rows} × {columns} and b {rows} (--json has them);\n"
        f"at {report['compared_at']} points of the region they differ by {report['error']:.1g} at most",
        tables.columns([(name, f"{value:.6g}") for name, value in outputs.items()], ("output", "value")),
    ]
    layers = [
        (f"layer {layer}", f"{len(active):,} of {units:,}", ranges(active))
        for layer, (active, units) in enumerate(zip(report["active"], report["units"], strict=True), 1)
    ]
    if layers:
        width = max(len(name) for name, _, _ in layers), max(len(count) for _, count, _ in layers)
        lines = [f"{name:<{width[0]}}  {count:>{width[1]}}  {which}" for name, count, which in layers]
        parts.append("\n".join(["active units", *lines]))
    boundary = report["nearest_boundary"]
    if boundary is None:
        distances = ["the region is all of the input space"]
    else:
        distances = [
            f"nearest boundary of the region: {boundary['distance']:.6g} away in {unit}, "
            f"unit {boundary['unit']} of layer {boundary['layer']}"
        ]
    if "predicted" in report:
        change = report["nearest_change"]
        distances.append(
            f"nearest change of the decision inside it: {change['distance']:.6g} away in {unit}, "
            f"from {report['predicted']} to {change['class']}"
            if change
            else f"the decision is {report['predicted']} in all of the region"
        )
    return "\n\n".join([*parts, "\n".join(distances)])


def ranges(numbers: Sequence[int]) -> str:
    """Ascending numbers as 0-3, 7, 9-12, …"""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and runs[-1][1] == number - 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    shown = [f"{low}" if low == high else f"{low}-{high}" for low, high in runs[:MOST_UNITS]]
    return ", ".join([*shown, "…"] if len(runs) > MOST_UNITS else shown)


def history(report: Mapping[str, Any]) -> str:
    """Counts by epoch."""
    rows = []
    decides = any(row.get("decision_regions") is not None for row in report["epochs"])
    for row in report["epochs"]:
        cells = [row["epoch"], f"{row['activation_regions']:,}", f"{row['affine_regions']:,}"]
        cells += [f"{row['decision_regions']:,}"] if decides else []
        rows.append([*cells, *(f"{count:,}" for count in row["by_layer"])])
    layers = [f"after layer {layer}" for layer in range(1, len(report["epochs"][0]["by_layer"]) + 1)]
    header = ["epoch", "activation regions", "affine regions", *(["decision regions"] if decides else []), *layers]
    return f"{report['of']}\n\n{tables.columns(rows, header)}"
