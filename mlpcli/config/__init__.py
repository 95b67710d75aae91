"""The config of a training: YAML in, a validated and resolved `Config` out, or every problem at once."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlpcli.config.data_schema import DataSection
from mlpcli.config.files import read_text
from mlpcli.config.overrides import Override, apply_overrides, parse_overrides
from mlpcli.config.plain import changed_keys, dump_config, node_of, to_plain
from mlpcli.config.problems import in_order, validated
from mlpcli.config.rules import resolve
from mlpcli.config.schema import Config, EarlyStopping, Model, OptimizerSection, SchedulerSection, Training
from mlpcli.config.text import Finding, Span, Text
from mlpcli.config.yaml_source import FatalError, Node, parse_yaml
from mlpcli.errors import ConfigError

__all__ = [
    "Config",
    "DataSection",
    "EarlyStopping",
    "Model",
    "OptimizerSection",
    "SchedulerSection",
    "Training",
    "changed_keys",
    "config_from_plain",
    "config_schema",
    "dump_config",
    "load_config",
    "parse_config",
    "to_plain",
]


def load_config(path: Path, overrides: Sequence[str] = ()) -> Config:
    """The resolved config of a YAML file, after overrides (`optimizer.lr=0.05`, `~scheduler`), in order.

    Raises:
        ConfigError: with every problem of the file and of the overrides.
        UsageError: for an override that is neither KEY=VALUE nor ~KEY.
    """
    changes = parse_overrides(overrides)
    return _configured(read_text(path), changes)


def parse_config(text: str, filename: str, overrides: Sequence[str] = ()) -> Config:
    """As `load_config`, for a text; `filename` is only for messages."""
    changes = parse_overrides(overrides)
    return _configured(Text(filename, text.removeprefix("\ufeff")), changes)


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
    document = Config.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **document, "title": "mlpcli config"}


def _configured(text: Text, changes: Sequence[Override]) -> Config:
    try:
        root, findings = parse_yaml(text)
    except FatalError as error:
        raise ConfigError([error.finding.problem()]) from None
    if root is None or (root.value is None and not root.broken):
        what = "this file holds no keys" if text.content.strip() else "this file is empty"
        empty = Finding(Span(text, 0, 0), f"{what}, but a config needs at least data:", "start with: mlpcli init")
        raise ConfigError([empty.problem()])
    return _validated(root, findings, changes)


def _validated(root: Node, findings: list[Finding], changes: Sequence[Override]) -> Config:
    if not isinstance(root.value, dict):
        if not root.broken:
            findings.append(Finding(root.span, f"expected a mapping (data: ...), got {root.described()}"))
        raise ConfigError(in_order(findings))
    findings += apply_overrides(root, changes)
    return resolve(validated(root, findings))
