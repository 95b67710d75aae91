"""Process start-up: `mlpcli --help` against an empty Typer app, `mlpcli check` on a good config, and
`mlpcli train` up to its first step against `import torch`, with the data in the cache.

Whole processes, in turn; prints seconds, and ratios or differences pair by pair. MNIST is measured where
MLPCLI_TEST_DATA says where its files are.

    python bench/startup.py [PAIRS]
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

EMPTY_APP = """
import typer

app = typer.Typer()


@app.command()
def command() -> None:
    pass


app()
"""

FIRST_STEP = """
import os
import sys

from mlpcli import cli
from mlpcli.experiment import Experiment

fit = Experiment.fit


def until_the_first_step(self):
    yield next(fit(self))
    os._exit(0)


Experiment.fit = until_the_first_step
cli.main(sys.argv[1:])
"""
IMPORT_TORCH = "import os, torch; os._exit(0)"


def seconds(command: list[str], folder: str) -> float:
    environment = {**os.environ, "MLPCLI_CACHE": str(Path(folder, "cache"))}
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=folder, env=environment)
    return time.perf_counter() - started


def spread(values: Sequence[float], digits: int) -> str:
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"min {low:.{digits}f}  median {middle:.{digits}f}  max {high:.{digits}f}"


def main() -> None:
    pairs = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    mlpcli = str(Path(sys.executable).with_name("mlpcli"))
    with tempfile.TemporaryDirectory() as folder:
        empty, first_step = Path(folder, "empty.py"), Path(folder, "first_step.py")
        empty.write_text(EMPTY_APP)
        first_step.write_text(FIRST_STEP)
        help_, empty_help, torch = "mlpcli --help", "an empty Typer app's --help", "import torch"
        commands = {
            help_: [mlpcli, "--help"],
            empty_help: [sys.executable, str(empty), "--help"],
            "mlpcli check digits": [mlpcli, "check", "digits"],
            torch: [sys.executable, "-c", IMPORT_TORCH],
        }
        sets = {"digits": ["digits"]}
        if root := os.environ.get("MLPCLI_TEST_DATA"):
            sets["mnist"] = ["mnist", f"data.root={os.path.abspath(root)}", "data.download=false"]
        trainings = {f"mlpcli train {name}, first step": arguments for name, arguments in sets.items()}
        for name, arguments in trainings.items():
            commands[name] = [sys.executable, str(first_step), "train", "-q", *arguments]
        times: dict[str, list[float]] = {name: [] for name in commands}
        for turn in range(pairs + 1):
            for name, command in commands.items():
                taken = seconds(command, folder)
                if turn:  # the first turn warms up
                    times[name].append(taken)
    print(f"n = {pairs}")
    for name, values in times.items():
        print(f"{name:<32} {spread(values, 3)} s")
    ratios = [a / b for a, b in zip(times[help_], times[empty_help], strict=True)]
    print(f"help / empty app: {spread(ratios, 2)}")
    for name in trainings:
        print(f"{name} - {torch}: {spread([a - b for a, b in zip(times[name], times[torch], strict=True)], 3)} s")


if __name__ == "__main__":
    main()
