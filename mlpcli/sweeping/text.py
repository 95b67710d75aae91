"""A sweep as text for a person, and as plain values."""

import csv
import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from mlpcli.config import Sweep
from mlpcli.sweeping.record import SweepResult, TrialRecord
from mlpcli.tables import columns

TOP = 10
"""Trials in the table that is printed; trials.csv has all."""


def plain(value: Any) -> str:
    """A value in few letters."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def assigned(parameters: Mapping[str, Any]) -> str:
    """`optimizer.lr=0.1 model.width=64`."""
    return " ".join(f"{key}={plain(value)}" for key, value in parameters.items())


def finished(trial: TrialRecord, sweep: Sweep) -> str:
    """The line of a trial that has ended."""
    value = "" if trial.value is None else f"  {sweep.objective} {trial.value:.6g}"
    epochs = f" after epoch {trial.curve[-1][0]}" if trial.state == "pruned" and trial.curve else ""
    why = "" if trial.error is None else f": {trial.error.splitlines()[0]}"
    return (
        f"trial {trial.number} of {sweep.trials} {trial.state}{epochs}{value}  {assigned(trial.parameters)}{why}"
    )


def counts(result: SweepResult) -> dict[str, int]:
    """How many trials are in each state that any is in."""
    found = Counter(trial.state for trial in result.trials)
    return {
        state: found[state] for state in ("complete", "pruned", "failed", "running", "waiting") if found[state]
    }


def ranked(result: SweepResult) -> list[TrialRecord]:
    """The complete trials, the best first; of equal ones the first."""
    complete = [trial for trial in result.trials if trial.state == "complete" and trial.value is not None]
    sign = 1 if result.less_is_better else -1
    return sorted(complete, key=lambda trial: (sign * (trial.value or 0.0), trial.number))


def _table(trials: Sequence[TrialRecord], result: SweepResult) -> str:
    rows = [
        (
            trial.number,
            "-" if trial.value is None else f"{trial.value:.6g}",
            *(plain(trial.parameters[key]) if key in trial.parameters else "-" for key in result.space),
            trial.run or "-",
        )
        for trial in trials
    ]
    return columns(rows, ("trial", result.objective, *result.space, "run"))


def _opening(path: str, result: SweepResult) -> list[str]:
    """Which sweep it is, how many trials it has, and the best of them."""
    parts = [path, _counted(result)]
    if best := ranked(result)[:1]:
        number, value, parameters = best[0].number, best[0].value, assigned(best[0].parameters)
        parts.append(f"best: trial {number}, {result.objective} {value:.6g}  {parameters}")
    return parts


def summary(path: str, result: SweepResult) -> str:
    """What a sweep prints at its end."""
    parts = _opening(path, result)
    if best := ranked(result):
        parts.append("\n" + _table(best[:TOP], result))
    return "\n".join(parts)


def _counted(result: SweepResult) -> str:
    states = ", ".join(f"{count} {state}" for state, count in counts(result).items())
    return f"{len(result.trials)} trials: {states}"


def status(path: str, result: SweepResult) -> str:
    """What --status prints."""
    parts = _opening(path, result)
    running = [trial for trial in result.trials if trial.state == "running"]
    rows = [
        (
            trial.number,
            trial.curve[-1][0] if trial.curve else 0,
            f"{trial.curve[-1][1]:.6g}" if trial.curve else "-",
            *(plain(trial.parameters[key]) if key in trial.parameters else "-" for key in result.space),
        )
        for trial in running
    ]
    if rows:
        parts.append("\nrunning\n" + columns(rows, ("trial", "epoch", result.objective, *result.space)))
    failed = [f"trial {trial.number} failed: {trial.error}" for trial in result.trials if trial.state == "failed"]
    return "\n".join([*parts, *failed])


def as_plain(path: str, result: SweepResult) -> dict[str, Any]:
    """What --json prints."""
    best = ranked(result)
    return {
        "sweep": path,
        "objective": result.objective,
        "counts": counts(result),
        "best": asdict(best[0]) if best else None,
        "trials": [asdict(trial) for trial in result.trials],
        "importances": result.importances,
    }


def as_csv(result: SweepResult) -> str:
    """trials.csv: a row a trial."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["trial", "state", result.objective, *result.space, "epochs", "seconds", "run", "error"])
    for trial in result.trials:
        values = [trial.parameters.get(key) for key in result.space]
        shown = [value if isinstance(value, int | float | str | None) else json.dumps(value) for value in values]
        epochs = trial.curve[-1][0] if trial.curve else 0
        writer.writerow(
            [trial.number, trial.state, trial.value, *shown, epochs, trial.seconds, trial.run, trial.error]
        )
    return file.getvalue()
