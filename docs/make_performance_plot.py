"""Draws performance.svg from what bench/peers.py and bench/scaling.py measured.

python docs/make_performance_plot.py peers.json scaling.json [docs/performance.svg]

Left, a panel for each size: seconds an epoch of each contestant as a multiple of mlpcli's, from the median of the
ratios in each round, with their range. Right, a panel for each sweep: seconds an epoch, and the line that the
FLOPs predict.
"""

import argparse
import json
import math
import statistics
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import SubFigure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

OURS = "mlpcli"
BOUND = "products"
SIZES = {"S": "S: 784-128-10", "M": "M: 784-512-512-10", "L": "L: 784-2048-2048-2048-10"}
SWEEPS = {"samples": "samples", "width": "units of each hidden layer", "depth": "matrices between hidden layers"}
TICKS = [digit * 10.0**power for power in range(-4, 4) for digit in (1, 2, 5)]
BLUE, GREY, LIGHT, INK = "#2f6db5", "#a9b1bc", "#dfe3e8", "#24292f"

plt.rcParams.update(
    {
        "svg.hashsalt": "mlpcli",  # the same picture is the same bytes
        "svg.fonttype": "none",
        "font.family": "sans-serif",
        "font.size": 9,
        "axes.edgecolor": LIGHT,
        "axes.titlesize": 10,
        "axes.titlelocation": "left",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "text.color": INK,
        "axes.labelcolor": INK,
        "xtick.color": INK,
        "ytick.color": INK,
    }
)


def main() -> None:
    """Read the measurements and write the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peers", type=Path, help="what bench/peers.py --json wrote")
    parser.add_argument("scaling", type=Path, help="what bench/scaling.py --json wrote")
    parser.add_argument("output", type=Path, nargs="?", default=Path(__file__).with_name("performance.svg"))
    parser.add_argument("--optimizer", default="sgd", help="of the panels on the left")
    args = parser.parse_args()
    peers = json.loads(args.peers.read_text(encoding="utf-8"))
    scaling = json.loads(args.scaling.read_text(encoding="utf-8"))

    ratios = {size: ratios_to_ours(peers["runs"], size, args.optimizer) for size in SIZES}
    measured = {size: of_size for size, of_size in ratios.items() if of_size}
    figure = plt.figure(figsize=(10, 9), layout="constrained")
    left, right = figure.subfigures(1, 2, squeeze=False, width_ratios=[1.35, 1])[0]
    left.suptitle(f"Time an epoch, multiples of mlpcli's ({args.optimizer}; less is better)", x=0.02, ha="left")
    right.suptitle("mlpcli's time an epoch, and what the FLOPs predict", x=0.02, ha="left")
    draw_sizes(left, measured)
    sweeps = {name: scaling["sweeps"][name] for name in SWEEPS if name in scaling["sweeps"]}
    panels = right.subplots(len(sweeps), 1, squeeze=False)[:, 0]
    for axes, (name, sweep) in zip(panels, sweeps.items(), strict=True):
        draw_sweep(axes, name, sweep)
    figure.savefig(args.output, metadata={"Date": None, "Creator": None})


def ratios_to_ours(runs: list[dict[str, Any]], size: str, optimizer: str) -> dict[str, list[float]]:
    """Each contestant's seconds over mlpcli's of the same round, the fastest contestant first."""
    timed = [run for run in runs if "seconds" in run and (run["size"], run["optimizer"]) == (size, optimizer)]
    ours = {run["round"]: run["seconds"] for run in timed if run["name"] == OURS}
    ratios: dict[str, list[float]] = {}
    for run in timed:
        if run["round"] in ours:
            ratios.setdefault(run["name"], []).append(run["seconds"] / ours[run["round"]])
    return dict(sorted(ratios.items(), key=lambda item: statistics.median(item[1])))


def draw_sizes(figure: SubFigure, measured: dict[str, dict[str, list[float]]]) -> None:
    """A panel for each size, all on one axis."""
    rows = [len(of_size) for of_size in measured.values()]
    panels = figure.subplots(len(rows), 1, squeeze=False, height_ratios=rows, sharex=True)[:, 0]
    everything = [ratio for of_size in measured.values() for each in of_size.values() for ratio in each]
    low, high = min(everything) / 1.15, max(everything) * 1.5
    for axes, (size, of_size) in zip(panels, measured.items(), strict=True):
        draw_ratios(axes, SIZES[size], of_size)
        plain_ticks(axes, "x", [tick for tick in TICKS if low <= tick <= high])
        axes.set_xlim(low, high)


def draw_ratios(axes: Axes, title: str, ratios: dict[str, list[float]]) -> None:
    """A bar from 1, mlpcli's own time, to each contestant's, with the range as a whisker."""
    names = list(ratios)
    for row, (name, values) in enumerate(ratios.items()):
        low, middle, high = min(values), statistics.median(values), max(values)
        colour = BLUE if name.startswith(OURS) else LIGHT if name == BOUND else GREY
        axes.barh(row, middle - 1, left=1, height=0.62, color=colour)
        if name == OURS:
            axes.plot(1, row, "D", color=BLUE, markersize=5)
        else:
            axes.plot([low, high], [row, row], color=INK, linewidth=0.9)
        end = max(high, 1), row
        axes.annotate(f"{middle:.2f}", end, (5, 0), textcoords="offset points", va="center", size=8)
    axes.set_xscale("log")
    axes.axvline(1, color=INK, linewidth=0.8)
    axes.tick_params("x", labelbottom=True)
    axes.set_yticks(range(len(names)), [f"{name} only" if name == BOUND else name for name in names])
    axes.invert_yaxis()
    axes.tick_params("y", left=False)
    axes.set_title(title)


def draw_sweep(axes: Axes, name: str, sweep: dict[str, Any]) -> None:
    """The measured medians with their ranges, on the line of the FLOPs."""
    values, flops, seconds = sweep["values"], sweep["flops"], sweep["seconds"]
    medians = [statistics.median(each) for each in seconds]
    rate = math.exp(statistics.mean(math.log(m / f) for m, f in zip(medians, flops, strict=True)))
    below = [m - min(each) for m, each in zip(medians, seconds, strict=True)]
    above = [max(each) - m for m, each in zip(medians, seconds, strict=True)]
    axes.plot(values, [rate * each for each in flops], color=GREY, label="∝ FLOPs", zorder=1)
    whiskers = [below, above]
    axes.errorbar(values, medians, whiskers, fmt="o", color=BLUE, markersize=4.5, capsize=2, label="measured")
    axes.set(xscale="log", yscale="log", xlabel=SWEEPS[name], ylabel="s/epoch")
    plain_ticks(axes, "x", values)
    low, high = min(map(min, seconds)) / 1.2, max(map(max, seconds)) * 1.2
    axes.set_ylim(low, high)
    plain_ticks(axes, "y", [tick for tick in TICKS if low <= tick <= high])
    axes.grid(color=LIGHT, linewidth=0.6)
    measured = f"{sweep['exponent']:.2f} ± {sweep['standard_error']:.2f}"
    axes.set_title(f"~ {name} to the power {measured}; theory: {sweep['theory']:g}")
    axes.legend(frameon=False)


def plain_ticks(axes: Axes, which: str, ticks: list[float]) -> None:
    """Exactly these ticks on a logarithmic axis, written as plain numbers."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_locator(FixedLocator(ticks))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:g}"))


if __name__ == "__main__":
    main()
