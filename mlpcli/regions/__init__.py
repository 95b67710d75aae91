"""The affine regions of a ReLU network, exactly: plain arrays in and out.

Made when they are first asked for, so that the command line starts without numpy:

* `PiecewiseAffine(weights, biases, slopes)`: a network.
* `cut_plane(network, origin, basis, window)` → `Cells`; of these `outlines`, `areas`, `inradii`, `maps`,
  `affine_regions` and `decide`.
* `cut_line(network, origin, direction, low, high)` → `Pieces`.
* `around(network, x)` → `Local`: the affine map at an input and the distances from there.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlpcli.regions.decision import Decision, decide
    from mlpcli.regions.line import Pieces, cut_line
    from mlpcli.regions.local import Local, around
    from mlpcli.regions.measures import Maps, Outlines, affine_regions, areas, inradii, maps, outlines
    from mlpcli.regions.piecewise import PiecewiseAffine
    from mlpcli.regions.plane import Cells, cut_plane

__all__ = [
    "Cells",
    "Decision",
    "Local",
    "Maps",
    "Outlines",
    "Pieces",
    "PiecewiseAffine",
    "affine_regions",
    "areas",
    "around",
    "cut_line",
    "cut_plane",
    "decide",
    "inradii",
    "maps",
    "outlines",
]


def __getattr__(name: str) -> Any:
    if name in __all__:
        for module in ("piecewise", "plane", "measures", "decision", "line", "local"):
            found = getattr(import_module(f"mlpcli.regions.{module}"), name, None)
            if found is not None and found.__module__ == f"mlpcli.regions.{module}":
                return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
