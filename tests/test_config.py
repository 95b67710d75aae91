"""The config: what is accepted, and every message for what is not."""
# ruff: noqa: E501  # messages stand as they are printed

import copy
import math
import os
import subprocess
import sys
import threading
from pathlib import Path

import jsonschema
import pytest
import yaml

from mlpcli.config import (
    changed_keys,
    config_from_plain,
    config_schema,
    dump_config,
    load_config,
    parse_config,
    to_plain,
)
from mlpcli.config.expected import PATTERNS
from mlpcli.config.text import Span, Text, excerpt_of
from mlpcli.config.yaml_source import parse_yaml
from mlpcli.errors import ConfigError, UsageError

DIGITS = "data: {dataset: digits}\n"


def errors(text: str, *overrides: str) -> list[str]:
    """The problems of a config, each as it is printed."""
    with pytest.raises(ConfigError) as caught:
        parse_config(text, "c.yaml", overrides)
    return [str(problem) for problem in caught.value.problems]


def only_error(text: str, *overrides: str) -> str:
    (error,) = errors(text, *overrides)
    return error


def first_lines(text: str, *overrides: str) -> list[str]:
    return [error.partition("\n")[0] for error in errors(text, *overrides)]


# --- what is accepted ---------------------------------------------------------------------------------


def test_the_smallest_config_is_resolved() -> None:
    config = parse_config(DIGITS, "c.yaml")
    assert config.name == "digits"
    assert config.loss is not None and config.loss.name == "cross_entropy"
    assert (config.model.depth, config.model.width) == (2, 128)
    assert (config.training.batch_size, config.training.monitor) == (64, "validation.loss")


def test_the_config_of_the_design() -> None:
    config = parse_config(
        """
        name: digits
        seed: 0
        data:
          dataset: digits
          validation: 0.1
        model:
          depth: 3
          width: 128
          activation: relu
        loss: {name: cross_entropy, label_smoothing: 1e-1}
        optimizer: {name: sgd, lr: 0.1, momentum: 0.9}
        scheduler: {name: cosine}
        training:
          epochs: 20
          batch_size: 64
          device: auto
        """,
        "c.yaml",
    )
    assert config.loss is not None
    assert to_plain(config)["loss"] == {
        "name": "cross_entropy",
        "label_smoothing": 0.1,
        "class_weights": "none",
    }
    assert to_plain(config)["optimizer"] == {
        "name": "sgd",
        "lr": 0.1,
        "momentum": 0.9,
        "nesterov": False,
        "weight_decay": 0.0,
    }


def test_the_name_of_the_run() -> None:
    assert parse_config(DIGITS, "c.yaml").name == "digits"
    assert parse_config(DIGITS + "name: own", "c.yaml").name == "own"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *[(word, None) for word in ("~", "null", "Null", "NULL", "")],
        *[(word, True) for word in ("true", "True", "TRUE")],
        *[(word, False) for word in ("false", "False", "FALSE")],
        *[(word, word) for word in ("on", "off", "yes", "no", "y", "N", "tRue", "nULL")],
        *[(word, word) for word in ("2020-01-01", "1:30", "12:30:45", "1_000", "0b1", "0x", "0o8", "-0x1")],
        *[(word, word) for word in ("1e", "e5", ".", "+", "--", ".e1", ".Nan", "+.nan", "1.5.2", "=", "１")],
        ("0", 0),
        ("-19", -19),
        ("+3", 3),
        ("010", 10),
        ("0o17", 15),
        ("0xfF", 255),
        ("1e-3", 0.001),
        ("1E3", 1000.0),
        (".5", 0.5),
        ("-.5e+1", -5.0),
        ("1.", 1.0),
        ("1.25", 1.25),
        ("1e999", math.inf),
        (".inf", math.inf),
        ("+.INF", math.inf),
        ("-.Inf", -math.inf),
        ("'1'", "1"),
        ('"true"', "true"),
        ("|\n 1", "1"),
        ("&a 1", 1),
        ("# nothing", None),
        ("{a: 1, <<: {a: 2, b: 3}}", {"a": 1, "b": 3}),
        ("{<<: [{a: 1}, {a: 2, b: 2}], c: 3}", {"a": 1, "b": 2, "c": 3}),
        ("{'<<': 1}", {"<<": 1}),
        ("[&a {x: [1]}, *a]", [{"x": [1]}, {"x": [1]}]),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text: str, value: object) -> None:
    node, findings = parse_yaml(Text("t", f"key: {text}"))
    assert not findings and node is not None
    plain = node.plain()["key"]
    assert plain == value and type(plain) is type(value)


@pytest.mark.parametrize("word", [".nan", ".NaN", ".NAN"])
def test_nan(word: str) -> None:
    node, _ = parse_yaml(Text("t", word))
    assert node is not None and math.isnan(node.plain())


# --- overrides ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "overrides", "path", "value"),
    [
        ("optimizer: {name: sgd, lr: 1}", ["optimizer.lr=0.05"], ("optimizer", "lr"), 0.05),
        ("optimizer: sgd", ["optimizer.lr=1e-3"], ("optimizer", "lr"), 0.001),
        ("loss: cross_entropy", ["loss.label_smoothing=0.1"], ("loss", "name"), "cross_entropy"),
        ("optimizer: sgd", ["optimizer=adam", "optimizer.lr=1"], ("optimizer", "lr"), 1.0),
        ("", ["model.width=[512,256]"], ("model", "width"), [512, 256]),
        ("", ["model={width: 3}", "model.depth=5"], ("model", "width"), 3),
        ("", ["training.early_stopping.patience=3"], ("training", "early_stopping", "patience"), 3),
        ("training: {early_stopping: null}", ["training.early_stopping.patience=3"], ("training",), None),
        ("scheduler: cosine", ["~scheduler"], ("scheduler", "name"), "constant"),
        ("model: {depth: 7, width: 3}", ["~model.depth"], ("model", "depth"), 2),
        ("model: many", ["model={}"], ("model", "width"), 128),
        ("", ["data.dataset=mnist", "data.root='1'"], ("data", "root"), "1"),
        ("", ["training.device=cuda:0"], ("training", "device"), "cuda:0"),
        ("training: {batch_size: 3}", ["training.batch_size="], ("training", "batch_size"), 64),
    ],
)
def test_overrides(text: str, overrides: list[str], path: tuple[str, ...], value: object) -> None:
    plain = to_plain(parse_config(DIGITS + text, "c.yaml", overrides))
    for key in path:
        plain = plain[key]
    assert value is None or plain == value


@pytest.mark.parametrize(
    ("override", "why"),
    [
        ("optimizer.lr", "no '='"),
        ("", "no '='"),
        ("=3", "empty key"),
        ("a..b=3", "empty key"),
        (".a=3", "empty key"),
        ("a.=3", "empty key"),
        ("~", "empty key"),
        ("~a.", "empty key"),
        ("a =3", "spaces"),
        ("~a=3", "takes no value"),
        ("a." * 60 + "b=3", "50 keys deep"),
        ("\udcff=3", "not Unicode"),
    ],
)
def test_malformed_overrides_are_usage_errors(override: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        parse_config("data: [", "c.yaml", [override])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "optimizer.lr=abc",
            "command line: optimizer.lr: expected a number > 0, got text 'abc'\n"
            "    optimizer.lr=abc\n"
            "                 ^^^",
        ),
        (
            "optimizer.learning_rate=0.1",
            "command line: optimizer.learning_rate: unknown key optimizer.learning_rate\n"
            "    optimizer.learning_rate=0.1\n"
            "              ^^^^^^^^^^^^^\n"
            "    did you mean lr? sgd has: lr, momentum, nesterov, weight_decay",
        ),
        (
            "model={width: 2, depth: x}",
            "command line: model: model.depth: expected an integer ≥ 1 and ≤ 1,000 or null, got text 'x'\n"
            "    model={width: 2, depth: x}\n"
            "                            ^",
        ),
        (
            "~model.width",
            "command line: ~model.width: nothing to remove: the config has no key model\n"
            "    ~model.width\n"
            "     ^^^^^",
        ),
        (
            "~optimizer.nam",
            "command line: ~optimizer.nam: nothing to remove: the config has no key optimizer.nam\n"
            "    ~optimizer.nam\n"
            "               ^^^\n"
            "    did you mean name?",
        ),
        (
            "seed.x=1",
            "command line: seed.x: seed is 3, which has no keys\n    seed.x=1\n         ^",
        ),
        (
            "name.x=1",
            "command line: name.x: name is text 'abc', which has no keys\n    name.x=1\n         ^",
        ),
        (
            "optimizer.name.x=1",
            "command line: optimizer.name.x: optimizer.name is text 'sgd', which has no keys\n"
            "    optimizer.name.x=1\n"
            "                   ^",
        ),
        (
            "model.width=[1",
            "command line: model.width: this bracket is never closed\n    model.width=[1\n                ^",
        ),
        (
            "model.width=!x 3",
            "command line: model.width: tags (!) are not supported\n"
            "    model.width=!x 3\n"
            "                ^^^^\n"
            "    write the value itself",
        ),
        (
            "model={width: 1, width: 2}",
            "command line: model: duplicate key model.width\n"
            "    model={width: 1, width: 2}\n"
            "                     ^^^^^\n"
            "    keep one of the two",
        ),
        (
            "data=",
            "command line: data: expected a mapping of keys (dataset, …), got nothing (null)\n"
            "    data=\n"
            "    ^^^^\n"
            "    write its keys beneath it, or remove data",
        ),
        (
            "scheduler.warmup=1",
            "command line: scheduler.warmup: missing key scheduler.name: expected one of constant, step, cosine, "
            "linear, one_cycle, plateau\n"
            "    scheduler.warmup=1\n"
            "    ^^^^^^^^^",
        ),
    ],
)
def test_wrong_overrides(override: str, message: str) -> None:
    assert only_error(DIGITS + "seed: 3\nname: abc\noptimizer: {name: sgd}", override) == message


def test_an_override_replaces_what_was_wrong() -> None:
    assert parse_config(DIGITS + "model: {width: many}", "c.yaml", ["model.width=3"]).model.width == 3


# --- whole messages -----------------------------------------------------------------------------------

MESSAGES = [
    (
        DIGITS + "model:\n  width: many",
        "c.yaml:3:10: model.width: expected an integer ≥ 1 or a list of them, got text 'many'\n"
        "    width: many\n"
        "           ^^^^",
    ),
    (
        "data:\n  dataset: digits\n  root: x",
        "c.yaml:3:3: unknown key data.root: the data set digits has no such key (mnist, fashion_mnist, … have it)\n"
        "    root: x\n"
        "    ^^^^\n"
        "    digits has: augmentation, features, limit, standardize, test, validation",
    ),
    (
        DIGITS + "optimizer:\n  name: sgd\n  learning_rate: 0.1",
        "c.yaml:4:3: unknown key optimizer.learning_rate\n"
        "    learning_rate: 0.1\n"
        "    ^^^^^^^^^^^^^\n"
        "    did you mean lr? sgd has: lr, momentum, nesterov, weight_decay",
    ),
    (
        DIGITS + "training: {early_stopping: {patince: 3}}",
        "c.yaml:2:29: unknown key training.early_stopping.patince\n"
        "    training: {early_stopping: {patince: 3}}\n"
        "                                ^^^^^^^\n"
        "    did you mean patience? training.early_stopping has: min_delta, mode, monitor, patience",
    ),
    (
        DIGITS + "batch_size: 3",
        "c.yaml:2:1: unknown key batch_size\n"
        "    batch_size: 3\n"
        "    ^^^^^^^^^^\n"
        "    did you mean training.batch_size? a config has: data, loss, model, name, optimizer, report, "
        "scheduler, seed, sweep, training",
    ),
    (
        DIGITS + "loss: {name: mse, label_smoothing: 0.1}",
        "c.yaml:2:19: unknown key loss.label_smoothing: the loss mse has no such key (cross_entropy has it)\n"
        "    loss: {name: mse, label_smoothing: 0.1}\n"
        "                      ^^^^^^^^^^^^^^^\n"
        "    mse has no other keys",
    ),
    (
        DIGITS + "optimizer: {name: sdg}",
        "c.yaml:2:19: optimizer.name: expected one of gd, sgd, adam, adamw, rmsprop, adagrad, lbfgs, got text 'sdg'\n"
        "    optimizer: {name: sdg}\n"
        "                      ^^^\n"
        "    did you mean sgd?",
    ),
    (
        DIGITS + "loss: Cross-Entropy",
        "c.yaml:2:7: loss: expected one of cross_entropy, mse, mae, huber, got text 'Cross-Entropy'\n"
        "    loss: Cross-Entropy\n"
        "          ^^^^^^^^^^^^^\n"
        "    did you mean cross_entropy?",
    ),
    (
        DIGITS + "loss: accuracy",
        "c.yaml:2:7: loss: accuracy is a metric and cannot be trained: its gradient is zero almost everywhere, "
        "so gradient descent cannot move\n"
        "    loss: accuracy\n"
        "          ^^^^^^^^\n"
        "    use loss: cross_entropy; accuracy is measured all the same",
    ),
    (
        DIGITS + "scheduler: step",
        "c.yaml:2:12: missing key scheduler.step_size: expected an integer ≥ 1\n"
        "    scheduler: step\n"
        "               ^^^^",
    ),
    (
        DIGITS + "scheduler:\n  name: step",
        "c.yaml:2:1: missing key scheduler.step_size: expected an integer ≥ 1\n    scheduler:\n    ^^^^^^^^^",
    ),
    (
        "seed: 1",
        "c.yaml:1:1: missing key data: expected a mapping of keys (dataset, …)\n"
        "    for example data: {dataset: digits}",
    ),
    (
        "data: {limit: 3}",
        "c.yaml:1:1: missing key data.dataset: expected one of digits, iris, wine, breast_cancer, diabetes, mnist, "
        "fashion_mnist, kmnist, qmnist, usps, cifar10, cifar100, svhn, stl10, emnist, fake, image_folder, csv, parquet\n"
        "    data: {limit: 3}\n"
        "    ^^^^",
    ),
    (
        "data: Mnist",
        "c.yaml:1:7: data: expected a mapping of keys (dataset, …), got text 'Mnist'\n"
        "    data: Mnist\n"
        "          ^^^^^\n"
        "    write data: {dataset: mnist}",
    ),
    (
        DIGITS + "model: {depth: 3, width: [4, 5, 6]}",
        "c.yaml:2:16: model.depth: depth 3 has 2 hidden layers, but width lists 3\n"
        "    model: {depth: 3, width: [4, 5, 6]}\n"
        "                   ^\n"
        "    leave depth out, or set it to 4",
    ),
    (
        "data: {dataset: diabetes}\nloss:\n  name: cross_entropy",
        "c.yaml:3:3: loss: cross_entropy needs classes, but diabetes is a regression task\n"
        "    name: cross_entropy\n"
        "    ^^^^^^^^^^^^^^^^^^^\n"
        "    use mse, mae or huber",
    ),
    (
        DIGITS + "model:\n# nothing yet\nseed: 1",
        "c.yaml:2:1: model: expected a mapping of keys (activation, bias, depth, dropout, …), got nothing (null)\n"
        "    model:\n"
        "    ^^^^^\n"
        "    write its keys beneath it, or remove model",
    ),
    (
        DIGITS + "seed: 1\n\nseed: 2",
        "c.yaml:4:1: duplicate key seed, which first stands at line 2\n"
        "    seed: 2\n"
        "    ^^^^\n"
        "    keep one of the two",
    ),
    (
        "data: {dataset: image_folder, path: photos, image_size: [8]}",
        "c.yaml:1:57: data.image_size: expected an integer ≥ 1 and ≤ 10,000 or a list of 2 of them, "
        "got a list of 1\n"
        "    data: {dataset: image_folder, path: photos, image_size: [8]}\n"
        "                                                            ^^^",
    ),
    (
        DIGITS + "a: {dataset: &漢 x",
        "c.yaml:2:15: not valid YAML: expected alphabetic or numeric character, but found '漢'\n"
        "    a: {dataset: &漢 x\n"
        "                  ^^",
    ),
]


@pytest.mark.parametrize(("text", "message"), MESSAGES)
def test_messages(text: str, message: str) -> None:
    assert only_error(text) == message


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ("seed: true", "c.yaml:2:7: seed: expected an integer ≥ 0, got true"),
        ("seed: -1", "c.yaml:2:7: seed: expected an integer ≥ 0, got -1"),
        (
            "seed: 0xffffffffffffffff",
            "c.yaml:2:7: seed: expected an integer ≥ 0 and < 9,223,372,036,854,775,808, got 0xffffffffffffffff",
        ),
        ("model: {depth: 10.5}", "c.yaml:2:16: model.depth: expected an integer ≥ 1 and ≤ 1,000 or null, got 10.5"),
        ("model: {dropout: .nan}", "c.yaml:2:18: model.dropout: expected a number ≥ 0 and < 1, got .nan"),
        ("model: {dropout: 1}", "c.yaml:2:18: model.dropout: expected a number ≥ 0 and < 1, got 1"),
        ("model: {bias: 1}", "c.yaml:2:15: model.bias: expected true or false, got 1"),
        ("model: {width: null}", "c.yaml:2:16: model.width: expected an integer ≥ 1 or a list of them, got nothing (null)"),
        ("model: {width: []}", "c.yaml:2:16: model.width: expected an integer ≥ 1 or a list of them, got an empty list"),
        ("model: {width: [8, x]}", "c.yaml:2:20: model.width[1]: expected an integer ≥ 1, got text 'x'"),
        ("model: {width: {a: 1}}", "c.yaml:2:16: model.width: expected an integer ≥ 1 or a list of them, got a mapping"),
        (
            "model: {width: 2000000}",
            "c.yaml:2:16: model.width: expected an integer ≥ 1 and ≤ 1,000,000 or a list of them, got 2000000",
        ),
        (
            "optimizer: {name: adam, betas: [0.9]}",
            "c.yaml:2:32: optimizer.betas: expected a list of 2 numbers ≥ 0 and < 1, got a list of 1",
        ),
        (
            "optimizer: {name: adam, betas: [0.9, 1.0]}",
            "c.yaml:2:38: optimizer.betas[1]: expected a number ≥ 0 and < 1, got 1.0",
        ),
        ("optimizer: {name: sgd, lr: .inf}", "c.yaml:2:28: optimizer.lr: expected a number > 0 and ≤ 1e+30, got .inf"),
        ("optimizer: {name: sgd, lr: 1e999}", "c.yaml:2:28: optimizer.lr: expected a number > 0 and ≤ 1e+30, got 1e999"),
        (f"optimizer: {{name: sgd, lr: {'9' * 350}}}", f"c.yaml:2:28: optimizer.lr: expected a number > 0 and ≤ 1e+30, got {'9' * 39}…"),
        (
            "optimizer: 3",
            "c.yaml:2:12: optimizer: expected one of gd, sgd, adam, adamw, rmsprop, adagrad, lbfgs "
            "or a mapping of keys (name, …), got 3",
        ),
        (
            "loss: []",
            "c.yaml:2:7: loss: expected one of cross_entropy, mse, mae, huber or a mapping of keys (name, …) or null, "
            "got an empty list",
        ),
        ("optimizer: {name: [sgd]}", "c.yaml:2:19: optimizer.name: expected one of gd, sgd, adam, adamw, rmsprop, adagrad, lbfgs, got a list of 1"),
        ("training: {device: gpu}", "c.yaml:2:20: training.device: expected auto, cpu, cuda or cuda:N, got text 'gpu'"),
        (
            "name: a b",
            "c.yaml:2:7: name: expected letters, digits and . _ - (at most 100, none of . _ - first) or null, got text 'a b'",
        ),
        ("model: [3]", "c.yaml:2:8: model: expected a mapping of keys (activation, bias, depth, dropout, …), got a list of 1"),
        ("model: {init: '\\x00\u200b'}", "c.yaml:2:15: model.init: expected one of default, kaiming, xavier, orthogonal, zeros, got text '\\x00·'"),
    ],
)  # fmt: skip
def test_expected_and_got(section: str, message: str) -> None:
    assert first_lines(DIGITS + section) == [message]


@pytest.mark.parametrize(
    ("section", "hint"),
    [
        ("data: {dataset: digits, limit: '64'}", "leave out the quotes: 64"),
        ("data: {dataset: digits, limit: 60_000}", "write it without separators: 60000"),
        ("data: {dataset: digits, limit: '60,000'}", "write it without separators: 60000"),
        ("data: {dataset: digits, limit: 64k}", "write the number alone, without k"),
        ("data: {dataset: digits, limit: 10.0}", "write 10"),
        ("data: {dataset: digits, validation: '0,1'}", "write a decimal point: 0.1"),
        ("data: {dataset: digits, validation: 10%}", "write it as a fraction: 0.1"),
        ("data: {dataset: digits, validation: '.5'}", "leave out the quotes: .5"),
        (DIGITS + "training: {checkpoint_seconds: 60 s}", "write the number alone, without s"),
        (DIGITS + "model: {bias: yes}", "write true"),
        (DIGITS + "model: {bias: off}", "write false"),
        (DIGITS + "model: {normalization: null}", "write none"),
        (DIGITS + "model: {activation: RELU}", "did you mean relu?"),
        (DIGITS + "model: {activation: gleu}", "did you mean gelu?"),
        (DIGITS + "model: width:3", "write a space after the colon: width: 3"),
        (DIGITS + "training: {monitor: accuracy}", "did you mean validation.accuracy?"),
        (DIGITS + "name: 2024", "quote it: '2024'"),
        (DIGITS + "model: {activation: zzzz}", ""),
    ],
)
def test_hints(section: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(section, "c.yaml")
    (problem,) = caught.value.problems
    assert problem.hint == hint


@pytest.mark.parametrize(
    ("text", "key", "meant"),
    [
        (DIGITS + "model: {hidden_size: 3}", "model.hidden_size", "width"),
        (DIGITS + "model: {layers: 3}", "model.layers", "depth"),
        (DIGITS + "model: {Width: 3}", "model.Width", "width"),
        (DIGITS + "model: {drop-out: 3}", "model.drop-out", "dropout"),
        (DIGITS + "training: {epoch: 3}", "training.epoch", "epochs"),
        (DIGITS + "training: {lr: 3}", "training.lr", "optimizer.lr"),
        (DIGITS + "learning_rate: 3", "learning_rate", "optimizer.lr"),
        (DIGITS + "optimiser: sgd", "optimiser", "optimizer"),
        (DIGITS + "criterion: mse", "criterion", "loss"),
        (DIGITS + "patience: 3", "patience", "scheduler.patience or training.early_stopping.patience"),
    ],
)
def test_did_you_mean_for_unknown_keys(text: str, key: str, meant: str) -> None:
    error = only_error(text)
    assert f": unknown key {key}\n" in error
    assert f"did you mean {meant}?" in error


def test_a_misspelt_name_is_shown_with_the_missing_one() -> None:
    assert errors(DIGITS + "scheduler: {nme: cosine, warmup: 1}") == [
        "c.yaml:2:1: missing key scheduler.name: expected one of constant, step, cosine, linear, one_cycle, plateau\n"
        "    scheduler: {nme: cosine, warmup: 1}\n"
        "    ^^^^^^^^^",
        "c.yaml:2:13: unknown key scheduler.nme\n"
        "    scheduler: {nme: cosine, warmup: 1}\n"
        "                ^^^\n"
        "    did you mean name?",
    ]


# --- all at once --------------------------------------------------------------------------------------


def test_every_problem_is_reported_in_the_order_of_the_file() -> None:
    text = """name: digits
seed: 1.5
data:
  dataset: digits
  root: x
  limit: 60_000
model:
  width: many
  dropout: 1
loss: accuracy
optimizer:
  name: sgd
  learning_rate: 0.1
  lr: '0.1'
optimizer: adam
scheduler: {name: step}
training:
  epochs: 10.0
  epochs: 3
  device: !gpu 0
  7: x
  early_stopping: yes
extra:
"""
    assert [line.split(": ")[0] for line in first_lines(text, "training.foo=1", "seed.x=1", "~loss.x")] == [
        "c.yaml:2:7",
        "c.yaml:5:3",
        "c.yaml:6:10",
        "c.yaml:8:10",
        "c.yaml:9:12",
        "c.yaml:10:7",
        "c.yaml:13:3",
        "c.yaml:14:7",
        "c.yaml:15:1",
        "c.yaml:16:1",
        "c.yaml:18:11",
        "c.yaml:19:3",
        "c.yaml:20:11",
        "c.yaml:21:3",
        "c.yaml:22:19",
        "c.yaml:23:1",
        "command line",
        "command line",
        "command line",
    ]


def test_sections_without_errors_are_still_compared() -> None:
    text = """data: {dataset: diabetes}
loss: cross_entropy
model: {dropout: 0.5}
optimizer: lbfgs
scheduler: cosin
training: {monitor: validation.accuracy}
"""
    assert first_lines(text) == [
        "c.yaml:2:7: loss: cross_entropy needs classes, but diabetes is a regression task",
        "c.yaml:3:18: model.dropout: lbfgs compares values of one objective, but dropout changes it with every "
        "evaluation",
        "c.yaml:5:12: scheduler: expected one of constant, step, cosine, linear, one_cycle, plateau, got text 'cosin'",
        "c.yaml:6:21: training.monitor: accuracy is not measured for regression",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "data: {dataset: diabetis}\nloss: cross_entropy",
        "data: {dataset: diabetes, foo: 1}\nloss: cross_entropy",
        "data: !x {dataset: diabetes}\nloss: cross_entropy",
        DIGITS + "optimizer: {name: lbfgs, max_iter: 0}\nmodel: {dropout: 0.5}",
        DIGITS + "training: {monitor: !x validation.accuracy}\n",
    ],
)
def test_broken_sections_take_part_in_no_conflict(text: str) -> None:
    assert len(errors(text)) == 1


def test_a_conflict_with_a_default_is_shown_at_what_is_there() -> None:
    text = DIGITS + "training: {batch_size: 1}\nmodel: {normalization: batch}"
    assert only_error(text).startswith("c.yaml:2:24: training.batch_size: batch normalization needs at least 2")
    error = only_error(DIGITS + "optimizer: {name: sgd}", "optimizer.nesterov=true")
    assert error.startswith("command line: optimizer.nesterov: nesterov needs momentum > 0\n")


# --- places -------------------------------------------------------------------------------------------


def test_aliases_and_merges_point_at_what_is_written() -> None:
    text = DIGITS + "model: &m\n  width: &w x\n  <<: {dropout: 3}\ntraining: {epochs: *w}\n"
    assert first_lines(text) == [
        "c.yaml:3:13: model.width: expected an integer ≥ 1 or a list of them, got text 'x'",
        "c.yaml:3:13: training.epochs: expected an integer ≥ 1, got text 'x'",
        "c.yaml:4:17: model.dropout: expected a number ≥ 0 and < 1, got 3",
    ]


def test_block_values_are_underlined_to_the_end_of_their_line() -> None:
    assert only_error(DIGITS + "optimizer:\n  - sgd\n  - adam\n").endswith("    - sgd\n    ^^^^^")


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_lines_are_counted_as_editors_count_them(newline: str) -> None:
    text = f"\ufeffdata: {{dataset: digits}}{newline}# \u2028{newline}seed: x{newline}"
    assert only_error(text) == "c.yaml:3:7: seed: expected an integer ≥ 0, got text 'x'\n    seed: x\n          ^"


@pytest.mark.parametrize(
    ("line", "marked", "excerpt", "caret"),
    [
        ("  a: b", "b", "a: b", "   ^"),
        ("\ta:\tb c", "b c", "a:→b c", "   ^^^"),
        ("漢字: b", "b", "漢字: b", "      ^"),
        ("a: 漢字", "漢字", "a: 漢字", "   ^^^^"),
        ("e\u0301: b", "b", "e\u0301: b", "   ^"),
        ("a\u200b: \u202eb", "\u202eb", "a·: ·b", "    ^^"),
        ("x" * 200 + "!" + "y" * 200, "!", "…" + "x" * 40 + "!" + "y" * 59 + "…", " " * 41 + "^"),
        ("!" * 300, "!" * 300, "!" * 100 + "…", "^" * 100),
        ("a: b   ", "   ", "a: b", "    ^"),
    ],
)
def test_excerpts_keep_the_caret_aligned(line: str, marked: str, excerpt: str, caret: str) -> None:
    content = f"before\n{line}\nafter"
    start = content.rindex(marked)
    shown, column, width = excerpt_of(Span(Text("t", content), start, start + len(marked)))
    assert (shown, " " * column + "^" * width) == (excerpt, caret)


def test_names_and_keys_cannot_forge_output() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(DIGITS + '"a\\nb\\e[31m": 1', "x\ny.yaml")
    assert str(caught.value).startswith("x·y.yaml:2:1: unknown key 'a·b·[31m'\n")


# --- what is no YAML ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "c.yaml:1:1: this file is empty, but a config needs at least data:\n    start with: mlpcli init"),
        (
            "# nothing\n",
            "c.yaml:1:1: this file holds no keys, but a config needs at least data:\n    start with: mlpcli init",
        ),
        ("--- ~", "c.yaml:1:1: this file holds no keys, but a config needs at least data:\n    start with: mlpcli init"),
        ("- a\n- b", "c.yaml:1:1: expected a mapping (data: ...), got a list of 2\n    - a\n    ^^^"),
        ("hello", "c.yaml:1:1: expected a mapping (data: ...), got text 'hello'\n    hello\n    ^^^^^"),
        (
            "data:\n\tdataset: digits",
            "c.yaml:2:1: a tab stands where YAML needs spaces\n"
            "    →dataset: digits\n"
            "    ^\n"
            "    use spaces instead of tabs",
        ),
        (
            "data: {}\n---\ndata: {}",
            "c.yaml:2:1: a second document starts here, but a config is one\n"
            "    ---\n"
            "    ^\n"
            "    remove the --- line",
        ),
        ("data: {dataset: x\n", "c.yaml:1:7: this bracket is never closed\n    data: {dataset: x\n          ^"),
        ("a: 1\nb: 'x\n", "c.yaml:2:4: this quote is never closed\n    b: 'x\n       ^"),
        (
            "data:\n  dataset:digits\n  limit: 3",
            "c.yaml:3:8: this ':' starts a value where none can stand\n"
            "    limit: 3\n"
            "         ^\n"
            "    indent all keys of a mapping alike, put a space after each ':', and quote text that holds ': '",
        ),
        (
            "data: {}\nmodel\nseed: 3",
            "c.yaml:2:1: a key without a ':'\n    model\n    ^\n    write it as key: value",
        ),
        (
            "data: @x",
            "c.yaml:1:7: text cannot start with this character\n    data: @x\n          ^\n    quote the text",
        ),
        (
            'root: "C:\\data"',
            "c.yaml:1:11: not valid YAML: found unknown escape character 'd'\n"
            '    root: "C:\\data"\n'
            "              ^\n"
            "    in double quotes \\ starts an escape: use / or single quotes",
        ),
        (
            "a: *b",
            "c.yaml:1:4: this alias refers to no anchor\n    a: *b\n       ^\n    quote text that starts with *",
        ),
        (
            "a: &a [1, *a]",
            "c.yaml:1:11: the alias *a stands inside of what it refers to\n    a: &a [1, *a]\n              ^",
        ),
        (
            "a: \x07",
            "c.yaml:1:4: the character U+0007 at byte offset 3 is not allowed in YAML\n"
            "    a: ·\n"
            "       ^\n"
            "    remove it, or write it as an escape in double quotes",
        ),
        ("ä: \x00", "c.yaml:1:4: byte offset 4 is a NUL byte: this is not a text file\n    ä: ·\n       ^"),
        ('a: "\\UFFFFFFFF"', 'c.yaml:1:7: a number here is out of range\n    a: "\\UFFFFFFFF"\n          ^'),
        ("!x {a: 1}", "c.yaml:1:1: tags (!) are not supported\n    !x {a: 1}\n    ^^^^^^^^^\n    write the value itself"),
    ],
)  # fmt: skip
def test_texts_that_hold_no_config(text: str, message: str) -> None:
    assert only_error(text) == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 10_000, "nested more than 50 levels deep"),
        ("[\n" * 10_000, "nested more than 50 levels deep"),
        ("- " * 10_000, "nested more than 50 levels deep"),
        ("? " * 10_000, "nested more than 50 levels deep"),
        ("{a: " * 10_000, "nested more than 50 levels deep"),
        ("a: 1\n" * 10_000, "more than 10,000 values"),
        ("a: &a [1]\nb: [" + "*a, " * 20_000 + "]", "more than 10,000 values"),
        (
            "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 40)),
            "aliases expand to more than 10,000 values",
        ),
        (
            "a0: &a0 1\n" + "".join(f"a{i}: &a{i} {'[' * 40}*a{i - 1}{']' * 40}\n" for i in range(1, 40)),
            "aliases nest more than 50 levels deep",
        ),
        (
            "a0: &a0 {x: 1}\n" + "".join(f"a{i}: &a{i} {'{<<: ' * 40}*a{i - 1}{'}' * 40}\n" for i in range(1, 40)),
            "aliases nest more than 50 levels deep",
        ),
        ("a: " + "b" * 2**20, "a config has at most 1,048,576 bytes, and this has more"),
        ("%YAML 1." + "9" * 5000 + "\n---\na: 1", "a number here is out of range"),
    ],
)
def test_bombs(text: str, message: str) -> None:
    (line,) = first_lines(text)
    assert line.endswith(f": {message}")
    (line,) = first_lines(DIGITS, f"model={text}")
    assert line.startswith("command line: model: ")


@pytest.mark.parametrize("depth", [49, 50])
def test_the_last_depth_that_is_read(depth: int) -> None:
    node, _ = parse_yaml(Text("t", "[" * depth + "]" * depth))
    assert node is not None


@pytest.mark.parametrize("tag", ["!!python/object/apply:os.system ['exit']", "!foo 1", "!!int '3'", "! x"])
def test_tags_construct_nothing(tag: str) -> None:
    assert first_lines(DIGITS + f"seed: {tag}") == ["c.yaml:2:7: seed: tags (!) are not supported"]
    assert first_lines(DIGITS, f"seed={tag}") == ["command line: seed: tags (!) are not supported"]


@pytest.mark.parametrize(
    ("line", "messages"),
    [
        ("1: x", ["c.yaml:2:1: a key must be text"]),
        ("true: x", ["c.yaml:2:1: a key must be text"]),
        ("? [a]\n: x", ["c.yaml:2:3: a key must be text"]),
        ("? !x a\n: x", ["c.yaml:2:3: a key must be text"]),
        ("<<: 3", ["c.yaml:2:5: << merges only mappings"]),
        ("<<: [{seed: 1}, 3]", ["c.yaml:2:17: << merges only mappings"]),
        ('name: "\\uD800"', ["c.yaml:2:7: name: half of a surrogate pair is not Unicode text"]),
        ('"\\uD800": 1', ["c.yaml:2:1: a key must be text"]),
        ("seed: " + "9" * 401, ["c.yaml:2:7: seed: a number of 401 digits is too long"]),
    ],
)
def test_values_that_are_left_out(line: str, messages: list[str]) -> None:
    assert first_lines(DIGITS + line) == messages


def test_duplicates_of_an_alias_are_reported_once() -> None:
    text = DIGITS + "model: &m {width: 1, width: 2}\ntraining: *m\n"
    assert [line for line in first_lines(text) if "duplicate" in line] == [
        "c.yaml:2:22: duplicate key model.width, which first stands at line 2"
    ]


# --- files --------------------------------------------------------------------------------------------


def file_error(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    return str(caught.value)


def test_load_config(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_bytes("\ufeffdata: {dataset: digits}\r\nseed: 1\r\n".encode())
    assert load_config(path, ["seed=2"]) == parse_config(DIGITS, "-", ["seed=2"])


def test_missing_files(tmp_path: Path) -> None:
    (tmp_path / "mnist.png").touch()
    (tmp_path / "mnist.yaml").touch()
    for wrong in ("mnst.yaml", "MNIST", "mnist.yml"):
        assert file_error(tmp_path / wrong) == (
            f"{tmp_path / wrong}: no such file\n    did you mean {tmp_path / 'mnist.yaml'}?"
        )
    assert file_error(tmp_path / "digits.yaml") == f"{tmp_path / 'digits.yaml'}: no such file"
    assert file_error(tmp_path / "no" / "c.yaml").endswith(f"there is no folder {tmp_path / 'no'}")


def test_directories(tmp_path: Path) -> None:
    assert file_error(tmp_path) == f"{tmp_path}: this is a directory, and a config is a file"
    (tmp_path / "config.yaml").touch()
    assert file_error(tmp_path).endswith(
        f"\n    use {tmp_path / 'config.yaml'}, or continue the run: mlpcli train --resume {tmp_path}"
    )


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            b"data: {}\nname: caf\xe9 x\n",
            ":2:10: byte offset 18 (0xe9) is not UTF-8 text\n    name: caf� x\n             ^\n    save the file as UTF-8",
        ),
        (b"\xef\xbb\xbf\xff", ":1:1: byte offset 3 (0xff) is not UTF-8 text\n    �\n    ^\n    save the file as UTF-8"),
        (b"\xff\xfed\0", ": byte offset 0 starts UTF-16 text, and a config is UTF-8\n    save it as UTF-8"),
        (b"PK\x03\x04\0", ":1:3: the character U+0003 at byte offset 2 is not allowed in YAML"),
    ],
)  # fmt: skip
def test_files_that_are_no_text(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_bytes(data)
    assert file_error(path).startswith(f"{path}{message}")


def test_large_files_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.touch()
    os.truncate(path, 100 * 2**20)
    assert file_error(path) == (
        f"{path}: a config has at most 1,048,576 bytes, and this has more (104,857,600 bytes)\n"
        "    is this the config, or a data file?"
    )


@pytest.mark.skipif(not os.path.exists("/dev/zero"), reason="needs /dev/zero")
def test_endless_files_are_not_read_to_their_end() -> None:
    assert file_error(Path("/dev/zero")).startswith("/dev/zero: a config has at most 1,048,576 bytes")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs FIFOs")
def test_pipes(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_text, args=(DIGITS,))
    writer.start()
    assert load_config(path).name == "digits"
    writer.join()


def test_names_that_no_file_can_have(tmp_path: Path) -> None:
    assert "cannot be read" in file_error(tmp_path / "a\0b")
    assert "cannot be read" in file_error(tmp_path / ("x" * 5000))


# --- plain values, YAML again, schema -----------------------------------------------------------------


def test_dump_config_is_readable_and_loads_again() -> None:
    text = 'data: {dataset: mnist, root: "2020-01-01"}\nname: "1e5"\nmodel: {width: [8, 4]}\noptimizer: adam'
    config = parse_config(text, "c.yaml")
    dumped = dump_config(config)
    assert dumped.startswith(
        "name: '1e5'\n"
        "seed: 0\n"
        "data:\n"
        "  dataset: mnist\n"
        "  validation: 0.1\n"
        "  limit: null\n"
        "  standardize: pixel\n"
        "  features:\n"
        "    name: none\n"
        "  augmentation: null\n"
        "  root: '2020-01-01'\n"
        "  download: false\n"
        "model:\n"
        "  depth: 3\n"
        "  width: [8, 4]\n"
    )
    assert "\n  betas: [0.9, 0.999]\n  eps: 1.0e-08\n" in dumped
    assert parse_config(dumped, "dumped") == config
    assert yaml.safe_load(dumped) == to_plain(config)


@pytest.mark.parametrize("root", ["true", "on", "1e5", "1_0", "0o7", "~", "2020-01-01", "1:30", "<<", "=", " a ", "#", "a: b", "é\u2028", "\x1b", "- a"])  # fmt: skip
def test_dump_config_quotes_what_would_be_read_otherwise(root: str) -> None:
    config = config_from_plain({"data": {"dataset": "mnist", "root": root}})
    dumped = dump_config(config)
    assert parse_config(dumped, "dumped") == config
    assert yaml.safe_load(dumped)["data"]["root"] == root


def test_long_lists_are_dumped_in_block_style() -> None:
    config = parse_config(DIGITS + f"model: {{width: {list(range(1, 30))}}}", "c.yaml")
    assert "\n  width:\n  - 1\n  - 2\n" in dump_config(config)


def test_config_from_plain() -> None:
    config = parse_config(DIGITS + "optimizer: {name: adam, betas: [0.5, 0.5]}", "c.yaml")
    plain = to_plain(config)
    before = copy.deepcopy(plain)
    assert config_from_plain(plain) == config
    assert config_from_plain(plain, ["training.epochs=50"]).training.epochs == 50
    assert plain == before
    plain["optimizer"]["betas"] = (0.5, 0.5)
    assert config_from_plain(plain) == config


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "config: missing key data: expected a mapping of keys (dataset, …)\n    for example data: {dataset: digits}"),
        ({"data": {"dataset": "digits"}, "seed": "x"}, "config: seed: expected an integer ≥ 0, got text 'x'"),
        ({"data": {"dataset": "digits"}, "seed": b"x"}, "config: seed: bytes is no value of a config"),
        ({"data": {"dataset": "digits"}, "seed": 10**5000}, "config: seed: int is no value of a config"),
        ({"data": {"dataset": "digits"}, "name": "\ud800"}, "config: name: str is no value of a config"),
        ({"data": {"dataset": "digits"}, 1: 1}, "config: a key must be text"),
        (None, "config: expected a mapping (data: ...), got nothing (null)"),
        ([[]], "config: expected a mapping (data: ...), got a list of 1"),
    ],
)  # fmt: skip
def test_plain_values_that_are_no_config(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config_from_plain(values)
    assert str(caught.value) == message


def test_plain_values_within_themselves() -> None:
    values: dict[str, object] = {}
    values["data"] = values
    with pytest.raises(ConfigError, match="50 levels"):
        config_from_plain(values)


@pytest.mark.parametrize(
    ("overrides", "keys"),
    [
        ([], []),
        (["training.epochs=3", "seed=1"], ["seed", "training.epochs"]),
        (["model.width=[1, 2]"], ["model.depth", "model.width"]),
        (["loss=mse"], ["loss.name", "loss.label_smoothing", "loss.class_weights"]),
        (["training.early_stopping={}"], ["training.early_stopping"]),
        (["optimizer.momentum=0.0"], []),
    ],
)
def test_changed_keys(overrides: list[str], keys: list[str]) -> None:
    old = parse_config(DIGITS + "optimizer: sgd", "c.yaml")
    assert changed_keys(old, parse_config(DIGITS + "optimizer: sgd", "c.yaml", overrides)) == keys


def test_the_schema_accepts_what_the_config_accepts() -> None:
    schema = config_schema()
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    for text in (
        DIGITS,
        DIGITS + "loss: mse\noptimizer: adam\nscheduler: cosine\nmodel: {width: [3, 4]}",
        DIGITS + "loss: null\noptimizer: {name: lbfgs}\nscheduler: {name: step, step_size: 3}",
        dump_config(parse_config(DIGITS, "c.yaml")),
    ):
        parse_config(text, "c.yaml")
        validator.validate(yaml.safe_load(text))


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        DIGITS + "foo: 1",
        DIGITS + "model: {foo: 1}",
        DIGITS + "optimizer: {name: sgd, betas: [0.9, 0.9]}",
        DIGITS + "optimizer: sdg",
        DIGITS + "scheduler: step",
        DIGITS + "loss: accuracy",
        DIGITS + "model: {width: 0}",
    ],
)
def test_the_schema_rejects_what_the_config_rejects(text: str) -> None:
    assert errors(text)
    assert not jsonschema.Draft202012Validator(config_schema()).is_valid(yaml.safe_load(text))


def test_every_pattern_of_the_schema_has_words() -> None:
    def patterns(value: object) -> set[str]:
        if isinstance(value, list):
            return {found for item in value for found in patterns(item)}
        if not isinstance(value, dict):
            return set()
        own = {value["pattern"]} if isinstance(value.get("pattern"), str) else set()
        return own | {found for item in value.values() for found in patterns(item)}

    assert patterns(config_schema()) == PATTERNS.keys()


def test_a_config_needs_no_torch() -> None:
    code = (
        "import sys; from mlpcli.config import parse_config; parse_config('data: {dataset: digits}', 'c');"
        "sys.exit(any(name.split('.')[0] in ('torch', 'numpy', 'sklearn') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_wrong_name_does_not_hide_what_is_wrong_beside_it() -> None:
    text = (
        "data: {dataset: digitss, validation: 1.5}\n"
        "optimizer: {nam: sgd, lr: fast}\n"
        "scheduler: {name: foo, gamma: 5}\n"
        "loss: {name: hubr, delta: -1}\n"
    )
    with pytest.raises(ConfigError) as caught:
        parse_config(text, "c.yaml")
    assert [problem.location for problem in caught.value.problems] == [
        "c.yaml:1:17",
        "c.yaml:1:38",
        "c.yaml:2:1",
        "c.yaml:2:13",
        "c.yaml:2:27",
        "c.yaml:3:19",
        "c.yaml:3:31",
        "c.yaml:4:14",
        "c.yaml:4:27",
    ]
