"""The regions of a run's kept checkpoints: how their number changes during the training."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mlpcli.errors import UsageError
from mlpcli.network import open_target
from mlpcli.plots import Curve, Panel
from mlpcli.runs import is_run, kept_checkpoints, read_metrics
from mlpcli.targets import Opened

MOST_LAYERS = 3
"""Curves of layers in the plot."""
MOST_FRAMES = 100
"""Of an animation: all of them are in memory, so that one affine map has one colour."""


def checkpoints_of(target: str) -> list[tuple[int, Path]]:
    """The epochs that a run has kept so far, each with its checkpoint.

    Raises:
        UsageError: the target is no run, or has kept none.
    """
    path = Path(target)
    if not is_run(path):
        raise UsageError(
            f"--history shows the checkpoints that a run has kept, and {target} is not a run directory"
        )
    done = max((line["epoch"] for line in read_metrics(path)), default=0)
    found = [(epoch, file) for epoch, file in kept_checkpoints(path) if epoch <= done]
    if not found:
        raise UsageError(
            f"{target} has kept no checkpoints for --history\n"
            "    train with training.keep_checkpoints=20, or with training.keep_checkpoints=all"
        )
    return found


def through(
    opened: Opened, found: Sequence[tuple[int, Path]], overrides: Sequence[str]
) -> Iterator[tuple[int, Opened]]:
    """The network of each epoch, with the data that is already loaded."""
    for epoch, file in found:
        _, network, _ = open_target(file, "last", overrides)
        yield epoch, replace(opened, network=network)


def frames(count: int) -> set[int]:
    """Which of so many checkpoints an animation shows: the first, the last, and others evenly between them."""
    return {index * (count - 1) // max(1, MOST_FRAMES - 1) for index in range(MOST_FRAMES)}


def panel(rows: Sequence[dict[str, Any]], where: str) -> Panel:
    """The counts by epoch, as curves."""
    epochs = [row["epoch"] for row in rows]
    wanted = [("activation regions", "activation_regions"), ("decision regions", "decision_regions")]
    series = [(name, [row[key] for row in rows]) for name, key in wanted if rows[0].get(key) is not None]
    layers = len(rows[0]["by_layer"])
    for layer in range(min(layers - 1, MOST_LAYERS)):
        series.append((f"after layer {layer + 1}", [row["by_layer"][layer] for row in rows]))
    curves = [Curve(name, epochs, values, index, "dots") for index, (name, values) in enumerate(series)]
    return Panel(f"regions {where}", "epoch", "regions", tuple(curves), "linear", "linear")
