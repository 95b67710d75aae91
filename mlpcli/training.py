"""The step and the loop. It yields records and knows no files."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from mlpcli import sharding
from mlpcli.batches import Batches
from mlpcli.objective import Loss, Metrics
from mlpcli.parts import Part
from mlpcli.progress import Plateau, Progress
from mlpcli.ranks import Ranks

CHECK_EVERY = 64
"""Steps on the CPU between two looks at the running loss for non-finite values; on CUDA one looks each epoch."""


class NonFinite(Exception):
    """The loss or a weight became NaN or infinite.

    Attributes:
        epoch, step: where it was seen, counted from 1.
    """

    def __init__(self, what: str, epoch: int, step: int) -> None:
        super().__init__(what)
        self.epoch = epoch
        self.step = step


class Engine(Protocol):
    """How the gradient is computed and θ moved."""

    watch: Callable[[str, Tensor], None] | None
    """Called with each affine layer's text and output where it is set."""

    def gradient(
        self,
        inputs: Tensor,
        targets: Tensor,
        share: float = 1.0,
        first: bool = True,
        last: bool = True,
        part: Part | None = None,
    ) -> Tensor:
        """Accumulate `share` of the gradient of the mean loss on a batch, of which `part` is here, after
        forgetting the one before if `first`, and add up what all ranks accumulated if `last`; the outputs, valid
        until the next call."""
        ...

    def update(self, lr: float) -> None:
        """Clip the accumulated gradient where asked for, and move θ."""
        ...

    def step(self, inputs: Tensor, targets: Tensor, lr: float, part: Part | None = None) -> Tensor:
        """`gradient`, then `update`; the outputs before it, valid until the next call."""
        ...

    def adopt_state(self) -> None:
        """Called after a state was loaded into the model and the optimizer."""
        ...


@dataclass(frozen=True)
class Record:
    """What an epoch came to.

    Attributes:
        epoch, step: epochs and steps done.
        seconds: of the training pass alone.
        lr: learning rate of the epoch's last step.
        train: metrics of the pass, each batch under the θ that its step started from.
        validation: metrics after the epoch; None without a validation split.
        is_best: whether the monitored metric improved.
    """

    epoch: int
    step: int
    seconds: float
    lr: float
    train: dict[str, float]
    validation: dict[str, float] | None
    is_best: bool

    def to_plain(self) -> dict[str, Any]:
        """A line of metrics.jsonl."""
        plain: dict[str, Any] = {
            "epoch": self.epoch,
            "step": self.step,
            "seconds": round(self.seconds, 6),
            "lr": self.lr,
            "train": self.train,
        }
        return plain if self.validation is None else plain | {"validation": self.validation}


@dataclass
class Trainer:
    """A training in progress: iterate `run()`; `state_dict()` at any yield is enough to continue exactly.

    Attributes:
        model, loss, optimizer: what is trained, what is minimised, and how θ moves.
        engine: computes the gradient of the loss by the model's parameters, and moves them.
        batches: the training split.
        metrics: what is measured on it during the pass.
        lr: the learning rate before the schedule.
        lr_factor: step -> share of it; `plateau` multiplies it further.
        epochs: length of the training.
        full_batch: whether a step uses the exact gradient of the whole objective, accumulated over the batches.
        monitor: `validation.loss`, `train.accuracy`, …: what chooses the best epoch, with `best`.
        validate: measures the model on the validation split, where there is one.
        early_stopping: its metric, progress and patience.
        ranks: the processes that train together, each on its part of every batch. All must call the same methods.
    """

    model: nn.Sequential
    loss: Loss
    optimizer: torch.optim.Optimizer
    engine: Engine
    batches: Batches
    metrics: Metrics
    lr: float
    lr_factor: Callable[[int], float]
    epochs: int
    full_batch: bool
    monitor: str
    best: Progress
    validate: Callable[[], dict[str, float]] | None = None
    plateau: Plateau | None = None
    early_stopping: tuple[str, Progress, int] | None = None
    ranks: Ranks = field(default_factory=Ranks)

    epoch: int = 0
    step: int = 0
    step_in_epoch: int = 0
    stopped_early: bool = False
    seconds: float = 0.0

    @property
    def steps_per_epoch(self) -> int:
        """Updates of θ in an epoch."""
        return 1 if self.full_batch else self.batches.steps

    @property
    def samples_done(self) -> int:
        """Samples seen since the start of the training."""
        batch = len(self.batches) if self.full_batch else self.batches.batch_size
        return self.epoch * len(self.batches) + min(self.step_in_epoch * batch, len(self.batches))

    @property
    def finished(self) -> bool:
        """Whether all epochs are done or early stopping ended them."""
        return self.stopped_early or self.epoch >= self.epochs

    def sgd_step(self, inputs: Tensor, targets: Tensor) -> None:
        """Forward, loss, backward, update on one mini-batch."""
        part = self.batches.part(self.step_in_epoch)
        self.metrics.add(self.engine.step(inputs, targets, self._lr(), part), targets)

    def objective_gradient(self, measure: bool = True) -> Tensor:
        """The exact gradient of the whole objective, accumulated over chunks; the objective."""
        totals = []
        final = self.batches.steps - 1
        for chunk, (inputs, targets) in enumerate(self.batches.epoch(self.epoch)):
            part = self.batches.part(chunk)
            share = (len(inputs) if part is None else part.of) / len(self.batches)
            outputs = self.engine.gradient(inputs, targets, share, chunk == 0, chunk == final, part)
            totals.append(self.loss.total(outputs, targets))
            if measure:
                self.metrics.add(outputs, targets)
        return self.ranks.sum(torch.stack(totals).sum()) / len(self.batches)

    def gd_step(self) -> None:
        """One step on the whole objective. L-BFGS evaluates it several times; only the first is measured."""
        lr = self._lr()
        if not isinstance(self.optimizer, torch.optim.LBFGS):
            self.objective_gradient()
            self.engine.update(lr)
            return

        def closure() -> float:
            return float(self.objective_gradient(measure=self.metrics.samples == 0))

        self.optimizer.step(closure)

    def run(self) -> Iterator[Record | None]:
        """Train to the end; yields None after each step and a Record after each epoch.

        Raises:
            NonFinite: the loss or a weight is NaN or infinite, seen at most `CHECK_EVERY` steps late, on CUDA at
                the end of the epoch.
        """
        while not self.finished:
            yield from self._steps()
            yield self._end_epoch()

    def _steps(self) -> Iterator[None]:
        self.model.train()
        remaining: Iterator[tuple[Tensor, ...]]
        if self.full_batch:
            remaining = iter([()] * (1 - self.step_in_epoch))
        else:
            remaining = self.batches.epoch(self.epoch, skip=self.step_in_epoch)
        take_step: Callable[..., None] = self.gd_step if self.full_batch else self.sgd_step
        looks = not self.batches.targets.is_cuda  # a look waits for the device
        started = time.perf_counter()
        for batch in remaining:
            take_step(*batch)
            self.step += 1
            self.step_in_epoch += 1
            if looks and self.step_in_epoch % CHECK_EVERY == 0 and not self._loss_is_finite():
                raise NonFinite("the loss", self.epoch + 1, self.step)
            paused = time.perf_counter()
            yield None
            started += time.perf_counter() - paused
        self.check_finite()
        self.seconds += time.perf_counter() - started

    def _lr(self) -> float:
        """The learning rate of this step, which the optimizer's own state shows too."""
        lr = self.lr * self.lr_factor(self.step)
        if self.plateau is not None:
            lr *= self.plateau.scale
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        return lr

    def check_finite(self) -> None:
        """Raises NonFinite unless the running loss and every weight are finite."""
        if not self._loss_is_finite():
            raise NonFinite("the loss", self.epoch + 1, self.step)
        for name, tensor in self.model.state_dict().items():
            finite = bool(torch.isfinite(sharding.local(tensor)).all())
            if not (self.ranks.all(finite) if sharding.is_shard(tensor) else finite):
                raise NonFinite(f"parameter {name}", self.epoch + 1, self.step)

    def _loss_is_finite(self) -> bool:
        return self.ranks.all(self.metrics.is_finite())

    def _end_epoch(self) -> Record:
        if self.ranks.several:
            self.metrics.add_up(self.ranks.sum, len(self.batches))
        train = self.metrics.result()
        validation = None if self.validate is None else self.validate()
        values = {f"train.{name}": value for name, value in train.items()}
        values |= {f"validation.{name}": value for name, value in (validation or {}).items()}
        for name, value in values.items():
            if not math.isfinite(value):
                raise NonFinite(f"the {name.replace('.', ' ')}", self.epoch + 1, self.step)
        self.epoch += 1
        is_best = self.best.update(values[self.monitor], self.epoch)
        if self.plateau is not None:
            self.plateau.update(values[self.monitor], self.epoch)
        if self.early_stopping is not None:
            monitor, progress, patience = self.early_stopping
            progress.update(values[monitor], self.epoch)
            self.stopped_early = progress.stale >= patience
        lr = float(self.optimizer.param_groups[0]["lr"])
        record = Record(self.epoch, self.step, self.seconds, lr, train, validation, is_best)
        self.metrics.reset()
        self.step_in_epoch = 0
        self.seconds = 0.0
        return record

    def locate_non_finite(self, until: int) -> NonFinite | None:
        """Train on from the current, finite state to the first non-finite value, looking after every layer.

        Called on a state from before the trouble: `run()` notices late, this names the place. Leaves the
        trainer unusable. None where the replay met no such value up to step `until`, as it may on devices whose
        sums are not repeatable.
        """

        def look(name: str, output: Tensor) -> None:
            if not bool(torch.isfinite(output).all()):
                raise NonFinite(f"the output of {name}", self.epoch + 1, self.step + 1)

        self.engine.watch = look
        try:
            for _ in self.run():
                self.check_finite()
                if self.step >= until and self.step_in_epoch == 0:
                    break
        except NonFinite as found:
            return found
        return None

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain types: all that `run()` needs to continue exactly, random generators included.

        The same on all ranks, whose generators are in the same state; `metrics` has a part for each of them.
        """
        metrics = self.metrics.state_dict()
        if self.ranks.several and self.step_in_epoch:
            metrics = {"parts": self.ranks.gather_values(_on_the_cpu(metrics))}
        state: dict[str, Any] = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "metrics": metrics,
            "position": {
                "epoch": self.epoch,
                "step": self.step,
                "step_in_epoch": self.step_in_epoch,
                "seconds": self.seconds,
            },
            "best": self.best.state_dict(),
            "plateau": None if self.plateau is None else self.plateau.state_dict(),
            "early_stopping": None if self.early_stopping is None else self.early_stopping[1].state_dict(),
            "stopped_early": self.stopped_early,
            "generators": {"cpu": torch.get_rng_state()},
        }
        if self.batches.targets.is_cuda:
            state["generators"]["cuda"] = torch.cuda.get_rng_state(self.batches.targets.device)
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state_dict` gave, as if nothing had happened in between."""
        with self.ranks.answers("the weights"):
            sharding.load_weights(self.model, state["model"])
            sharding.load_optimizer(self.optimizer, state["optimizer"])
        self.engine.adopt_state()
        self._load_metrics(state["metrics"])
        position = state["position"]
        self.epoch, self.step = position["epoch"], position["step"]
        self.step_in_epoch, self.seconds = position["step_in_epoch"], position["seconds"]
        self.best.load_state_dict(state["best"])
        if self.plateau is not None and state["plateau"] is not None:
            self.plateau.load_state_dict(state["plateau"])
        if self.early_stopping is not None and state["early_stopping"] is not None:
            self.early_stopping[1].load_state_dict(state["early_stopping"])
        self.stopped_early = state["stopped_early"]
        torch.set_rng_state(state["generators"]["cpu"].cpu())
        if self.batches.targets.is_cuda and "cuda" in state["generators"]:
            torch.cuda.set_rng_state(state["generators"]["cuda"].cpu(), self.batches.targets.device)

    def _load_metrics(self, state: Mapping[str, Any]) -> None:
        """Each rank takes its own part; where they were others, the first takes all."""
        parts = state.get("parts", [state])
        if len(parts) == self.ranks.size:
            self.metrics.load_state_dict(parts[self.ranks.rank])
            return
        self.metrics.reset()
        if self.ranks.first:
            for part in parts:
                self.metrics.absorb(part)


def _on_the_cpu(state: Any) -> Any:
    """The same state in tensors of their own on the CPU, which other processes can take."""
    if isinstance(state, Mapping):
        return {name: _on_the_cpu(value) for name, value in state.items()}
    return state.cpu().clone() if isinstance(state, Tensor) else state
