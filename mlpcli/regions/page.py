"""Pages that work from a file without a network: to look at every region of a plane, or to step through frames."""

import base64
import json
import zlib
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlpcli.errors import UsageError
from mlpcli.regions.colours import cell_colours
from mlpcli.regions.measures import areas, centroids, inradii
from mlpcli.regions.picture_layout import Badge, Layout, layout, numbers
from mlpcli.regions.view import View

TEMPLATE = Path(__file__).with_name("page.html")
FRAMES = Path(__file__).with_name("page_frames.html")

MOST_CELLS = 60_000
"""Of a page; a browser draws more too slowly to look around in them."""
MOST_BYTES = 256 << 20
"""Of the data of a page, before they are compressed: a browser holds all of them."""
MOST_OUTPUTS = 10
"""Whose affine maps are shown; of more classes, those with the largest outputs at the centre of each cell."""

TYPES = {"f4": np.float32, "u4": np.uint32, "i2": np.int16, "u1": np.uint8}
"""Of the arrays of a page, all in the order of bytes of the machines that have browsers."""


def page(view: View) -> str:
    """The interactive page of a view.

    Raises:
        UsageError: there is too much in it.
    """
    remedy = "choose .png, or a smaller window"
    if len(view.cells) > MOST_CELLS:
        raise UsageError(
            f"{len(view.cells):,} regions are too many for a page, which holds {MOST_CELLS:,}: {remedy}"
        )
    if view.cells.patterns.nbytes > MOST_BYTES:
        raise UsageError(f"the patterns of {len(view.cells):,} regions are too many for a page: {remedy}")
    arrays, data = _packed(_arrays(view))
    head = {"arrays": arrays, **_facts(view)}
    return _filled(
        TEMPLATE,
        {"TITLE": escape(view.title), "HEAD": _json(head), "DATA": base64.b64encode(data).decode()},
    )


def frames_page(title: str, captions: Sequence[str], frames: Sequence[bytes]) -> str:
    """A page with a slider over pictures.

    Args:
        title: of the page.
        captions: one a picture.
        frames: at least one PNG file, all of one size.
    """
    pictures = [base64.b64encode(frame).decode() for frame in frames]
    return _filled(
        FRAMES,
        {
            "TITLE": escape(title),
            "HEAD": _json({"title": title, "captions": list(captions), "frames": pictures}),
            "FIRST": pictures[0],
            "LAST": str(len(frames) - 1),
        },
    )


def _filled(template: Path, parts: dict[str, str]) -> str:
    """A template with its {{NAMES}} replaced; what is put in is not looked at again."""
    first, *pieces = template.read_text(encoding="utf-8").split("{{")
    return first + "".join(parts[name] + rest for name, _, rest in (piece.partition("}}") for piece in pieces))


def _json(value: dict[str, Any]) -> str:
    """For a script element, which no text in it can end."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def _facts(view: View) -> dict[str, Any]:
    """What is not an array."""
    place = layout(view)
    strokes = [(stroke.width, stroke.opacity) for stroke in place.layers]
    starts = np.cumsum([0, *view.network.hidden])
    cutting = np.unique(view.cells.makers[view.cells.makers >= 0])
    return {
        "title": view.title,
        "numbers": numbers(view),
        "axes": [view.x_label, view.y_label],
        "window": [float(each) for each in view.window],
        "side": place.plane[2:],
        "outputs": view.outputs,
        "classification": view.decision is not None,
        "layers": [
            {"units": size, "cut": int(cut), "colour": colour, "width": width, "opacity": opacity}
            for size, cut, colour, (width, opacity) in zip(
                view.network.hidden,
                np.diff(np.searchsorted(cutting, starts)),
                place.colours,
                strokes,
                strict=True,
            )
        ],
        "decision": place.decision.width,
        "codes": view.network.code_starts,
        "names": [_share(place, badge) for badge in place.badges],
        "marks": [{"x": mark.x, "y": mark.y, "text": mark.text, "fill": mark.fill} for mark in view.marks],
    }


def _share(place: Layout, badge: Badge) -> list[float]:
    """The output, and where its name is: how far from the left and from the bottom of the window, as shares."""
    left, top, width, height = place.plane
    x0, y0, x1, y1 = badge.box
    return [badge.output, ((x0 + x1) / 2 - left) / width, 1 - ((y0 + y1) / 2 - top) / height]


def _arrays(view: View) -> dict[str, tuple[str, NDArray[Any]]]:
    """By name: the type, one of TYPES, and the array.

    Points are shares of the window, from its low corner, so that float32 is enough to look at them closely.
    """
    low, high = np.array(view.window[:2]), np.array(view.window[2:])
    cells, outline, maps = view.cells, view.outline, view.maps
    centres = centroids(cells, outline)
    at_centre = maps.values + np.einsum("nkc,nc->nk", maps.gradients, centres - maps.places)
    shown = min(MOST_OUTPUTS, at_centre.shape[1])
    if view.decision is not None and at_centre.shape[1] > shown:
        which = np.argsort(-at_centre, axis=1, kind="stable")[:, :shown]
    else:
        which = np.broadcast_to(np.arange(shown), (len(cells), shown))
    affine = np.concatenate((at_centre[:, :, None], maps.gradients), axis=2)
    boundary = np.empty((0, 2, 2)) if view.decision is None else view.decision.boundary
    classes = np.full(len(cells), -1) if view.decision is None else view.decision.classes
    return {
        "points": ("f4", (cells.points - low) / (high - low)),
        "corners": ("u4", outline.vertices),
        "begins": ("u4", outline.begins),
        "edges": ("u4", np.stack((cells.starts, cells.ends), axis=1)),
        "layers": ("i2", view.layers),
        "colours": ("u1", cell_colours([view])[0]),
        "regions": ("u4", view.regions),
        "patterns": ("u1", cells.patterns),
        "areas": ("f4", areas(cells, outline)),
        "radii": ("f4", inradii(cells, outline)),
        "centres": ("f4", (centres - low) / (high - low)),
        "classes": ("i2", classes),
        "which": ("i2", which),
        "maps": ("f4", np.take_along_axis(affine, which[:, :, None], axis=1)),
        "boundary": ("f4", (boundary - low) / (high - low)),
    }


def _packed(arrays: dict[str, tuple[str, NDArray[Any]]]) -> tuple[dict[str, list[Any]], bytes]:
    """(name -> type, first byte, numbers), and one array after the other, compressed, each beginning at a multiple
    of 4 bytes."""
    head: dict[str, list[Any]] = {}
    parts: list[bytes] = []
    at = 0
    for name, (kind, array) in arrays.items():
        with np.errstate(over="ignore"):  # beyond float32 it is shown as infinite
            content = array.astype(np.dtype(TYPES[kind]).newbyteorder("<")).tobytes()
        head[name] = [kind, at, array.size]
        content += bytes(-len(content) % 4)
        parts.append(content)
        at += len(content)
    return head, zlib.compress(b"".join(parts), 6)
