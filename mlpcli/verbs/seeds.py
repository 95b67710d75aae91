"""`mlpcli train --seeds N`: a run for each seed, and what they say together."""

import shutil
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from tqdm import tqdm

from mlpcli.errors import DivergedError, FailedError, Interrupted, RunError, UsageError, UserError
from mlpcli.jobs import Ended, Said, run_jobs
from mlpcli.options import print_json
from mlpcli.runs import CONFIG, SUMMARY, is_run, read_json
from mlpcli.seed_runs import SeedRuns, with_seed
from mlpcli.verbs.train import complete

if TYPE_CHECKING:
    from mlpcli.console import Signals

STOPPED = (130, 143, -15)
"""Exit codes of a process that was told to stop."""


@dataclass(frozen=True)
class Options:
    """What of the command line is for every run, or for what is printed."""

    tensorboard: bool
    as_json: bool
    quiet: bool
    verbose: bool


def start(config: Any, seeds: int, jobs: int, output: Path | None, options: Options) -> None:
    """Train `seeds` seeds, from that of the config on, `jobs` at the same time.

    Raises:
        RunError: something is at `output` already.
        UserError: no training could begin, for a reason that all seeds have; nothing was made.
        DivergedError, FailedError: some seeds did; those of the others are summarised before.
        Interrupted: after all that trained had saved.
    """
    wanted = range(config.seed, config.seed + seeds)
    with_seed(config, wanted[-1])
    with _signals(options) as signals, closing(SeedRuns.create(output, config, wanted)) as runs:
        try:
            _train(runs, wanted, jobs, options, signals)
        finally:
            if runs.none_began():
                shutil.rmtree(runs.path, ignore_errors=True)


def resume(path: Path, changes: Sequence[str], seeds: int | None, jobs: int, options: Options) -> None:
    """Go on with the seeds of `path` that are not finished; with changes, or with some from before, with all.

    Args:
        path: the directory of several seeds.
        changes: KEY=VALUE of what may change on resume.
        seeds: how many there are to be; None for as many as there are.

    Raises:
        RunError: another process trains in it, it cannot be read, or the changes would change what was trained.
        The others as `start`.
    """
    with _signals(options) as signals, closing(SeedRuns.open(path)) as runs:
        from mlpcli.config import config_from_plain, to_plain
        from mlpcli.console import log
        from mlpcli.resuming import check_changes

        config = config_from_plain(to_plain(runs.config), changes)
        check_changes(runs.config, config)
        # without a change a seed that was continued by itself, for longer, is finished and stays as it is
        if (changes or runs.changes) and config.training.epochs < runs.epochs():
            raise RunError(
                f"training.epochs={config.training.epochs} is less than the {runs.epochs()} epochs that a seed of "
                f"{path} has finished"
            )
        first, before = runs.seeds[0], len(runs.seeds)
        if seeds is not None and seeds < before:
            raise UsageError(f"--seeds {seeds} is less than the {before} seeds of {path}")
        wanted = range(first, first + (seeds or before))
        with_seed(config, wanted[-1])
        if runs.restore_config():
            log.warning("%s is not what the seeds are trained with; it is written anew", path / CONFIG)
        if changes or len(wanted) > before:
            runs.change(changes, wanted)
        done = () if runs.changes else ("finished", "diverged")
        _train(runs, [seed for seed in wanted if runs.status(seed) not in done], jobs, options, signals)


def _signals(options: Options) -> "Signals":
    """What notes Ctrl-C from here on: before there is anything that it could leave half-made."""
    from mlpcli import console

    console.clean_up_on_signals()
    console.set_up_logging(options.quiet, options.verbose)
    return console.Signals()


def _train(runs: SeedRuns, seeds: Sequence[int], jobs: int, options: Options, signals: "Signals") -> None:
    """Train those seeds, print what all say, and raise what went wrong."""
    from mlpcli import tables

    ended: list[Ended] = []
    with suppress(KeyboardInterrupt):  # the second Ctrl-C
        _until_the_end(runs, seeds, min(jobs, len(seeds)), options, lambda: signals.received or 0, ended)
    content = runs.write()
    if signals.received:
        finished = sum(run["status"] == "finished" for run in content["runs"])
        outcome = f"of {len(runs.seeds)} seeds {finished} are finished\n{_remedy(runs)}"
        if runs.none_began():
            outcome = "before any training began"
        raise Interrupted(f"interrupted; {outcome}", 128 + signals.received)
    if seeds and runs.none_began():
        error = UserError if ended[0].code == UserError.exit_code else FailedError
        raise error(runs.failures[ended[0].job])
    if options.as_json:
        print_json({"directory": str(runs.path), **content})
    else:
        typer.echo(tables.seeds(str(runs.path), content))
    _raise_what_went_wrong(runs, content["runs"], [each.code for each in ended])


def _until_the_end(
    runs: SeedRuns,
    seeds: Sequence[int],
    jobs: int,
    options: Options,
    signalled: Callable[[], int],
    ended: list[Ended],
) -> None:
    """Train the seeds, and say of each what became of it; `ended` gets their ends."""
    from mlpcli import console, experiment, resuming  # noqa: F401  # a process that is forked has them at once

    if runs.config.report:
        from mlpcli.report import writing  # noqa: F401
    waiting = deque(seeds)
    bar = tqdm(
        total=len(runs.seeds),
        initial=len(runs.seeds) - len(seeds),
        unit="seed",
        dynamic_ncols=True,
        mininterval=0,  # seeds are few, and each is to be seen
        file=sys.stderr,
        leave=False,
        disable=options.quiet or not sys.stderr.isatty(),
    )
    with bar, closing(run_jobs(waiting, jobs, partial(_train_one, runs, jobs, options), signalled)) as events:
        for event in events:
            if isinstance(event, Said):
                console.write_line(f"seed {event.job}: {event.line}")
                continue
            ended.append(event)
            if not signalled() or event.code not in STOPPED:
                _tell(runs, event)
            runs.write()
            bar.update()
            if event.code == UserError.exit_code and runs.none_began():
                waiting.clear()  # what is wrong with the config or the data is wrong for every seed


def _train_one(runs: SeedRuns, jobs: int, options: Options, seed: int) -> None:
    """In a process of its own: train a seed, from its last checkpoint on where it has one."""
    import torch

    from mlpcli import console, experiment, resuming
    from mlpcli.data.workers import cores

    tqdm.set_lock(threading.RLock())  # that of the first process may have been taken while it forked
    torch.set_num_threads(min(torch.get_num_threads(), max(1, cores() // jobs)))
    console.set_up_logging(quiet=not options.verbose, verbose=options.verbose)
    path = runs.run(seed)
    if is_run(path):
        training = resuming.resume(path, runs.changes)
    else:
        training = experiment.start(runs.config_of(seed), path)
    complete(training, options.tensorboard, True, speaks=False)


def _tell(runs: SeedRuns, end: Ended) -> None:
    """Say what became of a seed."""
    from mlpcli.console import format_metrics, log

    if end.code == 0:
        summary = read_json(runs.run(end.job) / SUMMARY)
        best = summary["best"]
        log.info(
            "seed %d: test %s; epoch %d of %d was best; %.1f s of training",
            end.job,
            format_metrics(summary["test"]),
            best["epoch"],
            summary["epochs"],
            summary["train_seconds"],
        )
    elif end.code == DivergedError.exit_code:
        log.warning("seed %d: %s", end.job, end.error)
    else:
        killed = f"signal {-end.code} ended its process" if end.code < 0 else f"its process ended with {end.code}"
        runs.failures[end.job] = end.error or killed
        if not runs.none_began():  # else it is what the command fails with
            log.warning("seed %d failed: %s", end.job, runs.failures[end.job])


def _remedy(runs: SeedRuns) -> str:
    return f"    continue with: mlpcli train --resume {runs.path}"


def _raise_what_went_wrong(runs: SeedRuns, found: Sequence[Mapping[str, Any]], codes: Sequence[int]) -> None:
    diverged, others = (
        ", ".join(str(run["seed"]) for run in found if run["status"] in statuses)
        for statuses in (("diverged",), ("failed", "interrupted", "missing"))
    )
    unfinished = f"not finished: {others}\n{_remedy(runs)}" if others else ""
    if diverged:
        raise DivergedError(f"of {len(found)} seeds, diverged: {diverged}{'; ' if others else ''}{unfinished}")
    if others:
        error = UserError if set(codes) <= {0, UserError.exit_code} else FailedError
        raise error(f"of {len(found)} seeds, {unfinished}")
