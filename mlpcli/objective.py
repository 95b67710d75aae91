"""Losses, which training minimises, and metrics, which are only measured."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Loss = Callable[[Tensor, Tensor], Tensor]
"""(outputs (n, k), targets) -> the mean over the n samples, a scalar. Targets are class indices (n,), which all
losses but cross_entropy take as one-hot vectors, or real numbers (n, k)."""


def make_loss(name: str, *, label_smoothing: float = 0.0, delta: float = 1.0) -> Loss:
    """The loss of that name.

    `cross_entropy`: −Σ y′ ln softmax(output), y′ = (1 − s)·onehot + s/classes with label smoothing s.
    `mse`, `mae`, `huber`: Σ over coordinates of (output − y)², |output − y|, or Huber's function, which is
    d²/2 up to |d| = delta and delta·(|d| − delta/2) beyond.

    Raises:
        ValueError: an unknown name.
    """
    if name == "cross_entropy":
        return partial(F.cross_entropy, label_smoothing=label_smoothing)
    if name == "mse":
        return _summed_over_coordinates(F.mse_loss)
    if name == "mae":
        return _summed_over_coordinates(F.l1_loss)
    if name == "huber":
        return _summed_over_coordinates(partial(F.huber_loss, delta=delta))
    raise ValueError(f"no loss is called {name!r}")


def _summed_over_coordinates(elementwise: Callable[..., Tensor]) -> Loss:
    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        if targets.dtype == torch.int64:
            targets = F.one_hot(targets, outputs.shape[1]).to(outputs.dtype)
        return elementwise(outputs, targets, reduction="sum") / len(outputs)

    return loss


PENDING_BATCHES = 64
PENDING_NUMBERS = 2**20
"""Batches, or outputs in them, that wait to be counted together: counting each by itself would cost a tenth of
a small network's step."""


class Metrics:
    """Running sums over batches, on the device: adding a batch computes and waits for nothing.

    Classification: loss, accuracy, error (1 − accuracy) and, where asked for, top5_accuracy. Regression: loss,
    mse, mae, rmse (summed over coordinates, averaged over samples, in the targets' own units) and r2 (the mean
    over coordinates of 1 − Σ(y − ŷ)²/Σ(y − ȳ)²).

    Args:
        regression: whether targets are real numbers.
        device: where outputs and targets are.
        top5: whether to measure the share of samples whose class is among the five largest outputs.
        scale: (k,) units of a standardised target coordinate; 1 where targets are in their own units.
        deviation: (k,) Σ(y − ȳ)² of the standardised targets of the whole split, for r2.
    """

    def __init__(
        self,
        *,
        regression: bool,
        device: torch.device | str = "cpu",
        top5: bool = False,
        scale: Tensor | None = None,
        deviation: Tensor | None = None,
    ) -> None:
        self.regression = regression
        self.top5 = top5
        self.scale = scale
        self.deviation = deviation
        self.samples = 0
        coordinates = 1 if scale is None else len(scale)
        self._pending: list[tuple[Tensor, Tensor, Tensor]] = []
        self._sums = {
            "loss": torch.zeros((), dtype=torch.float64, device=device),
            "correct": torch.zeros((), dtype=torch.int64, device=device),
            "among_five": torch.zeros((), dtype=torch.int64, device=device),
            "absolute": torch.zeros(coordinates, dtype=torch.float64, device=device),
            "squared": torch.zeros(coordinates, dtype=torch.float64, device=device),
        }

    def add(self, outputs: Tensor, targets: Tensor, loss: Tensor) -> None:
        """Count a batch: its outputs (n, k), targets and mean loss."""
        self.samples += len(outputs)
        self._pending.append((outputs.detach(), targets, loss.detach()))
        if len(self._pending) == PENDING_BATCHES or len(self._pending) * outputs.numel() > PENDING_NUMBERS:
            self._sums = self._counted()
            self._pending.clear()

    @torch.no_grad()
    def _counted(self) -> dict[str, Tensor]:
        """The sums with the waiting batches counted in; nothing is changed, so that looking changes no bit."""
        sums = dict(self._sums)
        if not self._pending:
            return sums
        losses = torch.stack([loss for _, _, loss in self._pending]).double()
        sizes = [len(outputs) for outputs, _, _ in self._pending]
        outputs = torch.cat([outputs for outputs, _, _ in self._pending])
        targets = torch.cat([targets for _, targets, _ in self._pending])
        sums["loss"] = sums["loss"] + (losses * torch.tensor(sizes, device=losses.device)).sum()
        if self.regression:
            difference = (outputs - targets).double()
            sums["absolute"] = sums["absolute"] + difference.abs().sum(0)
            sums["squared"] = sums["squared"] + difference.square().sum(0)
        else:
            sums["correct"] = sums["correct"] + (outputs.argmax(1) == targets).sum()
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

    def state_dict(self) -> dict[str, Any]:
        """The sums and the batches that wait, as tensors and plain types: counting goes on to the same bits."""
        return {"samples": self.samples, "sums": self._sums, "pending": self._pending}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state_dict` gave."""
        self.samples = state["samples"]
        device = self._sums["loss"].device
        self._sums = {name: total.to(device) for name, total in state["sums"].items()}
        self._pending = [tuple(tensor.to(device) for tensor in batch) for batch in state["pending"]]

    def reset(self) -> None:
        """Start again from nothing."""
        self.samples = 0
        self._pending.clear()
        self._sums = {name: torch.zeros_like(total) for name, total in self._sums.items()}


def _r2(squared: Tensor, deviation: Tensor) -> float:
    """1 − squared/deviation, averaged; a constant target counts 1 where it is met exactly, else 0."""
    constant = deviation == 0
    r2 = torch.where(constant, (squared == 0).double(), 1 - squared / torch.where(constant, 1, deviation))
    return float(r2.mean())


def less_is_better(metric: str) -> bool:
    """Whether a smaller value of that metric is an improvement."""
    return metric not in ("accuracy", "top5_accuracy", "r2")
