"""What is known of a sweep and of its trials, as plain values."""

from dataclasses import dataclass
from typing import Any, Literal

State = Literal["waiting", "running", "complete", "pruned", "failed"]


@dataclass(frozen=True)
class TrialRecord:
    """A trial.

    Attributes:
        number: from 0, in the order in which trials were planned.
        state: where it stands.
        parameters: dotted keys of the config to their values.
        value: of the objective; of a pruned trial the last that it reported; None if there is none.
        curve: (epoch, objective) of each epoch that was reported.
        run: its run directory, relative to the sweep's directory.
        seconds: from its start to its end.
        error: why it failed.
    """

    number: int
    state: State
    parameters: dict[str, Any]
    value: float | None
    curve: list[tuple[int, float]]
    run: str | None
    seconds: float | None
    error: str | None


@dataclass(frozen=True)
class SweepResult:
    """A sweep.

    Attributes:
        name: of the sweep.
        objective: the split and the metric, as in the config: validation.accuracy.
        less_is_better: of the objective.
        space: dotted keys to what they may be, as in the config: {"uniform": [low, high]},
            {"log_uniform": [low, high]}, {"int": [low, high], "log": bool} or {"choice": [...]}.
        sampler, pruner: their names.
        trials: by number.
        importances: dotted keys to their shares of the variance of the objective; may be empty.
    """

    name: str
    objective: str
    less_is_better: bool
    space: dict[str, dict[str, Any]]
    sampler: str
    pruner: str
    trials: list[TrialRecord]
    importances: dict[str, float]
