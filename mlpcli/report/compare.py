"""Runs side by side: what differs in their configs, what they reached with which work, and whether by chance."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mlpcli.config import Config, to_plain
from mlpcli.data.dataset import fingerprint
from mlpcli.progress import less_is_better
from mlpcli.report.compare_statistics import PairedTest, mcnemar, paired_t, with_holm
from mlpcli.report.gathering import Gathered, gather, number
from mlpcli.report.statistics import Interval
from mlpcli.report.sureness import intervals

ABSENT = "-"
"""Instead of a value that a config does not have."""
SEVERAL_GRADIENTS = ("lbfgs",)
"""Optimizers that evaluate the gradient a number of times an epoch which no file of a run holds."""


@dataclass(frozen=True, eq=False)
class Side:
    """A run of a comparison.

    Attributes:
        letter: A for the baseline, B, …
        found: what is known of it.
        intervals: 95 %, of its test metrics, where they are known.
        samples: of its training split; None where that is not known.
        changed: whether its data is no longer what it was trained on.
    """

    letter: str
    found: Gathered
    intervals: Mapping[str, Interval]
    samples: int | None
    changed: bool

    @property
    def run(self) -> str:
        """Its directory."""
        return str(self.found.path)

    @property
    def test(self) -> dict[str, float]:
        """Its finite test metrics."""
        return {name: value for name, value in self.found.test_metrics.items() if math.isfinite(value)}

    @property
    def done(self) -> int:
        """Finished epochs."""
        return max(self.found.epochs, default=0)

    @property
    def seconds(self) -> float:
        """Of training passes, in all finished epochs."""
        return sum(value for value in self.found.column("seconds") if math.isfinite(value))

    @property
    def parameters(self) -> int | None:
        """Of its model; None where that is not known."""
        count = number(self.found.summary.get("parameters"))
        if math.isfinite(count):
            return int(count)
        network = self.found.network
        return None if network is None else sum(each.numel() for each in network.model.parameters())

    def work(self) -> list[float]:
        """Gradient evaluations up to the end of each finished epoch; NaN where that is not known.

        A gradient evaluation is the gradient of the loss of one sample. Every epoch evaluates it once for each
        sample of the training split, in one step (GD) or in many (SGD).
        """
        return [math.nan if self.samples is None else float(epoch * self.samples) for epoch in self.found.epochs]

    @property
    def best(self) -> int | None:
        """The best epoch by `training.monitor`; None before one is finished."""
        best = self.found.summary.get("best")
        if isinstance(best, Mapping) and isinstance(best.get("epoch"), int):
            return int(best["epoch"])
        if self.found.config is None or not self.found.epochs:
            return None
        split, _, metric = (self.found.config.training.monitor or "").partition(".")
        sign = 1 if less_is_better(metric) else -1
        known = [(sign * value, at) for at, value in enumerate(self.found.series(split, metric)) if value == value]
        return self.found.epochs[min(known)[1]] if known else None

    def at(self, index: int, split: str) -> dict[str, float]:
        """The finite metrics of a split after the epoch of that index."""
        values = self.found.metrics[index].get(split)
        if not isinstance(values, Mapping):
            return {}
        return {name: number(value) for name, value in values.items() if math.isfinite(number(value))}


@dataclass(frozen=True)
class EqualWork:
    """What every run had reached with the same number of gradient evaluations.

    Attributes:
        evaluations: the most that all runs have done.
        epochs: for each run, the last one that needs no more.
        train, validation: for each run, the metrics of that epoch.
    """

    evaluations: int
    epochs: list[int]
    train: list[dict[str, float]]
    validation: list[dict[str, float]]


@dataclass(frozen=True, eq=False)
class Comparison:
    """Runs side by side.

    Attributes:
        sides: the runs, the baseline first.
        differences: for each key whose value is not the same in all configs, the values.
        tests: for each run but the first, its test against the baseline, or why there is none.
        equal_work: None where the work of a run is not known, or none is done.
        notes: what a reader has to know, in sentences.
    """

    sides: list[Side]
    differences: dict[str, list[Any]]
    tests: list[PairedTest | str]
    equal_work: EqualWork | None
    notes: list[str]

    @property
    def metrics(self) -> list[str]:
        """The names of all test metrics."""
        return list(dict.fromkeys(name for side in self.sides for name in side.test))

    @property
    def corrected(self) -> int:
        """How many tests Holm's correction is for."""
        return sum(isinstance(test, PairedTest) for test in self.tests)

    @property
    def same_loss(self) -> bool:
        """Whether all runs minimise the same loss in the same units, so that its values can be compared.

        The targets of a regression are standardised by the training split, and so is its loss.
        """
        losses = [side.found.config.loss for side in self.sides if side.found.config is not None]
        scales = [side.found.network.target_scale for side in self.sides if side.found.network is not None]
        units = [None if scale is None else scale.std.tolist() for scale in scales]
        return all(loss == losses[0] for loss in losses) and all(unit == units[0] for unit in units)


def compare(runs: Sequence[Path], overrides: Sequence[str] = ()) -> Comparison:
    """Put runs side by side; each is compared with the first, the baseline.

    Args:
        runs: at least one run directory.
        overrides: KEY=VALUE that say where the data is now.

    Raises:
        RunError: one is no run directory.
        UsageError: for an override that is none.
    """
    sides = [_side(chr(ord("A") + index), gather(run, overrides)) for index, run in enumerate(runs)]
    tests = [_test(sides[0], side) for side in sides[1:]]
    adjusted = iter(with_holm([test for test in tests if isinstance(test, PairedTest)]))
    tests = [next(adjusted) if isinstance(test, PairedTest) else test for test in tests]
    comparison = Comparison(sides, differences([side.found.config for side in sides]), tests, _equal(sides), [])
    comparison.notes.extend(_notes(comparison))
    return comparison


def _side(letter: str, found: Gathered) -> Side:
    answers = found.test
    changed = answers is not None and answers.fingerprint != answers.about.fingerprint
    known = answers is not None and not changed
    several = found.config is not None and found.config.optimizer.name in SEVERAL_GRADIENTS
    return Side(
        letter,
        found,
        intervals(answers, found.test_metrics) if known and answers is not None else {},
        None if several or changed else found.samples.get("train"),
        changed,
    )


def differences(configs: Sequence[Config | None]) -> dict[str, list[Any]]:
    """For each key whose value is not the same in all configs, the values; ABSENT where a config has none.

    The name of a run is none of it, and a list is one value. A config that is None has no values.
    """
    flat = [_leaves(to_plain(config)) if config is not None else {} for config in configs]
    known = [values for config, values in zip(configs, flat, strict=True) if config is not None]
    keys = dict.fromkeys(key for values in flat for key in values if key != "name")
    return {
        key: [values.get(key, ABSENT) for values in flat]
        for key in keys
        if any(values.get(key, ABSENT) != known[0].get(key, ABSENT) for values in known)
    }


def _leaves(values: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in values.items():
        here = f"{path}.{key}" if path else str(key)
        found |= _leaves(value, here) if isinstance(value, Mapping) and value else {here: value}
    return found


def _test(first: Side, second: Side) -> PairedTest | str:
    """Whether the second run's best network differs from the first's on the same test samples; or why not."""
    for side in (first, second):
        if side.found.test is None:
            return f"no test, because there are no predictions of {side.letter} on its test split"
        if side.changed:
            return f"no test, because the data of {side.letter} has changed since it was trained"
    one, other = first.found.test, second.found.test
    assert one is not None and other is not None
    if one.about.classes != other.about.classes:
        return "no test, because they predict different things"
    same = one.fingerprint == other.fingerprint or fingerprint([one.split]) == fingerprint([other.split])
    if not same:
        return "no test, because their test splits hold different samples: the metrics stand side by side only"
    if not (np.isfinite(one.outputs).all() and np.isfinite(other.outputs).all()):
        return "no test, because a prediction is not finite"
    if one.classifies:
        return mcnemar(one.predicted == one.targets, other.predicted == other.targets)
    return paired_t(np.square(one.outputs - one.targets).sum(1), np.square(other.outputs - other.targets).sum(1))


def _equal(sides: Sequence[Side]) -> EqualWork | None:
    evaluations = min((max((0.0, *side.work()) if side.samples else (0.0,)) for side in sides), default=0.0)
    if not evaluations > 0:
        return None
    last = [
        max((at for at, done in enumerate(side.work()) if done <= evaluations), default=None) for side in sides
    ]
    if any(index is None for index in last):  # a training split may be larger than all that another run has seen
        return None
    places = [(side, index) for side, index in zip(sides, last, strict=True) if index is not None]
    return EqualWork(
        int(evaluations),
        [side.found.epochs[index] for side, index in places],
        [side.at(index, "train") for side, index in places],
        [side.at(index, "validation") for side, index in places],
    )


def _notes(comparison: Comparison) -> list[str]:
    notes = [f"{side.letter}: {note}" for side in comparison.sides for note in side.found.notes]
    for side in comparison.sides:
        config = side.found.config
        if config is not None and config.optimizer.name in SEVERAL_GRADIENTS:
            notes.append(
                f"{side.letter}: L-BFGS evaluates the gradient several times an epoch, and how often is not "
                "recorded, so its number of gradient evaluations is unknown."
            )
        elif side.samples is None and side.done:
            notes.append(
                f"{side.letter}: the size of its training split, and so its number of gradient evaluations, is "
                "unknown without a checkpoint and the data that it was trained on."
            )
    if not comparison.same_loss:
        notes.append(
            "The runs minimise different losses, or the same one of targets that another training split "
            "standardises: its values cannot be compared; metrics can."
        )
    return notes
