"""Process start-up: `mlpcli --help` against an empty Typer app, and `mlpcli check` on a good config.

Whole processes, in turn; prints seconds and the ratio, pair by pair.

    python bench/startup.py [PAIRS]
"""

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

EMPTY_APP = """
import typer

app = typer.Typer()


@app.command()
def command() -> None:
    pass


app()
"""


def seconds(command: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def main() -> None:
    pairs = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    mlpcli = str(Path(sys.executable).with_name("mlpcli"))
    with tempfile.TemporaryDirectory() as folder:
        empty = Path(folder) / "empty.py"
        empty.write_text(EMPTY_APP)
        commands = {
            "mlpcli --help": [mlpcli, "--help"],
            "an empty Typer app's --help": [sys.executable, str(empty), "--help"],
            "mlpcli check digits": [mlpcli, "check", "digits"],
            "python -c 'import torch'": [sys.executable, "-c", "import torch"],
        }
        times: dict[str, list[float]] = {name: [] for name in commands}
        for turn in range(pairs + 1):
            for name, command in commands.items():
                taken = seconds(command)
                if turn:  # the first turn warms up
                    times[name].append(taken)
    print(f"n = {pairs}")
    for name, values in times.items():
        low, middle, high = min(values), statistics.median(values), max(values)
        print(f"{name:<28} min {low:.3f}  median {middle:.3f}  max {high:.3f} s")
    help_, empty_, *_ = times.values()
    ratios = sorted(a / b for a, b in zip(help_, empty_, strict=True))
    print(f"help / empty app: min {ratios[0]:.2f}  median {statistics.median(ratios):.2f}  max {ratios[-1]:.2f}")


if __name__ == "__main__":
    main()
