"""The `sweep` section of a config: which keys are varied, and how trials are drawn, judged and bounded."""

import math
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from mlpcli.config.schema import Config, Monitor
from mlpcli.config.section import Count, Positive, Section, conflict

KINDS = ("uniform", "log_uniform", "int", "choice")
MOST_POINTS = 100_000
"""The largest grid; a larger one is a slip."""
DEFAULT_TRIALS = 20

Number = Annotated[float, Field(ge=-1e30, le=1e30, allow_inf_nan=False)]
Integer = Annotated[int, Field(ge=-(2**53), le=2**53)]
Pair = Annotated[list[Number], Field(min_length=2, max_length=2)]
PositivePair = Annotated[list[Positive], Field(min_length=2, max_length=2)]
IntegerPair = Annotated[list[Integer], Field(min_length=2, max_length=2)]
Choices = Annotated[list[Any], Field(min_length=1, max_length=1000)]
Points = Annotated[int, Field(ge=2, le=MOST_POINTS)]


class Range(Section):
    """What one key is drawn from: one of `uniform`, `log_uniform`, `int` and `choice`."""

    uniform: Pair | None = None
    """[low, high]: any number in between, all alike."""
    log_uniform: PositivePair | None = None
    """[low, high]: any number in between, its logarithm uniform."""
    int: IntegerPair | None = None
    """[low, high]: an integer, both ends among them."""
    choice: Choices | None = None
    """A list: one of its values, which may be lists and mappings too."""
    log: bool = False
    """Whether small integers of `int` are drawn more often: their logarithm is uniform."""
    step: Count | None = None
    """Distance of the integers of `int`; 1 unless stated."""
    points: Points | None = None
    """How many values a grid takes of this range, both ends among them. A grid needs it for `uniform` and
    `log_uniform`; of `int` it takes all unless stated."""

    @model_validator(mode="after")
    def _is_one_range(self) -> Self:
        kinds = [kind for kind in KINDS if getattr(self, kind) is not None]
        if not kinds:
            raise conflict(
                "",
                "this names no range",
                "write one of {uniform: [low, high]}, {log_uniform: [low, high]}"
                ", {int: [low, high]}, {choice: [...]}",
            )
        if len(kinds) > 1:
            raise conflict(kinds[1], f"a key has one range, and this has {kinds[0]} already", "keep one of them")
        (kind,) = kinds
        if kind != "choice" and getattr(self, kind)[0] >= getattr(self, kind)[1]:
            low, high = getattr(self, kind)
            hint = "write the smaller number first" if low > high else "leave the key out of sweep.space"
            raise conflict(kind, f"the range from {low} to {high} is empty", hint)
        if self.choice is not None and any(
            one == other for i, one in enumerate(self.choice) for other in self.choice[:i]
        ):
            raise conflict("choice", "a value stands in this list twice", "keep one of them")
        for key in ("log", "step"):
            if getattr(self, key) and kind != "int":
                raise conflict(key, f"{key} goes with int, and this is {kind}", f"leave {key} out")
        if self.int is not None and self.log and self.int[0] < 1:
            raise conflict("int", "integers below 1 have no logarithm", "start at 1, or leave log out")
        if self.log and self.step is not None and self.step > 1:
            raise conflict("step", "step and log do not go together", "keep one of them")
        if self.points is not None and self.choice is not None:
            raise conflict("points", "a grid takes every value of choice", "leave points out")
        return self


Space = Annotated[dict[str, Range], Field(min_length=1, max_length=100)]


class Sweep(Section):
    """Many trainings of this config, each with other values of some keys: mlpcli sweep."""

    space: Space
    """What each dotted key is drawn from, for example optimizer.lr: {log_uniform: [0.001, 1]}."""
    sampler: Literal["grid", "random", "tpe"] = "tpe"
    """`grid` tries every combination, `random` draws each trial by itself, `tpe` learns from the trials before
    where good ones are (tree-structured Parzen estimator, Bergstra et al. 2011)."""
    pruner: Literal["none", "median", "hyperband"] = "none"
    """Whether trials end early: `median` ends one whose objective is worse than the median of the others at the
    same epoch, `hyperband` gives many trials few epochs and few trials many (Li et al. 2018)."""
    objective: Monitor | None = None
    """What is best: the value of a trial is that of its best epoch. `training.monitor` unless stated, which it is
    for every trial."""
    trials: Count | None = None
    """How many; 20 unless stated. A grid has as many as it has points."""
    timeout: Positive | None = None
    """Seconds after which no other trial begins; those that run are finished."""
    jobs: Annotated[int, Field(ge=1, le=1024)] = 1
    """Trials at a time on this machine, each in a process of its own, that share its cores."""

    @model_validator(mode="after")
    def _a_grid_has_points(self) -> Self:
        if self.sampler != "grid":
            return self
        for key, each in self.space.items():
            if each.points is None and (each.uniform or each.log_uniform):
                kind = "uniform" if each.uniform else "log_uniform"
                raise conflict(
                    "sampler",
                    f"a grid takes points, and {key} has any number of them",
                    f"write {key}: {{{kind}: {getattr(each, kind)}, points: 5}}, or use another sampler",
                )
        size = math.prod(len(grid_values(each)) for each in self.space.values())
        if size > MOST_POINTS:
            raise conflict(
                "sampler",
                f"this grid has {size:,} points, more than {MOST_POINTS:,}",
                "use sampler: random, or fewer points",
            )
        if self.trials not in (None, size):
            raise conflict("trials", f"this grid has {size:,} points, not {self.trials:,}", "leave trials out")
        return self

    def resolved(self, objective: Monitor | None) -> "Sweep":
        """The same with the objective, and the number of trials."""
        trials = self.trials or DEFAULT_TRIALS
        if self.sampler == "grid":
            trials = math.prod(len(grid_values(each)) for each in self.space.values())
        return self.model_copy(update={"objective": objective, "trials": trials})


class SweepConfig(Config):
    """A config that may have a `sweep` section."""

    sweep: Sweep | None = None
    """Many trainings with other values of some keys, by mlpcli sweep; mlpcli train refuses such a config."""


def grid_values(each: Range) -> list[Any]:
    """The values that a grid takes of a range, ascending, or as they are listed."""
    if each.choice is not None:
        return each.choice
    if each.int is not None:
        low, high = each.int
        if each.points is None:
            return list(range(low, high + 1, each.step or 1))
        spaced = _between(low, high, each.points, each.log)
        step = each.step or 1
        return sorted({low + round((value - low) / step) * step for value in spaced if value <= high})
    pair, points = each.uniform or each.log_uniform, each.points
    assert pair is not None and points is not None, "a grid's section is valid only with points"
    return _between(pair[0], pair[1], points, each.log_uniform is not None)


def _between(low: float, high: float, points: int, log: bool) -> list[float]:
    shares = [index / (points - 1) for index in range(1, points - 1)]
    inner = [low * (high / low) ** share if log else low + (high - low) * share for share in shares]
    return [low, *inner, high]
