"""How long a report takes, beyond imports, and how large it is: runs of several kinds, and what `mlpcli train`
takes longer for it. MNIST is measured where MLPCLI_TEST_DATA says where its files are.

    python bench/report.py [ROUNDS]
"""

import contextlib
import io
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from mlpcli import cli
from mlpcli.report.writing import write_report

RUNS = {
    "digits": ["digits"],
    "breast_cancer": ["breast_cancer"],
    "diabetes": ["diabetes"],
    "iris, 1,000 epochs": ["iris", "training.epochs=1000"],
    "digits, depth 50": ["digits", "model={depth: 50, width: 32}", "training.epochs=5"],
}


def train(arguments: list[str], output: Path) -> None:
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            cli.main(["train", *arguments, "report=false", "-q", "-o", str(output)])
    except SystemExit as end:
        assert not end.code, arguments


def seconds(command: list[str], folder: str) -> float:
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder)
    return time.perf_counter() - started


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    runs = dict(RUNS)
    if root := os.environ.get("MLPCLI_TEST_DATA"):
        place = [f"data.root={os.path.abspath(root)}", "data.download=false"]
        runs["mnist"] = ["mnist", *place, "training.epochs=2"]
        runs["fashion_mnist"] = ["fashion_mnist", *place, "training.epochs=2"]
    with tempfile.TemporaryDirectory() as folder:
        rows = []
        for name, arguments in runs.items():
            path = Path(folder, f"run-{len(rows)}")
            train(arguments, path)
            logging.getLogger("mlpcli").handlers = []
            times = []
            for _ in range(rounds + 1):  # the first warms up
                started = time.perf_counter()
                write_report(path)
                times.append(time.perf_counter() - started)
            pictures = list((path / "plots").iterdir())
            rows.append(
                f"{name:<20} {min(times[1:]):8.3f} {statistics.median(times[1:]):8.3f} "
                f"{(path / 'report.html').stat().st_size / 1e3:12,.0f} {len(pictures):9} "
                f"{sum(each.stat().st_size for each in pictures) / 1e3:8,.0f}"
            )
        print(f"{'run':<20} {'least s':>8} {'median s':>8} {'report.html kB':>12} {'pictures':>9} {'kB':>6}")
        print("\n".join(rows))
        mlpcli = str(Path(sys.executable).with_name("mlpcli"))
        longer = []
        for turn in range(rounds + 1):
            pair = [
                seconds([mlpcli, "train", "digits", f"report={value}", "-q"], folder)
                for value in ("true", "false")
            ]
            if turn:
                longer.append(pair[0] - pair[1])
        print(
            f"mlpcli train digits takes longer by {statistics.median(longer):.3f} s, the median of {rounds} pairs"
        )


if __name__ == "__main__":
    main()
