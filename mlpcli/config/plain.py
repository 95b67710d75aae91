"""A config as plain Python values, as YAML text, and two of them compared."""

import re
from typing import Any

import yaml

from mlpcli.config.schema import Config
from mlpcli.config.text import Finding, Path, Span, Text, dotted
from mlpcli.config.yaml_source import (
    CORE_SCHEMA,
    MAX_DEPTH,
    MAX_DIGITS,
    MAX_NODES,
    TAG,
    FatalError,
    Node,
    has_surrogates,
)

SHORT_LIST = 16
TAG_KEYS = ("name", "dataset")


def to_plain(config: Config) -> dict[str, Any]:
    """Every value of the config, defaults included, as plain Python values in the order of the schema.

    The key that decides which others there are (`name`, `dataset`) comes first.
    """
    return {key: _tag_first(value) for key, value in config.model_dump().items()}


def _tag_first(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {key: value[key] for key in TAG_KEYS if key in value} | value


def dump_config(config: Config) -> str:
    """YAML text of every value; loading it gives a config equal to `config`, if that is resolved.

    Text that any reader, of YAML 1.1 or 1.2, would take for something else is quoted.
    """
    return dump_plain(to_plain(config))


def dump_plain(values: dict[str, Any]) -> str:
    """YAML text of plain values, likewise."""
    text: str = yaml.dump(
        values,
        Dumper=_Dumper,
        default_flow_style=False,
        sort_keys=False,
        allow_unicode=True,
        width=10_000,
    )
    return text


class _Dumper(yaml.SafeDumper):
    """PyYAML's, which knows the types of YAML 1.1, and those of YAML 1.2; no aliases, short lists inline."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_list(dumper: _Dumper, values: list[Any]) -> yaml.Node:
    return dumper.represent_sequence(TAG + "seq", values, flow_style=len(values) <= SHORT_LIST)


_Dumper.add_representer(list, _represent_list)
for _kind, _pattern, _first in CORE_SCHEMA:
    _Dumper.add_implicit_resolver(TAG + _kind, re.compile(rf"(?:{_pattern})\Z"), _first)


def changed_keys(old: Config, new: Config) -> list[str]:
    """Dotted paths of the values that differ, in the order of the schema; a list is one value."""
    return changed_plain(to_plain(old), to_plain(new))


def changed_plain(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """As `changed_keys`, of plain values."""
    return [dotted(path) for path in _differences(old, new, ())]


def _differences(old: dict[str, Any], new: dict[str, Any], path: Path) -> list[Path]:
    found: list[Path] = []
    for key in [*old, *(key for key in new if key not in old)]:
        before, after, here = old.get(key), new.get(key), (*path, key)
        if isinstance(before, dict) and isinstance(after, dict):
            found += _differences(before, after, here)
        elif before != after or (key in old) != (key in new):
            found.append(here)
    return found


def node_of(values: object, text: Text) -> tuple[Node, list[Finding]]:
    """Nodes for plain Python values that no YAML states; all stand at the start of `text`.

    What YAML could not hold (an array, a key that is not text, …) is a finding.

    Raises:
        FatalError: for values that are nested too deep, or too many.
    """
    builder = _PlainBuilder(Span(text, 0, 0))
    return builder.build(values, ()), builder.findings


class _PlainBuilder:
    def __init__(self, span: Span) -> None:
        self.span = span
        self.findings: list[Finding] = []
        self.count = 0

    def build(self, value: object, path: Path) -> Node:
        self.count += 1
        if self.count > MAX_NODES or len(path) > MAX_DEPTH:
            raise FatalError(Finding(self.span, f"more than {MAX_NODES:,} values, or {MAX_DEPTH} levels of them"))
        match value:
            case dict():
                return Node(self.mapping(value, path), self.span)
            case list() | tuple():
                return Node([self.build(child, (*path, i)) for i, child in enumerate(value)], self.span)
            case None | bool() | int() | float() | str() if _is_plain(value):
                return Node(value, self.span, written=str(value))
            case _:
                name = type(value).__name__
                self.findings.append(Finding(self.span, f"{name} is no value of a config", path=path))
                return Node(None, self.span, broken=True)

    def mapping(self, values: dict[Any, Any], path: Path) -> dict[str, Node]:
        children = {}
        for key, child in values.items():
            if isinstance(key, str) and _is_plain(key):
                children[str(key)] = self.build(child, (*path, key))
            else:
                self.findings.append(Finding(self.span, "a key must be text", path=path))
        return children


def _is_plain(value: object) -> bool:
    """Whether it is exactly a plain value, which YAML can hold: no subclass, no half of a surrogate pair."""
    if type(value) is str:
        return not has_surrogates(value)
    if type(value) is int:
        return value.bit_length() < MAX_DIGITS * 3
    return value is None or type(value) in (bool, float)
