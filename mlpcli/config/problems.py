"""From values with places to a Config, or to every problem that they have.

Pydantic decides what is wrong; the JSON Schema, which is made only then, says what was expected.
"""

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, TypeVar

from pydantic import ValidationError

from mlpcli.config.expected import FEW, Schema, SchemaTree, closest, listed
from mlpcli.config.rules import conflicts
from mlpcli.config.schema import Config
from mlpcli.config.sweep_schema import SweepConfig
from mlpcli.config.text import Finding, Path, Span, dotted
from mlpcli.config.yaml_source import Node
from mlpcli.errors import ConfigError, Problem

SomeConfig = TypeVar("SomeConfig", bound=Config)

NOUNS = {"data": "data set", "loss": "loss", "optimizer": "optimizer", "scheduler": "scheduler"}

SYNONYMS = {
    "act": "activation",
    "act_fn": "activation",
    "algorithm": "optimizer",
    "amp": "precision",
    "batch": "batch_size",
    "batchnorm": "normalization",
    "batch_norm": "normalization",
    "bs": "batch_size",
    "beta": "betas",
    "clip": "clip_grad_norm",
    "criterion": "loss",
    "data_dir": "root",
    "decay": "weight_decay",
    "dir": "root",
    "dtype": "precision",
    "epoch": "epochs",
    "epsilon": "eps",
    "experiment": "name",
    "folder": "root",
    "grad_clip": "clip_grad_norm",
    "hidden": "width",
    "hidden_dim": "width",
    "hidden_dims": "width",
    "hidden_layers": "width",
    "hidden_size": "width",
    "hidden_sizes": "width",
    "hidden_units": "width",
    "initialization": "init",
    "kind": "name",
    "l2": "weight_decay",
    "layers": "depth",
    "learning_rate": "lr",
    "lr_scheduler": "scheduler",
    "max_epochs": "epochs",
    "mixed_precision": "precision",
    "mu": "momentum",
    "n_epochs": "epochs",
    "n_layers": "depth",
    "network": "model",
    "nonlinearity": "activation",
    "norm": "normalization",
    "normalize": "standardize",
    "num_epochs": "epochs",
    "num_layers": "depth",
    "objective": "loss",
    "optim": "optimizer",
    "path": "root",
    "random_seed": "seed",
    "schedule": "scheduler",
    "trainer": "training",
    "type": "name",
    "units": "width",
    "val": "validation",
    "val_split": "validation",
    "validation_split": "validation",
    "wd": "weight_decay",
}
"""What other tools call our keys."""


def validated(root: Node, findings: Sequence[Finding], kind: type[SomeConfig]) -> SomeConfig:
    """The config of that kind that the mapping `root` states; not resolved.

    Raises:
        ConfigError: with `findings` and every problem of the values, in the order of their places.
    """
    values = root.plain()
    found = list(findings)
    broken = {str(path[0]) for path in _broken_paths(root, ())}
    try:
        config = kind.model_validate(values)
    except ValidationError as error:
        explainer = _Explainer(root)
        errors = error.errors(include_url=False, include_input=False)
        errors += explainer.beside_wrong_tags(values, errors)
        found += explainer.findings(errors)
        assert found, "each error is explained, or stands beneath a value that was reported before"
        # Each section that has an error gives way to its defaults, so that the others can be compared.
        broken |= {str(details["loc"][0]) for details in errors} | ({"data"} - values.keys())
        sound = {key: value for key, value in values.items() if key not in broken}
        config = kind.model_validate({"data": {"dataset": "digits"}} | sound)
    for conflict in conflicts(config):
        if broken.isdisjoint(conflict.involves):
            found.append(Finding(place(root, conflict.path), conflict.message, conflict.hint, conflict.path))
    if found:
        raise ConfigError(in_order(found))
    return config


def in_order(findings: Sequence[Finding]) -> list[Problem]:
    """The problems, files before the command line and each from top to bottom."""
    return [finding.problem() for finding in sorted(findings, key=lambda finding: finding.order)]


def _broken_paths(node: Node, path: Path) -> Iterator[Path]:
    if node.broken:
        yield path
    children = node.value.items() if isinstance(node.value, dict) else []
    for key, child in children:
        yield from _broken_paths(child, (*path, key))
    for i, child in enumerate(node.value if isinstance(node.value, list) else []):
        yield from _broken_paths(child, (*path, i))


def trail(root: Node, path: Path) -> list[Node]:
    """The nodes along `path`, from `root` down to the last that is there.

    A name that stands for `{name: ...}` is its own `name`.
    """
    nodes = [root]
    for part in path:
        value = nodes[-1].value
        if isinstance(value, dict) and part in value:
            nodes.append(value[str(part)])
        elif isinstance(value, list) and isinstance(part, int):
            nodes.append(value[part])
        elif isinstance(value, str) and part == "name":
            nodes.append(nodes[-1])
        else:
            break
    return nodes


def place(root: Node, path: Path) -> Span:
    """Where the value at `path` stands, or else the nearest that leads to it."""
    nodes = trail(root, path)
    node = nodes[-1]
    if len(nodes) <= len(path) and not isinstance(node.value, str):
        return node.key or Span(node.span.text, node.span.start, node.span.start)
    return node.key if node.key is not None and node.span.is_empty else node.span


@cache
def _schema_tree() -> SchemaTree:
    return SchemaTree(SweepConfig.model_json_schema())


class _Explainer:
    """Words what pydantic found."""

    def __init__(self, root: Node) -> None:
        self.root = root
        self.tree = _schema_tree()

    def findings(self, errors: Sequence[Any]) -> list[Finding]:
        """One finding for each value that is wrong, though a union reports one for each branch."""
        found: dict[Path, Finding] = {}
        for error in errors:
            for path, finding in self.explain(error):
                if not any(node.broken for node in trail(self.root, path)):
                    found.setdefault(path, finding)
        # A list with a wrong item is also no int, which nobody needs to know.
        outer = {path[:length] for path in found for length in range(len(path))}
        return [finding for path, finding in found.items() if path not in outer]

    def beside_wrong_tags(self, values: dict[str, Any], errors: Sequence[Any]) -> list[Any]:
        """Errors of the other keys of each section whose tag is wrong, at which pydantic gives up.

        They are those under the tag that was probably meant: the closest, or the one that has most of the keys.
        """
        more: list[Any] = []
        for name in (error["loc"][0] for error in errors if error["type"].startswith("union_tag")):
            section = values[name]
            union = self.tree.tagged(self.union_at((name,)))
            if union is None or not isinstance(section, dict):
                continue
            tag_key, variants = union["discriminator"]["propertyName"], self.tree.variants(union)
            meant = closest(str(section.get(tag_key)), list(variants))
            meant = meant or max(
                variants, key=lambda tag: len(section.keys() & variants[tag]["properties"].keys())
            )
            try:
                Config.model_validate({"data": {"dataset": "digits"}} | {name: section | {tag_key: meant}})
            except ValidationError as error:
                found = error.errors(include_url=False, include_input=False)
                more += [e for e in found if e["type"] not in ("extra_forbidden", "missing", "conflict")]
        return more

    def explain(self, error: Any) -> Iterator[tuple[Path, Finding]]:
        kind, loc, context = error["type"], error["loc"], error.get("ctx", {})
        if kind in ("extra_forbidden", "missing"):
            path, schema = self.follow(loc[:-1])
            key = str(loc[-1])
            explain = self.unknown_key if kind == "extra_forbidden" else self.missing_key
            yield (*path, key), explain(path, schema, key)
            return
        path, schema = self.follow(loc)
        if kind == "conflict":
            path = (*path, context["key"]) if context["key"] else path
            finding = Finding(place(self.root, path), context["message"], context["hint"], self.shown(path))
            yield path, finding
        elif kind.startswith("union_tag"):
            yield from self.tag(path, schema)
        else:
            yield path, self.wrong_value(path, schema)

    def follow(self, loc: Path) -> tuple[Path, Schema]:
        """The path in the config that pydantic's `loc` means, and the schema there.

        `loc` also names the tag or the branch of each union that it passes.
        """
        path: Path = ()
        schema: Schema = self.tree.root
        parts = list(loc)
        while parts:
            union = self.tree.tagged(schema)
            choices = self.tree.choices(schema)
            if union is not None:
                schema = self.tree.variants(union)[str(parts.pop(0))]
                continue
            mappings = [choice for choice in choices if parts[0] in choice.get("properties", ())]
            if mappings:
                choices = mappings
            elif len(choices) > 1:
                parts.pop(0)  # the branch of a union that is told apart by type, of which only lists have items
                if not parts:
                    break
                choices = [choice for choice in choices if "items" in choice]
            part = parts.pop(0)
            path = (*path, part)
            if isinstance(part, int):
                schema = choices[0]["items"]
            else:
                schema = choices[0].get("properties", {}).get(part) or choices[0]["additionalProperties"]
        return path, schema

    def node(self, path: Path) -> Node:
        return trail(self.root, path)[-1]

    def shown(self, path: Path) -> Path:
        """The path as the user sees it: `loss`, where that is just a name, and not `loss.name`."""
        is_name = path[-1:] == ("name",) and isinstance(self.node(path[:-1]).value, str)
        return path[:-1] if is_name else path

    def wrong_value(self, path: Path, schema: Schema) -> Finding:
        node, shown = self.node(path), self.shown(path)
        message = f"expected {self.tree.expected(schema, node)}, got {node.described()}"
        return Finding(place(self.root, path), message, self.tree.hint(schema, node, dotted(shown)), shown)

    def missing_key(self, path: Path, mapping: Schema, key: str) -> Finding:
        (schema,) = (each["properties"][key] for each in self.tree.mappings(mapping) if key in each["properties"])
        message = f"missing key {dotted((*path, key))}: expected {self.tree.expected(schema)}"
        hint = "for example data: {dataset: digits}" if (*path, key) == ("data",) else ""
        return Finding(place(self.root, (*path, key)), message, hint)

    def tag(self, path: Path, schema: Schema) -> Iterator[tuple[Path, Finding]]:
        """A union without a valid tag, and the keys that no variant has: one may be the tag, misspelt."""
        union = self.tree.tagged(schema)
        assert union is not None
        tag_key, tags = union["discriminator"]["propertyName"], {"enum": list(self.tree.variants(union))}
        path_of_tag = (*path, tag_key)
        node = self.node(path)
        if isinstance(node.value, dict) and tag_key not in node.value:
            missing = self.missing_key(path, {"type": "object", "properties": {tag_key: tags}}, tag_key)
            yield path_of_tag, missing
        else:
            yield path_of_tag, self.wrong_value(path_of_tag, tags)
        known = self.tree.keys(schema)
        for key in node.value if isinstance(node.value, dict) else []:
            if key not in known:
                yield (*path, key), self.unknown_key(path, schema, key)

    def unknown_key(self, path: Path, schema: Schema, key: str) -> Finding:
        child = self.node((*path, key))
        message = f"unknown key {dotted((*path, key))}"
        tag, owners = self.owner(path), self.owners(path, key)
        if owners and tag:
            message += f": the {NOUNS[str(path[0])]} {tag} has no such key ({listed(owners, 2)} "
            message += "have it)" if len(owners) > 1 else "has it)"
        hints = ["" if owners else self.meant(path, schema, key), self.has(path, schema, tag)]
        return Finding(child.key or child.span, message, " ".join(hint for hint in hints if hint))

    def owner(self, path: Path) -> str | None:
        """The tag of the variant that stands at `path`: sgd."""
        union = self.tree.tagged(self.union_at(path))
        if union is None:
            return None
        tag = self.node((*path, union["discriminator"]["propertyName"])).value
        return tag if isinstance(tag, str) and tag in self.tree.variants(union) else None

    def owners(self, path: Path, key: str) -> list[str]:
        """The other variants that have the key."""
        union = self.tree.tagged(self.union_at(path))
        variants = self.tree.variants(union) if union is not None else {}
        return [tag for tag, variant in variants.items() if key in variant["properties"]]

    def union_at(self, path: Path) -> Schema:
        """The schema at a top-level key; unions by tag stand only there."""
        properties: dict[str, Schema] = self.tree.root["properties"]
        return properties[str(path[0])] if len(path) == 1 else {}

    def meant(self, path: Path, schema: Schema, key: str) -> str:
        keys = self.tree.keys(schema)
        translated = SYNONYMS.get(key.lower(), key)
        if translated in keys:
            return f"did you mean {translated}?"
        here = closest(key, keys)
        meant = ([here] if here else []) + self.tree.homes.get(translated, [])
        return f"did you mean {' or '.join(meant[:FEW])}?" if meant else ""

    def has(self, path: Path, schema: Schema, tag: str | None) -> str:
        """The keys that there are."""
        if tag is None and self.tree.tagged(schema) is not None:
            return ""
        union = self.tree.tagged(self.union_at(path))
        tag_key = union["discriminator"]["propertyName"] if union is not None else ""
        keys = [key for key in self.tree.keys(schema) if key != tag_key]
        return (
            f"{tag or dotted(path) or 'a config'} has: {', '.join(keys)}" if keys else f"{tag} has no other keys"
        )
