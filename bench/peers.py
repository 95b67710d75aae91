"""mlpcli against other libraries that train multi-layer perceptrons: seconds an epoch, and the loss reached.

    python bench/peers.py [--sizes S M L] [--optimizers sgd adam] [--rounds 3] [--only NAME ...] [--json FILE]

Every contestant of bench/contestants.py runs in its own process, and the contestants take turns: all of them in
round 1, all of them in round 2, and so on, so that a slow minute of the machine meets all alike. The first epoch
of a process, which compiles, is left out; of the others the median counts. Contestants with a high cost a batch
train on their first batches only, and their time is scaled up: `~` in the table.

Then the learning check: all train on the same samples for the same number of epochs, and the exact training loss
of each must be close to the median of all. Exits with 1 where one is not, or where a contestant failed.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from contestants import CONTESTANTS, LR, WIDTHS

OURS = "mlpcli"
EPOCHS = {"S": 4, "M": 3, "L": 2}
"""Of a process, with the one that is left out."""
BATCHES_LIMIT = {"S": 200, "M": 100, "L": 15}
LIMITED = ("keras-torch", "skorch", "lightning", "torch-dataloader")
CHECK = {"S": ("5", "6400"), "M": ("3", "6400"), "L": ("3", "3840")}
"""Epochs and samples of the learning check."""
RELATIVE, ABSOLUTE = 0.15, 0.02
"""The learning check: |loss − median| ≤ 0.15 median + 0.02. Each library draws its own weights and shuffles."""
TIMEOUT = 900

Run = dict[str, Any]


def contest(name: str, size: str, optimizer: str, epochs: int | str, *options: str) -> Run:
    """What one process measured; `missing` or `failed` says why it did not."""
    script = Path(__file__).with_name("contestants.py")
    command = [
        sys.executable,
        str(script),
        name,
        "--size",
        size,
        "--optimizer",
        optimizer,
        "--epochs",
        str(epochs),
    ]
    try:
        done = subprocess.run([*command, *options], capture_output=True, text=True, timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        return {"name": name, "failed": f"took longer than {TIMEOUT} s"}
    if done.returncode:
        return {"name": name, "failed": (done.stderr.strip().splitlines() or ["no message"])[-1]}
    run: Run = json.loads(done.stdout.splitlines()[-1])
    return run


def measure(names: list[str], size: str, optimizer: str, rounds: int) -> list[Run]:
    """`rounds` processes of each contestant, in turn; one that cannot run is tried once."""
    runs: list[Run] = []
    absent: set[str] = set()
    for number in range(rounds):
        for name in names:
            if name in absent:
                continue
            options = ("--batches-limit", str(BATCHES_LIMIT[size])) if name in LIMITED else ()
            run = contest(name, size, optimizer, EPOCHS[size], *options)
            if why := trouble(run):
                absent.add(name)
                print(f"{name} left out: {why}", flush=True)
            else:
                run["seconds"] = statistics.median(run["epoch_seconds"][1:])
            runs.append(run | {"size": size, "optimizer": optimizer, "round": number})
    return runs


def trouble(run: Run) -> str:
    return f"the package {run['missing']} is missing" if "missing" in run else str(run.get("failed", ""))


def spread(values: Sequence[float], digits: int) -> list[str]:
    chosen = min(values), statistics.median(values), max(values)
    return [f"{value:.{digits}f}" for value in chosen]


def print_times(runs: list[Run], size: str, optimizer: str) -> None:
    widths = "-".join(str(width) for width in WIDTHS[size])
    timed = [run for run in runs if "seconds" in run]
    if not timed:
        return
    samples = timed[0]["samples"]
    print(f"\n{size}: {widths}, {optimizer}, {samples:,} samples an epoch, loss after {EPOCHS[size]} epochs")
    print(f"{'':24}s/epoch{'':14}{OURS} / contestant, round by round")
    heads = f"{'contestant':18}{'min':>9}{'median':>9}{'max':>9}{'n':>4}   {'median':>8} {'min':>8} {'max':>8}"
    print(f"{heads}  {'loss':>7} {'threads':>8}")
    ours = {run["round"]: run["seconds"] for run in timed if run["name"] == OURS}
    for name in dict.fromkeys(run["name"] for run in timed):
        its = [run for run in timed if run["name"] == name]
        low, middle, high = spread([run["seconds"] for run in its], 3)
        ratios = [ours[run["round"]] / run["seconds"] for run in its if run["round"] in ours]
        ratio = spread(ratios, 2) if ratios else ["–"] * 3
        # after fewer samples the loss is another one, and the products have none
        losses = [run["final_loss"] for run in its if not run["extrapolated"] and run["final_loss"] is not None]
        loss = f"{statistics.median(losses):.4f}" if losses else "–"
        mark = "~" if its[0]["extrapolated"] else " "
        print(
            f"{name:18}{low:>9}{middle:>9}{high:>9}{len(its):4}{mark} {ratio[1]:>8} {ratio[0]:>8} {ratio[2]:>8}  "
            f"{loss:>7} {its[0]['threads']:8}",
            flush=True,
        )


def check_learning(names: list[str], size: str, optimizer: str) -> list[Run]:
    """Each contestant's exact loss after the same training; `learned` says whether it is close to the median."""
    epochs, samples = CHECK[size]
    runs = [contest(name, size, optimizer, epochs, "--samples", samples) for name in names if name != "products"]
    runs = [run | {"size": size, "optimizer": optimizer} for run in runs]
    losses = [run["final_loss"] for run in runs if "final_loss" in run]
    if not losses:
        return runs
    middle = statistics.median(losses)
    tolerance = RELATIVE * middle + ABSOLUTE
    print(f"\nlearning check, {size}, {optimizer}: {epochs} epochs of {int(samples):,} samples")
    print(f"exact training loss, must be {middle:.4f} ± {tolerance:.4f}")
    for run in runs:
        loss = run.get("final_loss", float("nan"))
        run["learned"] = abs(loss - middle) <= tolerance  # false for NaN, too
        print(f"{run['name']:18}{loss:9.4f}  {'' if run['learned'] else trouble(run) or 'NOT LIKE THE OTHERS'}")
    return runs


def cpu_model() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor()


def machine() -> dict[str, Any]:
    return {
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "system": platform.system(),
        "python": sys.version.split()[0],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=WIDTHS, default=list(WIDTHS))
    parser.add_argument("--optimizers", nargs="+", choices=LR, default=["sgd"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=CONTESTANTS, default=list(CONTESTANTS), metavar="NAME")
    parser.add_argument("--json", type=Path, help="write every number there")
    args = parser.parse_args()

    where = machine()
    print(f"{where['cpu']}, {where['cores']} cores, {where['system']}, Python {where['python']}", flush=True)
    runs: list[Run] = []
    learning: list[Run] = []
    for size in args.sizes:
        for optimizer in args.optimizers:
            measured = measure(args.only, size, optimizer, args.rounds)
            print_times(measured, size, optimizer)
            runs += measured
            present = [
                name for name in args.only if not any(r["name"] == name and "missing" in r for r in measured)
            ]
            learning += check_learning(present, size, optimizer)
    versions = {name: version for run in runs for name, version in run.get("version", {}).items()}
    print("\nwith " + (", ".join(f"{name} {version}" for name, version in sorted(versions.items())) or "nothing"))
    if args.json is not None:
        plain = {"machine": where, "versions": versions, "runs": runs, "learning": learning}
        args.json.write_text(json.dumps(plain, indent=1) + "\n", encoding="utf-8")
    if any("failed" in run for run in runs) or not all(run.get("learned") for run in learning):
        sys.exit(1)


if __name__ == "__main__":
    main()
