"""The trials of a sweep: planned, taken by one worker each, given back where a worker was lost.

A trial is known by its index in the plan and its attempt. Whoever finds one missing may plan it: of several with
the same index and attempt the first counts, and nobody takes the others. So two that plan at once do no harm.
"""

import fcntl
import itertools
import json
import math
import os
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from mlpcli.config import Range, Sweep, SweepPlan, changed_plain, grid_values
from mlpcli.errors import RunError
from mlpcli.progress import less_is_better
from mlpcli.runs import is_run
from mlpcli.seeds import stream_seed
from mlpcli.sweeping.directory import Place

INDEX, ATTEMPT, LIVES, AGAIN = "index", "attempt", "lives", "again"
HOST, PROCESSES, PROCESS, ALIVE = "host", "processes", "pid", "alive"
RUN, CONTINUES, ERROR = "run", "continues", "error"
"""User attributes of a trial."""
PLAN = "plan"
"""User attribute of the study: what every worker must agree on."""

REPORT_SECONDS = 1.0
"""Between two values of a trial's objective in the storage, where no pruner needs every one."""
STALE_SECONDS = 60.0
"""A trial whose worker has not been heard of for so long is given to another."""
LIVES_AT_FIRST = 3
"""Of a trial; the loss of its worker takes one."""

HERE = (
    "data.root",
    "data.path",
    "data.download",
    "data.in_memory",
    "training.device",
    "training.threads",
    "report",
)
"""Keys that may differ between the machines that join a sweep."""


def less_is_better_for(objective: str) -> bool:
    """Whether a smaller value of `validation.accuracy`, … is better."""
    return less_is_better(objective.partition(".")[2])


def sampler_for(sweep: Sweep, seed: int, index: int) -> BaseSampler:
    """What draws a trial: seeded by its index, so that it does not matter which worker takes it."""
    own = stream_seed(stream_seed(seed, "sweep"), str(index)) % 2**32
    return TPESampler(seed=own) if sweep.sampler == "tpe" else RandomSampler(seed=own)


def pruner_for(sweep: Sweep, epochs: int) -> BasePruner:
    """What ends a trial early."""
    if sweep.pruner == "median":
        return MedianPruner()
    return HyperbandPruner(max_resource=epochs) if sweep.pruner == "hyperband" else NopPruner()


def draw(trial: optuna.Trial, key: str, each: Range) -> Any:
    """The value of a key for a trial. Lists and mappings are stored as JSON."""
    if each.choice is not None:
        by_stored = {stored(value): value for value in each.choice}
        return by_stored[trial.suggest_categorical(key, list(by_stored))]
    if each.int is not None:
        return trial.suggest_int(key, each.int[0], each.int[1], step=each.step or 1, log=each.log)
    low, high = each.uniform or each.log_uniform or (0.0, 1.0)
    return trial.suggest_float(key, low, high, log=each.log_uniform is not None)


def stored(value: Any) -> Any:
    """A value as the storage can hold it: JSON text for lists and mappings."""
    return json.dumps(value) if isinstance(value, list | dict) else value


@dataclass
class Taken:
    """A trial that this worker has.

    Attributes:
        index: in the plan, from 0.
        attempt: from 1.
        trial: as optuna knows it.
    """

    index: int
    attempt: int
    trial: optuna.Trial
    _written: float = -math.inf
    _held: tuple[int, float] | None = None

    def frozen(self) -> FrozenTrial:
        """What is known of it now."""
        return self.trial.storage.get_trial(self.trial._trial_id)

    def continues(self) -> Path | None:
        """The run of the attempt before, if that is on this machine."""
        where, run = self.trial.user_attrs.get(CONTINUES, (None, None))
        return Path(run) if run is not None and where == processes() and is_run(Path(run)) else None

    def sign(self, **attributes: Any) -> None:
        """Write down that the worker lives, and `attributes`. Raises LostError."""
        with _mine():
            for key, value in {**attributes, ALIVE: time.time()}.items():
                self.trial.set_user_attr(key, value)

    def report(self, epoch: int, value: float) -> bool:
        """Take the objective after an epoch; whether the pruner ends the trial. Raises LostError.

        Where nothing depends on it, it is written down now and then: a run has all epochs in metrics.jsonl.
        """
        self._held = epoch, value
        if isinstance(self.trial.study.pruner, NopPruner) and time.monotonic() - self._written < REPORT_SECONDS:
            return False
        self._write_held()
        with _mine():
            return self.trial.should_prune()

    def _write_held(self) -> None:
        if self._held is not None:
            epoch, value = self._held
            self._held, self._written = None, time.monotonic()
            with _mine():
                self.trial.report(value, epoch)

    def end(self, state: TrialState, value: float | None, error: str | None) -> None:
        """Write down how it ended. Raises LostError."""
        self._write_held()
        with _mine():
            if error is not None:
                self.trial.set_user_attr(ERROR, error)
            values = None if value is None else [value]
            if values is None and state is TrialState.PRUNED:
                values = [value for _, value in sorted(self.frozen().intermediate_values.items())][-1:] or None
            self.trial.storage.set_trial_state_values(self.trial._trial_id, state, values)


class LostError(Exception):
    """Another worker has the trial, because this one was not heard of for too long."""


@contextmanager
def _mine() -> Iterator[None]:
    try:
        yield
    except UpdateFinishedTrialError:
        raise LostError from None


@dataclass
class Trials:
    """The trials of one sweep in its storage; `join` makes one."""

    storage: BaseStorage
    place: Place
    plan: SweepPlan
    study: optuna.Study
    heard: dict[int, tuple[Any, float]] = field(default_factory=dict)
    """For each trial that runs the last sign of life, and when this process saw it first: clocks differ."""

    @property
    def sweep(self) -> Sweep:
        """What is varied."""
        assert self.plan.sweep is not None
        return self.plan.sweep

    def all(self) -> dict[int, FrozenTrial]:
        """The last attempt of each trial that is planned, by index."""
        first: dict[tuple[int, int], FrozenTrial] = {}
        for trial in self.study.get_trials(deepcopy=False):
            if INDEX in trial.user_attrs:
                first.setdefault((trial.user_attrs[INDEX], trial.user_attrs[ATTEMPT]), trial)
        return {index: first[index, attempt] for index, attempt in sorted(first)}

    def plan_missing(self) -> None:
        """Plan every trial that is not yet."""
        known = self.all()
        points: Iterable[dict[str, Any]] = ({} for _ in range(self.sweep.trials or 0))
        if self.sweep.sampler == "grid":
            values = [[stored(value) for value in grid_values(each)] for each in self.sweep.space.values()]
            points = (dict(zip(self.sweep.space, point, strict=True)) for point in itertools.product(*values))
        for index, point in enumerate(points):
            if index not in known:
                self.study.enqueue_trial(point, user_attrs={INDEX: index, ATTEMPT: 1, LIVES: LIVES_AT_FIRST})

    def take(self) -> Taken | None:
        """A trial that nobody else has or gets; None where none waits."""
        for index, trial in self.all().items():
            if trial.state is not TrialState.WAITING:
                continue
            with self._one_at_a_time():
                try:
                    mine = self.storage.set_trial_state_values(trial._trial_id, TrialState.RUNNING)
                except UpdateFinishedTrialError:
                    continue
            if mine:
                attempt = trial.user_attrs[ATTEMPT]
                # a study of its own, because one that is kept shows its samplers the same trials again
                fresh = optuna.load_study(
                    study_name=self.place.study,
                    storage=self.storage,
                    sampler=sampler_for(self.sweep, self.plan.config.seed, index),
                    pruner=self.study.pruner,
                )
                taken = Taken(index, attempt, optuna.Trial(fresh, trial._trial_id))
                taken.sign(**{HOST: socket.gethostname(), PROCESSES: processes(), PROCESS: os.getpid()})
                return taken
        return None

    def _one_at_a_time(self) -> AbstractContextManager[None]:
        """SQLite lets two take one trial: it does not lock rows that are read, as the other databases do."""
        url = self.place.url or ""
        file = url.partition(":///")[2].partition("?")[0]
        return _locked(Path(f"{file}.lock")) if url.startswith("sqlite") and file else nullcontext()

    def draw(self, taken: Taken) -> dict[str, Any]:
        """The values of a trial; a grid's point, or those of the attempt before, where there are such. Raises
        LostError."""
        with _mine():
            return {key: draw(taken.trial, key, each) for key, each in self.sweep.space.items()}

    def running(self) -> bool:
        """Whether any worker, here or elsewhere, has a trial."""
        return any(trial.state is TrialState.RUNNING for trial in self.all().values())

    def give_back(self, trial: FrozenTrial, why: str, lives: int) -> None:
        """End a trial that runs; it is tried again unless that takes its last life. Another may be quicker."""
        with suppress(UpdateFinishedTrialError):
            self.storage.set_trial_user_attr(trial._trial_id, ERROR, why)
            left = trial.user_attrs[LIVES] - lives
            self.storage.set_trial_user_attr(trial._trial_id, LIVES, left)
            self.storage.set_trial_user_attr(trial._trial_id, AGAIN, left > 0)
            self.storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)

    def retry(self) -> None:
        """Give back the trials whose workers are lost, and plan anew all that were given back."""
        for trial in self.all().values():
            if trial.state is TrialState.RUNNING and self._is_lost(trial):
                self.give_back(trial, f"its worker was lost {LIVES_AT_FIRST} times", lives=1)
        for index, trial in self.all().items():
            if wants_another(trial):
                about = trial.user_attrs
                point = trial.system_attrs.get("fixed_params", {}) | trial.params
                next_one = {INDEX: index, ATTEMPT: about[ATTEMPT] + 1, LIVES: about[LIVES]}
                if RUN in about:
                    next_one[CONTINUES] = [about[PROCESSES], about[RUN]]
                self.study.enqueue_trial(point, user_attrs=next_one)

    def _is_lost(self, trial: FrozenTrial) -> bool:
        about = trial.user_attrs
        if about.get(PROCESSES) == processes() and not _is_alive(about.get(PROCESS, os.getpid())):
            return True
        sign = (about.get(ALIVE), len(trial.intermediate_values))
        before, since = self.heard.setdefault(trial._trial_id, (sign, time.monotonic()))
        if before != sign:
            self.heard[trial._trial_id] = sign, time.monotonic()
        return before == sign and time.monotonic() - since > STALE_SECONDS


def wants_another(trial: FrozenTrial) -> bool:
    """Whether it failed for its worker's sake, and is to be tried again."""
    return trial.state is TrialState.FAIL and bool(trial.user_attrs.get(AGAIN))


def join(storage: BaseStorage, place: Place, plan: SweepPlan) -> Trials:
    """The trials of a sweep, which is made where it is not there yet.

    Raises:
        RunError: the study of that name is of another sweep.
    """
    sweep = plan.sweep
    assert sweep is not None and sweep.objective is not None
    study = optuna.create_study(
        storage=storage,
        study_name=place.study,
        sampler=RandomSampler(seed=0),
        pruner=pruner_for(sweep, plan.config.training.epochs),
        direction="minimize" if less_is_better_for(sweep.objective) else "maximize",
        load_if_exists=True,
    )
    ours = agreed(plan)
    before = study.user_attrs.get(PLAN)
    if before is None:
        study.set_user_attr(PLAN, ours)
    else:
        changed = [key for key in changed_plain(before, ours) if not key.startswith(HERE)]
        if changed:
            raise RunError(
                f"the study {place.study} is of another sweep: {', '.join(changed)} "
                f"{'differs' if len(changed) == 1 else 'differ'}\n    give this one a name of its own: name=NAME"
            )
    return Trials(storage, place, plan, study)


def known(storage: BaseStorage, place: Place, plan: SweepPlan) -> Trials:
    """The trials of a sweep that is there. Raises RunError."""
    try:
        study = optuna.load_study(storage=storage, study_name=place.study)
    except KeyError:
        raise RunError(f"there is no sweep {place.study} in this storage: none of its workers has begun") from None
    return Trials(storage, place, plan, study)


def agreed(plan: SweepPlan) -> dict[str, Any]:
    """What all workers of a sweep must have in common."""
    assert plan.sweep is not None
    section = plan.sweep.model_dump(
        include={"space", "sampler", "objective"}, exclude_none=True, exclude_defaults=True
    )
    return {**plan.stated, "sweep": section}


def processes() -> str:
    """Where process numbers mean the same: this boot of this machine or container."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip() + os.readlink("/proc/self/ns/pid")
    return socket.gethostname()


def _is_alive(number: int) -> bool:
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
