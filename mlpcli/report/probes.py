"""What `training.diagnostics` wrote: probes of the network while it was trained."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlpcli.runs import DIAGNOSTICS


@dataclass(frozen=True)
class Bins:
    """Counts in equal bins from `low` to `high`."""

    low: float
    high: float
    counts: list[int]

    @property
    def edges(self) -> list[float]:
        """Of the bins, one more than there are counts."""
        n = len(self.counts)
        return [self.low + (self.high - self.low) * i / n for i in range(n + 1)]


@dataclass(frozen=True)
class ProbedLayer:
    """An affine layer in a probe.

    Attributes:
        layer: its number, from 1.
        inputs, units: its size.
        weight, activation: their values; None where none is finite.
        dead: hidden units that are 0 on every sample; None unless the activation is relu.
        gradient_norm: 2-norm of the gradient of the layer's weights.
        update_ratio: the length of the last step of the weights over theirs; NaN where there was none.
    """

    layer: int
    inputs: int
    units: int
    weight: Bins | None
    activation: Bins | None
    dead: int | None
    gradient_norm: float
    update_ratio: float


@dataclass(frozen=True)
class Probe:
    """A line of the file."""

    epoch: int
    step: int
    samples: int
    loss: float
    layers: list[ProbedLayer]


def read_probes(run: Path) -> tuple[list[Probe], int]:
    """The probes of a run in order, and how many lines could not be read; none where the file is absent."""
    try:
        lines = (run / DIAGNOSTICS).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return [], 0
    found, damaged = [], 0
    for line in lines:
        try:
            found.append(_probe(json.loads(line)))
        except (ValueError, KeyError, TypeError, AttributeError):
            damaged += 1
    return found, damaged


def _probe(line: Mapping[str, Any]) -> Probe:
    layers = [_layer(each) for each in line["layers"]]
    return Probe(int(line["epoch"]), int(line["step"]), int(line["samples"]), _number(line["loss"]), layers)


def _layer(plain: Mapping[str, Any]) -> ProbedLayer:
    dead = plain["dead"]
    return ProbedLayer(
        layer=int(plain["layer"]),
        inputs=int(plain["inputs"]),
        units=int(plain["units"]),
        weight=_bins(plain["weight"]),
        activation=_bins(plain["activation"]),
        dead=None if dead is None else int(dead),
        gradient_norm=_number(plain["gradient_norm"]),
        update_ratio=_number(plain["update_ratio"]),
    )


def _bins(plain: Mapping[str, Any] | None) -> Bins | None:
    if plain is None or plain["low"] is None or plain["high"] is None:
        return None
    counts = [int(count) for count in plain["counts"]]
    low, high = _number(plain["low"]), _number(plain["high"])
    return Bins(low, high, counts) if counts and math.isfinite(low) and math.isfinite(high) else None


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)
