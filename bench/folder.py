"""A folder of images: one plain loop over PIL, a first (cold) read with an empty cache, and a second (warm) one.

Whole processes, in turn; the seconds are of the reading alone, without the imports, and the CPU seconds are those
of all processes, imports included. With the files in the system's page cache, which the first turn fills.

    python bench/folder.py FOLDER [REPEATS] [HEIGHT]
"""

import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

PLAIN = """
import sys, time
from pathlib import Path
import numpy as np
from PIL import Image
start = time.perf_counter()
files = sorted(file for file in Path(sys.argv[1]).rglob("*") if file.is_file())
side = int(sys.argv[2])
images = np.empty((len(files), side, side, 3), dtype=np.uint8)
for index, file in enumerate(files):
    with Image.open(file) as image:
        image = image.convert("RGB")
        images[index] = image if image.size == (side, side) else image.resize((side, side), Image.BILINEAR)
print(time.perf_counter() - start)
"""
READ = """
import sys, time
from mlpcli.config.data_schema import ImageFolderData
from mlpcli.data import folder
section = ImageFolderData(dataset="image_folder", path=sys.argv[1], image_size=int(sys.argv[2]))
start = time.perf_counter()
source = folder.read(section)
print(time.perf_counter() - start)
"""


def measured(program: str, *arguments: str) -> tuple[float, float]:
    """Seconds that `program` says, and CPU seconds of it and its workers."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], check=True, stdout=subprocess.PIPE, text=True
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return float(done.stdout.split()[-1]), used


def main() -> None:
    where = sys.argv[1]
    repeats = int(sys.argv[2]) if len(sys.argv) > 2 else 5
    side = sys.argv[3] if len(sys.argv) > 3 else "32"
    figures: dict[str, list[tuple[float, float]]] = {"a plain loop over PIL": [], "cold": [], "warm": []}
    with tempfile.TemporaryDirectory() as cache:
        os.environ["MLPCLI_CACHE"] = cache
        for turn in range(repeats + 1):
            for entry in Path(cache).iterdir():
                shutil.rmtree(entry)
            for name, values in figures.items():
                value = measured(PLAIN if name.startswith("a plain") else READ, where, side)
                if turn:  # the first turn warms up
                    values.append(value)
    print(f"n = {repeats}, {len(os.sched_getaffinity(0))} cores")
    for name, values in figures.items():
        seconds, cpu = zip(*values, strict=True)
        print(
            f"{name:<22} min {min(seconds):.3f}  median {statistics.median(seconds):.3f}  max {max(seconds):.3f} s"
            f"  CPU {statistics.median(cpu):.2f} s"
        )


if __name__ == "__main__":
    main()
