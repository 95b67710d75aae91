"""Continue a run exactly where its last checkpoint stands, or say what is missing."""

import glob
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mlpcli import checkpoints
from mlpcli.config import Config, changed_keys, config_from_plain, dump_config, load_config
from mlpcli.environment import environment
from mlpcli.errors import CheckpointError, DataError, RunError, UnsafeCheckpointError
from mlpcli.experiment import Experiment, closed_on_error, prepare
from mlpcli.launch import launch
from mlpcli.network import extraction_in
from mlpcli.progress import Progress
from mlpcli.ranks import Ranks
from mlpcli.runs import BEST, CONFIG, ENVIRONMENT, LAST, SUMMARY, Onlooker, Run, is_run, read_json, read_metrics
from mlpcli.threads import flush_denormals
from mlpcli.training import Trainer

log = logging.getLogger("mlpcli")

MAY_CHANGE = (
    "training.epochs",
    "training.device",
    "training.engine",
    "training.threads",
    "training.parallel",
    "training.timeout",
    "training.checkpoint_seconds",
    "training.keep_checkpoints",
    "training.diagnostics",
    "data.root",
    "data.download",
    "data.path",
    "data.in_memory",
    "data.delimiter",
    "data.on_bad_file",
    "report",
)
"""Keys that `--resume` may set: they leave what was trained so far as it is. Early stopping may change too."""


SPANNING = ("cosine", "linear", "one_cycle")
"""Schedules that depend on how long the training is."""


def resume(path: Path, overrides: Sequence[str], ranks: Ranks | None = None) -> Experiment:
    """Open a run where its last readable checkpoint stands.

    Args:
        path: of the run.
        overrides: KEY=VALUE of what may change.
        ranks: the processes that train together, all of which call this; the first reads the run.

    Raises:
        RunError: no such run, another process trains in it, or the overrides change what was trained.
        CheckpointError: no checkpoint of it can be read.
        DataError: the data is not what the run was trained on.
    """
    flush_denormals()
    ranks = ranks or Ranks()
    run: Run = Run.open(path) if ranks.first else Onlooker(path)
    with closed_on_error(run):
        return _resumed(run, overrides, ranks)


@dataclass(frozen=True)
class Found:
    """What a run stands at.

    Attributes:
        state, source: its last readable checkpoint, and the file; None where it was ended before its first.
        before, config: what it was trained with, and what it is to be trained with now.
    """

    state: dict[str, Any] | None
    source: Path
    before: Config
    config: Config


def _find(run: Run, overrides: Sequence[str]) -> Found:
    path = run.path
    state, source = _last_readable(run)
    if state is None:
        config = load_config(path / CONFIG, overrides)
        return Found(None, source, config, config)
    # the checkpoint's own, which is whole where it is; config.yaml may have been damaged or edited
    before, config = (config_from_plain(state["config"], more) for more in ((), overrides))
    if (path / CONFIG).read_bytes() != dump_config(before).encode():
        log.warning("%s is not what the run was trained with; it is written anew from %s", path / CONFIG, source)
    check_changes(before, config)
    with checkpoints.content_of(source):
        begun = state["position"]["epoch"] + (state["position"]["step_in_epoch"] > 0)
    if config.training.epochs < begun:
        raise RunError(
            f"training.epochs={config.training.epochs} is less than the {begun} epochs that {path} has begun"
        )
    return Found(state, source, before, config)


def _resumed(run: Run, overrides: Sequence[str], ranks: Ranks) -> Experiment:
    path = run.path
    found = ranks.share(lambda: _find(run, overrides))
    state, source, before = found.state, found.source, found.before
    ranks.settle(found.config.training.timeout)
    started = time.monotonic()
    extraction = None
    if state is not None:
        with checkpoints.content_of(source):
            extraction = extraction_in(state, found.config)
    config, dataset, network, trainer = prepare(found.config, ranks, extraction)
    experiment = Experiment(config, dataset, network, trainer, run, started)
    if state is None:
        log.warning("%s has no checkpoint yet: starting from the beginning", path)
        run.keep_metrics(0)
    else:
        with checkpoints.content_of(source):
            fingerprint = state["data"]["description"]["fingerprint"]
        if fingerprint != dataset.description.fingerprint:
            raise DataError(
                f"the data is not what {path} was trained on: fingerprint {dataset.description.fingerprint}, "
                f"expected {fingerprint}\n    restore the files, or start a new run"
            )
        with checkpoints.content_of(source):
            _load(trainer, state, before, config)
        if ranks.first:
            _check_metrics(run, trainer)
        if before.training.epochs != config.training.epochs and config.scheduler.name in SPANNING:
            log.warning(
                "%s spans the whole training: so far it spanned %d epochs, from here on it spans %d",
                config.scheduler.name,
                before.training.epochs,
                config.training.epochs,
            )
        _settle_best(experiment, ranks.share(lambda: _state_of_best(experiment)))
    experiment.save()  # last.pt may be absent or damaged, and the config may have changed
    if ranks.first:
        if not trainer.finished:
            (path / SUMMARY).unlink(missing_ok=True)
        surroundings = read_json(path / ENVIRONMENT)
        surroundings.setdefault("resumed", []).append(
            environment(network.device, config.seed, network.description.fingerprint) | ranks.described()
        )
        run.write(ENVIRONMENT, surroundings)
        run.write(CONFIG, dump_config(config))
    return experiment


def _check_metrics(run: Run, trainer: Trainer) -> None:
    lines = run.keep_metrics(trainer.epoch)
    missing = sorted(set(range(1, trainer.epoch + 1)) - {line["epoch"] for line in lines})
    if missing:
        log.warning("metrics.jsonl lacks epochs %s; the training itself is complete", missing)


def _load(trainer: Trainer, state: dict[str, Any], before: Config, config: Config) -> None:
    """Load the state, except for what a change of early stopping leaves without meaning."""
    old, new = before.training.early_stopping, config.training.early_stopping
    if old is not None and new is not None and (old.monitor, old.mode) != (new.monitor, new.mode):
        state["early_stopping"] = None
    trainer.load_state_dict(state)
    if trainer.early_stopping is None:
        trainer.stopped_early = False
    else:
        _, progress, patience = trainer.early_stopping
        trainer.stopped_early = progress.stale >= patience


Best = Literal["fine", "write again", "choose anew"]


def _state_of_best(experiment: Experiment) -> Best:
    """Whether best.pt is of the epoch that the training takes for the best so far, and what to do where it is not.

    It is not where it was damaged, or where the run was killed after writing it and before last.pt. Then the best
    is chosen anew, from the epochs to come: for a killed run the first of them is the same epoch again.

    Raises:
        CheckpointError: it is not, and there are no epochs to come.
    """
    trainer, path = experiment.trainer, experiment.run.best
    if trainer.best.epoch == 0:
        return "fine"
    try:
        state = checkpoints.load(path)
        with checkpoints.content_of(path):
            changed = changed_keys(config_from_plain(state["config"]), experiment.config)
            epoch = -1 if any(not _may_change(key) for key in changed) else int(state["position"]["epoch"])
        problem = f"{path} is not of epoch {trainer.best.epoch}, the best so far"
    except CheckpointError as error:
        epoch, problem = -1, str(error)
    if epoch == trainer.best.epoch:
        return "fine"
    if trainer.epoch == trainer.best.epoch and trainer.step_in_epoch == 0:
        log.warning("%s\n    written again from %s", problem, experiment.run.last)
        return "write again"
    if trainer.finished:
        raise CheckpointError(
            f"{problem}\n    the weights of the best epoch are lost; those of the last one can be measured: "
            f"mlpcli eval {experiment.run.path} --checkpoint last"
        )
    if epoch != trainer.epoch + 1:
        log.warning("%s\n    the best epoch will be chosen from those to come", problem)
    return "choose anew"


def _settle_best(experiment: Experiment, best: Best) -> None:
    if best == "write again":
        experiment.save(is_best=True)
    elif best == "choose anew":
        experiment.trainer.best = Progress(experiment.trainer.best.less)


def begun_by_this_launch(output: Path | None, config: Config) -> Path | None:
    """The run that this start of torchrun has begun before it started its processes anew; None without one.

    Args:
        output: the run directory that is asked for; None for runs/<name>, runs/<name>-2, …
        config: as it is asked for.
    """
    mine = launch(dump_config(config))
    name = config.name or ""
    candidates = [output] if output is not None else sorted(Path("runs").glob(f"{glob.escape(name)}*"))
    for path in candidates:
        theirs = read_json(path / ENVIRONMENT).get("torchrun")
        if not isinstance(theirs, dict) or not is_run(path):
            continue
        if theirs.get("agent") == mine["agent"]:
            return path
        # started by another agent of the same job, where a machine was replaced; or by another job of that name
        same_job = mine["id"] not in ("", "none") and all(theirs.get(key) == mine[key] for key in ("id", "config"))
        if same_job and not (path / SUMMARY).exists():
            return path
    return None


def check_changes(before: Config, config: Config) -> None:
    """Raises RunError where a run of the one config cannot go on with the other."""
    refused = [key for key in changed_keys(before, config) if not _may_change(key)]
    if refused:
        raise RunError(
            f"{', '.join(refused)} cannot change on resume: what was trained so far depends on it\n"
            f"    these may change: {', '.join(MAY_CHANGE)}, training.early_stopping\n"
            "    for anything else start a new run"
        )


def _may_change(key: str) -> bool:
    return key in MAY_CHANGE or key.startswith(("training.early_stopping", "data.path."))


def _last_readable(run: Run) -> tuple[dict[str, Any] | None, Path]:
    """The newest checkpoint that can be read, and its path; None where the run was ended before its first."""
    if not run.last.exists() and not run.best.exists():
        if read_metrics(run.path):
            raise CheckpointError(f"{run.path} has metrics, but both {LAST} and {BEST} are missing")
        return None, run.last
    try:
        return checkpoints.load(run.last), run.last
    except UnsafeCheckpointError:
        raise
    except CheckpointError as error:
        if not run.best.exists():
            raise
        log.warning("%s\n    continuing from %s instead", error, run.best)
        return checkpoints.load(run.best), run.best
