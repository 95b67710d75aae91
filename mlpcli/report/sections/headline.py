"""What the run is, what it reached, and how to have it again."""

import math
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from mlpcli.report.blocks import Block, Code, Section, Table, Text, Tile, Tiles
from mlpcli.report.charts import short
from mlpcli.report.gathering import Gathered, number
from mlpcli.report.statistics import Interval
from mlpcli.report.sureness import intervals

PERCENTS = ("accuracy", "error", "top5_accuracy")
MAIN = ("accuracy", "rmse")
"""What a reader looks for first."""
STATUS = {
    "finished": "finished",
    "diverged": "diverged",
    "running": "still running",
    "interrupted": "interrupted",
    "unknown": "not known how it ended",
}


def section(run: Gathered) -> Section:
    """The first part of the page."""
    blocks: list[Block] = [Text(note, "note") for note in run.notes]
    blocks.append(Tiles(_tiles(run)))
    if run.test_metrics:
        blocks.append(_metrics(run))
    elif run.status == "running":
        blocks.append(Text("The test split is measured once the best checkpoint is written.", "note"))
    blocks.append(_commands(run))
    return Section("headline", "Result", blocks)


def _tiles(run: Gathered) -> list[Tile]:
    tiles = []
    sure = intervals(run.test, run.test_metrics) if run.test is not None else {}
    for name in MAIN:
        if name in run.test_metrics:
            tiles.append(Tile(f"test {name}", metric(name, run.test_metrics[name]), _ends(name, sure.get(name))))
    if run.network is not None:
        about = run.network.description
        sizes = ", ".join(f"{count:,} {name}" for name, count in run.samples.items())
        what = f"{about.outputs} classes" if about.classes else f"{about.outputs} targets"
        if about.outputs == 1:
            what = "1 target"
        tiles.append(Tile("data", about.name, f"{about.features:,} inputs, {what}{'; ' if sizes else ''}{sizes}"))
        count = sum(each.numel() for each in run.network.model.parameters())
        tiles.append(Tile("parameters", f"{count:,}", architecture(run)))
    best = run.summary.get("best")
    if isinstance(best, dict) and "epoch" in best:
        of = run.summary.get("epochs", len(run.metrics))
        tiles.append(
            Tile(
                "best epoch",
                f"{_whole(best['epoch'])} of {_whole(of)}",
                f"by {best.get('monitor', 'the monitor')}",
            )
        )
    elif run.metrics:
        of = run.config.training.epochs if run.config is not None else "?"
        tiles.append(Tile("epochs", f"{run.epochs[-1]} of {of}", STATUS.get(run.status, run.status)))
    seconds = number(run.summary.get("train_seconds"))
    if not math.isfinite(seconds) and run.metrics:
        seconds = sum(each for each in run.column("seconds") if math.isfinite(each))
    if math.isfinite(seconds):
        wall = number(run.summary.get("wall_seconds"))
        whole = f"{duration(wall)} with loading, validation and checkpoints" if math.isfinite(wall) else ""
        tiles.append(Tile("training time", duration(seconds), whole))
    rate = number(run.summary.get("samples_per_second"))
    if math.isfinite(rate):
        where = str(run.environment.get("device", ""))
        threads = run.environment.get("threads")
        tiles.append(
            Tile(
                "samples a second",
                f"{rate:,.0f}",
                f"{where}, {threads} thread{'s' * (threads != 1)}" if threads else where,
            )
        )
    return tiles


def _whole(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def architecture(run: Gathered) -> str:
    """The widths and the activation: `64 → 256 → 10, relu`."""
    if run.config is None or run.network is None:
        return ""
    model, about = run.config.model, run.network.description
    widths = [about.features, *model.widths, about.outputs]
    if len(widths) > 8:
        shown = " → ".join(map(str, [*widths[:3], "…", *widths[-2:]]))
        return f"{shown} ({len(widths) - 1} affine layers), {model.activation}"
    return f"{' → '.join(map(str, widths))}{f', {model.activation}' if model.widths else ', linear'}"


def _metrics(run: Gathered) -> Table:
    sure = intervals(run.test, run.test_metrics) if run.test is not None else {}
    rows = []
    for name, value in run.test_metrics.items():
        # six digits, as `mlpcli eval` prints them
        rows.append([name, f"{value:.6f}", _ends(name, sure.get(name), full=True)])
    samples = run.samples.get("test")
    of = f" of {samples:,} samples" if samples else ""
    caption = (
        "Intervals: Wilson’s for shares, Student’s for means over the samples; they say how much the number may "
        "be off because the test split is a sample, not how much another seed would change it."
        if sure
        else "The intervals need the data, or the best checkpoint, which cannot be read."
    )
    title = f"Metrics on the test split{of}"
    if run.status != "finished":
        title += ", of the best epoch so far"
    return Table(title, ["metric", "value", "95 % interval"], rows, caption=caption)


def _ends(name: str, interval: Interval | None, full: bool = False) -> str:
    if interval is None:
        return "–" if full else ""
    if full:
        return f"{interval.low:.6f} to {interval.high:.6f}"
    return f"95\xa0%: {metric(name, interval.low)} to {metric(name, interval.high)}"


def metric(name: str, value: float) -> str:
    """A metric for a person: shares in percent."""
    if not math.isfinite(value):
        return str(value)
    return f"{100 * value:.2f}\xa0%" if name in PERCENTS else short(value)


def duration(seconds: float) -> str:
    """12.3 s, 4 min 05 s, 2 h 07 min."""
    if seconds < 60:
        return (
            f"{seconds:.1f} s"
            if seconds >= 10
            else f"{seconds:.2f} s"
            if seconds >= 0.1
            else f"{1000 * seconds:.3g} ms"
        )
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def _commands(run: Gathered) -> Code:
    lines = []
    words = run.environment.get("command_line")
    if isinstance(words, list) and words:
        lines += ["# how it was trained" + _where(run), _command(words)]
    resumed = run.environment.get("resumed")
    for each in resumed if isinstance(resumed, list) else ():
        words = each.get("command_line") if isinstance(each, Mapping) else None
        if isinstance(words, list) and words:
            lines += ["# and went on", _command(words)]
    config = shlex.quote(str(run.path / "config.yaml"))
    # what a resume changed, a longer schedule say, holds from the start in a new training
    same = "the config as it is now, from the start" if resumed else "the same again, with every value as it was"
    lines += [
        f"# {same}" + ": on the CPU to the last bit" * (not resumed),
        f"mlpcli train {config} -o {shlex.quote(str(run.path) + '-again')}",
    ]
    if run.test_metrics:
        lines += ["# the test metrics again", f"mlpcli eval {shlex.quote(str(run.path))}"]
    return Code("How to reproduce it", lines, frozenset(i for i, line in enumerate(lines) if line[0] != "#"))


def _command(words: Sequence[object]) -> str:
    """A command line, to be pasted into a shell."""
    return shlex.join([Path(str(words[0])).name, *map(str, words[1:])])


def _where(run: Gathered) -> str:
    folder, started = run.environment.get("working_directory"), str(run.environment.get("started", ""))
    return f", in {folder}" * bool(folder) + f", {started[:16].replace('T', ' ')} UTC" * bool(started)
