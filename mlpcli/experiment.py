"""Config -> data, model, training -> run directory: the only wiring."""

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch

from mlpcli import __version__, checkpoints, data, sharding
from mlpcli.autograd import Autograd
from mlpcli.batch_norm import computes_together, share_batch_norm
from mlpcli.config import Config, dump_config, to_plain
from mlpcli.config.rules import engine, settle
from mlpcli.config.schema import FULL_BATCH
from mlpcli.config.schema import Plateau as PlateauSection
from mlpcli.cuda_graph import Captured
from mlpcli.data import Dataset, Extraction, Split
from mlpcli.data.workers import cores
from mlpcli.diagnostics import Probe, probe_rows, probed_epochs
from mlpcli.environment import environment
from mlpcli.errors import ConfigError, DataError, DivergedError, Problem
from mlpcli.explicit import Explicit
from mlpcli.network import Network, augmentation, network_for
from mlpcli.optim import lr_factor, make_optimizer
from mlpcli.parts import part_of
from mlpcli.predictor import Predictor
from mlpcli.progress import Plateau, Progress, less_is_better
from mlpcli.ranks import Ranks
from mlpcli.runs import SUMMARY, Onlooker, Run, kept_epochs, read_diagnostics, read_json, storage
from mlpcli.scores import scores
from mlpcli.seeds import stream_seed
from mlpcli.targets import open_trained
from mlpcli.threads import fastest_threads, flush_denormals
from mlpcli.training import Engine, NonFinite, Record, Trainer

log = logging.getLogger("mlpcli")


def build_trainer(config: Config, dataset: Dataset, network: Network, ranks: Ranks | None = None) -> Trainer:
    """The training of `network` as the config describes it, by `ranks` together; seeds torch's generators with the
    `dropout` stream."""
    ranks = ranks or Ranks()
    training, optimizer = config.training, config.optimizer
    full_batch = optimizer.name in FULL_BATCH
    samples = len(dataset.train)
    batch_size = min(training.batch_size or samples, samples)
    if config.model.normalization == "batch" and (batch_size == 1 or samples % batch_size == 1):
        fitting = [size for size in range(batch_size + 1, samples + 1) if samples % size != 1]
        remedy = f"use training.batch_size={fitting[0]}, or " if fitting else ""
        raise DataError(
            f"batch normalization needs 2 samples in every batch, but {samples} training samples in batches of "
            f"{batch_size} leave a last batch of 1\n    {remedy}model.normalization=layer"
        )
    batches = network.batches(
        dataset.train,
        batch_size,
        None if full_batch else stream_seed(config.seed, "shuffle"),
        augmentation(config, network.description),
        ranks,
    )
    assert training.monitor is not None, "a resolved config has a monitor"
    schedule = config.scheduler.model_dump()
    plateau = None
    if isinstance(config.scheduler, PlateauSection):
        section = config.scheduler
        plateau = Plateau(
            Progress(_is_less_better(training.monitor), section.min_delta),
            section.factor,
            section.patience,
            min(1.0, section.min_lr / optimizer.lr),
        )
    if ranks.several:
        share_batch_norm(network.model, ranks)
    if training.parallel == "fsdp" and ranks.several:
        sharding.shard(network.model, ranks.group, network.device)
    torch.manual_seed(stream_seed(config.seed, "dropout"))
    moves = make_optimizer(network.model.parameters(), **optimizer.model_dump())
    return Trainer(
        model=network.model,
        loss=network.loss,
        optimizer=moves,
        engine=_engine(config, network, moves, batch_size, ranks),
        batches=batches,
        metrics=network.metrics(dataset.train, top5=False),
        lr=optimizer.lr,
        lr_factor=partial(
            lr_factor,
            schedule.pop("name"),
            steps_per_epoch=1 if full_batch else batches.steps,
            epochs=training.epochs,
            **schedule,
        ),
        epochs=training.epochs,
        full_batch=full_batch,
        monitor=training.monitor,
        best=Progress(_is_less_better(training.monitor)),
        validate=None if dataset.validation is None else _validator(network, dataset.validation, ranks),
        plateau=plateau,
        early_stopping=_early_stopping(config),
        ranks=ranks,
    )


def _engine(
    config: Config, network: Network, optimizer: torch.optim.Optimizer, batch_size: int, ranks: Ranks
) -> Engine:
    training = config.training
    if engine(config) == "explicit":
        explicit = Explicit(
            network.model,
            network.loss,
            optimizer,
            part_of(batch_size, ranks.rank, ranks.size).count,
            clip_grad_norm=training.clip_grad_norm,
            bfloat16=training.precision == "bfloat16",
            ranks=ranks,
        )
        captures = network.device.type == "cuda" and not ranks.several
        return Captured(explicit, batch_size) if captures else explicit
    return Autograd(
        network.model,
        network.loss,
        optimizer,
        clip_grad_norm=training.clip_grad_norm,
        bfloat16=training.precision == "bfloat16",
        compiled=training.compile,
        ranks=ranks,
    )


def build_probe(config: Config, dataset: Dataset, network: Network) -> Probe:
    """What looks into the network while it trains, on samples of the `diagnostics` stream as they are stored."""
    rows = probe_rows(len(dataset.train), stream_seed(config.seed, "diagnostics"))
    part = dataset.train.take(torch.tensor(rows))
    # a split of its own: of one that is streamed, these few rows need no workers
    batches = network.batches(Split(part.inputs, part.targets), len(rows))
    return Probe(network.model, network.loss, *next(batches.epoch(0)))


def _validator(network: Network, split: Split, ranks: Ranks) -> Callable[[], dict[str, float]]:
    measure = network.measurer(split, ranks=ranks)
    return lambda: measure().metrics


def _is_less_better(monitor: str) -> bool:
    return less_is_better(monitor.partition(".")[2])


def _early_stopping(config: Config) -> tuple[str, Progress, int] | None:
    section = config.training.early_stopping
    if section is None:
        return None
    assert section.monitor is not None, "a resolved config has a monitor"
    less = _is_less_better(section.monitor) if section.mode == "auto" else section.mode == "min"
    return section.monitor, Progress(less, section.min_delta), section.patience


@dataclass
class Experiment:
    """A training with its run directory.

    Attributes:
        started: time.monotonic() of when this process began to load the data, for the wall time.
        stopped_by: the signal that ended `fit`; 0 for none.
    """

    config: Config
    dataset: Dataset
    network: Network
    trainer: Trainer
    run: Run
    started: float
    stopped_by: int = 0

    @property
    def ranks(self) -> Ranks:
        """The processes that train together; all call the same methods, and the first of them writes."""
        return self.trainer.ranks

    def whole_network(self) -> Network:
        """The network, as rank 0 alone can use it: another one, untrained, where it is in shards."""
        return self._own_network() if sharding.is_sharded(self.network.model) else self.network

    def _own_network(self) -> Network:
        return network_for(self.config, self.dataset, str(self.network.device))

    @cached_property
    def kept_epochs(self) -> Sequence[int]:
        """The epochs whose checkpoints stay."""
        return kept_epochs(self.config.training.keep_checkpoints, self.config.training.epochs)

    @cached_property
    def probe(self) -> Probe | None:
        """What looks into the network; None where that is not asked for."""
        alone_sees = self.ranks.first and not sharding.is_sharded(self.network.model)
        if not self.config.training.diagnostics or not alone_sees:
            return None
        return build_probe(self.config, self.dataset, self.network)

    @cached_property
    def probed_epochs(self) -> frozenset[int]:
        """The epochs after which that is."""
        return frozenset(probed_epochs(self.config.training.epochs) if self.probe else ())

    def fit(self, signal: Callable[[], int] = lambda: 0) -> Iterator[Record | None]:
        """Train to the end; metrics and checkpoints are on the disk before each record is yielded.

        Args:
            signal: the number of the signal to stop that this process got, 0 for none. The first that any rank got
                ends the training, after the state was saved, and is then `stopped_by`.

        Yields:
            None after each step, a Record after each epoch.

        Raises:
            DivergedError: the loss or a weight became non-finite; says where. last.pt is the last finite state.
            StorageError: a file could not be written; the earlier checkpoint is intact.
        """
        saved = time.monotonic()
        last_step = self.trainer.steps_per_epoch - 1
        if not self.run.keep_diagnostics(self.trainer.epoch) and self.trainer.step == 0:
            self.look()
        try:
            if self.trainer.step_in_epoch == last_step:
                self.before_last_step()
            for record in self.trainer.run():
                if record is not None:
                    self.run.append_metrics(record.to_plain())
                    self.look()
                    self.save(is_best=record.is_best)
                    saved = time.monotonic()
                if self.trainer.step_in_epoch == last_step:
                    self.before_last_step()
                yield record
                late = time.monotonic() - saved > self.config.training.checkpoint_seconds
                self.stopped_by, save = self.ranks.agree(signal(), late)
                if self.stopped_by:
                    self.pause()
                    return
                if save and record is None:
                    self.trainer.check_finite()
                    self.save()
                    saved = time.monotonic()
        except NonFinite as noticed:
            raise self._diverged(noticed) from None

    def before_last_step(self) -> None:
        """Called where one step of an epoch is left."""
        if self.probe is not None and self.trainer.epoch + 1 in self.probed_epochs:
            self.probe.remember()

    def look(self) -> None:
        """Look into the network and write down what is seen, if it is to be after this epoch."""
        if self.probe is not None and self.trainer.epoch in self.probed_epochs:
            position = {"epoch": self.trainer.epoch, "step": self.trainer.step}
            self.run.append_diagnostics(position | self.probe.look())

    def pause(self) -> None:
        """Save the present state, to continue later.

        Raises:
            DivergedError: the present state is not finite; last.pt is the last that was.
        """
        try:
            self.trainer.check_finite()
        except NonFinite as noticed:
            raise self._diverged(noticed) from None
        self.save()

    def save(self, is_best: bool = False) -> None:
        """Write last.pt, and just before it best.pt and the epoch's own file where there are to be such."""
        state = {
            "mlpcli": __version__,
            "config": to_plain(self.config),
            "data": {
                "description": self.network.description.to_plain(),
                "extraction": None if self.network.extraction is None else self.network.extraction.state_dict(),
                "preprocessing": self.network.preprocessing.state_dict(),
                "target_scale": None
                if self.network.target_scale is None
                else self.network.target_scale.state_dict(),
                "class_weights": self.network.loss.class_weights,
                "front": None if self.network.front is None else asdict(self.network.front),
            },
            **self.trainer.state_dict(),
        }
        sharded = sharding.is_sharded(self.network.model)
        if sharded:
            folder = self.run.last.parent
            name = self.ranks.share(lambda: checkpoints.new_shards(folder, self.trainer.step))
            state, shards = sharding.apart(state)
            state["shards"] = {"folder": name, "tensors": list(shards)}
            with storage(folder), self.ranks.answers("a checkpoint"):
                sharding.write(shards, folder / name, self.ranks.group)
        if not self.ranks.first:
            return
        paths = [self.run.best] if is_best else []
        if self.trainer.step_in_epoch == 0 and self.trainer.epoch in self.kept_epochs:
            paths.append(self.run.kept(self.trainer.epoch))
        # last.pt at the end: a run killed before that repeats the epoch, and writes the same files again
        checkpoints.save(state, *paths, self.run.last)
        checkpoints.keep_shards(self.run.last.parent)
        log.debug("saved step %d%s", self.trainer.step, ", the best epoch so far" if is_best else "")

    def finish(self) -> dict[str, Any]:
        """Measure the best epoch's model on the test split, the only use of it, and write summary.json.

        What a run that was finished before wrote is returned as it is; ranks but the first return nothing.

        Raises:
            DivergedError: a test metric is not finite: the weights are, but too large for the arithmetic.
        """
        before = self.ranks.share(lambda: read_json(self.run.path / SUMMARY))
        if before.get("status") == "finished":
            return before
        lines = self.run.keep_metrics(self.trainer.epoch)
        last = lines[-1] if lines else {}
        at_best = next((line for line in lines if line["epoch"] == self.trainer.best.epoch), {})
        if self.ranks.first:
            checkpoints.put_together(self.run.last.parent)
        weights = self.ranks.share(lambda: checkpoints.load(self.run.best)["model"])
        sharding.load_weights(self.network.model, weights)
        test = self.network.measure(self.dataset.test, ranks=self.ranks).metrics
        best = self.trainer.best
        for name, value in test.items():
            if not math.isfinite(value):
                step = best.epoch * self.trainer.steps_per_epoch
                raise self._report(NonFinite(f"the test {name} of the best epoch", best.epoch, step))
        if not self.ranks.first:
            return {}
        seconds = sum(float(line.get("seconds", 0)) for line in lines)
        summary = {
            "status": "finished",
            "stopped_early": self.trainer.stopped_early,
            "epochs": self.trainer.epoch,
            "steps": self.trainer.step,
            "best": {
                "epoch": best.epoch,
                "monitor": self.trainer.monitor,
                "value": best.best,
                "train": at_best.get("train", {}),
                "validation": at_best.get("validation", {}),
            },
            "train": last.get("train", {}),
            "validation": last.get("validation", {}),
            "test": test,
            "parameters": sum(p.numel() for p in self.network.model.parameters()),
            "train_seconds": round(seconds, 6),
            "wall_seconds": round(time.monotonic() - self.started, 3),
            "samples_per_second": round(len(lines) * len(self.trainer.batches) / seconds, 1) if seconds else None,
        }
        initial = [line.get("loss") for line in read_diagnostics(self.run.path) if line["epoch"] == 0]
        if initial and initial[0] is not None:
            summary["initial_loss"] = initial[0]
        self.run.write(SUMMARY, summary)
        return summary

    def _diverged(self, noticed: NonFinite) -> DivergedError:
        """Replay from the last finite checkpoint, looking after every layer, to name the place."""

        def located() -> DivergedError:
            trainer = self.trainer
            if self.ranks.several:  # a single process has all samples; on several, one alone may see the place
                trainer = build_trainer(self.config, self.dataset, self._own_network())
            trainer.load_state_dict(checkpoints.load(self.run.last))
            return self._told(trainer.locate_non_finite(until=noticed.step) or noticed)

        return self.ranks.share(located)

    def _report(self, found: NonFinite) -> DivergedError:
        return self.ranks.share(lambda: self._told(found))

    def _told(self, found: NonFinite) -> DivergedError:
        self.run.write(
            SUMMARY, {"status": "diverged", "epoch": found.epoch, "step": found.step, "where": str(found)}
        )
        position = checkpoints.load(self.run.last)["position"]
        return DivergedError(
            f"training diverged at epoch {found.epoch}, step {found.step}: {found} is not finite\n"
            f"    the last finite state is kept in {self.run.last} (epoch {position['epoch']}, "
            f"step {position['step']})\n"
            f"    try a smaller optimizer.lr (now {self.config.optimizer.lr:g}), training.clip_grad_norm=1, or "
            "another data.standardize"
        )


def start(config: Config, output: Path | None, ranks: Ranks | None = None) -> Experiment:
    """Load the data, build everything, make the run directory and write its first checkpoint.

    Args:
        config: resolved, as far as it is without its data.
        output: the run directory; None for the first free one.
        ranks: the processes that train together, all of which call this.
    """
    started = time.monotonic()
    ranks = ranks or Ranks()
    flush_denormals()
    ranks.settle(config.training.timeout)
    asked = dump_config(config)
    config, dataset, network, trainer = prepare(config, ranks)
    assert config.name is not None, "a resolved config has a name"
    text, name = dump_config(config), config.name
    surroundings = environment(network.device, config.seed, network.description.fingerprint)
    surroundings |= ranks.described(asked)
    made = Run.create(output, name, text, surroundings) if ranks.first else Onlooker(Path())
    path = ranks.share(lambda: made.path)
    run = made if ranks.first else Onlooker(path)
    experiment = Experiment(config, dataset, network, trainer, run, started)
    with closed_on_error(run):
        experiment.save()
    return experiment


def prepare(
    config: Config, ranks: Ranks, extraction: Extraction | None = None
) -> tuple[Config, Dataset, Network, Trainer]:
    """The data, the network and its training; the config with what only they could decide.

    Raises:
        ConfigError, DataError: the config does not go together with its data, or with the number of ranks.
    """
    shareable(config, ranks)
    with ranks.one_by_one():
        dataset = data.load(config.data, config.seed, extraction)
    config = settle(config, dataset.facts)
    shareable(config, ranks, len(dataset.train))
    seen = ranks.gather_values(dataset.description.fingerprint)
    if len(set(seen)) > 1:
        raise DataError(
            "the ranks do not have the same data: fingerprints "
            + ", ".join(f"{each} of rank {rank}" for rank, each in enumerate(seen))
        )
    network = network_for(config, dataset, ranks.device(config.training.device))
    ranks.copy_from_first(network.model.state_dict().values())
    trainer = build_trainer(config, dataset, network, ranks)
    if config.training.threads == "auto":
        config = with_threads(config, trainer)
    return config, dataset, network, trainer


def shareable(config: Config, ranks: Ranks, samples: int | None = None) -> None:
    """Raises ConfigError where several processes cannot share this training."""
    if not ranks.several:
        return
    sizes = [size for size in (config.training.batch_size, samples) if size is not None]
    batch_size = min(sizes, default=ranks.size)
    if batch_size < ranks.size:
        raise ConfigError(
            [
                Problem(
                    "training.batch_size",
                    f"{batch_size} samples cannot be shared by {ranks.size} processes",
                    hint=f"a batch is that of all processes together, and needs {ranks.size} samples or more",
                )
            ]
        )


def with_threads(config: Config, trainer: Trainer) -> Config:
    """The config as a run keeps it, with a number of threads: training it again rounds the same way."""
    # compiled kernels are made for a number of threads, so that trying several would compile as often; and ranks
    # that compute together would have to try each number as often as the others
    ranks, threads = trainer.ranks, torch.get_num_threads()
    if ranks.several:
        threads = min(threads, max(1, cores() // ranks.local_size))
    if not (config.training.compile or (ranks.several and computes_together(trainer.model))):
        threads = fastest_threads(trainer, threads)
    if ranks.several:
        threads = ranks.share(lambda: threads)
        torch.set_num_threads(threads)
    return config.model_copy(update={"training": config.training.model_copy(update={"threads": threads})})


@contextmanager
def closed_on_error(run: Run) -> Iterator[None]:
    """Release the run's lock if what is inside fails; keep it otherwise."""
    try:
        yield
    except BaseException:
        run.close()
        raise


def evaluate_target(
    target: Path, *, which: str = "best", split: str = "test", overrides: Sequence[str] = ()
) -> dict[str, Any]:
    """Measure a run's or a checkpoint's model on a split of its data.

    Returns:
        Plain values: checkpoint, split, samples, metrics as training measures them, and for classification scores,
        classes, confusion (true class by predicted class) and per_class.

    Raises:
        DataError: the split does not exist, or the data is absent, or does not fit the model.
    """
    flush_denormals()
    opened = open_trained(target, overrides, which=which)
    network, chosen = opened.network, opened.split(split)
    result = network.measure(chosen, confusion=True)
    plain: dict[str, Any] = {
        "checkpoint": opened.of,
        "split": split,
        "samples": result.samples,
        "metrics": result.metrics,
    }
    if result.confusion is not None:
        answers = Predictor(network).of(chosen)
        plain |= {
            "scores": scores(answers.numpy(), chosen.targets.numpy()),
            "classes": network.description.classes,
            "confusion": result.confusion.tolist(),
            "per_class": result.per_class(),
        }
    return plain
