"""The `sweep` section of a config: what is wrong with it, where, and before anything runs."""

import itertools
from typing import Any

import pytest
from command import mlpcli, succeeds
from jsonschema import Draft202012Validator

from mlpcli.config import config_schema, grid_values, parse_config, parse_plan
from mlpcli.config.sweep_schema import Range
from mlpcli.errors import ConfigError

HEAD = "data: {dataset: iris}\noptimizer: sgd\nsweep:\n  space:\n"


def problems(space: str, more: str = "", head: str = HEAD) -> list[str]:
    with pytest.raises(ConfigError) as found:
        parse_plan(f"{head}    {space}\n{more}", "s.yaml")
    return [str(problem) for problem in found.value.problems]


SPACES = [
    (
        "optimizer.lrr: {log_uniform: [0.01, 1]}",
        "s.yaml:5:5: unknown key optimizer.lrr\n"
        "    optimizer.lrr: {log_uniform: [0.01, 1]}\n"
        "    ^^^^^^^^^^^^^\n"
        "    did you mean lr? sgd has: lr, momentum, nesterov, weight_decay",
    ),
    (
        "optimizer.lr: {uniform: [-1, 0.5]}",
        "s.yaml:5:30: optimizer.lr: expected a number > 0, got -1\n"
        "    optimizer.lr: {uniform: [-1, 0.5]}\n"
        "                             ^^",
    ),
    (
        "model.activation: {choice: [relu, tanhh]}",
        "s.yaml:5:39: model.activation: expected one of relu, leaky_relu, gelu, silu, tanh, sigmoid, identity, "
        "got text 'tanhh'\n"
        "    model.activation: {choice: [relu, tanhh]}\n"
        "                                      ^^^^^\n"
        "    did you mean tanh?",
    ),
    (
        "model.depth: {uniform: [1, 3]}",
        "s.yaml:5:19: model.depth takes integers, and uniform draws any number\n"
        "    model.depth: {uniform: [1, 3]}\n"
        "                  ^^^^^^^\n"
        "    write int: [1, 3]",
    ),
    (
        "training.epochs: {int: [5, 3]}",
        "s.yaml:5:28: sweep.space.'training.epochs'.int: the range from 5 to 3 is empty\n"
        "    training.epochs: {int: [5, 3]}\n"
        "                           ^^^^^^\n"
        "    write the smaller number first",
    ),
    (
        "optimizer.lr: {unifrm: [0.1, 1]}",
        "s.yaml:5:20: unknown key sweep.space.'optimizer.lr'.unifrm\n"
        "    optimizer.lr: {unifrm: [0.1, 1]}\n"
        "                   ^^^^^^\n"
        "    did you mean uniform? sweep.space.'optimizer.lr' has: choice, int, log, log_uniform, points, step, "
        "uniform",
    ),
    (
        "optimizer.lr: {}",
        "s.yaml:5:19: sweep.space.'optimizer.lr': this names no range\n"
        "    optimizer.lr: {}\n"
        "                  ^^\n"
        "    write one of {uniform: [low, high]}, {log_uniform: [low, high]}, {int: [low, high]}, {choice: [...]}",
    ),
    (
        "data.validation: {choice: [0.1, 1.5]}",
        "s.yaml:5:37: data.validation: expected a number ≥ 0 and < 1, got 1.5\n"
        "    data.validation: {choice: [0.1, 1.5]}\n"
        "                                    ^^^",
    ),
    (
        "training.batch_size: {int: [0, 64]}",
        "s.yaml:5:33: training.batch_size: expected an integer ≥ 1 or null, got 0\n"
        "    training.batch_size: {int: [0, 64]}\n"
        "                                ^",
    ),
]


@pytest.mark.parametrize(("space", "message"), SPACES)
def test_what_is_wrong_with_a_space(space: str, message: str) -> None:
    assert problems(space) == [message]


def test_what_only_one_value_brings_about_stands_at_that_value() -> None:
    (found,) = problems(
        "scheduler.warmup: {uniform: [0, 50]}", head=HEAD.replace("sweep:", "scheduler: cosine\nsweep:")
    )
    assert found == (
        "s.yaml:6:37: scheduler.warmup: a warmup of 50 epochs leaves nothing of 20 for the schedule\n"
        "    scheduler.warmup: {uniform: [0, 50]}\n"
        "                                    ^^\n"
        "    set a shorter scheduler.warmup, or more training.epochs"
    )
    (found,) = problems("data.validation: {choice: [0, 0.1]}", "  objective: validation.loss")
    assert found.startswith(
        "s.yaml:5:32: with data.validation=0: training.monitor: validation.loss needs a validation"
    )


def test_a_value_counts_as_wrong_only_if_no_choice_above_it_allows_it() -> None:
    both = "optimizer: {choice: [adam, {name: sgd}]}\n    optimizer.momentum: {uniform: [0, 0.9]}"
    assert parse_plan(f"{HEAD}    {both}\n", "s.yaml").sweep is not None
    (found, *_) = problems(both.replace(", {name: sgd}", ""))
    assert found.startswith("s.yaml:6:5: unknown key optimizer.momentum: the optimizer adam has no such key")


SECTIONS = [
    ("  objective: validation.r2", "sweep.objective", "r2 is not measured for classification"),
    ("  objective: validation.acuracy", "sweep.objective", "did you mean validation.accuracy?"),
    ("  sampler: grid", "sweep.sampler", "a grid takes points, and optimizer.lr has any number of them"),
    ("  sampler: tpee", "sweep.sampler", "did you mean tpe?"),
    ("  trails: 3", "unknown key sweep.trails", "did you mean trials?"),
    ("  jobs: 0", "sweep.jobs", "expected an integer ≥ 1"),
]


@pytest.mark.parametrize(("more", "where", "message"), SECTIONS)
def test_what_is_wrong_with_a_section(more: str, where: str, message: str) -> None:
    (found,) = problems("optimizer.lr: {uniform: [0.1, 1]}", more)
    assert found.startswith("s.yaml:6:") and message in found
    assert where in found or "training.monitor" in found


def test_two_objectives_contradict_each_other() -> None:
    head = HEAD.replace("sweep:", "training: {monitor: validation.accuracy}\nsweep:")
    (found,) = problems("optimizer.lr: {uniform: [0.1, 1]}", "  objective: validation.loss", head)
    assert found.startswith("s.yaml:7:14: sweep.objective: training.monitor is validation.accuracy")
    plan = parse_plan(f"{head}    optimizer.lr: {{uniform: [0.1, 1]}}\n", "s.yaml")
    assert plan.sweep is not None and plan.sweep.objective == "validation.accuracy"


def test_a_grid_has_as_many_trials_as_points() -> None:
    space = "optimizer.lr: {uniform: [0.1, 1], points: 3}\n    model.width: {int: [1, 9], step: 2}"
    plan = parse_plan(f"{HEAD}    {space}\n  sampler: grid\n", "s.yaml")
    assert plan.sweep is not None and plan.sweep.trials == 15
    (found,) = problems(space, "  sampler: grid\n  trials: 5")
    assert "this grid has 15 points, not 5" in found and found.startswith("s.yaml:8:11")


@pytest.mark.parametrize(
    ("entry", "values"),
    [
        ({"uniform": [0.0, 1.0], "points": 3}, [0.0, 0.5, 1.0]),
        ({"log_uniform": [0.001, 1.0], "points": 4}, [0.001, 0.01, 0.1, 1.0]),
        ({"int": [2, 5]}, [2, 3, 4, 5]),
        ({"int": [2, 9], "step": 3}, [2, 5, 8]),
        ({"int": [1, 1000], "log": True, "points": 4}, [1, 10, 100, 1000]),
        ({"int": [1, 3], "points": 9}, [1, 2, 3]),
        ({"choice": ["b", None, [1]]}, ["b", None, [1]]),
    ],
)
def test_the_values_of_a_grid(entry: dict[str, Any], values: list[Any]) -> None:
    found = grid_values(Range.model_validate(entry))
    assert len(found) == len(values)
    for one, other in zip(found, values, strict=True):
        assert one == (pytest.approx(other) if isinstance(other, float) else other)


def test_overrides_reach_the_sweep() -> None:
    text = f"{HEAD}    optimizer.lr: {{uniform: [0.1, 1]}}\n"
    plan = parse_plan(text, "s.yaml", ["sweep.trials=7", "sweep.space.model.width={int: [4, 8]}", "model.depth=3"])
    assert (
        plan.sweep is not None
        and plan.sweep.trials == 7
        and list(plan.sweep.space) == ["optimizer.lr", "model.width"]
    )
    assert plan.config.model.depth == 3 and plan.stated["model"] == {"depth": 3}
    plan = parse_plan(text, "s.yaml", ["sweep.space.model.width={int: [4, 8]}", "~sweep.space.optimizer.lr"])
    assert plan.sweep is not None and list(plan.sweep.space) == ["model.width"]
    assert parse_plan(text, "s.yaml", ["~sweep"]).sweep is None


def test_other_commands_say_that_a_config_describes_a_sweep() -> None:
    text = f"{HEAD}    optimizer.lr: {{uniform: [0.1, 1]}}\n"
    with pytest.raises(ConfigError) as found:
        parse_config(text, "s.yaml")
    assert str(found.value) == (
        "s.yaml:3:1: this config describes a sweep\n    sweep:\n    ^^^^^\n    run it with: mlpcli sweep s.yaml"
    )
    assert parse_config(text, "s.yaml", ["~sweep"]).optimizer.name == "sgd"


def test_check_shows_what_is_varied() -> None:
    overrides = ["optimizer=sgd", "sweep={space: {optimizer.lr: {log_uniform: [0.01, 1]}}, trials: 9}"]
    done = succeeds("check", "digits", *overrides)
    assert done.out.endswith(
        "sweep: 9 trials, tpe sampler, no pruner, best by validation.loss\n"
        "  optimizer.lr  log_uniform: [0.01, 1.0]\n"
    )
    assert succeeds("check", "digits", *overrides, "--json").json["sweep"]["trials"] == 9
    assert mlpcli("check", "digits", "optimizer=sgd", "sweep={space: {model.depth: {int: [0, 3]}}}").code == 2


def test_editors_know_the_section() -> None:
    validator = Draft202012Validator(config_schema())
    ranges = [{"uniform": [0, 1]}, {"int": [1, 3], "log": True}, {"choice": ["a", [1], {"name": "sgd"}]}]
    for sampler, entry in itertools.product(("grid", "random", "tpe"), ranges):
        good = {"data": {"dataset": "iris"}, "sweep": {"sampler": sampler, "space": {"optimizer.lr": entry}}}
        assert validator.is_valid(good)
    bad = {"data": {"dataset": "iris"}, "sweep": {"space": {"optimizer.lr": {"unifrm": [0, 1]}}}}
    assert not validator.is_valid(bad)
