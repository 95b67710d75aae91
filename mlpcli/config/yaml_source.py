"""YAML text to plain values, each with the place where it stands. Nothing here knows the schema.

The dialect is YAML 1.2's core schema: `on`, `no`, `1:30` and dates are text, and `1e-3` is a number. There
are no tags, and size, depth and what aliases expand to are bounded.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml
from yaml.nodes import MappingNode, SequenceNode
from yaml.reader import Reader

from mlpcli.config.text import Finding, Path, Span, Text, clean, dotted, quoted

MAX_SIZE = 2**20
MAX_DEPTH = 50
MAX_NODES = 10_000
MAX_DIGITS = 400
"""Longer numbers fit no key, and Python refuses to print those of more than 4300 digits."""

Scalar = str | int | float | bool | None

TAG = "tag:yaml.org,2002:"
CORE_SCHEMA = (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", list("-+.0123456789")),
    ("float", r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", list("-+.")),
)
"""Type, what its plain scalars look like, and the characters that they start with (YAML 1.2.2, 10.3.2)."""


@dataclass
class Node:
    """A value and where it stands.

    Attributes:
        value: a scalar, or a list or mapping of nodes.
        span: where the value stands.
        key: where its key stands, for a value in a mapping.
        written: a scalar as the user wrote it, without quotes.
        broken: already reported as wrong; `value` is then None and means nothing.
    """

    value: "Scalar | list[Node] | dict[str, Node]"
    span: Span
    key: Span | None = None
    written: str = ""
    broken: bool = False

    def plain(self) -> Any:
        """The plain Python value."""
        if isinstance(self.value, dict):
            return {key: child.plain() for key, child in self.value.items()}
        if isinstance(self.value, list):
            return [child.plain() for child in self.value]
        return self.value

    def described(self) -> str:
        """The value in words, as the user wrote it: text 'abc', 10.5, a list of 3, nothing (null)."""
        match self.value:
            case None:
                return "nothing (null)"
            case bool():
                return "true" if self.value else "false"
            case str():
                return f"text {quoted(self.value)}"
            case list():
                return f"a list of {len(self.value)}" if self.value else "an empty list"
            case dict():
                return "a mapping" if self.value else "an empty mapping"
            case _:
                return clean(self.written)


class FatalError(Exception):
    """The text cannot be read any further."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.message)
        self.finding = finding


def parse_yaml(text: Text, start: int = 0, path: Path = ()) -> tuple[Node | None, list[Finding]]:
    """The one value that `text.content[start:]` holds, and every problem that allows to read on.

    `path` leads to the value, and is only for messages.

    The value is None where there is none but white space and comments.

    Raises:
        FatalError: for a text that is not YAML, too long, too deep, or aliases itself.
    """
    content = text.content[start:]
    _check_characters(text, start)
    try:
        loader = _Loader(content)
        try:
            root = loader.get_single_node()
        except (ValueError, OverflowError) as error:
            # PyYAML's scanner does not catch these itself, for "\UFFFFFFFF" and for %YAML 1.999…
            raise _refusal("a number here is out of range", loader.get_mark()) from error
        if root is None:
            return None, []
        builder = _Builder(text, start)
        return builder.build(root, path), list(builder.findings.values())
    except yaml.MarkedYAMLError as error:
        raise FatalError(_syntax_finding(error, text, start)) from error


class _RefusedError(yaml.MarkedYAMLError):
    """Ours: its problem is already worded for a person."""


def _refusal(problem: str, mark: Any) -> _RefusedError:
    return _RefusedError(problem=problem, problem_mark=mark)


def _check_characters(text: Text, start: int) -> None:
    if len(text.content) - start > MAX_SIZE:
        raise FatalError(Finding(Span(text, 0, 0), TOO_LARGE, TOO_LARGE_HINT))
    bad = Reader.NON_PRINTABLE.search(text.content, start)
    if bad is None:
        return
    at = bad.start()
    offset = len(text.content[:at].encode("utf-8", "surrogatepass"))
    if bad.group() == "\0":
        message, hint = f"byte offset {offset} is a NUL byte: this is not a text file", ""
    else:
        message = f"the character U+{ord(bad.group()):04X} at byte offset {offset} is not allowed in YAML"
        hint = "remove it, or write it as an escape in double quotes"
    raise FatalError(Finding(Span(text, at, at + 1), message, hint))


TOO_LARGE = f"a config has at most {MAX_SIZE:,} bytes, and this has more"
TOO_LARGE_HINT = "is this the config, or a data file?"


# --- YAML text -> PyYAML's nodes ----------------------------------------------------------------------


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with the resolvers of YAML 1.2, and bounds on depth and number of nodes."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  # PyYAML's own way to state resolvers

    def __init__(self, content: str) -> None:
        super().__init__(content)
        self._count = 0
        self._open: list[str | None] = []

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """As PyYAML's, but bounded, and a value with a tag of its own gets the tag `!`."""
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]  # PyYAML has no types
        self._count += 1
        if self._count > MAX_NODES:
            raise _refusal(f"more than {MAX_NODES:,} values", event.start_mark)
        if len(self._open) >= MAX_DEPTH:
            raise _refusal(f"nested more than {MAX_DEPTH} levels deep", event.start_mark)
        if isinstance(event, yaml.AliasEvent):
            if event.anchor in self._open:
                problem = f"the alias *{event.anchor} stands inside of what it refers to"
                raise _refusal(problem, event.start_mark)
            return super().compose_node(parent, index)
        self._open.append(event.anchor)
        node = super().compose_node(parent, index)
        self._open.pop()
        if node is not None and event.tag is not None:
            node.tag = "!"
        return node


for _kind, _pattern, _first in CORE_SCHEMA:
    _Loader.add_implicit_resolver(TAG + _kind, re.compile(rf"(?:{_pattern})\Z"), _first)


# --- PyYAML's nodes -> ours ---------------------------------------------------------------------------

ANCHOR = re.compile(r"&[0-9A-Za-z_-]+[ \t]+")


@dataclass
class _Builder:
    """Expands PyYAML's graph of nodes to a tree of ours, and collects what is wrong but lets us read on."""

    text: Text
    start: int
    findings: dict[int, Finding] = field(default_factory=dict)
    """By position: what an alias repeats is reported once."""
    count: int = 0
    depth: int = 0

    def build(self, node: yaml.Node, path: Path, key: Span | None = None) -> Node:
        """The node and all beneath it; `path` is only for messages."""
        self.count += 1
        if self.count > MAX_NODES:
            raise _refusal(f"aliases expand to more than {MAX_NODES:,} values", node.start_mark)
        if self.depth > MAX_DEPTH:
            raise _refusal(f"aliases nest more than {MAX_DEPTH} levels deep", node.start_mark)
        self.depth += 1
        built = self.build_value(node, path, key)
        self.depth -= 1
        return built

    def build_value(self, node: yaml.Node, path: Path, key: Span | None) -> Node:
        span = self.span(node)
        if node.tag == "!":
            return self.broken(span, "tags (!) are not supported", "write the value itself", path, key)
        if isinstance(node, MappingNode):
            return Node(self.mapping(node, path), span, key)
        if isinstance(node, SequenceNode):
            return Node([self.build(child, (*path, i)) for i, child in enumerate(node.value)], span, key)
        return self.scalar(node, span, path, key)

    def scalar(self, node: yaml.Node, span: Span, path: Path, key: Span | None) -> Node:
        written: str = node.value
        kind = node.tag.removeprefix(TAG)
        if kind == "int" and len(written) > MAX_DIGITS:
            return self.broken(span, f"a number of {len(written):,} digits is too long", "", path, key)
        if has_surrogates(written):
            return self.broken(span, "half of a surrogate pair is not Unicode text", "", path, key)
        return Node(_scalar_value(kind, written), span, key, written)

    def mapping(self, node: MappingNode, path: Path) -> dict[str, Node]:
        """Own keys first, then those that `<<` merges and that are not there yet."""
        children: dict[str, Node] = {}
        first: dict[str, Span] = {}
        merged: list[yaml.Node] = []
        for key_node, value_node in node.value:
            key, span = self.key(key_node, path), self.span(key_node)
            merges = key == "<<" and key_node.style is None
            child = None if merges else self.build(value_node, path if key is None else (*path, key), span)
            if key is None:
                continue
            if key in first:
                at = f", which first stands at line {first[key].line}" if self.text.has_lines else ""
                self.report(span, f"duplicate key {dotted((*path, key))}{at}", "keep one of the two")
                continue
            first[key] = span
            if child is not None:
                children[key] = child
            else:
                merged.extend(self.merge_sources(value_node, path))
        for source in merged:
            value = self.build(source, path).value
            if isinstance(value, dict):
                children |= {name: child for name, child in value.items() if name not in children}
        return children

    def merge_sources(self, node: yaml.Node, path: Path) -> Iterator[yaml.Node]:
        for source in node.value if isinstance(node, SequenceNode) else [node]:
            if isinstance(source, MappingNode):
                yield source
            else:
                self.report(self.span(source), "<< merges only mappings", "", path)

    def key(self, node: yaml.Node, path: Path) -> str | None:
        written = node.value
        if node.tag == TAG + "str" and not has_surrogates(written):
            return str(written)
        quotable = isinstance(written, str) and node.tag != "!" and re.fullmatch(r"[\w.+-]{1,30}", written)
        self.report(self.span(node), "a key must be text", f'quote it: "{written}"' if quotable else "", path)
        return None

    def report(self, span: Span, message: str, hint: str = "", path: Path = ()) -> None:
        self.findings.setdefault(span.start, Finding(span, message, hint, path))

    def broken(self, span: Span, message: str, hint: str, path: Path, key: Span | None) -> Node:
        """Reports a problem and returns what stands for the value that has it."""
        self.report(span, message, hint, path)
        return Node(None, span, key, broken=True)

    def span(self, node: yaml.Node) -> Span:
        """Where the node stands, without its anchor."""
        start, end = self.start + node.start_mark.index, self.start + node.end_mark.index
        anchor = ANCHOR.match(self.text.content, start, end)
        return Span(self.text, anchor.end() if anchor else start, end)


def has_surrogates(text: str) -> bool:
    """Whether the text holds half a surrogate pair, which no file can store."""
    return re.search("[\ud800-\udfff]", text) is not None


def _scalar_value(kind: str, written: str) -> Scalar:
    match kind:
        case "null":
            return None
        case "bool":
            return written[0] in "tT"
        case "int":
            return int(written, 0) if written[:2] in ("0o", "0x") else int(written)
        case "float":
            number = written.lower()
            return float(number.replace(".", "") if number[-1] in "fn" else number)
        case _:
            return written


# --- syntax errors ------------------------------------------------------------------------------------

SYNTAX = (
    (
        "mapping values are not allowed",
        "this ':' starts a value where none can stand",
        "indent all keys of a mapping alike, put a space after each ':', and quote text that holds ': '",
    ),
    ("could not find expected ':'", "a key without a ':'", "write it as key: value"),
    ("found unexpected end of stream", "this quote is never closed", ""),
    ("but got '<stream end>'", "this bracket is never closed", ""),
    ("found unknown escape character", "", r"in double quotes \ starts an escape: use / or single quotes"),
    ("'<stream end>'", "the text ends before this is complete", ""),
    ("found undefined alias", "this alias refers to no anchor", "quote text that starts with *"),
    ("cannot start any token", "text cannot start with this character", "quote the text"),
    ("'<document start>'", "the config has ended before this", ""),
    ("expected the node content", "a value is expected here", ""),
    (
        "expected <block end>",
        "this does not fit the indentation above it",
        "keys of one mapping, and items of one list, have the same indentation",
    ),
    ("single document", "a second document starts here, but a config is one", "remove the --- line"),
)
"""Part of PyYAML's message, our words for it where those are clearer, and what to do."""
AT_CONTEXT = ("could not find expected ':'", "found unexpected end of stream", "but got '<stream end>'")
"""Errors that PyYAML notices only long after the place that causes them."""


def _syntax_finding(error: yaml.MarkedYAMLError, text: Text, start: int) -> Finding:
    problem = error.problem or error.context or "unreadable"
    mark: Any = error.problem_mark or error.context_mark
    if error.context_mark is not None and any(part in problem for part in AT_CONTEXT):
        mark = error.context_mark
    if "single document" in (error.context or ""):
        problem = error.context or problem
    # An error at the end of the text is shown at its last character.
    last = max(start, len(text.content.rstrip()) - 1)
    at = min(start + (mark.index if mark is not None else 0), last)
    span = Span(text, at, at + 1)
    if text.content[at : at + 1] == "\t":
        return Finding(span, "a tab stands where YAML needs spaces", "use spaces instead of tabs")
    if isinstance(error, _RefusedError):
        return Finding(span, problem)
    for part, words, hint in SYNTAX:
        if part in problem:
            return Finding(span, words or f"not valid YAML: {clean(problem, 200)}", hint)
    return Finding(span, f"not valid YAML: {clean(problem, 200)}")
