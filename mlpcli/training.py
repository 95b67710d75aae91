"""The step and the loop. It yields records and knows no files."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from mlpcli.model import forward
from mlpcli.objective import Loss, Metrics
from mlpcli.progress import Plateau, Progress
from mlpcli.seeds import stream_seed

BLOCK_BYTES = 2**20
"""Samples are gathered and standardised this many bytes at a time: few calls, and the block stays in the cache."""

CHECK_EVERY = 64
"""Steps between two looks at the running loss for non-finite values; a look waits for the device."""


class NonFinite(Exception):
    """The loss or a weight became NaN or infinite.

    Attributes:
        epoch, step: where it was seen, counted from 1.
    """

    def __init__(self, what: str, epoch: int, step: int) -> None:
        super().__init__(what)
        self.epoch = epoch
        self.step = step


@dataclass(frozen=True)
class Batches:
    """The training split in memory, served in mini-batches or chunks.

    Attributes:
        inputs: (n, features), as stored (images in uint8).
        targets: (n,) class indices, or (n, k) standardised real numbers.
        prepare: maps a block of stored inputs to the numbers that the model sees.
        batch_size: samples of a mini-batch; the last one of an epoch may be smaller.
        shuffle_seed: of the shuffles; None for the stored order.
    """

    inputs: Tensor
    targets: Tensor
    prepare: Callable[[Tensor], Tensor]
    batch_size: int
    shuffle_seed: int | None

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def steps(self) -> int:
        """Mini-batches in an epoch."""
        return math.ceil(len(self) / self.batch_size)

    def epoch(self, epoch: int, skip: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """The mini-batches of epoch `epoch`, without the first `skip`.

        The shuffle is a function of the seed and the epoch, so that a run can continue anywhere in it.
        """
        order = torch.arange(len(self))
        if self.shuffle_seed is not None:
            generator = torch.Generator().manual_seed(stream_seed(self.shuffle_seed, f"epoch {epoch}"))
            order = torch.randperm(len(self), generator=generator)
        order = order[skip * self.batch_size :].to(self.inputs.device)
        batch_bytes = self.batch_size * self.inputs.shape[1] * 4
        block = self.batch_size * max(1, BLOCK_BYTES // batch_bytes)
        for start in range(0, len(order), block):
            rows = order[start : start + block]
            # index_select copies whole rows: three times as fast as indexing on bytes
            inputs = self.prepare(self.inputs.index_select(0, rows))
            targets = self.targets.index_select(0, rows)
            yield from zip(inputs.split(self.batch_size), targets.split(self.batch_size), strict=True)


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
        batches: the training split.
        metrics: what is measured on it during the pass.
        lr: the learning rate before the schedule.
        lr_factor: step -> share of it; `plateau` multiplies it further.
        epochs: length of the training.
        full_batch: whether a step uses the exact gradient of the whole objective, accumulated over the batches.
        monitor: `validation.loss`, `train.accuracy`, …: what chooses the best epoch, with `best`.
        validate: measures the model on the validation split, where there is one.
        early_stopping: its metric, progress and patience.
        bfloat16: whether the forward pass runs in bfloat16, with parameters in float32.
    """

    model: nn.Sequential
    loss: Loss
    optimizer: torch.optim.Optimizer
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
    clip_grad_norm: float | None = None
    bfloat16: bool = False

    epoch: int = 0
    step: int = 0
    step_in_epoch: int = 0
    stopped_early: bool = False
    seconds: float = 0.0
    _parameters: list[nn.Parameter] = field(init=False)

    def __post_init__(self) -> None:
        self._parameters = list(self.model.parameters())

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

    def gradient(self, inputs: Tensor, targets: Tensor, share: float = 1.0, measure: bool = True) -> Tensor:
        """Add `share` of the gradient of the mean loss on a batch to each parameter's `grad`; the loss."""
        outputs = forward(self.model, inputs, self.bfloat16)
        loss = self.loss(outputs, targets)
        (loss if share == 1.0 else loss * share).backward()
        if measure:
            self.metrics.add(outputs, targets, loss)
        return loss.detach()

    def update(self) -> None:
        """Clip the gradient where asked for, and let the optimizer move θ."""
        if self.clip_grad_norm is not None:
            nn.utils.clip_grad_norm_(self._parameters, self.clip_grad_norm)
        self.optimizer.step()

    def sgd_step(self, inputs: Tensor, targets: Tensor) -> None:
        """Forward, loss, backward, update on one mini-batch."""
        self.optimizer.zero_grad()
        self.gradient(inputs, targets)
        self.update()

    def objective_gradient(self, measure: bool = True) -> Tensor:
        """The exact gradient of the whole objective, accumulated over chunks; the objective."""
        self.optimizer.zero_grad()
        shares = ((x, y, len(x) / len(self.batches)) for x, y in self.batches.epoch(self.epoch))
        return torch.stack([self.gradient(x, y, share, measure) * share for x, y, share in shares]).sum()

    def gd_step(self) -> None:
        """One step on the whole objective. L-BFGS evaluates it several times; only the first is measured."""
        if not isinstance(self.optimizer, torch.optim.LBFGS):
            self.objective_gradient()
            self.update()
            return

        def closure() -> float:
            return float(self.objective_gradient(measure=self.metrics.samples == 0))

        self.optimizer.step(closure)

    def run(self) -> Iterator[Record | None]:
        """Train to the end; yields None after each step and a Record after each epoch.

        Raises:
            NonFinite: the loss or a weight is NaN or infinite, seen at most `CHECK_EVERY` steps late.
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
        started = time.perf_counter()
        for batch in remaining:
            self._set_lr()
            take_step(*batch)
            self.step += 1
            self.step_in_epoch += 1
            if self.step_in_epoch % CHECK_EVERY == 0 and not self.metrics.is_finite():
                raise NonFinite("the loss", self.epoch + 1, self.step)
            paused = time.perf_counter()
            yield None
            started += time.perf_counter() - paused
        self.check_finite()
        self.seconds += time.perf_counter() - started

    def _set_lr(self) -> None:
        lr = self.lr * self.lr_factor(self.step)
        if self.plateau is not None:
            lr *= self.plateau.scale
        for group in self.optimizer.param_groups:
            group["lr"] = lr

    def check_finite(self) -> None:
        """Raises NonFinite unless the running loss and every weight are finite."""
        if not self.metrics.is_finite():
            raise NonFinite("the loss", self.epoch + 1, self.step)
        for name, tensor in self.model.state_dict().items():
            if not bool(torch.isfinite(tensor).all()):
                raise NonFinite(f"parameter {name}", self.epoch + 1, self.step)

    def _end_epoch(self) -> Record:
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

        def look(name: str, layer: nn.Module) -> Callable[..., None]:
            def hook(_module: nn.Module, _inputs: object, output: Tensor) -> None:
                if self.model.training and not bool(torch.isfinite(output).all()):
                    raise NonFinite(f"the output of layer {name} ({layer})", self.epoch + 1, self.step + 1)

            return hook

        for name, layer in self.model.named_children():
            layer.register_forward_hook(look(name, layer))
        try:
            for _ in self.run():
                self.check_finite()
                if self.step >= until and self.step_in_epoch == 0:
                    break
        except NonFinite as found:
            return found
        return None

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain types: all that `run()` needs to continue exactly, random generators included."""
        state: dict[str, Any] = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "metrics": self.metrics.state_dict(),
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
        if self.batches.inputs.is_cuda:
            state["generators"]["cuda"] = torch.cuda.get_rng_state(self.batches.inputs.device)
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state_dict` gave, as if nothing had happened in between."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.metrics.load_state_dict(state["metrics"])
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
        if self.batches.inputs.is_cuda and "cuda" in state["generators"]:
            torch.cuda.set_rng_state(state["generators"]["cuda"].cpu(), self.batches.inputs.device)
