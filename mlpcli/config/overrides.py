"""`optimizer.lr=0.05` and `~scheduler`: changes to a config that are given on the command line."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from mlpcli.config.text import Finding, Span, Text, clean, dotted, quoted
from mlpcli.config.yaml_source import MAX_DEPTH, FatalError, Node, has_surrogates, parse_yaml
from mlpcli.errors import UsageError

NAMED = ("loss", "optimizer", "scheduler")
"""Sections that may be just a name: `sgd` is short for `{name: sgd}`."""

FORM = "write KEY=VALUE, for example optimizer.lr=0.05, or ~KEY to remove a key"


@dataclass(frozen=True)
class Override:
    """One change.

    Attributes:
        text: the override as it was given.
        keys: the dotted key's parts, and where each of them stands.
        value_at: where the value starts; None where the key is removed.
    """

    text: Text
    keys: tuple[tuple[str, Span], ...]
    value_at: int | None


def parse_overrides(arguments: Sequence[str]) -> list[Override]:
    """The overrides, in order; values are not looked at yet.

    Raises:
        UsageError: for an argument that is neither KEY=VALUE nor ~KEY.
    """
    return [_parse(argument, order) for order, argument in enumerate(arguments, start=1)]


def _parse(argument: str, order: int) -> Override:
    key, equals, _ = argument.partition("=")
    removes = argument.startswith("~")
    path = key.removeprefix("~")
    parts = path.split(".")
    if parts[:2] == ["sweep", "space"] and len(parts) > 3:
        parts[2:] = [".".join(parts[2:])]  # its keys are dotted themselves
    if removes and equals:
        raise UsageError(f"override {quoted(argument)}: ~ removes a key and takes no value; {FORM}")
    if not removes and not equals:
        raise UsageError(f"override {quoted(argument)} has no '='; {FORM}")
    if not all(part and part == part.strip() for part in parts):
        raise UsageError(f"override {quoted(argument)} has an empty key or spaces around a key; {FORM}")
    if has_surrogates(key):
        raise UsageError(f"override {quoted(argument)} has a key that is not Unicode text")
    if len(parts) > MAX_DEPTH:
        raise UsageError(f"override {quoted(argument)} is more than {MAX_DEPTH} keys deep")
    text = Text(f"command line: {clean(key, 200)}", argument, order, subject=path, has_lines=False)
    keys, start = [], int(removes)
    for part in parts:
        keys.append((part, Span(text, start, start + len(part))))
        start += len(part) + 1
    return Override(text, tuple(keys), None if removes else start)


def apply_overrides(root: Node, overrides: Sequence[Override]) -> list[Finding]:
    """Changes the mapping `root` in place, and returns what is wrong with the overrides."""
    return [finding for override in overrides for finding in _apply(root, override)]


def _apply(root: Node, override: Override) -> Iterator[Finding]:
    parent = root
    for i, (key, span) in enumerate(override.keys[:-1]):
        children = _children(parent)
        child = children.get(key)
        if child is not None and child.broken:
            return
        if override.value_at is None and (child is None or child.value is None):
            yield _nothing_to_remove(children, override, i)
            return
        if child is None or child.value is None:
            child = children[key] = Node({}, span, span)
        elif isinstance(child.value, str) and i == 0 and key in NAMED:
            child = children[key] = Node({"name": child}, child.span, child.key)
        elif not isinstance(child.value, dict):
            path = dotted(tuple(name for name, _ in override.keys[: i + 1]))
            yield Finding(override.keys[i + 1][1], f"{path} is {child.described()}, which has no keys")
            return
        parent = child
    if override.value_at is not None:
        yield from _set(parent, override, override.value_at)
    elif override.keys[-1][0] in _children(parent):
        del _children(parent)[override.keys[-1][0]]
    else:
        yield _nothing_to_remove(_children(parent), override, len(override.keys) - 1)


def _children(node: Node) -> dict[str, Node]:
    assert isinstance(node.value, dict)
    return node.value


def _set(parent: Node, override: Override, value_at: int) -> Iterator[Finding]:
    key, span = override.keys[-1]
    end = Span(override.text, value_at, value_at)
    try:
        value, findings = parse_yaml(override.text, value_at, tuple(key for key, _ in override.keys))
    except FatalError as error:
        value, findings = Node(None, end, broken=True), [error.finding]
    value = value or Node(None, end)
    value.key = span
    _children(parent)[key] = value
    yield from findings


def _nothing_to_remove(children: dict[str, Node], override: Override, index: int) -> Finding:
    path = dotted(tuple(key for key, _ in override.keys[: index + 1]))
    key, span = override.keys[index]
    close = get_close_matches(key, children, n=1) if len(key) < 100 else []
    hint = f"did you mean {clean(close[0])}?" if close else ""
    return Finding(span, f"nothing to remove: the config has no key {path}", hint)
