"""What `mlpcli regions` finds out, as plain values: of a plane, of a line, at a sample."""

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np

from mlpcli.errors import FailedError
from mlpcli.plots import COLOURS, Curve, Panel
from mlpcli.regions import decision, folding, measures
from mlpcli.regions.line import Pieces, cut_line
from mlpcli.regions.local import around
from mlpcli.regions.piecewise import Floats, PiecewiseAffine
from mlpcli.regions.plane import cut_plane
from mlpcli.regions.slices import Line, Plane, unit
from mlpcli.regions.view import View
from mlpcli.targets import Opened

log = logging.getLogger("mlpcli")

MOST_DOTS = 150
"""Boundaries that are marked on the curves of a line."""


def view_of(opened: Opened, plane: Plane, of: str | None = None) -> View:
    """The plane, cut by the network, with all measures.

    Args:
        of: the network's name in place of `opened.of`.

    Raises:
        UsageError: the network is not piecewise affine.
    """
    network, about = folding.fold(opened.network.model), opened.network.description
    folding.check(network, opened.network.model, plane.origin + plane.corners @ plane.basis)
    started = time.perf_counter()
    cells = cut_plane(network, plane.origin, plane.basis, plane.corners)
    outline = measures.outlines(cells)
    maps = measures.maps(cells, outline)
    view = View(
        title=f"{of or opened.of}, {plane.text}",
        x_label=plane.x_label,
        y_label=plane.y_label,
        window=plane.window,
        network=network,
        basis=plane.basis,
        cells=cells,
        outline=outline,
        maps=maps,
        regions=measures.affine_regions(network, cells, plane.basis, maps),
        decision=decision.decide(cells) if about.classes else None,
        outputs=about.classes or about.target_names,
        marks=plane.marks,
    )
    log.info("%s activation regions in %.2f s", f"{len(cells):,}", time.perf_counter() - started)
    return view


def counts(view: View) -> dict[str, Any]:
    """How many regions there are."""
    return {
        "activation_regions": len(view.cells),
        "affine_regions": int(view.regions.max()) + 1,
        "by_layer": view.cells.by_layer,
        "decision_regions": None if view.decision is None else view.decision.regions,
        "neurons": view.network.neurons,
        "half_neurons_squared": view.network.neurons**2 / 2,
    }


def of_plane(view: View) -> dict[str, Any]:
    """The numbers of a plane, without its cells."""
    cells, low_x, low_y, high_x, high_y = view.cells, *view.window
    layers = view.layers
    lengths = measures.lengths(cells)
    layer_rows = []
    for layer, units in enumerate(view.network.hidden):
        made = layers == layer
        layer_rows.append(
            {
                "layer": layer + 1,
                "units": units,
                "units_with_a_boundary": len(np.unique(cells.makers[made])),
                "regions": cells.by_layer[layer],
                "boundary_length": float(lengths[made].sum()),
            }
        )
    report = {
        "of": view.title,
        "axes": [view.x_label, view.y_label],
        "window": {"x": [low_x, high_x], "y": [low_y, high_y]},
        **counts(view),
        "layers": layer_rows,
        "area": _spread(measures.areas(cells, view.outline)),
        "in_radius": _spread(measures.inradii(cells, view.outline)),
        "resolution": cells.resolution,
        "samples": [
            {"x": mark.x, "y": mark.y} | ({"sample": mark.text} if mark.text else {}) for mark in view.marks
        ],
    }
    if view.decision is not None:
        shares = view.decision.areas / view.decision.areas.sum()
        report["decision"] = {
            "regions": view.decision.regions,
            "boundary_length": view.decision.length,
            "area_shares": dict(zip(view.outputs, shares.tolist(), strict=True)),
        }
    return report


def _spread(values: Floats) -> dict[str, float]:
    least, lower, median, upper, largest = np.quantile(values, (0, 0.05, 0.5, 0.95, 1)).tolist()
    return {
        "mean": float(values.mean()),
        "least": least,
        "5 %": lower,
        "median": median,
        "95 %": upper,
        "largest": largest,
    }


def every_cell(view: View) -> Iterator[dict[str, Any]]:
    """Each cell as plain values: polygon, pattern, measures, and affine map value + gradient·(u − place)."""
    cells, outline, maps = view.cells, view.outline, view.maps
    areas, radii = measures.areas(cells, outline), measures.inradii(cells, outline)
    starts = view.network.code_starts
    classes = None if view.decision is None else view.decision.classes
    for cell in range(len(cells)):
        corners = outline.vertices[outline.begins[cell] : outline.begins[cell + 1]]
        pattern = cells.patterns[cell]
        one: dict[str, Any] = {
            "polygon": cells.points[corners].tolist(),
            "pattern": [pattern[start:end].tobytes().hex() for start, end in pairwise(starts)],
            "affine_region": int(view.regions[cell]),
            "area": float(areas[cell]),
            "in_radius": float(radii[cell]),
            "map": {
                "place": maps.places[cell].tolist(),
                "value": maps.values[cell].tolist(),
                "gradient": maps.gradients[cell].tolist(),
            },
        }
        if classes is not None:
            one["class"] = view.outputs[classes[cell]] if classes[cell] >= 0 else None
        yield one


@dataclass(frozen=True, eq=False)
class LineView:
    """A segment, cut by the network.

    Attributes:
        title: of what network, and which segment.
        line: the segment.
        network: that cuts it.
        pieces: of it.
        outputs: their names.
    """

    title: str
    line: Line
    network: PiecewiseAffine
    pieces: Pieces
    outputs: list[str]


def line_of(opened: Opened, line: Line, of: str | None = None) -> LineView:
    """The segment, cut by the network.

    Raises:
        UsageError: the network is not piecewise affine.
    """
    network, about = folding.fold(opened.network.model), opened.network.description
    folding.check(
        network, opened.network.model, line.origin + np.array([[line.low], [line.high]]) * line.direction
    )
    started = time.perf_counter()
    pieces = cut_line(network, line.origin, line.direction, line.low, line.high)
    log.info("%s activation regions in %.2f s", f"{len(pieces):,}", time.perf_counter() - started)
    title = f"{of or opened.of}, {line.text}"
    return LineView(title, line, network, pieces, about.classes or about.target_names)


def line_counts(view: LineView) -> dict[str, Any]:
    """How many regions there are."""
    return {
        "activation_regions": len(view.pieces),
        "affine_regions": view.pieces.affine,
        "by_layer": view.pieces.by_layer,
        "neurons": view.network.neurons,
    }


def of_line(view: LineView) -> dict[str, Any]:
    """The numbers of a segment, with its pieces."""
    pieces = view.pieces
    starts = np.cumsum(view.network.hidden)
    return {
        "of": view.title,
        "axis": view.line.label,
        "window": [view.line.low, view.line.high],
        **line_counts(view),
        "length": _spread(np.diff(pieces.points)),
        "boundaries": [
            {"at": at, "layer": layer + 1, "unit": maker - (int(starts[layer - 1]) if layer else 0)}
            for at, maker, layer in zip(
                pieces.points[1:-1].tolist(),
                pieces.makers[1:-1].tolist(),
                np.searchsorted(starts, pieces.makers[1:-1], side="right").tolist(),
                strict=True,
            )
        ],
        "outputs": {"names": view.outputs, "at_ends": pieces.outputs.tolist()},
    }


def line_panel(view: LineView) -> Panel:
    """The outputs along the segment, with a dot at each boundary unless there are many.

    Of many outputs, those that are the largest somewhere, then those that come nearest to it.
    """
    pieces = view.pieces
    behind = (pieces.outputs.max(1, keepdims=True) - pieces.outputs).min(0)
    shown = np.argsort(behind, kind="stable")[: len(COLOURS)]
    where = pieces.points.tolist()
    kind: Literal["dots", "line"] = "dots" if len(pieces) <= MOST_DOTS else "line"
    curves = tuple(
        Curve(view.outputs[output], where, pieces.outputs[:, output].tolist(), index, kind)
        for index, output in enumerate(shown.tolist())
    )
    title = f"outputs of the network: {len(pieces):,} activation regions, {pieces.affine:,} affine"
    return Panel(title, view.line.label, "output", curves, "linear", "linear")


def at_sample(opened: Opened, x: Floats, text: str) -> dict[str, Any]:
    """The affine map at an input, checked against the network, and the distances from there.

    Args:
        x: (inputs,), as the network sees it.
        text: which input that is.

    Raises:
        UsageError: the network is not piecewise affine.
        FailedError: the map differs from the network.
    """
    network, about = folding.fold(opened.network.model), opened.network.description
    folding.check(network, opened.network.model, x[None])
    local = around(network, x, decides=bool(about.classes))
    rng = np.random.default_rng(0)
    reach = 0.9 * local.boundary.distance if local.boundary is not None else 1.0
    directions = rng.normal(size=(16, len(x)))
    inside = x + reach * directions / np.linalg.norm(directions, axis=1, keepdims=True)
    points = np.concatenate((x[None], inside))
    error = float(np.abs(points @ local.weight.T + local.bias - network(points)).max())
    scale = float(np.abs(local.outputs).max(initial=1.0))
    if not error <= folding.AGREES * scale:
        raise FailedError(f"the affine map differs from the network by {error:.3g} inside the cell")
    names = about.classes or about.target_names
    active = [
        np.flatnonzero(network.unpack(local.pattern[None], layer)[0]).tolist()
        for layer in range(len(network.slopes))
    ]
    report: dict[str, Any] = {
        "of": f"{opened.of}, {text}",
        "unit": unit(opened),
        "outputs": dict(zip(names, local.outputs.tolist(), strict=True)),
        "weight": local.weight.tolist(),
        "bias": local.bias.tolist(),
        "error": error,
        "compared_at": len(points),
        "units": network.hidden,
        "active": active,
        "nearest_boundary": None,
    }
    if local.boundary is not None:
        report["nearest_boundary"] = {
            "distance": local.boundary.distance,
            "layer": local.boundary.layer + 1,
            "unit": local.boundary.unit,
        }
    if about.classes:
        report["predicted"] = names[int(local.outputs.argmax())]
        report["nearest_change"] = (
            None
            if local.change is None
            else {"distance": local.change.distance, "class": names[local.change.output]}
        )
    return report
