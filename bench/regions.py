"""How fast a plane and a line are cut into activation regions, how the time grows with them, and in what memory.

    python bench/regions.py [--rounds 3] [--largest N] [--json FILE]

Random networks: weights from N(0, 2/fan_in), biases from N(0, 1), 2 inputs and 10 outputs, float64. Each case and
round is a process of its own, and the cases take turns, round by round; a cut of a small network, which warms up,
is left out. Memory is the largest resident size that the process ever had (VmHWM of Linux), beyond what it had
before the cut.

one layer:    n hidden units in a window that holds nearly all of the crossings.
three layers: of n units each, in a square from −5 to 5.
window:       three layers of 100 units, in squares of growing size. All of the plane has no more than some 10⁴.
line:         a segment through 784 inputs and ten layers of 1,000 units.
clipper:      the same cells a polygon at a time: it is cut by the first unit that changes its sign on it, with the
              values of all units at its corners by one product, and its halves go on from there. Only the polygons
              are found, not which are neighbours. Counts must agree.

Theory: seconds in proportion to the regions, or regions¹. A cell takes longer in wide layers, as its corners carry
the preactivations of its layer, so that families in which the width grows are somewhat above it.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from mlpcli.regions.line import cut_line
from mlpcli.regions.piecewise import Floats, PiecewiseAffine
from mlpcli.regions.plane import cut_plane

Case = tuple[int, int, float]
"""Hidden layers, units of each, and half the side of the square."""
FAMILIES: dict[str, list[Case]] = {
    "one layer": [(1, n, 300.0) for n in (140, 250, 450, 800, 1400)],
    "three layers": [(3, n, 5.0) for n in (60, 100, 180, 320, 560)],
    "window": [(3, 100, half) for half in (1.0, 2.0, 4.0, 8.0, 16.0)],
}
LINE: Case = (10, 1000, 10.0)
CLIPPED: Case = (3, 60, 5.0)


def random_network(inputs: int, layers: int, width: int) -> PiecewiseAffine:
    generator = np.random.default_rng(0)
    sizes = [inputs, *[width] * layers, 10]
    shapes = list(zip(sizes[1:], sizes[:-1], strict=True))
    weights = [generator.normal(size=shape) * np.sqrt(2 / shape[1]) for shape in shapes]
    return PiecewiseAffine(weights, [generator.normal(size=size) for size in sizes[1:]], [0.0] * layers)


def square(half: float) -> Floats:
    return half * np.array([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])


def by_clipping(network: PiecewiseAffine, window: Floats) -> int:
    """How many cells a network with two inputs has in a window, a polygon at a time."""
    cells = [(window, np.eye(2), np.zeros(2))]
    for weight, bias, slope in zip(network.weights, network.biases, network.slopes, strict=False):
        after = []
        for corners, gradient, value in cells:
            gradient, value = weight @ gradient, weight @ value + bias
            waiting = [corners]
            while waiting:
                polygon = waiting.pop()
                values = polygon @ gradient.T + value
                crossing = np.flatnonzero((values.min(0) < -1e-12) & (values.max(0) > 1e-12))
                if len(crossing):
                    waiting += clipped(polygon.tolist(), values[:, crossing[0]].tolist())
                    continue
                factors = np.where(values.sum(0) > 0, 1.0, slope)
                after.append((polygon, factors[:, None] * gradient, factors * value))
        cells = after
    return len(cells)


def clipped(corners: list[list[float]], values: list[float]) -> list[Floats]:
    """Both parts of a polygon (Sutherland & Hodgman 1974), from a function's values at its corners."""
    parts: tuple[list[list[float]], list[list[float]]] = ([], [])
    for number, (corner, value) in enumerate(zip(corners, values, strict=True)):
        before, (x, y) = values[number - 1], corners[number - 1]
        if before * value < 0:
            share = before / (before - value)
            zero = [x + share * (corner[0] - x), y + share * (corner[1] - y)]
            parts[0].append(zero)
            parts[1].append(zero)
        if value >= 0:
            parts[0].append(corner)
        if value <= 0:
            parts[1].append(corner)
    return [np.array(part) for part in parts]


def resident() -> float:
    """The largest that the process ever was, in MiB. Not by getrusage, which begins with that of its parent."""
    status = dict(line.split(":") for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines())
    return int(status["VmHWM"].split()[0]) / 1024


def measure(what: str, case: Case) -> dict[str, float]:
    """One cut, in this process."""
    layers, width, half = case
    network = random_network(784 if what == "line" else 2, layers, width)
    cut_plane(random_network(2, 2, 10), np.zeros(2), np.eye(2), square(1.0))
    before, started = resident(), time.perf_counter()
    if what == "line":
        generator = np.random.default_rng(1)
        origin, direction = generator.normal(size=784), generator.normal(size=784)
        regions = len(cut_line(network, origin, direction, -half, half))
    elif what == "clipper":
        regions = by_clipping(network, square(half))
    else:
        regions = len(cut_plane(network, np.zeros(2), np.eye(2), square(half)))
    seconds = time.perf_counter() - started
    return {"regions": regions, "seconds": seconds, "mib": resident() - before}


def measured(what: str, case: Case) -> dict[str, float]:
    """The same in a process of its own."""
    command = [sys.executable, __file__, "--measure", json.dumps([what, case])]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    result: dict[str, float] = json.loads(done.stdout)
    return result


def summary(what: str, case: Case, runs: list[dict[str, float]]) -> dict[str, Any]:
    """Print a row; the same as plain values."""
    seconds = [run["seconds"] for run in runs]
    regions, middle = int(runs[0]["regions"]), statistics.median(seconds)
    memory = max(run["mib"] for run in runs)
    layers, width, half = case
    print(
        f"{what:<13}{layers:4} × {width:<5}{half:7g}{regions:11,}{min(seconds):9.3f}{middle:10.3f}"
        f"{max(seconds):9.3f}{len(runs):4}{regions / middle:12,.0f}{memory:9.0f}",
        flush=True,
    )
    return {"case": case, "regions": regions, "seconds": seconds, "mib": memory}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--largest", type=int, default=5, metavar="N", help="only the first N cases of each family"
    )
    parser.add_argument("--json", type=Path, help="write every number there")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure is not None:
        print(json.dumps(measure(*json.loads(args.measure))))
        return

    # not above: these import torch, which is not to be in the memory that is measured
    from peers import machine
    from scaling import exponent

    where = machine()
    print(f"{where['cpu']}, {where['cores']} cores, {where['system']}, Python {where['python']}, ", end="")
    print(f"numpy {np.__version__}")
    families = {name: cases[: args.largest] for name, cases in FAMILIES.items()}
    cases = [(name, case) for name, family in families.items() for case in family]
    cases += [("line", LINE), ("clipper", CLIPPED), ("against it", CLIPPED)]
    rounds = [[measured(*each) for each in cases] for _ in range(args.rounds)]
    print(
        f"{'':<13}{'layers':>12}{'half':>7}{'regions':>11}{'min s':>9}{'median s':>10}{'max s':>9}{'n':>4}"
        f"{'regions/s':>12}{'MiB':>9}"
    )
    rows: dict[str, list[dict[str, Any]]] = {}
    for each, runs in zip(cases, zip(*rounds, strict=True), strict=True):
        rows.setdefault(each[0], []).append(summary(*each, list(runs)))
    fits: dict[str, tuple[float, float]] = {}
    for name in families:
        counts = [row["regions"] for row in rows[name]]
        slope, error = fits[name] = exponent(counts, [statistics.median(row["seconds"]) for row in rows[name]])
        print(f"{name}: seconds grow as regions^({slope:.3f} ± {error:.3f}), standard error of the fit to medians")
    clipper, ours = rows["clipper"][0], rows["against it"][0]
    ratios = [slow / fast for slow, fast in zip(clipper["seconds"], ours["seconds"], strict=True)]
    print(
        f"clipper / mlpcli: min {min(ratios):.1f}  median {statistics.median(ratios):.1f}  max {max(ratios):.1f}, "
        f"n = {len(ratios)}"
    )
    if args.json is not None:
        found = {"machine": where, "cases": rows, "exponents": fits, "clipper_ratios": ratios}
        args.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    if clipper["regions"] != ours["regions"]:
        sys.exit(f"the clipper has {clipper['regions']:,} cells where mlpcli has {ours['regions']:,}")


if __name__ == "__main__":
    main()
