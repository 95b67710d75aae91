"""A run directory -> all that is known of it; what is missing or damaged is noted in a sentence."""

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mlpcli import data
from mlpcli.config import Config, load_config
from mlpcli.errors import ConfigError, MlpcliError, UsageError
from mlpcli.network import Network, open_target
from mlpcli.report.answers import Answers, answered
from mlpcli.report.probes import Probe, read_probes
from mlpcli.runs import (
    BEST,
    CONFIG,
    ENVIRONMENT,
    LAST,
    METRICS,
    SUMMARY,
    read_json,
    read_metrics,
    require_run,
    status_of,
)
from mlpcli.targets import Opened

ANYWHERE = "training.device=auto"
"""A report is made on the device that there is, wherever the run was trained."""
MOST_LETTERS = 60
"""Of a name."""


@dataclass(frozen=True, eq=False)
class Gathered:
    """What is known of a run.

    Attributes:
        path: its directory.
        status: `finished`, `diverged`, `running`, `interrupted` or `unknown`.
        config: as config.yaml has it, else the checkpoint; None where neither can be read.
        metrics: a line an epoch.
        summary, environment: as in their files; empty where there are none.
        probes: of diagnostics.jsonl.
        network: of the best checkpoint, else of the last one; None where neither can be read.
        network_of: the file that it is from.
        test: the best checkpoint's answers on the test split; None where there is no such checkpoint or no data.
        test_metrics: those of summary.json; where it has none, of the best checkpoint, measured now.
        samples: of each split; empty where the data cannot be read.
        notes: a sentence for each thing that is missing or damaged.
    """

    path: Path
    status: str
    config: Config | None
    metrics: list[dict[str, Any]]
    summary: dict[str, Any]
    environment: dict[str, Any]
    probes: list[Probe] = field(default_factory=list)
    network: Network | None = None
    network_of: str = ""
    test: Answers | None = None
    test_metrics: dict[str, float] = field(default_factory=dict)
    samples: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Of the run: that of its directory."""
        return self.path.resolve().name

    @property
    def classes(self) -> list[str]:
        """Names of the classes, shortened; empty in regression, and where that is not known."""
        return [] if self.network is None else [shortened(name) for name in self.network.description.classes]

    @property
    def epochs(self) -> list[int]:
        """The numbers of the finished epochs."""
        return [line["epoch"] for line in self.metrics]

    def series(self, split: str, metric: str) -> list[float]:
        """A metric epoch by epoch; NaN where it is missing."""
        found = []
        for line in self.metrics:
            of_split = line.get(split)
            found.append(number(of_split.get(metric) if isinstance(of_split, Mapping) else None))
        return found

    def column(self, key: str) -> list[float]:
        """`lr` or `seconds` epoch by epoch; NaN where it is missing."""
        return [number(line.get(key)) for line in self.metrics]

    def has(self, split: str, metric: str) -> bool:
        """Whether any epoch has that metric as a finite number."""
        return any(map(math.isfinite, self.series(split, metric)))


def shortened(name: str) -> str:
    """A name of the data on one line of bearable length."""
    name = " ".join(name.split())
    return name if len(name) <= MOST_LETTERS else name[: MOST_LETTERS - 1] + "…"


def number(value: object) -> float:
    """A number of a file as a float; NaN for anything else."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan


def gather(path: Path, overrides: Sequence[str] = (), trained: Opened | None = None) -> Gathered:
    """Everything that is known of a run.

    Args:
        path: of the run directory.
        overrides: KEY=VALUE that say where the data is now.
        trained: the best checkpoint's network with its data, where that is in memory already.

    Raises:
        RunError: it is no run directory.
        UsageError, ConfigError: for an override that is none, or that would change the network.
    """
    require_run(path)
    notes: list[str] = []
    config = _config(path, notes)
    summary = _object(path / SUMMARY, notes)
    status = status_of(path, summary)
    running = status == "running"
    metrics = _metrics(path, running, notes)
    probes, damaged = read_probes(path)
    if damaged and not running:
        lines = "1 line of diagnostics.jsonl is" if damaged == 1 else f"{damaged} lines of diagnostics.jsonl are"
        notes.append(f"{lines} damaged and left out.")
    found = Gathered(
        path, status, config, metrics, summary, _object(path / ENVIRONMENT, notes), probes, notes=notes
    )
    if status == "interrupted":
        notes.append(
            f"The run was interrupted after {len(metrics):,} finished epochs; "
            f"go on with: mlpcli train --resume {shlex.quote(str(path))}"
        )
    elif status == "diverged":
        where = (
            f" at epoch {summary.get('epoch', '?')}, step {summary.get('step', '?')}: {summary.get('where', '')}"
        )
        notes.append(f"The run diverged{where} is not finite.")
    return _with_network(found, overrides, trained)


def _config(path: Path, notes: list[str]) -> Config | None:
    try:
        return load_config(path / CONFIG)
    except MlpcliError as error:
        notes.append(f"{CONFIG} cannot be read, so the checkpoint’s own config is shown: {_first_line(error)}")
        return None


def _object(file: Path, notes: list[str]) -> dict[str, Any]:
    found = read_json(file)
    if not found:
        if file.exists():
            notes.append(f"{file.name} is damaged: it holds no JSON object.")
        elif file.name == ENVIRONMENT:
            notes.append(f"{file.name} is missing, so what the run was trained with is not known.")
    return found


def _metrics(path: Path, running: bool, notes: list[str]) -> list[dict[str, Any]]:
    try:
        lines = read_metrics(path)
        text = (path / METRICS).read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        if not running:
            notes.append(f"{METRICS} is missing: no epoch was finished, or the file was lost.")
        return []
    except OSError as error:
        notes.append(f"{METRICS} cannot be read: {error.strerror or error}.")
        return []
    written = sum(bool(line.strip()) for line in text.splitlines())
    if len(lines) < written and not running:
        notes.append(
            f"{METRICS} is damaged from line {len(lines) + 1} on; the {len(lines)} lines before are shown."
        )
    return lines


def _with_network(found: Gathered, overrides: Sequence[str], trained: Opened | None) -> Gathered:
    """With the network, the data and its answers, as far as they can be had."""
    test = found.summary.get("test")
    if isinstance(test, dict):
        found = replace(found, test_metrics={name: number(value) for name, value in test.items()})
    if trained is None:
        opened = _network(found.path, overrides, found.notes)
        if opened is None:
            return found
        config, network, file = opened
        found = replace(found, config=found.config or config, network=network, network_of=str(file))
        try:
            trained = Opened(str(file), config, network, data.load(config.data, config.seed, network.extraction))
        except MlpcliError as error:
            found.notes.append(f"The data cannot be read, so no sample is shown: {_first_line(error)}")
            return found
    dataset, network = trained.dataset, trained.network
    splits = {"train": dataset.train, "validation": dataset.validation, "test": dataset.test}
    samples = {name: len(split) for name, split in splits.items() if split is not None}
    found = replace(found, network=network, network_of=trained.of, samples=samples)
    if dataset.description.fingerprint != network.description.fingerprint:
        found.notes.append("The data is not what the run was trained on: it has another fingerprint.")
    if Path(trained.of).name != Path(BEST).name:
        return found
    try:
        answers = answered(trained, "test")
        metrics = found.test_metrics or network.measure(answers.split).metrics
    except MlpcliError as error:
        found.notes.append(f"The test split cannot be used: {_first_line(error)}")
        return found
    return replace(found, test=answers, test_metrics=metrics)


def _network(path: Path, overrides: Sequence[str], notes: list[str]) -> tuple[Config, Network, Path] | None:
    """The best checkpoint's network, else the last one's; None where neither can be read."""
    for which, name in (("best", BEST), ("last", LAST)):
        try:
            return open_target(path, which, [ANYWHERE, *overrides])
        except UsageError:
            raise
        except MlpcliError as error:
            if isinstance(error, ConfigError) and any(
                problem.location.startswith("command line") for problem in error.problems
            ):
                raise  # an override that cannot be is no damage of the checkpoint
            notes.append(f"{name} cannot be used: {_first_line(error)}")
    return None


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0].rstrip(":")
