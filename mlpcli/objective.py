"""Losses, which training minimises, and metrics, which are only measured."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Loss:
    """The mean over n samples of ℓ(output, target), with its derivative.

    `cross_entropy`: −Σ w y′ ln softmax(output), y′ = (1 − s)·y + s/classes with label smoothing s and class
    weights w, 1 unless given.
    `mse`, `mae`, `huber`: Σ over coordinates of (output − y)², |output − y|, or Huber's function, which is
    d²/2 up to |d| = delta and delta·(|d| − delta/2) beyond.

    Targets y are class indices (n,), which stand for one-hot vectors, or real numbers (n, k): for cross_entropy
    the shares of the classes, which add up to 1.

    Raises:
        ValueError: an unknown name.
    """

    name: str
    label_smoothing: float = 0.0
    delta: float = 1.0
    class_weights: Tensor | None = None

    def __post_init__(self) -> None:
        if self.name not in LOSSES:
            raise ValueError(f"no loss is called {self.name!r}")

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The mean over the samples, a scalar: outputs (n, k), targets as above."""
        if self.name == "cross_entropy" and self.class_weights is None:
            return F.cross_entropy(outputs, targets, label_smoothing=self.label_smoothing)
        # torch's own mean would divide by the class weights of this batch, so that chunks would not add up
        return self.total(outputs, targets) / len(outputs)

    def total(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The sum over the samples, a scalar; several times as fast as the mean on thousands of samples."""
        if self.name != "cross_entropy":
            return self._over_coordinates(outputs, targets)
        return F.cross_entropy(
            outputs.t()[
                None
            ],  # one sample with n places: a row of ten classes is too short for vector instructions
            (targets if targets.ndim == 1 else targets.t())[None],
            None if self.class_weights is None else self.class_weights.to(outputs.dtype),
            reduction="sum",
            label_smoothing=self.label_smoothing,
        )

    def _over_coordinates(self, outputs: Tensor, targets: Tensor) -> Tensor:
        if targets.dtype == torch.int64:
            targets = F.one_hot(targets, outputs.shape[1]).to(outputs.dtype)
        if self.name == "mse":
            return F.mse_loss(outputs, targets, reduction="sum")
        if self.name == "mae":
            return F.l1_loss(outputs, targets, reduction="sum")
        return F.huber_loss(outputs, targets, reduction="sum", delta=self.delta)

    def derivative(self, outputs: Tensor, targets: Tensor, out: Tensor) -> None:
        """Write ∂ℓ/∂output of each sample, (n, k), into `out`; over n it is the gradient of the mean."""
        if self.name == "cross_entropy":
            # down the columns, for the same reason
            torch.softmax(outputs.t(), 0, out=out.t())
            self._subtract_target(targets, out)
            return
        if targets.dtype == torch.int64:
            out.copy_(outputs)
            _add_at(out, targets, -1.0)
        else:
            torch.sub(outputs, targets, out=out)
        if self.name == "mse":
            out.mul_(2)
        elif self.name == "mae":
            out.sign_()
        else:
            out.clamp_(-self.delta, self.delta)

    def _subtract_target(self, targets: Tensor, out: Tensor) -> None:
        """softmax -> the derivative of −Σ w y′ ln softmax, which is softmax·Σ w y′ − w y′."""
        s, classes = self.label_smoothing, out.shape[1]
        if self.class_weights is None:
            if s:
                out.sub_(s / classes)
            if targets.ndim == 1:
                _add_at(out, targets, s - 1.0)
            else:
                out.sub_(targets, alpha=1 - s)
            return
        weights = self.class_weights.to(out.dtype)
        if targets.ndim == 2:
            out.mul_(((1 - s) * (targets @ weights) + s * weights.mean())[:, None])
            out.sub_(s / classes * weights).addcmul_(targets, weights, value=s - 1.0)
            return
        of_target = ((1 - s) * weights).index_select(0, targets)[:, None]
        out.mul_(of_target + s * weights.mean()).sub_(s / classes * weights)
        out.scatter_add_(1, targets[:, None], -of_target)


LOSSES = ("cross_entropy", "mse", "mae", "huber")


def _add_at(out: Tensor, targets: Tensor, value: float) -> None:
    """Add `value` to each row of `out` (n, k) at its class."""
    out.scatter_add_(1, targets.unsqueeze(1), _column(value, len(targets), out.dtype, out.device))


@cache  # unbounded: a CUDA graph may hold its address
def _column(value: float, rows: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.tensor(value, dtype=dtype, device=device).expand(rows, 1)


PENDING_BATCHES = 64
PENDING_NUMBERS = 2**20
"""Batches, or outputs in them, that wait to be counted together: counting each by itself would cost a tenth of
a small network's step."""


class Metrics:
    """Running sums over batches, on the device: adding a batch copies it and waits for nothing.

    Classification: loss, accuracy, error (1 − accuracy) and, where asked for, top5_accuracy; where targets are
    shares of classes, all but the loss take the class with the largest. Regression: loss, mse, mae, rmse (summed
    over coordinates, averaged over samples, in the targets' own units) and r2 (the mean over coordinates of
    1 − Σ(y − ŷ)²/Σ(y − ȳ)²).

    Args:
        loss: what is minimised.
        regression: whether targets are real numbers.
        device: where outputs and targets are.
        top5: whether to measure the share of samples whose class is among the five largest outputs.
        confusion: the number of classes, to count predicted classes by true class; 0 not to.
        scale: (k,) units of a standardised target coordinate; 1 where targets are in their own units.
        deviation: (k,) Σ(y − ȳ)² of the standardised targets of the whole split, for r2.
    """

    def __init__(
        self,
        loss: Loss,
        *,
        regression: bool,
        device: torch.device | str = "cpu",
        top5: bool = False,
        confusion: int = 0,
        scale: Tensor | None = None,
        deviation: Tensor | None = None,
    ) -> None:
        self.loss = loss
        self.regression = regression
        self.top5 = top5
        self.scale = scale
        self.deviation = deviation
        self.samples = 0
        self._classes = confusion
        coordinates = 1 if scale is None else len(scale)
        self._waiting = 0
        self._outputs: Tensor | None = None
        self._targets: Tensor | None = None
        self._places: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}
        self._sums = {
            "loss": torch.zeros((), dtype=torch.float64, device=device),
            "correct": torch.zeros((), dtype=torch.int64, device=device),
            "among_five": torch.zeros((), dtype=torch.int64, device=device),
            "absolute": torch.zeros(coordinates, dtype=torch.float64, device=device),
            "squared": torch.zeros(coordinates, dtype=torch.float64, device=device),
            "confusion": torch.zeros(confusion * confusion, dtype=torch.int64, device=device),
        }

    def add(self, outputs: Tensor, targets: Tensor) -> None:
        """Count a batch: outputs (n, k), which need no gradient, and targets; both may be overwritten then."""
        n = len(outputs)
        if n == 0:
            return
        self.samples += n
        if self._outputs is None or self._targets is None:
            self._make_room(n * max(1, min(PENDING_BATCHES, PENDING_NUMBERS // outputs.numel())), outputs, targets)
        assert self._outputs is not None and self._targets is not None
        room = len(self._outputs)
        if self._waiting + n > room:
            self._count()
        if n > room:
            self._sums = self._with(outputs, targets)
            return
        place = self._place(self._waiting, n)
        place[0].copy_(outputs)
        place[1].copy_(targets)
        self._waiting += n
        if self._waiting == room:
            self._count()

    def _make_room(self, rows: int, outputs: Tensor, targets: Tensor) -> None:
        self._outputs = outputs.new_empty((rows, *outputs.shape[1:]))
        self._targets = targets.new_empty((rows, *targets.shape[1:]))
        self._places.clear()

    def _place(self, start: int, n: int) -> tuple[Tensor, Tensor]:
        """Where the n samples from `start` on wait: views made once, as batches are mostly of one size."""
        place = self._places.get((start, n))
        if place is None:
            assert self._outputs is not None and self._targets is not None
            place = self._outputs[start : start + n], self._targets[start : start + n]
            if len(self._places) < 2 * PENDING_BATCHES:
                self._places[start, n] = place
        return place

    def _count(self) -> None:
        self._sums = self._counted()
        self._waiting = 0

    def _counted(self) -> dict[str, Tensor]:
        """The sums with what waits counted in; nothing is changed, so that looking changes no bit."""
        if self._outputs is None or self._targets is None or not self._waiting:
            return self._sums
        return self._with(self._outputs[: self._waiting], self._targets[: self._waiting])

    @torch.no_grad()
    def _with(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """The sums with these samples counted in."""
        sums = dict(self._sums)
        sums["loss"] = sums["loss"] + self.loss.total(outputs, targets)
        if self.regression:
            difference = (outputs - targets).double()
            sums["absolute"] = sums["absolute"] + difference.abs().sum(0)
            sums["squared"] = sums["squared"] + difference.square().sum(0)
        else:
            predicted = outputs.argmax(1)
            if targets.ndim == 2:
                targets = targets.argmax(1)
            sums["correct"] = sums["correct"] + (predicted == targets).sum()
            if self._classes:
                cells = self._classes * self._classes
                sums["confusion"] = sums["confusion"] + torch.bincount(
                    targets * self._classes + predicted, minlength=cells
                )
            if self.top5:
                hits = (outputs.topk(5).indices == targets[:, None]).sum()
                sums["among_five"] = sums["among_five"] + hits
        return sums

    def is_finite(self) -> bool:
        """Whether every loss so far was finite. Waits for the device."""
        return bool(torch.isfinite(self._counted()["loss"]))

    def result(self) -> dict[str, float]:
        """The metrics of everything added so far (at least one batch)."""
        n = self.samples
        sums = {name: total.cpu() for name, total in self._counted().items()}
        values = {"loss": float(sums["loss"]) / n}
        if self.regression:
            scale = torch.ones(1, dtype=torch.float64) if self.scale is None else self.scale.cpu()
            mse = float((sums["squared"] * scale.square()).sum()) / n
            values |= {"mse": mse, "mae": float((sums["absolute"] * scale).sum()) / n, "rmse": mse**0.5}
            if self.deviation is not None:
                values["r2"] = _r2(sums["squared"], self.deviation.cpu())
            return values
        correct = int(sums["correct"])
        values |= {"accuracy": correct / n, "error": (n - correct) / n}
        if self.top5:
            values["top5_accuracy"] = int(sums["among_five"]) / n
        return values

    def confusion(self) -> Tensor | None:
        """(classes, classes) counts on the CPU, true class by predicted class; None where not asked for."""
        if not self._classes:
            return None
        return self._counted()["confusion"].view(self._classes, self._classes).cpu()

    def state_dict(self) -> dict[str, Any]:
        """The sums and the samples that wait, as tensors and plain types: counting goes on to the same bits."""
        pending = None
        if self._outputs is not None and self._targets is not None:
            pending = {
                "room": len(self._outputs),
                "outputs": self._outputs[: self._waiting],
                "targets": self._targets[: self._waiting],
            }
        return {"samples": self.samples, "sums": self._sums, "pending": pending}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state_dict` gave."""
        self.samples = state["samples"]
        device = self._sums["loss"].device
        self._sums = {name: total.to(device) for name, total in state["sums"].items()}
        pending = state["pending"]
        if pending is None:
            self._waiting, self._outputs, self._targets = 0, None, None
            return
        outputs, targets = pending["outputs"].to(device), pending["targets"].to(device)
        self._waiting = len(outputs)
        self._make_room(pending["room"], outputs, targets)
        assert self._outputs is not None and self._targets is not None
        self._outputs[: self._waiting].copy_(outputs)
        self._targets[: self._waiting].copy_(targets)

    def absorb(self, state: Mapping[str, Any]) -> None:
        """Add what another process counted, as its `state_dict` says."""
        self._count()
        self.samples += state["samples"]
        device = self._sums["loss"].device
        self._sums = {name: total + state["sums"][name].to(device) for name, total in self._sums.items()}
        pending = state["pending"]
        if pending is not None and len(pending["outputs"]):
            self._sums = self._with(pending["outputs"].to(device), pending["targets"].to(device))

    def add_up(self, sum_of: Callable[[Tensor], Tensor], samples: int) -> None:
        """Let the sums be those of all processes, which `sum_of` adds up in place, over so many samples."""
        self._count()
        for total in self._sums.values():
            if total.numel():
                sum_of(total)
        self.samples = samples

    def reset(self) -> None:
        """Start again from nothing."""
        self.samples = 0
        self._waiting = 0
        self._sums = {name: torch.zeros_like(total) for name, total in self._sums.items()}


def _r2(squared: Tensor, deviation: Tensor) -> float:
    """1 − squared/deviation, averaged; a constant target counts 1 where it is met exactly, else 0."""
    constant = deviation == 0
    r2 = torch.where(constant, (squared == 0).double(), 1 - squared / torch.where(constant, 1, deviation))
    return float(r2.mean())
