"""How the training went: curves over the epochs, and what they say."""

import math
from collections.abc import Mapping

from mlpcli.axes import Scale
from mlpcli.progress import less_is_better
from mlpcli.report.blocks import Block, Charts, Section, Text
from mlpcli.report.charts import Series, curves, short
from mlpcli.report.drawing import Chart
from mlpcli.report.gathering import Gathered
from mlpcli.report.sections.headline import metric
from mlpcli.report.verdict import verdicts

METRICS = ("accuracy", "rmse")
BY_FACTORS = ("step", "plateau")
"""Schedules that multiply the learning rate, which a logarithmic axis shows as steps of one height."""


def section(run: Gathered) -> Section:
    """The curves with their verdict."""
    if not run.metrics:
        return Section(
            "learning", "Learning curves", [Text("No epoch is finished, so there is no curve.", "note")]
        )
    blocks: list[Block] = []
    monitor = _monitor(run)
    split, _, name = monitor.partition(".")
    found = verdicts(
        run.epochs,
        run.series("train", "loss"),
        run.series("validation", "loss"),
        run.series(split, name),
        monitor,
        diverged=run.status == "diverged",
        stopped_early=bool(run.summary.get("stopped_early")),
    )
    for each in found:
        blocks.append(Text(f"{each.text} (The rule: {each.because}.)", "verdict"))
    gap = _gap(run)
    if gap:
        blocks.append(Text(gap))
    blocks.append(Charts(_charts(run, best_epoch(run))))
    if not run.has("validation", "loss"):
        blocks.append(
            Text("There is no validation split (data.validation is 0), so the curves are of training alone.")
        )
    return Section("learning", "Learning curves", blocks)


def _monitor(run: Gathered) -> str:
    best = run.summary.get("best")
    if isinstance(best, Mapping) and isinstance(best.get("monitor"), str):
        return str(best["monitor"])
    if run.config is not None and run.config.training.monitor is not None:
        return run.config.training.monitor
    return "validation.loss" if run.has("validation", "loss") else "train.loss"


def best_epoch(run: Gathered) -> int | None:
    """The best epoch: of summary.json, else the first best one of the monitored metric."""
    best = run.summary.get("best")
    if isinstance(best, Mapping) and isinstance(best.get("epoch"), int):
        return int(best["epoch"])
    split, _, name = _monitor(run).partition(".")
    sign = 1 if less_is_better(name) else -1
    values = [
        (sign * value, epoch)
        for value, epoch in zip(run.series(split, name), run.epochs, strict=True)
        if math.isfinite(value)
    ]
    return min(values)[1] if values else None


def _gap(run: Gathered) -> str:
    """Training beside validation at the best epoch."""
    best = best_epoch(run)
    if best not in run.epochs:
        return ""
    at = run.epochs.index(best)
    for name in METRICS:
        ours, others = run.series("train", name)[at], run.series("validation", name)[at]
        if math.isfinite(ours) and math.isfinite(others):
            return (
                f"At the best epoch, {best}, {name} is {metric(name, ours)} in training (with dropout and "
                f"augmentation, if there are any, and while the weights still moved) and {metric(name, others)} "
                "on the validation split."
            )
    return ""


def _charts(run: Gathered, best: int | None) -> list[Chart]:
    units = " (standardised targets)" if not run.classes and run.network is not None else ""
    charts = [_both(run, "loss", f"loss{units}", best)]
    for name in METRICS:
        if run.has("train", name) or run.has("validation", name):
            charts.append(_both(run, name, name, best))
    rates = Series("", run.epochs, run.column("lr"), 2)
    falls = run.config is not None and run.config.scheduler.name in BY_FACTORS
    charts.append(
        curves(
            "learning-rate",
            "Learning rate",
            "at the end of the epoch",
            [rates],
            zero=True,
            scale="log" if falls else "linear",
        )
    )
    seconds = run.column("seconds")
    finite = sorted(value for value in seconds if math.isfinite(value))
    caption = f"Median {short(finite[len(finite) // 2])} s." if finite else ""
    charts.append(
        curves(
            "time",
            "Time",
            "seconds an epoch",
            [Series("", run.epochs, seconds, 3)],
            scale="linear",
            zero=True,
            caption=caption,
        )
    )
    return charts


def _both(run: Gathered, name: str, y_name: str, best: int | None) -> Chart:
    series = [
        Series(split, run.epochs, run.series(key, name), colour)
        for split, key, colour in (("training", "train", 0), ("validation", "validation", 1))
        if run.has(key, name)
    ]
    scale: Scale | None = None if name == "loss" else "linear"
    title = name.upper() if name == "rmse" else name.capitalize()
    return curves(name, f"{title} by epoch", y_name, series, best=best, scale=scale)
