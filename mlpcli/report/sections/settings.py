"""The config with what differs from the defaults, and what the run was trained with."""

from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Any

from mlpcli.config import Config, config_from_plain, dump_config, to_plain
from mlpcli.errors import ConfigError
from mlpcli.report.blocks import Block, Code, Section, Table, Text
from mlpcli.report.gathering import Gathered

Keys = tuple[str, ...]

TAGS = ("name", "dataset")
"""Keys that decide which others there are."""


def section(run: Gathered) -> Section:
    """Both of them."""
    blocks: list[Block] = []
    if run.config is not None:
        lines = dump_config(run.config).splitlines()
        changed = differs(run.config)
        marked = frozenset(i for i, keys in enumerate(_keys_of(lines)) if keys in changed)
        caption = (
            "Marked: what leaving out would change. The number of threads is what training.threads=auto found."
        )
        blocks.append(Code("Config, resolved", lines, marked, caption))
    else:
        blocks.append(Text("The config cannot be read.", "note"))
    if run.environment:
        rows = list(_facts(run.environment))
        blocks.append(Table("Environment", ["what", "value"], rows, (0, 1)))
    else:
        blocks.append(Text("What the run was trained with is not known: environment.json is missing.", "note"))
    return Section("settings", "Config and environment", blocks)


def differs(config: Config) -> set[Keys]:
    """The keys whose value is not the default: without them the config would be another one."""
    plain = to_plain(config)
    return {keys for keys in _leaves(plain, ()) if not _is_default(config, plain, keys)}


def _leaves(values: Mapping[str, Any], before: Keys) -> Iterator[Keys]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, (*before, key))
        else:
            yield (*before, key)


def _is_default(config: Config, plain: dict[str, Any], keys: Keys) -> bool:
    value = _at(plain, keys)
    if keys == ("data", "dataset"):
        return False
    # of a section that has a name, leaving out the name alone is an error: the section goes as a whole
    left_out = keys[:-1] if len(keys) > 1 and keys[-1] in TAGS else keys
    try:
        without = to_plain(config_from_plain(_without(plain, left_out)))
    except ConfigError:
        return False
    return bool(_at(without, keys) == value)


def _without(plain: dict[str, Any], keys: Keys) -> dict[str, Any]:
    copied = deepcopy(plain)
    inner = copied
    for key in keys[:-1]:
        inner = inner[key]
    inner.pop(keys[-1], None)
    return copied


def _at(plain: Any, keys: Keys) -> Any:
    for key in keys:
        if not isinstance(plain, Mapping) or key not in plain:
            return None
        plain = plain[key]
    return plain


def _keys_of(lines: list[str]) -> Iterator[Keys]:
    """The key of each line of a dumped config; that of the list for each of its items."""
    path: list[str] = []
    for line in lines:
        bare = line.lstrip()
        if not bare.startswith("- ") and ":" in bare:
            path = [*path[: (len(line) - len(bare)) // 2], bare.partition(":")[0]]
        yield tuple(path)


def _facts(environment: Mapping[str, Any]) -> Iterator[list[str]]:
    for key, value in environment.items():
        name = key.replace("_", " ")
        if isinstance(value, Mapping):
            yield from ([f"{name}: {inner}", str(each)] for inner, each in value.items())
        elif key == "resumed" and isinstance(value, list):
            for each in value:
                at = each.get("started", each) if isinstance(each, Mapping) else each
                yield ["resumed", str(at)]
        elif isinstance(value, list):
            yield [name, " ".join(map(str, value))]
        else:
            yield [name, "–" if value is None else str(value)]
