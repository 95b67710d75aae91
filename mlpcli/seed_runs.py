"""The directory of a training with several seeds: a run for each, and seeds.json over all of them. No torch."""

import os
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlpcli.config import Config, config_from_plain, dump_config, to_plain
from mlpcli.errors import ConfigError, RunError
from mlpcli.runs import (
    CONFIG,
    SUMMARY,
    is_run,
    lock,
    make_directory,
    read_json,
    read_metrics,
    to_json,
    write_whole,
)

SEEDS = "seeds.json"


class SeedRuns:
    """Such a directory, locked against every other process.

    Attributes:
        path: of it.
        config: what each seed is trained with, but for the seed.
        seeds: ascending.
        changes: KEY=VALUE of what was changed on resume, in order; runs from before do not have them yet.
        failures: of a seed that failed just now, why.
    """

    def __init__(
        self, path: Path, handle: int, config: Config, seeds: Sequence[int], changes: Sequence[str]
    ) -> None:
        self.path, self._lock = path, handle
        self.config, self.seeds, self.changes = config, list(seeds), list(changes)
        self.failures: dict[int, str] = {}

    @classmethod
    def create(cls, output: Path | None, config: Config, seeds: Sequence[int]) -> "SeedRuns":
        """Make a new one, whole or not at all.

        Args:
            output: where; None for the first free one of runs/<name>-seeds, runs/<name>-seeds-2, …
            config: resolved, as far as it is without its data.
            seeds: ascending.

        Raises:
            RunError: something is at `output` already.
            StorageError: it could not be written.
        """

        def fill(building: Path) -> int:
            (building / CONFIG).write_text(dump_config(config), encoding="utf-8")
            (building / SEEDS).write_bytes(to_json(cls(building, -1, config, seeds, ()).content()))
            return lock(building)

        path, handle = make_directory(output, Path("runs") / f"{config.name}-seeds", fill)
        return cls(path, handle, config, seeds, ())

    @classmethod
    def open(cls, path: Path) -> "SeedRuns":
        """Open one to go on with it.

        Raises:
            RunError: another process trains in it, or its seeds.json is damaged.
        """
        handle = lock(path)  # before it is read: who had it may have written until then
        found = read_json(path / SEEDS)
        try:
            seeds = [int(run["seed"]) for run in found["runs"]]
            changes = [str(change) for change in found["changes"]]
            seeds[0]
            config = config_from_plain(found["config"])
        except (LookupError, TypeError, ValueError, ConfigError):
            os.close(handle)
            raise RunError(
                f"{path / SEEDS} cannot be read\n    each seed can be continued by itself: "
                f"mlpcli train --resume {path / 'seed-…'}"
            ) from None
        return cls(path, handle, config, seeds, changes)

    def close(self) -> None:
        """Release the lock."""
        os.close(self._lock)

    def run(self, seed: int) -> Path:
        """The run directory of a seed."""
        return self.path / f"seed-{seed:04}"

    def config_of(self, seed: int) -> Config:
        """What a seed is trained with: what a training of that seed alone would be."""
        return with_seed(self.config, seed)

    def change(self, changes: Sequence[str], seeds: Sequence[int]) -> None:
        """Note what changes from here on: KEY=VALUE that were checked, and seeds.

        Raises:
            StorageError: it could not be noted.
        """
        self.changes += changes
        self.seeds = list(seeds)
        self.config = config_from_plain(to_plain(self.config), changes)
        self.write()
        self.restore_config()

    def restore_config(self) -> bool:
        """Write config.yaml anew where it is not what the seeds are trained with; whether it was not.

        Raises:
            StorageError: it could not be written.
        """
        path, whole = self.path / CONFIG, dump_config(self.config).encode()
        if path.is_file() and path.read_bytes() == whole:
            return False
        write_whole(path, whole)
        return True

    def status(self, seed: int) -> str:
        """`finished`, `diverged`, `failed`, `interrupted`, or `missing` where there is no run yet."""
        if seed in self.failures:
            return "failed"
        path = self.run(seed)
        return str(read_json(path / SUMMARY).get("status", "interrupted" if is_run(path) else "missing"))

    def none_began(self) -> bool:
        """Whether no seed has a run directory."""
        return not any(is_run(self.run(seed)) for seed in self.seeds)

    def epochs(self) -> int:
        """The most that any seed has finished."""
        lines = [read_metrics(self.run(seed))[-1:] for seed in self.seeds]
        return max((line["epoch"] for last in lines for line in last), default=0)

    def content(self) -> dict[str, Any]:
        """What seeds.json holds: each seed's run with its values, and each value over the finished ones."""
        runs = []
        for seed in self.seeds:
            status = self.status(seed)
            values = values_of(read_json(self.run(seed) / SUMMARY)) if status == "finished" else {}
            run = {"seed": seed, "run": self.run(seed).name, "status": status, "values": values}
            runs.append(run | ({"error": self.failures[seed]} if seed in self.failures else {}))
        return {
            "name": self.config.name,
            "changes": self.changes,
            "runs": runs,
            "metrics": summaries(runs),
            "config": to_plain(self.config),
        }

    def write(self) -> dict[str, Any]:
        """Write seeds.json; what it holds."""
        content = self.content()
        write_whole(self.path / SEEDS, to_json(content))
        return content


def with_seed(config: Config, seed: int) -> Config:
    """The same config with another seed.

    Raises:
        ConfigError: there is no such seed.
    """
    return config_from_plain(to_plain(config), [f"seed={seed}"])


def values_of(summary: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a finished run that several seeds are compared by; validation metrics are those of its best
    epoch."""
    best = summary.get("best", {})
    named = {f"test.{name}": value for name, value in summary.get("test", {}).items()}
    named |= {f"validation.{name}": value for name, value in best.get("validation", {}).items()}
    named |= {name: summary.get(name) for name in ("train_seconds", "samples_per_second")}
    return {name: float(value) for name, value in named.items() if isinstance(value, int | float)}


def summaries(runs: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Each value over the runs that have it, see `summary`."""
    names = dict.fromkeys(name for run in runs for name in run["values"])
    return {name: summary([run["values"][name] for run in runs if name in run["values"]]) for name in names}


def summary(values: Sequence[float]) -> dict[str, Any]:
    """Number, mean, standard deviation (with n − 1), Student's 95 % interval of the mean, least and greatest.

    The standard deviation and the interval of one value alone are None.
    """
    n, mean = len(values), statistics.fmean(values)
    std, interval = None, None
    if n > 1:
        from mlpcli.report.statistics import student

        std = statistics.stdev(values)
        half = student(n - 1) * std / n**0.5
        interval = [mean - half, mean + half]
    return {"n": n, "mean": mean, "std": std, "interval": interval, "min": min(values), "max": max(values)}
