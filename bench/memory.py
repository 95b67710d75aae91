"""Peak memory of a training, beyond `import torch`, against the float32 size of its training split.

Whole processes, each with the largest resident size that it ever had (VmHWM of Linux). What every training needs
apart from data and parameters (libraries, buffers of a batch) is shown by a training on almost no data, and what
each parameter needs by a large network on little data.

    python bench/memory.py [REPEATS]
"""

import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

PROGRAM = """
import sys
import torch
if len(sys.argv) > 1:
    from mlpcli.cli import main
    try:
        main()
    except SystemExit as done:
        assert not done.code
status = dict(line.split(":") for line in open("/proc/self/status"))
print(int(status["VmHWM"].split()[0]) / 1024)
"""

SMALL = ["model.width=[128]", "optimizer={name: sgd, momentum: 0.9}", "training.epochs=1"]
LARGE = ["model.width=[2048, 2048, 2048]", "training.epochs=1", "training.batch_size=256"]
PARAMETERS = {128: 784 * 128 + 128 + 128 * 10 + 10, 2048: 784 * 2048 + 2 * 2048**2 + 3 * 2048 + 2048 * 10 + 10}


def peak(*arguments: str) -> float:
    """MiB."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, *arguments], cwd=folder, check=True, capture_output=True, text=True
        )
    return float(done.stdout.splitlines()[-1])


def main() -> None:
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    empty = statistics.median(peak() for _ in range(repeats))
    print(f"n = {repeats}, MiB; import torch: {empty:.0f}")
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "config.yaml"
        for samples in (1_000, 60_000, 240_000):
            config.write_text(f"data: {{dataset: fake, train_size: {samples}, validation: 0}}\n")
            values = [peak("train", str(config), "-q", *SMALL) - empty for _ in range(repeats)]
            split = samples * 784 * 4 / 2**20
            allowed = 4 * PARAMETERS[128] * 4 / 2**20
            middle = statistics.median(values)
            print(
                f"{samples:>7} images: {middle:.0f} ({min(values):.0f} to {max(values):.0f}) beyond import torch; "
                f"the split in float32 is {split:.0f}, ratio {(middle - allowed) / split:.2f}"
            )
        config.write_text("data: {dataset: fake, validation: 0}\n")
        least = peak("train", str(config), "-q", *SMALL) - empty
        for optimizer in ("{name: sgd, momentum: 0.9}", "adam"):
            values = [
                (peak("train", str(config), "-q", *LARGE, f"optimizer={optimizer}") - empty - least)
                / (PARAMETERS[2048] * 4 / 2**20)
                for _ in range(repeats)
            ]
            print(
                f"784-2048-2048-2048-10, {optimizer}: {statistics.median(values):.1f} ({min(values):.1f} to "
                f"{max(values):.1f}) times the parameters more than 784-128-10"
            )


if __name__ == "__main__":
    main()
