"""--fail-on-regression METRIC:TOLERANCE: whether a run is worse than the baseline by more than that. No torch."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mlpcli.errors import UsageError
from mlpcli.options import one_of
from mlpcli.progress import less_is_better

OPTION = "--fail-on-regression"
METRICS = ("accuracy", "top5_accuracy", "r2", "error", "loss", "mse", "mae", "rmse", "train_seconds")
"""What can be gated: the test metrics, and the seconds of training."""


@dataclass(frozen=True)
class Gate:
    """A metric and how much worse it may be.

    Attributes:
        metric: one of METRICS.
        tolerance: in its units; with `relative`, a share of the baseline's value.
    """

    metric: str
    tolerance: float
    relative: bool

    def worse(self, baseline: float, value: float) -> float:
        """By how much the value is worse; negative where it is better."""
        return value - baseline if less_is_better(self.metric) else baseline - value

    def holds(self, baseline: float, value: float) -> bool:
        """Whether the value is worse by no more than the tolerance, but for rounding."""
        allowed = self.tolerance * (abs(baseline) if self.relative else 1)
        return self.worse(baseline, value) <= allowed + 1e-12 * max(abs(baseline), abs(value))

    def __str__(self) -> str:
        return f"{self.tolerance:.6g}" if not self.relative else f"{100 * self.tolerance:.6g} %"


def parse(texts: Sequence[str]) -> list[Gate]:
    """The gates of a command line.

    Raises:
        UsageError: one is not METRIC:TOLERANCE, or its metric is none.
    """
    gates = []
    for text in texts:
        metric, colon, written = text.partition(":")
        relative = written.endswith("%")
        try:
            tolerance = float(written.removesuffix("%"))
        except ValueError:
            tolerance = math.nan
        if not colon or not 0 <= tolerance < math.inf:
            raise UsageError(
                f"{OPTION} {text}: expected METRIC:TOLERANCE, as in {OPTION} accuracy:0.005, or with a share of "
                f"the baseline, as in {OPTION} rmse:2%"
            )
        one_of(f"{OPTION} {text}", metric, METRICS)
        gates.append(Gate(metric, tolerance / 100 if relative else tolerance, relative))
    return gates


def missed(gates: Sequence[Gate], runs: Sequence[tuple[str, str, Mapping[str, float]]]) -> list[str]:
    """What is worse than it may be, a sentence each; a run that is not finished, or has no such metric, is.

    Args:
        gates: to be held by every run but the first.
        runs: name, status and metrics of each, the baseline first.

    Raises:
        UsageError: no finished run has a metric of that name.
    """
    for gate in gates:
        finished = [metrics for _, status, metrics in runs if status == "finished"]
        if finished and not any(gate.metric in metrics for metrics in finished):
            there = ", ".join(dict.fromkeys(name for metrics in finished for name in metrics))
            raise UsageError(f"{OPTION}: these runs have no {gate.metric}; there are: {there}")
    found = []
    base, base_status, base_metrics = runs[0]
    for gate in gates:
        for name, status, metrics in runs[1:]:
            unusable = [
                f"{each} {'has no such metric' if state == 'finished' else f'is {state}'}"
                for each, state, values in ((base, base_status, base_metrics), (name, status, metrics))
                if state != "finished" or gate.metric not in values
            ]
            if unusable:
                found.append(f"{gate.metric} of {name} cannot be held against {base}: {'; '.join(unusable)}")
                continue
            baseline, value = base_metrics[gate.metric], metrics[gate.metric]
            if not gate.holds(baseline, value):
                found.append(
                    f"{gate.metric} of {name} is {value:.6g}, worse by {gate.worse(baseline, value):.6g} than "
                    f"{baseline:.6g} of {base}; the tolerance is {gate}"
                )
    return found
