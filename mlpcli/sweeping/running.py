"""A sweep on this machine: its directory, its plan, its workers."""

import logging
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer
from tqdm import tqdm

from mlpcli import console, data
from mlpcli.config import SweepPlan, dump_plain
from mlpcli.config.rules import settle
from mlpcli.errors import FailedError, Interrupted
from mlpcli.jobs import Ended, Said, run_jobs
from mlpcli.network import pick_device
from mlpcli.sweeping import directory
from mlpcli.sweeping.directory import Place
from mlpcli.sweeping.results import plain_space
from mlpcli.sweeping.storing import opened
from mlpcli.sweeping.study import LIVES_AT_FIRST, join
from mlpcli.sweeping.worker import Work

log = logging.getLogger("mlpcli")


def run(
    plan: SweepPlan, place: Place, path: Path | None, output: Path | None, jobs: int | None, quiet: bool
) -> tuple[Path, Interrupted | FailedError | None]:
    """Make the sweep's directory, or continue in `path`, and work until no trial is left.

    Call it before anything is computed: the workers are forked.

    Returns:
        The directory; and what ended the work too soon, if anything did.

    Raises:
        RunError: the study is of another sweep, or the directory is taken.
        typer.Exit: the data cannot be read; a process of its own has said why.
    """
    sweep = plan.sweep
    assert sweep is not None and sweep.trials is not None
    jobs = jobs or sweep.jobs
    with console.Signals() as signals:

        def received() -> int:
            return signals.received or 0

        _check_data(plan, received)
        if place.url is not None:
            with opened(place, Path()) as storage:
                join(storage, place, plan)  # before a directory is made for what is another sweep
        if path is None:
            path = directory.create(output, str(plan.config.name), _text(plan), place)
        else:
            directory.write(path, directory.SWEEP, _text(plan))
        with opened(place, path) as storage:
            trials = join(storage, place, plan)
            trials.plan_missing()
            ended = sum(trial.state.is_finished() for trial in trials.all().values())
        log.info("%s: %s trials, %d at a time", path, f"{sweep.trials:,}", jobs)
        until = time.monotonic() + (sweep.timeout or float("inf"))
        try:
            failure = _worked(Work(plan, place, path.absolute(), jobs, until), ended, received, quiet)
        except KeyboardInterrupt:
            again = f"continue with: mlpcli sweep --resume {path}"
            raise Interrupted(f"interrupted; every trial has its last checkpoint\n    {again}", 130) from None
        if signals.received is None:
            return path, failure
        outcome = f"interrupted; every trial was saved\n    continue with: mlpcli sweep --resume {path}"
        return path, Interrupted(outcome, 128 + signals.received)


def _worked(work: Work, ended: int, received: Callable[[], int], quiet: bool) -> FailedError | None:
    """Let the workers work, and say what they say; why one of them gave up."""
    trials = work.plan.sweep.trials if work.plan.sweep is not None else None
    assert trials is not None
    waiting, spare, failure = deque(range(min(work.jobs, trials))), trials * LIVES_AT_FIRST, None
    hidden = quiet or not sys.stderr.isatty()
    with tqdm(
        total=trials,
        initial=ended,
        unit=" trials",
        dynamic_ncols=True,
        file=sys.stderr,
        leave=False,
        disable=hidden,
    ) as bar:
        for event in run_jobs(waiting, work.jobs, work, received):
            if isinstance(event, Said):
                tqdm.write(event.line, file=sys.stderr)
                bar.update(event.line.startswith("trial "))
            elif event.code < 0 and spare and not received():
                spare -= 1
                log.warning("a worker was killed by signal %d; another takes its place", -event.code)
                waiting.append(event.job)
            elif event.code:
                failure = FailedError(event.error or f"a worker ended with exit code {event.code}")
    return failure


def _text(plan: SweepPlan) -> str:
    """sweep.yaml: what was asked for, overrides included."""
    assert plan.sweep is not None
    section: dict[str, Any] = plan.sweep.model_dump(exclude_none=True)
    if plan.sweep.sampler == "grid":
        del section["trials"]
    return dump_plain({**plan.stated, "sweep": section | {"space": plain_space(plan.sweep)}})


def _check_data(plan: SweepPlan, received: Callable[[], int]) -> None:
    """Read the data once: what is wrong with it is wrong with every trial."""
    if any(key.partition(".")[0] in ("data", "seed") for key in (plan.sweep.space if plan.sweep else ())):
        return

    def check(_: int) -> None:
        pick_device(plan.config.training.device)
        settle(plan.config, data.load(plan.config.data, plan.config.seed).facts)

    for event in run_jobs(deque([0]), 1, check, received):
        if isinstance(event, Said):
            tqdm.write(event.line, file=sys.stderr)
        elif isinstance(event, Ended) and event.code:
            if received():
                raise Interrupted("interrupted before the sweep began", 128 + received())
            if event.error:
                typer.echo(f"error: {event.error}", err=True)
            raise typer.Exit(event.code if event.code > 0 else 1)
