"""The config under every text: a config or an error that a person can read, and nothing else."""

import re
from typing import Any

import jsonschema
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from mlpcli.config import (
    Config,
    changed_keys,
    config_from_plain,
    config_schema,
    dump_config,
    parse_config,
    to_plain,
)
from mlpcli.config.datasets import FACTS
from mlpcli.errors import ConfigError, Problem, UsageError

moderate = settings(deadline=None, max_examples=200)

# --- random valid configs -----------------------------------------------------------------------------

small = st.integers(1, 1000)
positive = st.floats(min_value=0, max_value=1e30, exclude_min=True) | small
not_negative = st.floats(min_value=0, max_value=1e30)
fraction = st.floats(min_value=0, max_value=1, exclude_max=True)
inner = st.floats(min_value=0, max_value=1, exclude_min=True, exclude_max=True)
words = st.text(
    st.characters(codec="utf-8", categories=("L", "M", "N", "P", "S", "Z", "Cc", "Cf")), min_size=1
) | st.sampled_from(["1e5", "true", "on", "~", "2020-01-01", "1:30", "0o7", "<<", "-", "a: b", "a #b", " x "])


def section(required: dict[str, Any], optional: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(required, optional=optional)


def named(name: str, **optional: Any) -> st.SearchStrategy[dict[str, Any]]:
    return section({"name": st.just(name)}, optional)


image = {
    "validation": inner,
    "limit": st.none() | small,
    "standardize": st.sampled_from(["pixel", "feature", "scale", "none"]),
}
stored = image | {"root": words, "download": st.booleans()}
TABLES = ("iris", "wine", "breast_cancer", "diabetes")
data = st.one_of(
    section({"dataset": st.just("digits")}, image | {"test": inner}),
    section({"dataset": st.sampled_from(TABLES)}, {"validation": inner, "test": inner}),
    section({"dataset": st.sampled_from([name for name in FACTS if name not in (*TABLES, "digits")])}, stored),
    section({"dataset": st.just("emnist")}, stored | {"split": st.sampled_from(["letters", "digits"])}),
    section(
        {"dataset": st.just("fake")},
        image
        | {
            "train_size": small,
            "image_size": st.tuples(st.sampled_from([1, 3]), small, small).map(list),
            "classes": st.integers(2, 100),
        },
    ),
)
model = section(
    {},
    {
        "width": small | st.lists(small, min_size=1, max_size=30),
        "activation": st.sampled_from(["relu", "gelu", "identity"]),
        "normalization": st.sampled_from(["none", "layer"]),
        "bias": st.booleans(),
        "init": st.sampled_from(["default", "zeros"]),
    },
)
losses = st.sampled_from([None, "mse", "mae", "huber"]) | named("huber", delta=positive)
adam = {"lr": positive, "betas": st.lists(fraction, min_size=2, max_size=2), "eps": positive}
optimizers = st.one_of(
    st.sampled_from(["gd", "sgd", "adam", "adamw", "rmsprop", "adagrad", "lbfgs"]),
    named("sgd", lr=positive, momentum=inner, weight_decay=not_negative),
    named("adam", **adam),
    named("adamw", **adam),
    named("lbfgs", max_iter=small, line_search=st.sampled_from(["strong_wolfe", "none"])),
)
schedulers = st.one_of(
    st.sampled_from(["constant", "cosine", "linear", "one_cycle", "plateau"]),
    section({"name": st.just("step"), "step_size": small}, {"gamma": inner, "warmup": fraction}),
    named("plateau", factor=inner, patience=small, min_lr=not_negative),
)
training = section(
    {},
    {
        "epochs": small,
        "batch_size": st.none() | st.integers(2, 10_000),
        "device": st.sampled_from(["auto", "cpu", "cuda", "cuda:0", "cuda:17"]),
        "clip_grad_norm": st.none() | positive,
        "monitor": st.sampled_from([None, "validation.loss", "train.loss"]),
        "early_stopping": st.none() | section({}, {"patience": small, "min_delta": not_negative}),
    },
)
names = st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,20}\Z") | st.sampled_from(["1e5", "0x1", "on", "1.0"])


def uses_lbfgs(values: dict[str, Any]) -> bool:
    optimizer = values.get("optimizer")
    return optimizer == "lbfgs" or (isinstance(optimizer, dict) and optimizer["name"] == "lbfgs")


configs = section(
    {"data": data},
    {
        "name": st.none() | names,
        "seed": st.integers(0, 2**63 - 1),
        "model": model,
        "loss": losses,
        "optimizer": optimizers,
        "scheduler": schedulers,
        "training": training,
    },
).filter(lambda values: not (uses_lbfgs(values) and values.get("training", {}).get("clip_grad_norm")))
VALIDATOR = jsonschema.Draft202012Validator(config_schema())


@moderate
@given(configs)
def test_valid_configs_survive_yaml(values: dict[str, Any]) -> None:
    VALIDATOR.validate(values)
    config = config_from_plain(values)
    dumped = dump_config(config)
    again = parse_config(dumped, "dumped")
    assert again == config and changed_keys(config, again) == []
    assert dump_config(again) == dumped
    assert config_from_plain(to_plain(config)) == config
    VALIDATOR.validate(to_plain(config))
    assert config_from_plain(yaml.safe_load(dumped)) == config


# --- any text -----------------------------------------------------------------------------------------


def check_problem(problem: Problem) -> None:
    """One line each, encodable, with the caret under the excerpt."""
    for text in (problem.location, problem.message, problem.excerpt, problem.hint):
        assert "\n" not in text and "\r" not in text and "\x1b" not in text
        text.encode()
    assert problem.message
    assert problem.column >= 0 and problem.width >= 1
    if problem.excerpt:
        assert problem.column + problem.width <= 2 * len(problem.excerpt) + 1


def outcome(text: str, *overrides: str) -> Config | None:
    """The config, or None after a ConfigError whose every place exists."""
    try:
        return parse_config(text, "c.yaml", overrides)
    except ConfigError as error:
        lines = re.split(r"\r\n|\r|\n", text.removeprefix("\ufeff"))
        assert error.problems
        for problem in error.problems:
            check_problem(problem)
            if problem.location.startswith("c.yaml:"):
                line, column = map(int, problem.location.split(":")[1:])
                assert 1 <= line <= len(lines)
                assert 1 <= column <= len(lines[line - 1]) + 1
            else:
                assert overrides and problem.location.startswith("command line: ")
        return None


FRAGMENTS = [
    *"[]{}:,-?&*!|>'\"%@`#~ \n\t\r\0\x07\x85\u2028\ufeff\ud800漢\u0301\u200b😀",
    *("- ", ": ", "? ", "&a ", "*a", "!x ", "!!int ", "<<: ", "|\n", "--- ", "...\n", "%YAML 1.2\n", "\n  "),
    *('"\\uD800"', '"\\UFFFFFFFF"', '"\\x00"', "1e5", ".nan", "-.inf", "0x1F", "null", "true", "9" * 500),
    *("data", "dataset", "digits", "mnist", "model", "width", "loss", "optimizer", "name", "sgd", "seed"),
]
anything = st.text() | st.lists(st.sampled_from(FRAGMENTS), max_size=30).map("".join)


@moderate
@given(anything)
def test_any_text_is_a_config_or_a_config_error(text: str) -> None:
    outcome(text)


@moderate
@given(anything.map(lambda text: f"data: {{dataset: digits}}\nmodel:\n  width: {text}"))
def test_any_text_as_a_value(text: str) -> None:
    outcome(text)


KEYS = st.sampled_from(
    ["model.width", "data", "loss.name", "~seed", "~", "a.b.c", "training.early_stopping.x", ""]
)


@moderate
@given(st.lists(anything | st.tuples(KEYS, st.sampled_from(["", "="]), anything).map("".join), max_size=3))
def test_any_override_is_a_config_or_a_user_error(overrides: list[str]) -> None:
    try:
        outcome("data: {dataset: digits}\nloss: mse\nseed: 1", *overrides)
    except UsageError as error:
        str(error).encode()


BASE = """\
name: digits
seed: 0
data: &d
  dataset: fake   # images
  validation: 0.1
  image_size: [1, 28, 28]
model: {depth: 3, width: [128, 64], activation: "relu"}
loss: {name: cross_entropy, label_smoothing: 0.1}
optimizer: {name: sgd, lr: 1e-1, momentum: 0.9}
scheduler: {name: cosine, warmup: .5}
training:
  <<: {epochs: 3}
  early_stopping: {patience: 3, monitor: 'validation.loss'}
  device: cuda:0
"""

edits = st.tuples(st.integers(0, len(BASE)), st.integers(0, 20), st.sampled_from(FRAGMENTS) | st.text(max_size=3))


@moderate
@given(st.lists(edits, min_size=1, max_size=4))
def test_any_mutation_is_valid_or_points_into_the_file(changes: list[tuple[int, int, str]]) -> None:
    assert outcome(BASE) is not None
    text = BASE
    for start, removed, added in changes:
        text = text[:start] + added + text[start + removed :]
    config = outcome(text)
    if config is not None:
        assert parse_config(dump_config(config), "dumped") == config


@moderate
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.binary(max_size=3),
        lambda children: (
            st.lists(children, max_size=3)
            | st.dictionaries(
                st.sampled_from(["data", "dataset", "model", "name", "loss", "x"]) | st.text() | st.integers(),
                children,
                max_size=4,
            )
        ),
    )
)
def test_any_plain_values(values: Any) -> None:
    try:
        config_from_plain(values)
    except ConfigError as error:
        for problem in error.problems:
            check_problem(problem)
            assert problem.location == "config" and not problem.excerpt
