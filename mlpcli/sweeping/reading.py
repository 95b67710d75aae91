"""A trial as the storage and its run know it → plain values."""

import os
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from mlpcli.config import Sweep
from mlpcli.runs import is_run, read_metrics
from mlpcli.sweeping.record import State, TrialRecord
from mlpcli.sweeping.study import ERROR, HOST, RUN, stored, wants_another

STATES: dict[TrialState, State] = {
    TrialState.WAITING: "waiting",
    TrialState.RUNNING: "running",
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}


def record_of(sweep: Sweep, index: int, trial: FrozenTrial, directory: Path = Path()) -> TrialRecord:
    """A trial as plain values; its run relative to `directory`, where it is on this machine."""
    run = _run_here(trial, directory)
    state: State = "waiting" if wants_another(trial) else STATES[trial.state]
    return TrialRecord(
        number=index,
        state=state,
        parameters=parameters_of(sweep, trial),
        value=trial.value if state in ("complete", "pruned") else None,
        curve=_curve(sweep, trial, run),
        run=None if run is None else os.path.relpath(run, directory),
        seconds=None if trial.duration is None or state == "waiting" else trial.duration.total_seconds(),
        error=trial.user_attrs.get(ERROR) if state in ("pruned", "failed") else None,
    )


def _run_here(trial: FrozenTrial, directory: Path) -> Path | None:
    """The run of a trial, where it is on this machine; another machine may have another one at its path."""
    about = trial.user_attrs
    if RUN not in about:
        return None
    run = Path(about[RUN])
    ours = about.get(HOST) == socket.gethostname() or run.is_relative_to(directory.absolute())
    return run if ours and is_run(run) else None


def _curve(sweep: Sweep, trial: FrozenTrial, run: Path | None) -> list[tuple[int, float]]:
    """The objective of every epoch; of those in the storage where the run is elsewhere."""
    split, _, metric = str(sweep.objective).partition(".")
    with suppress(OSError):
        lines = [] if run is None else read_metrics(run)
        if lines and all(metric in line.get(split, ()) for line in lines):
            return [(line["epoch"], line[split][metric]) for line in lines]
    return sorted(trial.intermediate_values.items())


def parameters_of(sweep: Sweep, trial: FrozenTrial) -> dict[str, Any]:
    """The values that were drawn for a trial, or are to be, in the order of the space."""
    known = trial.system_attrs.get("fixed_params", {}) | trial.params
    found = {key: known[key] for key in sweep.space if key in known}
    for key, value in found.items():
        found[key] = next((each for each in sweep.space[key].choice or () if stored(each) == value), value)
    return found
