"""What goes on inside a network: its numbers against numpy and float64 autograd; looking changes nothing."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from command import interrupted, succeeds
from torch import Tensor, nn

from mlpcli.diagnostics import BINS, FEW, PROBES, SAMPLES, Probe, histogram, probe_rows, probed_epochs
from mlpcli.model import build_mlp
from mlpcli.objective import Loss
from mlpcli.runs import read_diagnostics

# --- when and on what ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("epochs", [1, 2, 3, 7, 20, 40, 1000, 10**8])
def test_one_looks_before_the_first_step_after_the_last_and_ever_more_rarely_between(epochs: int) -> None:
    found = probed_epochs(epochs)
    assert found[:2] == [0, 1] and found[-1] == epochs and len(found) <= PROBES
    assert found == sorted(set(found))
    steps = np.diff(found)
    assert (np.diff(steps) >= -1).all()  # but for rounding


@pytest.mark.parametrize(("samples", "count"), [(1, 1), (FEW, FEW), (100, FEW), (800, 100), (10**7, SAMPLES)])
def test_the_samples_are_drawn_once_by_their_seed(samples: int, count: int) -> None:
    rows = probe_rows(samples, 3)
    assert len(rows) == count and rows == sorted(set(rows)) and rows[0] >= 0 and rows[-1] < samples
    assert rows == probe_rows(samples, 3)
    assert count == samples or rows != probe_rows(samples, 4)


# --- histograms ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_histogram_is_numpys(dtype: torch.dtype) -> None:
    values = torch.randn(60, 50, generator=torch.Generator().manual_seed(0), dtype=dtype).t()
    found = histogram(values)
    counts, edges = np.histogram(values.numpy(), BINS)
    assert (found["low"], found["high"]) == (edges[0], edges[-1])
    assert sum(found["counts"]) == 3000 and np.abs(counts - found["counts"]).sum() <= 2  # rounding at an edge
    assert found["counts"][-1] >= 1  # the largest is in the last bin


@pytest.mark.parametrize(("value", "reach"), [(0.0, 0.5), (0.25, 0.5), (-3.0, 1.5), (1e30, 5e29)])
def test_equal_numbers_lie_in_the_middle(value: float, reach: float) -> None:
    found = histogram(torch.full((7,), value))
    assert found["low"] == pytest.approx(value - reach) and found["high"] == pytest.approx(value + reach)
    assert found["counts"] == [0] * 20 + [7] + [0] * 19


def test_numbers_that_are_not_finite_are_left_out() -> None:
    found = histogram(torch.tensor([0.0, math.nan, math.inf, 1.0]))
    assert (found["low"], found["high"]) == (0.0, 1.0)
    assert found["counts"] == [1] + [0] * 38 + [1]
    assert histogram(torch.tensor([math.nan])) == {"low": None, "high": None, "counts": [0] * BINS}


# --- what is seen -------------------------------------------------------------------------------------------

ACTIVATIONS = {"relu": torch.relu, "tanh": torch.tanh}


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(30, 4, generator=generator, dtype=torch.float64)
    return inputs, torch.randint(3, (30,), generator=generator)


def network(activation: str = "relu", **more: Any) -> nn.Sequential:
    model = build_mlp(4, 3, depth=3, width=[6, 5], activation=activation, dropout=0.5, seed=2, **more)
    return model.double()


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_gradients_and_activations_are_those_of_float64_autograd(
    activation: str, batch: tuple[Tensor, Tensor]
) -> None:
    inputs, targets = batch
    model = network(activation)
    seen = Probe(model, Loss("cross_entropy", label_smoothing=0.1), inputs, targets).look()

    parameters = [p.detach().clone().requires_grad_() for p in model.parameters()]
    x, activations = inputs, []
    for layer in range(3):
        x = x @ parameters[2 * layer].T + parameters[2 * layer + 1]
        x = ACTIVATIONS[activation](x) if layer < 2 else x
        activations.append(x.detach())
    loss = F.cross_entropy(x, targets, label_smoothing=0.1)
    loss.backward()

    assert seen["samples"] == 30 and seen["loss"] == pytest.approx(float(loss.detach()), rel=1e-12)
    for place, layer in enumerate(seen["layers"]):
        weight = parameters[2 * place]
        assert (layer["layer"], layer["units"], layer["inputs"]) == (place + 1, *weight.shape)
        assert weight.grad is not None
        assert layer["gradient_norm"] == pytest.approx(float(weight.grad.norm()), rel=1e-12)
        assert layer["weight"]["counts"] == np.histogram(weight.detach().numpy(), BINS)[0].tolist()
        assert layer["activation"]["counts"] == np.histogram(activations[place].numpy(), BINS)[0].tolist()
        assert layer["update_ratio"] is None
    dead = [int((each == 0).all(0).sum()) for each in activations[:2]]
    assert [layer["dead"] for layer in seen["layers"]] == ([*dead, None] if activation == "relu" else [None] * 3)


def test_units_that_can_no_longer_answer_are_counted(batch: tuple[Tensor, Tensor]) -> None:
    model = network()
    first, second = model[0], model[3]
    assert isinstance(first, nn.Linear) and isinstance(second, nn.Linear)
    with torch.no_grad():
        first.bias[:] = 10.0  # alive
        first.bias[1:3] = -100.0  # z < 0 on every sample
        second.bias[:] = 100.0
        second.weight[4], second.bias[4] = 0.0, 0.0  # z = 0 on every sample
    seen = Probe(model, Loss("cross_entropy"), *batch).look()
    assert [layer["dead"] for layer in seen["layers"]] == [2, 1, None]


def test_the_update_is_that_since_the_weights_were_remembered(batch: tuple[Tensor, Tensor]) -> None:
    model = network()
    probe = Probe(model, Loss("cross_entropy"), *batch)
    probe.remember()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.25)
    assert [layer["update_ratio"] for layer in probe.look()["layers"]] == pytest.approx([0.25] * 3)
    assert [layer["update_ratio"] for layer in probe.look()["layers"]] == [None] * 3  # known for one step only


def test_what_is_not_finite_is_null(batch: tuple[Tensor, Tensor]) -> None:
    model = network(init="zeros")
    probe = Probe(model, Loss("mse"), *batch)
    probe.remember()  # of the last layer, 0: nothing to divide by
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1e200)
    seen = probe.look()
    assert seen["loss"] is None and [layer["gradient_norm"] for layer in seen["layers"]] == [None] * 3
    assert seen["layers"][2]["update_ratio"] is None
    assert sum(seen["layers"][2]["weight"]["counts"]) == 15
    json.dumps(seen, allow_nan=False)


def test_nothing_is_changed(batch: tuple[Tensor, Tensor]) -> None:
    model = network(normalization="batch")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    random = torch.get_rng_state()
    probe = Probe(model, Loss("cross_entropy"), *batch)
    for training in (True, False):
        model.train(training)
        probe.remember()
        probe.look()
        assert probe.look() == probe.look()
        assert all(module.training is training for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), random)


# --- in a run -----------------------------------------------------------------------------------------------

TABLE = "\n".join(
    ["size,colour,price", *(f"{k % 7},{'abc'[k % 3]},{k % 5}" for k in range(60))],
)

KINDS = {
    "explicit": ["iris", "model.dropout=0.3", "model.depth=3"],
    "autograd": ["iris", "model.normalization=batch", "optimizer=adam", "model.dropout=0.3"],
    "plateau": ["iris", "optimizer={name: rmsprop, lr: 0.3}", "scheduler={name: plateau, patience: 0}"],
    "gd": ["digits_gd", "data.limit=200", "training.batch_size=64"],
    "lbfgs": ["diabetes", "optimizer=lbfgs", "scheduler=constant"],
    "linear": ["iris", "model={depth: 1}"],
    "bfloat16": ["iris", "training.precision=bfloat16"],
    "float64": ["diabetes", "training.precision=float64"],
    "embeddings": ["table.yaml", "model.numeric_embedding=periodic"],
    "bins": ["table.yaml", "model.numeric_embedding=piecewise_linear", "data.categorical=one_hot"],
}


def tensors(value: Any, path: str = "") -> dict[str, Tensor]:
    """All tensors of a checkpoint, by their places."""
    if isinstance(value, Tensor):
        return {path: value}
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return {name: each for key, child in items for name, each in tensors(child, f"{path}/{key}").items()}


def last(run: str) -> dict[str, Any]:
    return torch.load(f"{run}/checkpoints/last.pt", weights_only=True)  # type: ignore[no-any-return]  # torch.load says Any


@pytest.mark.parametrize("kind", KINDS)
def test_a_training_with_it_is_the_training_without_it(kind: str) -> None:
    Path("table.csv").write_text(TABLE)
    Path("table.yaml").write_text(
        "data: {dataset: csv, path: table.csv, target: price, task: regression, categorical: embedding}\n"
        "model: {width: 8}\n"
    )
    for run, value in (("with", "true"), ("without", "false")):
        succeeds("train", *KINDS[kind], "training.epochs=3", f"training.diagnostics={value}", "-q", "-o", run)
    on, off = last("with"), last("without")
    assert tensors(on).keys() == tensors(off).keys()
    assert all(torch.equal(value, tensors(off)[name]) for name, value in tensors(on).items())
    for name in ("position", "best", "plateau", "early_stopping", "stopped_early"):
        states = [each[name] for each in (on, off)]
        if name == "position":
            states = [{**state, "seconds": None} for state in states]
        assert states[0] == states[1]
    assert not Path("without/diagnostics.jsonl").exists()
    lines = read_diagnostics(Path("with"))
    assert [line["epoch"] for line in lines] == [0, 1, 2, 3]
    assert [line["step"] for line in lines] == [k * on["position"]["step"] // 3 for k in range(4)]
    for line in lines:
        assert list(line) == ["epoch", "step", "samples", "loss", "layers"]
        assert len(line["layers"]) == on["config"]["model"]["depth"] and line["loss"] > 0
        for layer in line["layers"]:
            assert (layer["update_ratio"] is None) == (line["epoch"] == 0)
            assert sum(layer["weight"]["counts"]) == layer["inputs"] * layer["units"]
            assert sum(layer["activation"]["counts"]) == line["samples"] * layer["units"]
    for run in ("with", "without"):
        summary = json.loads(Path(run, "summary.json").read_text())
        assert summary.get("initial_loss") == (lines[0]["loss"] if run == "with" else None)


def test_an_interrupted_run_has_the_lines_of_one_that_was_not() -> None:
    arguments = ["iris", "model.dropout=0.2", "training.epochs=8", "-o"]
    succeeds("train", *arguments, "whole")
    interrupted(2, "train", *arguments, "run")
    assert [line["epoch"] for line in read_diagnostics(Path("run"))] == [0]
    for step in (3, 6, 14):  # just before an epoch's last of 6 steps, and in the middle of others
        interrupted(step, "train", "--resume", "run")
    # as a process leaves it that dies between the line of an epoch and its checkpoint, in the next line
    whole = Path("whole/diagnostics.jsonl").read_text()
    Path("run/diagnostics.jsonl").write_text(whole + '{"epoch": 9, "st')
    succeeds("train", "--resume", "run")
    assert Path("run/diagnostics.jsonl").read_text() == whole
    assert last("run")["position"]["step"] == 48


def test_after_an_epochs_last_step_the_update_is_no_longer_known() -> None:
    arguments = ["iris", "training.epochs=2", "-o"]
    succeeds("train", *arguments, "whole")
    interrupted(6, "train", *arguments, "run")
    succeeds("train", "--resume", "run")
    whole, lines = read_diagnostics(Path("whole")), read_diagnostics(Path("run"))
    assert [layer["update_ratio"] for layer in lines[1]["layers"]] == [None, None]
    for line in (whole[1], lines[1]):
        for layer in line["layers"]:
            del layer["update_ratio"]
    assert lines == whole


def test_it_may_change_on_resume() -> None:
    succeeds("train", "iris", "training.epochs=2", "training.diagnostics=false", "-o", "run")
    done = succeeds("train", "--resume", "run", "training.epochs=4", "training.diagnostics=true", "--json").json
    assert [line["epoch"] for line in read_diagnostics(Path("run"))] == [3, 4]
    assert "initial_loss" not in done  # it was not looked at
    succeeds("train", "--resume", "run", "training.epochs=5", "training.diagnostics=false")
    assert [line["epoch"] for line in read_diagnostics(Path("run"))] == [3, 4]


def test_the_same_config_looks_at_the_same_samples_and_another_seed_at_others() -> None:
    losses = []
    for seed in (0, 0, 1):
        done = succeeds(
            "train", "digits_linear", "model.init=zeros", f"seed={seed}", "training.epochs=1", "--json"
        )
        losses.append(done.json["initial_loss"])
    assert losses[0] == losses[1] == pytest.approx(math.log(10), rel=1e-5)  # the model is constant
