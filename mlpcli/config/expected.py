"""What a key of the config may hold, in words, read from the JSON Schema."""

import json
import re
from collections.abc import Iterator
from difflib import get_close_matches
from functools import cached_property
from typing import Any

from mlpcli.config.yaml_source import Node

Schema = dict[str, Any]

PATTERNS = {
    r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$": "letters, digits and . _ - (at most 100, none of . _ - first)",
    r"^(auto|cpu|cuda|cuda:[0-9]{1,3})$": "auto, cpu, cuda or cuda:N",
}
"""Each pattern of the schema in words."""

FEW = 4
"""Keys that are named in passing; a list that a person asks for is never cut."""
CAP = 1_000_000
"""Upper bounds from here on only guard against slips, and are said only to those who exceed them."""


class SchemaTree:
    """The JSON Schema of the config, with references followed."""

    def __init__(self, document: Schema) -> None:
        self.root = document

    def branches(self, schema: Schema) -> list[Schema]:
        """The alternatives that `schema` allows, null among them; a union by tag is one of them."""
        if "$ref" in schema:
            return [self.root["$defs"][schema["$ref"].rpartition("/")[2]]]
        return (
            [branch for part in schema["anyOf"] for branch in self.branches(part)]
            if "anyOf" in schema
            else [schema]
        )

    def choices(self, schema: Schema) -> list[Schema]:
        """The alternatives without null."""
        return [branch for branch in self.branches(schema) if branch.get("type") != "null"]

    def tagged(self, schema: Schema) -> Schema | None:
        """The union by tag (`name: sgd`) that `schema` is or allows."""
        return next((branch for branch in self.branches(schema) if "discriminator" in branch), None)

    def variants(self, union: Schema) -> dict[str, Schema]:
        """Each tag of a union, in the order of the schema, and the mapping that it stands for."""
        tag_key = union["discriminator"]["propertyName"]
        variants: dict[str, Schema] = {}
        for part in union["oneOf"]:
            (variant,) = self.branches(part)
            tag = variant["properties"][tag_key]
            variants |= dict.fromkeys(tag.get("enum") or [tag["const"]], variant)
        return variants

    def mappings(self, schema: Schema) -> list[Schema]:
        """Every mapping that `schema` allows."""
        union = self.tagged(schema)
        if union is not None:
            return list(self.variants(union).values())
        found = [branch for branch in self.choices(schema) if branch.get("type") == "object"]
        return [inner for branch in found for inner in self._of_any_key(branch) or [branch]]

    def _of_any_key(self, schema: Schema) -> list[Schema]:
        """The mappings that every key of `schema` has, where that names no keys itself."""
        inner = schema.get("additionalProperties")
        return self.mappings(inner) if isinstance(inner, dict) else []

    @cached_property
    def homes(self) -> dict[str, list[str]]:
        """For each key that there is, the dotted paths at which it stands."""
        homes: dict[str, list[str]] = {}
        for path in self._paths(self.root, ""):
            known = homes.setdefault(path.rpartition(".")[2], [])
            if path not in known:
                known.append(path)
        return homes

    def _paths(self, mapping: Schema, prefix: str) -> Iterator[str]:
        for key, schema in mapping["properties"].items():
            yield prefix + key
            for inner in self.mappings(schema):
                yield from self._paths(inner, f"{prefix}{key}.")

    # --- in words ---

    def expected(self, schema: Schema, node: Node | None = None) -> str:
        """`an integer ≥ 1 or a list of them`: what `schema` allows, said to someone who wrote `node`."""
        words: list[str] = []
        unbounded: list[str] = []
        for branch in self.choices(schema):
            words.append(self._one(branch, node, unbounded))
            unbounded.append(self._one(branch, None, unbounded))
        if any(branch.get("type") == "null" for branch in self.branches(schema)):
            words.append("null")
        return " or ".join(words)

    def _one(self, schema: Schema, node: Node | None, before: list[str]) -> str:
        if "discriminator" in schema:
            return f"a mapping of keys ({schema['discriminator']['propertyName']}, …)"
        if schema.get("type") == "object" and self._of_any_key(schema):
            return f"a mapping of dotted keys, each to {self.expected(schema['additionalProperties'])}"
        if schema.get("type") == "object":
            return f"a mapping of keys ({listed(self.keys(schema), FEW)})"
        if "enum" in schema:
            return f"one of {', '.join(_shown(value) for value in schema['enum'])}"
        if "const" in schema:
            return str(schema["const"])
        match schema.get("type"):
            case "integer" | "number" as kind:
                return ("an integer" if kind == "integer" else "a number") + _bounds(schema, node)
            case "boolean":
                return "true or false"
            case "array":
                return self._list(schema, node, before)
            case None:
                return "values"
            case _:
                pattern = schema.get("pattern")
                return PATTERNS.get(pattern, f"text that matches {pattern}") if pattern else "text"

    def _list(self, schema: Schema, node: Node | None, before: list[str]) -> str:
        low, high = schema.get("minItems"), schema.get("maxItems")
        size = f"{low} " if low == high and low is not None else ""
        too_long = (
            node is not None and isinstance(node.value, list) and high is not None and len(node.value) > high
        )
        suffix = f" (at most {high})" if too_long and not size else ""
        item = self.expected(schema["items"])
        if item in before:
            return f"a list of {size}{'of ' if size else ''}them{suffix}"
        plural = re.sub(r"^an? (\w+)", r"\1s", item)
        return f"a list of {size}{plural}{suffix}"

    def keys(self, schema: Schema) -> list[str]:
        """The keys of a mapping, or of all variants of a union, with its tag first."""
        union = self.tagged(schema)
        tag = [union["discriminator"]["propertyName"]] if union else []
        keys = {key for mapping in self.mappings(schema) for key in mapping["properties"]}
        return tag + sorted(keys - set(tag))

    def options(self, schema: Schema) -> list[str]:
        """The words that `schema` allows, where it allows only some."""
        words = []
        for branch in self.branches(schema):
            words += branch.get("enum", [branch["const"]] if "const" in branch else [])
        return [str(word) for word in words]

    # --- what to do ---

    def hint(self, schema: Schema, node: Node, path: str) -> str:
        """What to write instead of `node`, where that can be told; an empty string elsewhere."""
        kinds = {branch.get("type") for branch in self.choices(schema)}
        options, value = self.options(schema), node.value
        if isinstance(value, str):
            return self._text_hint(schema, value, path)
        if value is None:
            if "none" in options:
                return "write none"
            return f"write its keys beneath it, or remove {path}" if self.mappings(schema) else ""
        if isinstance(value, float) and "integer" in kinds and value.is_integer():
            return f"write {int(value)}" if abs(value) < CAP**2 else ""
        if "string" in kinds and not options and isinstance(value, int | float):
            pattern = next((branch["pattern"] for branch in self.choices(schema) if "pattern" in branch), "")
            return f"quote it: '{node.written}'" if re.search(pattern, node.written) else ""
        return ""

    def _text_hint(self, schema: Schema, text: str, path: str) -> str:
        kinds = {branch.get("type") for branch in self.choices(schema)}
        options, union = self.options(schema), self.tagged(schema)
        spaceless = re.fullmatch(r"(\w{1,40}):(\S{1,40})", text)
        if spaceless and self.mappings(schema):
            return f"write a space after the colon: {spaceless[1]}: {spaceless[2]}"
        if options:
            return did_you_mean(text, options)
        if union is not None:
            tag = closest(text, list(self.variants(union)))
            return f"write {path}: {{{union['discriminator']['propertyName']}: {tag}}}" if tag else ""
        if kinds & {"integer", "number"}:
            return number_hint(text, "integer" in kinds)
        return _boolean_hint(text) if "boolean" in kinds else ""


def _bounds(schema: Schema, node: Node | None) -> str:
    value = node.value if node is not None else None
    number = value if isinstance(value, int | float) else 0
    words = []
    for key, sign in (
        ("minimum", "≥"),
        ("exclusiveMinimum", ">"),
        ("maximum", "≤"),
        ("exclusiveMaximum", "<"),
    ):
        bound = schema.get(key)
        if bound is not None and (bound < CAP or number >= bound):
            words.append(f"{sign} {bound:,}" if isinstance(bound, int) else f"{sign} {bound:g}")
    return " " + " and ".join(words) if words else ""


def _shown(value: object) -> str:
    """A value as a person writes it: quoted where it would not be seen, or taken for something else."""
    text = str(value)
    return text if re.fullmatch(r"[\w.-]+", text) else json.dumps(text)


def listed(words: list[str], limit: int) -> str:
    """The first `limit` words with commas, and … for the others."""
    return ", ".join(words[:limit]) + (", …" if len(words) > limit else "")


def closest(word: str, options: list[str]) -> str | None:
    """The option that `word` most likely misspells, if any; case does not matter."""
    if len(word) > 60:
        return None
    by_lower = {option.lower(): option for option in options}
    lower = word.lower().replace("-", "_").replace(" ", "_")
    ends = [option for option in by_lower if option.endswith(f".{lower}")]
    close = ends or get_close_matches(lower, by_lower, n=1)
    return by_lower[close[0]] if close else None


def did_you_mean(word: str, options: list[str]) -> str:
    """A question that names the closest option, or an empty string."""
    found = closest(word, options)
    return f"did you mean {found}?" if found else ""


NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"


def number_hint(text: str, integer: bool) -> str:
    """What to write for a text that is almost a number."""
    text = text.strip()
    if len(text) > 60:
        return ""
    if re.fullmatch(r"[-+]?\d+" if integer else NUMBER, text):
        return f"leave out the quotes: {text}"
    if re.fullmatch(r"[-+]?\d+(_\d+)+", text) or re.fullmatch(r"[-+]?\d{1,3}(,\d{3})+", text):
        return f"write it without separators: {re.sub('[_,]', '', text)}"
    if re.fullmatch(r"[-+]?\d*,\d+", text) and not integer:
        return f"write a decimal point: {text.replace(',', '.')}"
    percent = re.fullmatch(rf"({NUMBER})\s*%", text)
    if percent and not integer:
        return f"write it as a fraction: {float(percent[1]) / 100:g}"
    unit = re.fullmatch(rf"({NUMBER})\s*[A-Za-zµ%°]{{1,10}}", text)
    return f"write the number alone, without {text[unit.end(1) :].strip()}" if unit else ""


def _boolean_hint(text: str) -> str:
    word = text.strip().lower()
    if word in ("yes", "on", "y", "true"):
        return "write true"
    return "write false" if word in ("no", "off", "n", "false") else ""
