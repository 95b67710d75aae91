"""Whether every value that a sweep may draw is one that its key may hold: before anything runs."""

from collections.abc import Iterator
from dataclasses import replace

from mlpcli.config.overrides import NAMED
from mlpcli.config.problems import in_order, trail, validated
from mlpcli.config.schema import Config
from mlpcli.config.sweep_schema import Range, Sweep
from mlpcli.config.text import Finding, Span
from mlpcli.config.yaml_source import Node
from mlpcli.errors import ConfigError, Problem


def monitored(root: Node, section: Node) -> Node:
    """The config without its sweep, whose `training.monitor` is the sweep's objective.

    Raises:
        ConfigError: it has another monitor, or measures no such thing.
    """
    objective = _child(section, "objective")
    if objective is None or objective.value is None:
        return root
    stated = trail(root, ("training", "monitor"))
    if len(stated) == 3 and stated[-1].value not in (None, objective.value):
        raise ConfigError(
            in_order(
                [
                    Finding(
                        objective.span,
                        f"training.monitor is {stated[-1].value}, and chooses the best epoch of every trial",
                        "leave training.monitor out, or make both the same",
                        ("sweep", "objective"),
                    )
                ]
            )
        )
    base = _with(root, "training.monitor", objective)
    if isinstance(base, Finding):
        raise ConfigError([base.problem()])
    return base


def check_space(base: Node, section: Node, sweep: Sweep) -> None:
    """Raises ConfigError with every value of the space that its key cannot hold, each at its place.

    A value is wrong if the config refuses it together with each choice of the keys above its own: `optimizer` is
    above `optimizer.momentum`. What only a combination of values has is for the trial that meets it.

    Args:
        base: the valid config without its sweep.
        section: of the sweep, as it is written.
        sweep: the same, valid.
    """
    validated(base, (), Config)
    space = _child(section, "space")
    assert space is not None
    found: dict[tuple[str, str], Problem] = {}
    for key, each in sweep.space.items():
        written = _child(space, key)
        assert written is not None
        above = [
            (k, v) for k, other in sweep.space.items() if key.startswith(f"{k}.") for v in _ends(space, k, other)
        ]
        before: list[Node] = [with_it for k, v in above if isinstance(with_it := _with(base, k, v), Node)]
        before = before or [base]
        wrong = [
            refused[0] for value in _ends(space, key, each) if all(refused := _everywhere(before, key, value))
        ]
        found |= {(problem.location, problem.message): problem for problems in wrong for problem in problems}
        if (
            not wrong
            and not (each.int or each.choice)
            and all(_everywhere(before, key, _middle(space, key, each)))
        ):
            kind = "uniform" if each.uniform else "log_uniform"
            remedy = f"write int: {[round(end) for end in getattr(each, kind)]}"
            name = trail(written, (kind,))[-1].key or written.span
            problem = Finding(name, f"{key} takes integers, and {kind} draws any number", remedy).problem()
            found[problem.location, problem.message] = problem
    if found:
        raise ConfigError(list(found.values()))


def _everywhere(roots: list[Node], key: str, value: Node) -> list[list[Problem]]:
    return [_refused(root, key, value) for root in roots]


def _ends(space: Node, key: str, each: Range) -> Iterator[Node]:
    """The values of a range that are tried: its ends, or all choices, where they are written."""
    kind = next(kind for kind in ("uniform", "log_uniform", "int", "choice") if getattr(each, kind) is not None)
    for node in trail(space, (key, kind))[-1].value:  # type: ignore[union-attr]  # the section is valid
        assert isinstance(node, Node)
        yield replace(node, key=trail(space, (key,))[-1].key)


def _middle(space: Node, key: str, each: Range) -> Node:
    """A number inside of a range that is no integer."""
    low, high = each.uniform or each.log_uniform or (0, 1)
    value = low + (high - low) * 0.487
    value = value if value % 1 else (value + min(high, value + 1)) / 2
    node = trail(space, (key,))[-1]
    return Node(value, node.span, node.key, written=str(value))


def _refused(base: Node, key: str, value: Node) -> list[Problem]:
    """What is wrong with the config whose key has that value; all of it at the value or its key."""
    changed = _with(base, key, value)
    if isinstance(changed, Finding):
        return [changed.problem()]
    try:
        validated(changed, (), Config)
    except ConfigError as error:
        inside = {span.location for span in _spans(value)}
        return [each if each.location in inside else _moved(each, key, value) for each in error.problems]
    return []


def _moved(problem: Problem, key: str, value: Node) -> Problem:
    """A problem that the config reports at another key, at the value that makes it one."""
    message = f"with {key}={value.described()}: {problem.message}"
    return Finding(value.span, message, problem.hint).problem()


def _spans(value: Node) -> Iterator[Span]:
    yield value.span
    if value.key is not None:
        yield value.key
    children = value.value.values() if isinstance(value.value, dict) else value.value
    for child in children if isinstance(children, list) or isinstance(value.value, dict) else ():  # type: ignore[union-attr]
        yield from _spans(child)  # type: ignore[arg-type]


def _child(node: Node, key: str) -> Node | None:
    return node.value.get(key) if isinstance(node.value, dict) else None


def _with(root: Node, key: str, value: Node) -> Node | Finding:
    """A copy of the config in which the dotted key has that value, or why it cannot have any."""
    first, _, rest = key.partition(".")
    assert isinstance(root.value, dict)
    child = root.value.get(first)
    if not rest:
        return replace(root, value={**root.value, first: value})
    if child is None or child.value is None:
        child = Node({}, value.span, value.key)
    elif isinstance(child.value, str) and first in NAMED:
        child = replace(child, value={"name": child})
    if not isinstance(child.value, dict):
        where = value.key or value.span
        return Finding(where, f"{first} is {child.described()} in this config, which has no keys", "", (key,))
    changed = _with(child, rest, value)
    return changed if isinstance(changed, Finding) else replace(root, value={**root.value, first: changed})
