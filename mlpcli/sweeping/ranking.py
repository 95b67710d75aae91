"""Which trials are the better ones, and the axes on which trials are drawn."""

import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mlpcli.axes import ROOM, Axis, Categories, Scale, has_place
from mlpcli.sweeping.record import SweepResult, TrialRecord

MOST = 6
"""Ticks of a linear axis."""
DECADES = 0.7
"""A loss that spans more is drawn on a logarithmic axis: what is good would have no room on another one."""
FAR, LONGER, FEW = 3.0, 5.0, 8
"""Values FAR interquartile ranges beyond the worse quartile stand at the edge of an axis that would become LONGER
times as long for them; of FEW values none does."""
BESIDE = 0.5
"""Of the room of a choice on its axis: the width over which its trials are spread."""
NEAR = 0.05
"""Of the length of its range: a best value that is nearer to an end might be better beyond it."""


def finite(value: float | None) -> float | None:
    """The value, if it has a place on an axis."""
    return value if value is not None and has_place(value, "linear") else None


def ranked(result: SweepResult) -> list[tuple[TrialRecord, float]]:
    """The complete trials with their values, the best one first; of equal ones the one that was planned first."""
    found = [
        (trial, value)
        for trial in result.trials
        if trial.state == "complete" and (value := finite(trial.value)) is not None
    ]
    sign = 1 if result.less_is_better else -1
    return sorted(found, key=lambda pair: (sign * pair[1], pair[0].number))


def best_so_far(result: SweepResult) -> list[tuple[int, float]]:
    """(number of a trial, value) of each trial that was better than all complete ones planned before it."""
    found: list[tuple[int, float]] = []
    better = min if result.less_is_better else max
    for trial, value in sorted(ranked(result), key=lambda pair: pair[0].number):
        if not found or better(value, found[-1][1]) != found[-1][1]:
            found.append((trial.number, value))
    return found


@dataclass(frozen=True)
class Values:
    """The axis of the objective.

    Attributes:
        axis: that holds the values, but for those that are far worse than the others.
        edge: at which those stand; None if there are none.
        beyond: how many they are.
    """

    axis: Axis
    edge: float | None
    beyond: int
    less_is_better: bool

    def shown(self, value: float) -> float:
        """The value, or the edge where it lies beyond."""
        if self.edge is None:
            return value
        return min(value, self.edge) if self.less_is_better else max(value, self.edge)


def value_axis(values: Sequence[float], *, less_is_better: bool) -> Values:
    """An axis for finite values, at least one: logarithmic where small is good, all are above 0 and span much."""
    scale = _scale(values, less_is_better=less_is_better)
    if len(values) <= FEW:
        return Values(Axis(scale, values, MOST), None, 0, less_is_better)
    # in the places on the axis, with bad ones large
    places = [math.log10(value) if scale == "log" else value for value in values]
    places = places if less_is_better else [-place for place in places]
    lower, _, upper = statistics.quantiles(places, n=4)
    kept = [i for i, place in enumerate(places) if place <= upper + FAR * (upper - lower)]
    good, bad, worst = min(places), max(places[i] for i in kept), max(places)
    if bad == good or worst - good < LONGER * (bad - good):
        return Values(Axis(scale, values, MOST), None, 0, less_is_better)
    shown = [values[i] for i in kept]
    edge = max(shown) if less_is_better else min(shown)
    axis = Axis(_scale(shown, less_is_better=less_is_better), shown, MOST)
    return Values(axis, edge, len(values) - len(kept), less_is_better)


def _scale(values: Sequence[float], *, less_is_better: bool) -> Scale:
    low, high = min(values), max(values)
    return "log" if less_is_better and low > 0 and math.log10(high / low) > DECADES else "linear"


@dataclass(frozen=True)
class Dimension:
    """A parameter that is searched.

    Attributes:
        key: of the config.
        axis: over the whole of its range.
        ends: of a range of numbers; None of choices.
        choices: as JSON, in the order of the axis, which has their names.
    """

    key: str
    axis: Axis | Categories
    ends: tuple[float, float] | None
    choices: Sequence[str] = ()

    def place(self, trial: TrialRecord) -> float | None:
        """Where the trial's value is on the axis: a number, or that of a choice; None if it has none."""
        if self.key not in trial.parameters:
            return None
        value = trial.parameters[self.key]
        if isinstance(self.axis, Categories):
            text = json.dumps(value)
            return float(self.choices.index(text)) if text in self.choices else None
        return float(value) if isinstance(value, int | float) and has_place(value, self.axis.scale) else None

    def spread(self, trial: TrialRecord) -> float | None:
        """That place, of choices a little beside it, so that trials with the same choice can be told apart."""
        place = self.place(trial)
        if place is None or self.ends is not None:
            return place
        # the fractional parts of the multiples of the golden ratio spread evenly
        return place + BESIDE * (trial.number * (math.sqrt(5) - 1) / 2 % 1 - 0.5)

    def end(self, trial: TrialRecord) -> float | None:
        """The end of the range that the trial's value is near to; None if there is none."""
        at = self.place(trial)
        if at is None or self.ends is None or self.ends[0] == self.ends[1]:
            return None
        low, high, here = (self.axis.share(each) for each in (*self.ends, at))
        share = (here - low) / (high - low)
        return self.ends[0] if share <= NEAR else self.ends[1] if share >= 1 - NEAR else None


def dimensions(result: SweepResult) -> list[Dimension]:
    """The parameters: the most important first where that is known, else as in the config."""
    keys = sorted(result.space, key=lambda key: -result.importances.get(key, 0.0))
    return [_dimension(key, result.space[key]) for key in keys]


def _dimension(key: str, spec: dict[str, Any]) -> Dimension:
    if "choice" in spec:
        names = {json.dumps(value): text_of(value) for value in spec["choice"]}
        return Dimension(key, Categories(list(names.values())), None, list(names))
    kind = next(each for each in ("uniform", "log_uniform", "int") if each in spec)
    low, high = (float(end) for end in spec[kind])
    scale: Scale = "log" if kind == "log_uniform" or spec.get("log") else "linear"
    axis = Axis(scale, [low, high], MOST)
    axis.whole = kind == "int"
    if scale == "linear" and low < high:
        # its own ends, even if 0 is near
        axis.low, axis.high = low - ROOM * (high - low), high + ROOM * (high - low)
    return Dimension(key, axis, (low, high))


def text_of(value: Any) -> str:
    """A value of a parameter."""
    if isinstance(value, float):
        return f"{value:.6g}"
    return value if isinstance(value, str) else json.dumps(value)


def space_text(spec: dict[str, Any]) -> str:
    """What a parameter may be, on one line."""
    if "choice" in spec:
        return ", ".join(text_of(value) for value in spec["choice"])
    kind = next(each for each in ("uniform", "log_uniform", "int") if each in spec)
    low, high = (text_of(end) for end in spec[kind])
    words = {"uniform": "", "int": "whole"}.get(kind, "logarithmic")
    if kind == "int" and spec.get("log"):
        words = "whole, logarithmic"
    return f"{low} to {high}" + (f", {words}" if words else "")
