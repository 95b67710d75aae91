"""Reading a large CSV file: time and peak memory of polars, pyarrow and mlpcli.

Each measurement is a process of its own; its times leave imports out. The numeric size of the file is that of its
inputs and target as float64. Peak memory is the largest resident size of the whole process; what a process has
before it reads, its libraries mostly, is stated beside it.

    python bench/table.py [--size GB] [--repeats N]
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

NUMBERS = 18
COLORS, SHAPES = ("red", "green", "blue"), ("circle", '"square, large"', "triangle")

COMMON = """
import resource, sys, time
path = sys.argv[1]
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
def done(start, before, rows):
    print(time.perf_counter() - start, before, peak(), rows)
"""
POLARS = """
import polars
before, start = peak(), time.perf_counter()
done(start, before, len(polars.read_csv(path)))
"""
PYARROW = """
from pyarrow import csv
before, start = peak(), time.perf_counter()
done(start, before, len(csv.read_csv(path)))
"""
MLPCLI = """
from mlpcli.config.data_schema import CsvData
from mlpcli.data import table
import pyarrow.csv
before, start = peak(), time.perf_counter()
done(start, before, len(table.read(CsvData(dataset="csv", path=path, target="y")).train))
"""
UNCACHED = MLPCLI.replace("before,", "table.cached = lambda name, read, **_: read()\nbefore,", 1)
STREAM = """
from mlpcli.data.dataset import Column
from mlpcli.data.table_stream import stream
import pyarrow.csv
columns = [Column(f"x{i}") for i in range(18)]
columns += [Column("color", ["blue", "green", "red"]), Column("shape", ["circle", "square, large", "triangle"])]
before, start = peak(), time.perf_counter()
done(start, before, sum(len(rows) for rows, _ in stream(path, columns, ["", "NA"], ",", 65536)))
"""
PROGRAMS = {
    "polars.read_csv": POLARS,
    "pyarrow.csv.read_csv": PYARROW,
    "mlpcli, parsing alone": UNCACHED,
    "mlpcli, first start": MLPCLI,
    "mlpcli, second start": MLPCLI,
    "mlpcli, stream for predict": STREAM,
}


def write(path: Path, size: float) -> int:
    """A CSV file of `size` bytes: 18 numbers, two categories and a target; returns its rows."""
    rng = np.random.default_rng(0)
    lines = []
    for numbers in rng.normal(size=(20_000, NUMBERS)):
        row = ",".join(f"{number:.6f}" for number in numbers)
        lines.append(f"{row},{COLORS[rng.integers(3)]},{SHAPES[rng.integers(3)]},{numbers.sum():.6f}\n")
    block, rows = "".join(lines), 0
    with path.open("w") as file:
        file.write(",".join([*(f"x{i}" for i in range(NUMBERS)), "color", "shape", "y"]) + "\n")
        while file.tell() < size:
            file.write(block)
            rows += len(lines)
    return rows


def measure(program: str, path: Path, cache: str) -> tuple[float, float, float]:
    """Seconds, and MiB before reading and at the peak."""
    environment = os.environ | {"MLPCLI_CACHE": cache}
    words = [sys.executable, "-c", COMMON + program, str(path)]
    done = subprocess.run(words, check=True, capture_output=True, text=True, env=environment)
    seconds, before, peak, _ = map(float, done.stdout.split())
    return seconds, before, peak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=float, default=1.0, help="of the file, in GB (10^9 bytes)")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "table.csv")
        start = time.perf_counter()
        rows = write(path, options.size * 1e9)
        numeric = rows * (NUMBERS + 3) * 8 / 2**20
        print(
            f"{path.stat().st_size / 1e9:.2f} GB, {rows:,} rows, {NUMBERS + 3} columns; numeric size "
            f"{numeric:.0f} MiB; written in {time.perf_counter() - start:.0f} s; n = {options.repeats}"
        )
        for name, program in PROGRAMS.items():
            results = []
            for repeat in range(options.repeats):
                cache = str(Path(folder, "cache" if "start" in name else "unused"))
                if name == "mlpcli, first start":
                    cache += str(repeat)
                elif name == "mlpcli, second start":
                    cache += "0"
                results.append(measure(program, path, cache))
            seconds, before, peak = (statistics.median(each) for each in zip(*results, strict=True))
            print(
                f"{name:28} {seconds:6.2f} s, {rows / seconds:>12,.0f} rows/s; peak {peak:6.0f} MiB, "
                f"{peak / numeric:.2f} times the numeric size ({before:.0f} MiB before)",
                flush=True,
            )


if __name__ == "__main__":
    main()
