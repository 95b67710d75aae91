"""Which runs are listed and in which order: `mlpcli runs --where CONDITION --sort KEY`. No torch."""

import difflib
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from mlpcli.config import config_schema
from mlpcli.config.expected import SchemaTree
from mlpcli.config.files import read_text
from mlpcli.config.schema import TASK_METRICS
from mlpcli.config.text import Text
from mlpcli.config.yaml_source import FatalError, parse_yaml
from mlpcli.errors import ConfigError, UsageError
from mlpcli.progress import less_is_better
from mlpcli.runs import CONFIG

OWN = ("path", "status", "started", "epochs", "seconds")
"""Keys of a run by itself."""
METRICS = tuple(dict.fromkeys(metric for metrics in TASK_METRICS.values() for metric in metrics))

COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "!=": operator.ne,
    "=": operator.eq,
    ">": operator.gt,
    "<": operator.lt,
}
MISSING: Any = object()
"""The value of a key that a run lacks."""


@dataclass(frozen=True)
class Condition:
    """`KEY=VALUE` or another comparison: what a run must satisfy to be listed."""

    key: str
    symbol: str
    value: Any

    def holds(self, found: Any) -> bool:
        """Whether it does for the value that a run has for the key."""
        if found is MISSING:
            return False
        if isinstance(found, Mapping) and isinstance(self.value, str):  # optimizer=sgd
            found = found.get("name", found.get("dataset"))
        if self.symbol not in ("=", "!=") and not _ordered(found, self.value):
            return False
        return COMPARISONS[self.symbol](found, self.value)


def _ordered(one: Any, other: Any) -> bool:
    return (_is_number(one) and _is_number(other)) or (isinstance(one, str) and isinstance(other, str))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def parse_condition(text: str) -> Condition:
    """A condition as it is given on the command line, its value in YAML.

    Raises:
        UsageError: it has no comparison, a key that no run can have, or a value that is no YAML.
    """
    found = re.match(r"([^<>=!]+)(>=|<=|!=|=|>|<)", text)
    if found is None:
        raise UsageError(
            f"--where {text}: expected KEY=VALUE, or another of {' '.join(COMPARISONS)}, as in accuracy>=0.9"
        )
    key, symbol = found.groups()
    check_key("--where", key)
    try:
        node, findings = parse_yaml(Text(f"--where {key}", text, has_lines=False), found.end())
    except FatalError as error:
        findings = [error.finding]
    if findings:
        raise UsageError(f"--where {text}: {findings[0].message}")
    value = None if node is None else node.plain()
    if key in METRICS and not _is_number(value):
        other = f"; for that of the config write loss.name={value}" if key == "loss" else ""
        raise UsageError(f"--where {text}: {key} is a metric, so expected a number{other}")
    return Condition(key, symbol, value)


def check_key(option: str, key: str) -> None:
    """Raises UsageError unless `key` is one that a run can have."""
    known = (*OWN, *METRICS, *_config_keys())
    if key in known:
        return
    # the key itself, or what the last part of a dotted one is meant to be
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.8) or [
        path for path in known if path.rpartition(".")[2] == key.rpartition(".")[2]
    ]
    hint = (
        f"did you mean {close[0]}?" if close else "see mlpcli schema, or docs/config.md, for the keys of a config"
    )
    raise UsageError(
        f"{option}: no run has a key {key}\n    {hint}\n"
        f"    there are {', '.join((*OWN, *METRICS))}, and every key of a config"
    )


@cache
def _config_keys() -> tuple[str, ...]:
    homes = SchemaTree(config_schema()).homes
    return tuple(path for paths in homes.values() for path in paths)


def listed(
    runs: Sequence[Mapping[str, Any]], conditions: Sequence[Condition], sort: str | None
) -> list[Mapping[str, Any]]:
    """The runs for which every condition holds, in order.

    Args:
        runs: as `list_runs` describes them.
        sort: a key that `check_key` accepts: metrics from the best to the worst, all else from the least to the
            largest; runs without it come last. None leaves the order as it is.
    """
    found = [run for run in runs if all(each.holds(value_of(run, each.key)) for each in conditions)]
    return found if sort is None else sorted(found, key=lambda run: _rank(value_of(run, sort), sort))


def _rank(value: Any, key: str) -> tuple[int, Any]:
    if value is MISSING or value is None:
        return 3, 0
    if _is_number(value):
        return 0, value if less_is_better(key) else -value
    return (1, value) if isinstance(value, str) else (2, str(value))


def value_of(run: Mapping[str, Any], key: str) -> Any:
    """What a run has for a key, or MISSING. A metric is that of the test split, or where there is none yet, of the
    validation split after the last epoch."""
    if key in OWN:
        return run[key]
    if key in METRICS:
        return run["test"].get(key, run["validation"].get(key, MISSING))
    value: Any = _config(run["path"])
    for part in key.split("."):
        value = value.get(part, MISSING) if isinstance(value, dict) else MISSING
    return value


@cache
def _config(path: str) -> dict[str, Any]:
    """The values in a run's config; none where it cannot be read."""
    try:
        node, _ = parse_yaml(read_text(Path(path, CONFIG)))
    except (ConfigError, FatalError):
        return {}
    value = None if node is None else node.plain()
    return value if isinstance(value, dict) else {}
