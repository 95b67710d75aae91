"""Whether a metric still improves: what best checkpoints, plateaus and early stopping stand on."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


def less_is_better(metric: str) -> bool:
    """Whether a smaller value of that metric is an improvement."""
    return metric not in ("accuracy", "top5_accuracy", "r2")


@dataclass
class Progress:
    """Whether a metric still improves.

    Attributes:
        less: whether less is better.
        min_delta: a smaller change than this is no improvement.
        best: best value so far, at epoch `epoch` (from 1; 0 before any).
        stale: epochs since then.
    """

    less: bool
    min_delta: float = 0.0
    best: float | None = None
    epoch: int = 0
    stale: int = 0

    def update(self, value: float, epoch: int) -> bool:
        """Take the value of `epoch` and say whether it is an improvement."""
        change = math.inf if self.best is None else (self.best - value if self.less else value - self.best)
        if change > self.min_delta:
            self.best, self.epoch, self.stale = value, epoch, 0
            return True
        self.stale += 1
        return False

    def state_dict(self) -> dict[str, Any]:
        """Best value, its epoch, and the epochs since."""
        return {"best": self.best, "epoch": self.epoch, "stale": self.stale}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state_dict` gave."""
        self.best, self.epoch, self.stale = state["best"], state["epoch"], state["stale"]


@dataclass
class Plateau:
    """Multiply the learning rate by `factor` after `patience` epochs without improvement."""

    progress: Progress
    factor: float
    patience: int
    min_factor: float = 0.0
    scale: float = 1.0

    def update(self, value: float, epoch: int) -> None:
        """Take the monitored value of `epoch`."""
        if not self.progress.update(value, epoch) and self.progress.stale > self.patience:
            self.scale = max(self.scale * self.factor, self.min_factor)
            self.progress.stale = 0

    def state_dict(self) -> dict[str, Any]:
        """Progress and the current factor."""
        return {"progress": self.progress.state_dict(), "scale": self.scale}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state_dict` gave."""
        self.progress.load_state_dict(state["progress"])
        self.scale = state["scale"]
