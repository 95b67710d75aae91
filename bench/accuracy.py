"""What the starter configs reach: test metrics and whole-process time over several seeds.

python bench/accuracy.py digits 5
python bench/accuracy.py mnist 3 data.root=DIR
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time


def main() -> None:
    name, seeds, *overrides = sys.argv[1:]
    rows: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(int(seeds)):
            command = [sys.executable, "-m", "mlpcli", "train", name, f"seed={seed}", *overrides]
            started = time.perf_counter()
            done = subprocess.run(
                [*command, "--json", "-q", "-o", f"{folder}/{seed}"], check=True, capture_output=True, text=True
            )
            seconds = time.perf_counter() - started
            summary = json.loads(done.stdout)
            rows.append(summary["test"] | {"seconds": seconds, "best epoch": summary["best"]["epoch"]})
            shown = {key: round(value, 4) for key, value in rows[-1].items()}
            print(f"seed {seed}: {shown}", flush=True)
    print(f"{name} {' '.join(overrides)}, n = {len(rows)}")
    for key in rows[0]:
        values = [row[key] for row in rows]
        spread = f"{min(values):.4f} to {max(values):.4f}"
        print(f"{key:<14} mean {statistics.mean(values):.4f}  ({spread})")


if __name__ == "__main__":
    main()
