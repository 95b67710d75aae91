"""What `training.diagnostics` costs: whole `mlpcli train` processes with it and without, in turn.

Prints seconds of the processes and of their training passes, and the ratios with/without, pair by pair. MNIST is
measured where MLPCLI_TEST_DATA says where its files are.

    python bench/diagnostics.py [PAIRS] [KEY=VALUE ...]
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path


def trained(arguments: Sequence[str], folder: str) -> tuple[float, float]:
    """Seconds of a whole process, and of its training passes."""
    command = [str(Path(sys.executable).with_name("mlpcli")), "train", "-q", "--json", *arguments]
    environment = {**os.environ, "MLPCLI_CACHE": str(Path(folder, "cache"))}
    started = time.perf_counter()
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, cwd=folder, env=environment)
    return time.perf_counter() - started, json.loads(done.stdout)["train_seconds"]


def spread(values: Sequence[float], digits: int) -> str:
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"min {low:.{digits}f}  median {middle:.{digits}f}  max {high:.{digits}f}"


def measure(name: str, arguments: Sequence[str], pairs: int) -> None:
    times: dict[str, list[tuple[float, float]]] = {"true": [], "false": []}
    with tempfile.TemporaryDirectory() as folder:
        trained(arguments, folder)  # fills the cache
        for turn in range(pairs):
            for value in ("true", "false") if turn % 2 else ("false", "true"):
                times[value].append(trained([*arguments, f"training.diagnostics={value}"], folder))
    for place, what in enumerate(("process", "training")):
        on, off = ([each[place] for each in times[value]] for value in ("true", "false"))
        ratios = [a / b for a, b in zip(on, off, strict=True)]
        print(f"{name} {what}: with     {spread(on, 3)} s")
        print(f"{name} {what}: without  {spread(off, 3)} s")
        print(f"{name} {what}: ratio    {spread(ratios, 3)}  of the fastest {min(on) / min(off):.3f}", flush=True)


def main() -> None:
    overrides = [each for each in sys.argv[1:] if "=" in each]
    counts = [int(each) for each in sys.argv[1:] if "=" not in each]
    pairs = counts[0] if counts else 10
    print(f"n = {pairs}")
    measure("digits", ["digits", "training.threads=1", "report=false", *overrides], pairs)
    if root := os.environ.get("MLPCLI_TEST_DATA"):
        of_mnist = [
            f"data.root={os.path.abspath(root)}",
            "data.download=false",
            "training.threads=1",
            "report=false",
        ]
        measure("mnist", ["mnist", *of_mnist, *overrides], max(3, pairs // 3))


if __name__ == "__main__":
    main()
