"""Writes the reference in config.md anew, from the JSON Schema of the config.

Run it after a change of the schema: python docs/make_config_reference.py
"""

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from mlpcli.config import config_schema
from mlpcli.config.datasets import EMNIST_FACTS, FACTS, Facts
from mlpcli.config.expected import Schema, SchemaTree

FILE = Path(__file__).with_name("config.md")
WORD = r"[A-Za-z][\w./-]*"
"""Text that YAML needs no quotes for, but for the names of null and the booleans."""
MARKER = "<!-- Everything below is written by docs/make_config_reference.py -->"


def main() -> None:
    """Replace what stands below the marker."""
    FILE.write_text(updated(FILE.read_text(encoding="utf-8")), encoding="utf-8")


def updated(text: str) -> str:
    """The text of config.md with a fresh reference below its marker."""
    by_hand, marker, _ = text.partition(MARKER)
    assert marker, f"{FILE} has lost its marker line"
    return f"{by_hand}{MARKER}\n\n{reference()}"


def reference() -> str:
    """Every section, every key."""
    tree = SchemaTree(config_schema())
    parts = ["## Every key", "Top level:", key_table(tree, tree.root, "")]
    for key, schema in tree.root["properties"].items():
        parts += section(tree, key, schema)
    return "\n\n".join(parts) + "\n"


def section(tree: SchemaTree, path: str, schema: Schema) -> Iterator[str]:
    """The heading, text and tables of the mapping at `path`, and of those in it; nothing for a plain value."""
    union = tree.tagged(schema)
    if union is not None:
        yield f"### {path}"
        yield from union_section(tree, path, union)
        return
    for mapping in tree.mappings(schema):
        yield f"### {path}"
        yield prose(mapping)
        yield key_table(tree, mapping, f"{path}.")
        for key, inner in mapping["properties"].items():
            yield from section(tree, f"{path}.{key}", inner)


def union_section(tree: SchemaTree, path: str, union: Schema) -> Iterator[str]:
    """What each value of `name` or `dataset` means, which keys it allows, and the mappings among these."""
    tag = union["discriminator"]["propertyName"]
    variants = tree.variants(union)
    yield f"`{path}.{tag}` decides which other keys there are:"
    yield table((tag, "what"), [(words(tags), prose(mapping)) for mapping, tags in grouped(variants)])
    if path == "data":
        yield facts_table()
    rows: dict[str, list[tuple[Schema, bool, list[str]]]] = {}
    for name, mapping in variants.items():
        for key, schema in mapping["properties"].items():
            if key == tag:
                continue
            required = key in mapping.get("required", ())
            same = [row for row in rows.setdefault(key, []) if row[:2] == (schema, required)]
            if same:
                same[0][2].append(name)
            else:
                rows[key].append((schema, required, [name]))
    yield table(
        ("key", f"where {tag} is", "value", "default", "what"),
        [
            (f"`{key}`", those_of(names, list(variants)), *cells(tree, schema, required, f"{path}.{key}"))
            for key, of_key in rows.items()
            for schema, required, names in of_key
        ],
    )
    for key, of_key in rows.items():
        for schema, _, _ in of_key:
            yield from section(tree, f"{path}.{key}", schema)


def those_of(names: list[str], every: list[str]) -> str:
    """`a`, `b`; or all but the others, where those are fewer."""
    others = [name for name in every if name not in names]
    if not others:
        return "any"
    return f"any but {words(others)}" if len(others) < len(names) else words(names)


def grouped(variants: dict[str, Schema]) -> Iterator[tuple[Schema, list[str]]]:
    """Each mapping once, with all the names that stand for it."""
    mappings = {id(mapping): mapping for mapping in variants.values()}
    for identity, mapping in mappings.items():
        yield mapping, [name for name, other in variants.items() if id(other) == identity]


def key_table(tree: SchemaTree, mapping: Schema, prefix: str) -> str:
    """One row a key."""
    required = mapping.get("required", ())
    rows = [
        (f"`{key}`", *cells(tree, schema, key in required, prefix + key))
        for key, schema in mapping["properties"].items()
    ]
    return table(("key", "value", "default", "what"), rows)


def cells(tree: SchemaTree, schema: Schema, required: bool, path: str) -> tuple[str, str, str]:
    """What a key may hold, what it holds unless stated, and its text; `path` is the heading of a mapping."""
    default = "required" if required else default_of(tree, schema)
    texts = [prose(schema), *map(prose, tree.mappings(schema))]
    return value_of(tree, schema, path), default, next(filter(None, texts), "")


def value_of(tree: SchemaTree, schema: Schema, path: str) -> str:
    """The values that a key takes, in the words of the error messages: all alternatives."""
    ways = []
    options, mappings = tree.options(schema), tree.mappings(schema)
    if options:
        ways.append("a name" if mappings else words(map(plain, options)))
    shown = {"enum", "const", "properties", "additionalProperties", "discriminator"}  # of options and mappings
    others = [branch for branch in tree.choices(schema) if not shown & branch.keys()]
    if others:
        ways.append(tree.expected({"anyOf": others}))
    if mappings:
        ways.append(f"a mapping, see [{path}](#{path.replace('.', '')})")
    if any(branch.get("type") == "null" for branch in tree.branches(schema)):
        ways.append("`null`")
    return " or ".join(ways)


def default_of(tree: SchemaTree, schema: Schema) -> str:
    """The default as one would write it."""
    default = schema["default"]
    if isinstance(default, dict):
        return f"`{default['name']}`" if tree.tagged(schema) else "its defaults"
    return f"`{plain(default)}`"


def plain(value: Any) -> str:
    """A plain value as YAML in one line."""
    if isinstance(value, list):
        return f"[{', '.join(map(plain, value))}]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str) and (value.lower() in ("null", "true", "false") or not re.fullmatch(WORD, value)):
        return json.dumps(value)
    return str(value)


def facts_table() -> str:
    """The published facts of each data set."""
    named = {f"`{name}`": facts for name, facts in FACTS.items()}
    named |= {f"`emnist`, `split: {name}`": facts for name, facts in EMNIST_FACTS.items()}
    header = ("data set", "task", "sample", "outputs", "training samples", "test samples")
    return table(header, [(name, *fact_cells(facts)) for name, facts in named.items()])


def fact_cells(facts: Facts) -> tuple[str, ...]:
    """Task, shape and sizes."""
    shape = "×".join(map(str, facts.input_shape))
    sample = f"{shape} pixels" if facts.is_image else f"{shape} features"
    test = f"{facts.test:,}" if facts.test else "cut by `test`"
    return facts.task, sample, str(facts.outputs), f"{facts.train:,}", test


def prose(schema: Schema) -> str:
    """The description, on one line."""
    return " ".join(str(schema.get("description", "")).split())


def words(names: Iterable[object]) -> str:
    """`a`, `b`."""
    return ", ".join(f"`{name}`" for name in names)


def table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """A Markdown table."""
    lines = [header, tuple("---" for _ in header), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


if __name__ == "__main__":
    main()
