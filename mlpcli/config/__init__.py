"""The config of a training: YAML in, a validated and resolved `Config` out, or every problem at once."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlpcli.config.data_schema import DataSection
from mlpcli.config.files import read_text
from mlpcli.config.overrides import Override, apply_overrides, parse_overrides
from mlpcli.config.plain import changed_keys, changed_plain, dump_config, dump_plain, node_of, to_plain
from mlpcli.config.problems import in_order, validated
from mlpcli.config.rules import resolve
from mlpcli.config.schema import Config, EarlyStopping, Model, OptimizerSection, SchedulerSection, Training
from mlpcli.config.space import check_space, monitored
from mlpcli.config.sweep_schema import Range, Sweep, SweepConfig, grid_values
from mlpcli.config.text import Finding, Span, Text
from mlpcli.config.yaml_source import FatalError, Node, parse_yaml
from mlpcli.errors import ConfigError

__all__ = [
    "Config",
    "DataSection",
    "EarlyStopping",
    "Model",
    "OptimizerSection",
    "Range",
    "SchedulerSection",
    "Sweep",
    "SweepPlan",
    "Training",
    "changed_keys",
    "changed_plain",
    "config_from_plain",
    "config_schema",
    "dump_config",
    "dump_plain",
    "grid_values",
    "load_config",
    "load_plan",
    "parse_config",
    "parse_plan",
    "to_plain",
]


@dataclass(frozen=True)
class SweepPlan:
    """A config as it is and, where it has a `sweep` section, what is varied.

    Attributes:
        stated: what the file and the overrides say, without the sweep and without defaults, of which some follow
            from the values of a trial.
        config: the resolved config that the file has without its sweep.
        sweep: None where there is none.
    """

    stated: dict[str, Any]
    config: Config
    sweep: Sweep | None


def load_config(path: Path, overrides: Sequence[str] = ()) -> Config:
    """The resolved config of a YAML file, after overrides (`optimizer.lr=0.05`, `~scheduler`), in order.

    Raises:
        ConfigError: with every problem of the file and of the overrides; it describes a sweep.
        UsageError: for an override that is neither KEY=VALUE nor ~KEY.
    """
    changes = parse_overrides(overrides)
    return _validated(*_parsed(read_text(path)), changes)


def load_plan(path: Path, overrides: Sequence[str] = ()) -> SweepPlan:
    """As `load_config`, for a file that may describe a sweep. Each value of its space is valid by itself.

    `training.monitor` of such a config is the objective of the sweep.
    """
    changes = parse_overrides(overrides)
    return _planned(*_parsed(read_text(path)), changes)


def parse_config(text: str, filename: str, overrides: Sequence[str] = ()) -> Config:
    """As `load_config`, for a text; `filename` is only for messages."""
    changes = parse_overrides(overrides)
    return _validated(*_parsed(_text(text, filename)), changes)


def parse_plan(text: str, filename: str, overrides: Sequence[str] = ()) -> SweepPlan:
    """As `load_plan`, for a text; `filename` is only for messages."""
    changes = parse_overrides(overrides)
    return _planned(*_parsed(_text(text, filename)), changes)


def config_from_plain(values: dict[str, Any], overrides: Sequence[str] = ()) -> Config:
    """As `load_config`, for plain values, such as `to_plain` returns and a checkpoint holds."""
    changes = parse_overrides(overrides)
    try:
        root, findings = node_of(values, Text("config", "", has_lines=False))
    except FatalError as error:
        raise ConfigError([error.finding.problem()]) from None
    return _validated(root, findings, changes)


def config_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a config, shorthands included, for editors."""
    document = SweepConfig.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **document, "title": "mlpcli config"}


def _text(text: str, filename: str) -> Text:
    return Text(filename, text.removeprefix("\ufeff"))


def _parsed(text: Text) -> tuple[Node, list[Finding]]:
    try:
        root, findings = parse_yaml(text)
    except FatalError as error:
        raise ConfigError([error.finding.problem()]) from None
    if root is None or (root.value is None and not root.broken):
        what = "this file holds no keys" if text.content.strip() else "this file is empty"
        empty = Finding(Span(text, 0, 0), f"{what}, but a config needs at least data:", "start with: mlpcli init")
        raise ConfigError([empty.problem()])
    return root, findings


def _changed(root: Node, findings: list[Finding], changes: Sequence[Override]) -> dict[str, Node]:
    """The keys of `root` after the overrides; adds what is wrong with these to `findings`."""
    if not isinstance(root.value, dict):
        if not root.broken:
            findings.append(Finding(root.span, f"expected a mapping (data: ...), got {root.described()}"))
        raise ConfigError(in_order(findings))
    findings += apply_overrides(root, changes)
    return root.value


def _validated(root: Node, findings: list[Finding], changes: Sequence[Override]) -> Config:
    keys = _changed(root, findings, changes)
    sweep = keys.pop("sweep", None)
    if sweep is not None:
        remedy = f"run it with: mlpcli sweep {root.span.text.name}" if root.span.text.has_lines else "leave it out"
        findings.append(Finding(sweep.key or sweep.span, "this config describes a sweep", remedy))
    return resolve(validated(root, findings, Config))


def _planned(root: Node, findings: list[Finding], changes: Sequence[Override]) -> SweepPlan:
    keys = _changed(root, findings, changes)
    sweep = validated(root, findings, SweepConfig).sweep
    section = keys.pop("sweep", None)
    if sweep is None or section is None:
        return SweepPlan(root.plain(), resolve(validated(root, (), Config)), None)
    base = monitored(root, section)
    check_space(base, section, sweep)
    config = resolve(validated(base, (), Config))
    return SweepPlan(base.plain(), config, sweep.resolved(config.training.monitor))
