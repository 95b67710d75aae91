"""`mlpcli regions` as it is typed: planes, lines, samples, histories, and what it refuses."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from command import mlpcli, succeeds
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn

from mlpcli.errors import UsageError
from mlpcli.model import build_mlp
from mlpcli.regions import slices, study
from mlpcli.regions.folding import fold
from mlpcli.regions.history import MOST_FRAMES, frames
from mlpcli.regions.text import ranges
from mlpcli.targets import open_any

SMALL = ["model.width=[12,8]", "training.epochs=4", "-q"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A trained run that has kept the checkpoints of epochs 0, 2 and 4."""
    path = tmp_path_factory.mktemp("runs") / "small"
    succeeds("train", "digits", *SMALL, "training.keep_checkpoints=3", "-o", path)
    return str(path)


def table(path: Path, columns: list[str], rows: Any) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])


@pytest.fixture
def moons() -> str:
    """A config for a table with two columns of numbers."""
    rng = np.random.default_rng(0)
    points = rng.normal(size=(200, 2)) * (3.0, 0.5) + (10.0, -1.0)
    rows = [(x, y, "in" if (x - 10) ** 2 / 9 + (y + 1) ** 2 < 1 else "out") for x, y in points.tolist()]
    table(Path("moons.csv"), ["x", "y", "class"], rows)
    Path("moons.yaml").write_text("data: {dataset: csv, path: moons.csv, target: class}\nmodel: {width: [7, 5]}\n")
    return "moons.yaml"


def report(*arguments: str) -> dict[str, Any]:
    done = succeeds("regions", *arguments, "--json", "-q")
    assert done.err == ""
    found: dict[str, Any] = done.json
    return found


# --- from torch to arrays ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "identity"])
@pytest.mark.parametrize("normalization", ["none", "batch"])
@pytest.mark.parametrize("bias", [True, False])
def test_a_folded_network_is_the_network_in_evaluation(activation: str, normalization: str, bias: bool) -> None:
    model = build_mlp(
        5, 3, depth=4, width=6, activation=activation, dropout=0.3, normalization=normalization, bias=bias, seed=0
    )
    for module in model:
        if isinstance(module, nn.BatchNorm1d):
            for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                assert tensor is not None
                nn.init.uniform_(tensor, 0.5, 2.0)
    inputs = torch.randn(50, 5, dtype=torch.float64)
    expected = model.double().eval()(inputs).detach().numpy()
    np.testing.assert_allclose(fold(model)(inputs.numpy()), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("activation", ["gelu", "silu", "tanh", "sigmoid"])
def test_curved_activations_are_refused(activation: str) -> None:
    with pytest.raises(UsageError, match=f"{activation} is curved everywhere"):
        fold(build_mlp(2, 2, depth=2, width=3, activation=activation))


def test_what_is_not_affine_is_refused_with_the_reason() -> None:
    table(Path("t.csv"), ["a", "b", "y"], [(i, "uv"[i % 2], i / 7) for i in range(60)])
    Path("c.yaml").write_text("data: {dataset: csv, path: t.csv, target: y}\n")
    for override, reason in (
        ("model.normalization=layer", "layer normalization divides by the spread of each sample"),
        ("model.activation=tanh", "model.activation may be relu, leaky_relu or identity"),
        ("data.categorical=embedding", "data.categorical: one_hot"),
        ("model.numeric_embedding=periodic", "model.numeric_embedding: none"),
    ):
        done = mlpcli("regions", "c.yaml", override)
        assert done.code == 2 and reason in done.err and done.out == "", done
    assert succeeds("regions", "c.yaml", "model.activation=leaky_relu", "model.normalization=batch", "-q")


# --- a plane ----------------------------------------------------------------------------------------------------


def test_a_plane_of_a_run(run: str) -> None:
    found = report(run)
    cells = found["cells"]
    assert len(cells) == found["activation_regions"] == found["by_layer"][-1]
    assert found["by_layer"] == [row["regions"] for row in found["layers"]] == sorted(found["by_layer"])
    assert found["neurons"] == 20 and found["half_neurons_squared"] == 200
    assert 1 + max(cell["affine_region"] for cell in cells) == found["affine_regions"] <= len(cells)
    low, high = found["window"]["x"]
    assert sum(cell["area"] for cell in cells) == pytest.approx((high - low) ** 2)
    assert sum(found["decision"]["area_shares"].values()) == pytest.approx(1)
    assert {sample["sample"].partition(":")[2] for sample in found["samples"]} == {" 0", " 1", " 2"}
    assert all(low < sample["x"] < high and low < sample["y"] < high for sample in found["samples"])
    text = succeeds("regions", run).out
    assert f"activation regions  {found['activation_regions']:,}".split() == text.splitlines()[4].split()
    assert "N²/2 of 20 neurons" in text and "decision regions: " in text


def test_cells_say_what_the_network_does_there(run: str) -> None:
    """Each map at the middle of its polygon, against torch on the point of the plane that it stands for."""
    opened = open_any(run, ["training.device=cpu"])
    split = opened.split("test")
    three = torch.cat([split.take(torch.tensor([index])).inputs for index in (4, 9, 2)])
    samples = opened.network.preprocessing(three, torch.float64)
    found = report(run, "--plane", "4,9,2")
    centre = samples.mean(0)
    places = torch.tensor([[sample["x"], sample["y"]] for sample in found["samples"]], dtype=torch.float64)
    # two of the samples, as seen from the middle, are a basis too
    to_plane = torch.linalg.inv(places[:2]) @ (samples - centre)[:2]
    torch.testing.assert_close(places[2] @ to_plane + centre, samples[2])
    middles = torch.from_numpy(np.array([np.mean(cell["polygon"], axis=0) for cell in found["cells"]]))
    with torch.no_grad():
        expected = opened.network.model.double().eval()(middles @ to_plane + centre).numpy()
    for cell, middle, outputs in zip(found["cells"], middles.numpy(), expected, strict=True):
        there = cell["map"]
        value = np.array(there["value"]) + np.array(there["gradient"]) @ (middle - there["place"])
        np.testing.assert_allclose(value, outputs, rtol=0, atol=1e-9)
        if cell["class"] is not None:
            assert opened.network.description.classes[int(outputs.argmax())] == cell["class"]


def test_two_inputs_are_the_plane_as_they_are(moons: str) -> None:
    found = report(moons)
    assert found["axes"] == ["x", "y"]
    assert "the input space" in found["of"]
    assert len(found["samples"]) > 10  # the whole test split
    (left, right), (low, high) = found["window"]["x"], found["window"]["y"]
    assert all(left < each["x"] < right and low < each["y"] < high for each in found["samples"])
    # the same window along the named axes, whatever sample it goes through
    for axes in ("x,y", "0,1"):
        again = report(moons, "--axes", axes, "--through", "3")
        assert again["activation_regions"] == found["activation_regions"]
    turned = report(moons, "--axes", "y,x")
    assert turned["axes"] == ["y", "x"] and turned["window"]["x"] == found["window"]["y"]
    assert turned["activation_regions"] == found["activation_regions"]


def test_axes_are_in_the_units_of_the_columns(moons: str) -> None:
    """The one affine map of a linear network, written in raw units, gives what the network gives."""
    succeeds("train", moons, "model={depth: 1}", "training.epochs=5", "-o", "runs/linear", "-q")
    found = report("runs/linear", "--window", "4")
    assert found["activation_regions"] == found["affine_regions"] == 1
    ((cell,),) = (found["cells"],)
    opened = open_any("runs/linear", ["training.device=cpu"])
    raw = torch.tensor([[9.0, -1.5], [11.0, -0.5]], dtype=torch.float64)
    with torch.no_grad():
        outputs = opened.network.model.double().eval()(opened.network.preprocessing(raw, torch.float64)).numpy()
    there = cell["map"]
    predicted = np.array(there["value"]) + (raw.numpy() - there["place"]) @ np.array(there["gradient"]).T
    np.testing.assert_allclose(predicted, outputs, atol=1e-9)
    x = found["window"]["x"]
    assert x[1] - x[0] == pytest.approx(4)


def test_pixels_are_named_by_their_place(run: str) -> None:
    found = report(run, "--axes", "20,43", "--through", "7")
    assert found["axes"] == ["pixel (2, 4)", "pixel (5, 3)"]
    assert found["samples"] == [
        {
            "x": pytest.approx(found["samples"][0]["x"]),
            "y": pytest.approx(found["samples"][0]["y"]),
            "sample": found["samples"][0]["sample"],
        }
    ]
    stored = open_any(run, ["training.device=cpu"]).split("test").inputs[7]
    assert found["samples"][0]["x"] == pytest.approx(float(stored[20]))
    assert found["samples"][0]["y"] == pytest.approx(float(stored[43]))


def test_samples_by_class(run: str) -> None:
    def classes(*arguments: str) -> list[str]:
        return [sample["sample"].partition(": ")[2] for sample in report(run, *arguments)["samples"]]

    assert classes("--samples", "class") == classes() == ["0", "1", "2"]
    assert classes("--samples", "7,3,5") == ["7", "3", "5"]
    assert classes("--samples", "8") == ["8", "8", "8"]
    assert classes("--samples", "8,1") == ["8", "1", "8"]
    assert classes("--samples", "class", "--split", "train") == ["0", "1", "2"]


def test_a_config_is_cut_at_its_initial_weights() -> None:
    done = succeeds("regions", "digits", "model={width: [6]}", "-q")
    assert done.out.startswith("digits at its initial weights, the plane through test samples")
    identity = report("digits", "model={width: [6], activation: identity}")
    assert identity["activation_regions"] == 1 and identity["neurons"] == 0


def test_two_inputs_of_one_column_are_no_plane_as_they_are() -> None:
    """A column with missing values has an input for its number, and one that says whether it is missing."""
    rng = np.random.default_rng(0)
    rows = [("" if i % 4 == 0 else rng.normal(), rng.choice(["u", "v"])) for i in range(200)]
    table(Path("t.csv"), ["x", "class"], rows)
    Path("c.yaml").write_text("data: {dataset: csv, path: t.csv, target: class}\nmodel: {width: [7, 5]}\n")
    missing = open_any("c.yaml").split("test").inputs[:, 0].isnan()
    gone, here = torch.nonzero(missing).flatten().tolist(), torch.nonzero(~missing).flatten().tolist()
    assert report("c.yaml", "--plane", f"{gone[0]},{here[0]},{here[1]}")["axes"][0].startswith("distance from")
    assert "--axes" not in mlpcli("regions", "c.yaml").err
    done = mlpcli("regions", "c.yaml", "--plane", f"{here[0]},{here[1]},{here[2]}")
    assert done.code == 2 and "lie on one line" in done.err


def test_one_input_has_a_line_and_no_plane() -> None:
    table(Path("t.csv"), ["x", "y"], [(i, i * i) for i in range(50)])
    Path("c.yaml").write_text("data: {dataset: csv, path: t.csv, target: y}\nmodel: {width: [7, 5]}\n")
    done = mlpcli("regions", "c.yaml")
    assert done.code == 2 and "one input, so there is no plane" in done.err and "--line 0,1" in done.err
    assert report("c.yaml", "--line", "0,1")["activation_regions"] >= 1


def test_samples_with_a_missing_number_are_not_marked() -> None:
    """Where the training split misses none, a missing one has no input of its own: there are two inputs."""
    rng = np.random.default_rng(0)
    rows = [("" if i == 5 else rng.normal(), rng.normal(), "uv"[i % 2]) for i in range(60)]
    table(Path("t.csv"), ["x", "y", "class"], rows)
    Path("c.yaml").write_text("data: {dataset: csv, path: t.csv, target: class}\nmodel: {width: [7, 5]}\n")
    for seed in range(100):
        missing = open_any("c.yaml", [f"seed={seed}"]).split("test").inputs.isnan().any(1)
        if missing.any():
            break
    found = report("c.yaml", f"seed={seed}", "-o", "plane.html")
    assert "the input space" in found["of"] and len(found["samples"]) == len(missing) - 1


def test_a_column_may_be_called_distance() -> None:
    rng = np.random.default_rng(0)
    table(Path("t.csv"), ["distance_km", "speed", "y"], rng.normal(size=(60, 3)).tolist())
    Path("c.yaml").write_text("data: {dataset: csv, path: t.csv, target: y}\nmodel: {width: [7, 5]}\n")
    assert ": distance_km by speed" in succeeds("regions", "c.yaml").out


def test_weights_that_are_not_finite_are_refused() -> None:
    model = build_mlp(2, 2, depth=2, width=3)
    with torch.no_grad():
        next(model.parameters())[0, 0] = torch.nan
    with pytest.raises(UsageError, match="not all finite"):
        fold(model)


def test_regression_has_no_decision() -> None:
    done = succeeds("regions", "diabetes", "model={width: [8]}", "-q")
    assert "decision" not in done.out
    found = report("diabetes", "model={width: [8]}")
    assert found["decision_regions"] is None and "class" not in found["cells"][0]


# --- a line, a sample -------------------------------------------------------------------------------------------


def test_a_line_of_a_run(run: str) -> None:
    short, long = report(run, "--line", "0,1"), report(run, "--line", "0,1", "--extend", "2")
    length = short["window"][1]
    assert short["window"][0] == 0
    assert long["window"] == pytest.approx([-2 * length, 3 * length])
    assert len(short["boundaries"]) + 1 == short["activation_regions"] < long["activation_regions"]
    inside = [each for each in long["boundaries"] if 0 < each["at"] < length]
    assert [(each["layer"], each["unit"]) for each in inside] == [
        (each["layer"], each["unit"]) for each in short["boundaries"]
    ]
    assert [each["at"] for each in inside] == pytest.approx([each["at"] for each in short["boundaries"]])
    assert "neurons N" in succeeds("regions", run, "--line", "0,1").out


def test_the_map_at_a_sample(run: str) -> None:
    opened = open_any(run, ["training.device=cpu"])
    split = opened.split("test")
    x = opened.network.preprocessing(split.take(torch.tensor([5])).inputs, torch.float64)[0]
    found = report(run, "--at", "5")
    model = opened.network.model.double().eval()
    weight = torch.autograd.functional.jacobian(model, x[None])[0, :, 0]
    np.testing.assert_allclose(found["weight"], weight.numpy(), atol=1e-12)
    np.testing.assert_allclose(list(found["outputs"].values()), model(x[None])[0].detach().numpy(), atol=1e-12)
    first = model[0](x[None]).detach().numpy()[0]
    assert found["active"][0] == np.flatnonzero(first > 0).tolist()
    text = succeeds("regions", run, "--at", "5").out
    assert f"nearest boundary of the region: {found['nearest_boundary']['distance']:.6g} away" in text
    assert "active units" in text


@settings(max_examples=50)
@given(st.sets(st.integers(0, 60)))
def test_ranges_name_every_number(numbers: set[int]) -> None:
    text = ranges(sorted(numbers))
    named: set[int] = set()
    for part in text.split(", ") if text and "…" not in text else []:
        low, _, high = part.partition("-")
        named |= set(range(int(low), int(high or low) + 1))
    assert "…" in text or named == numbers


# --- a history --------------------------------------------------------------------------------------------------


def test_a_history_counts_each_kept_checkpoint(run: str) -> None:
    found = report(run, "--history", "--plane", "3,1,4")
    assert [row["epoch"] for row in found["epochs"]] == [0, 2, 4]
    for row in found["epochs"]:
        alone = report(f"{run}/checkpoints/epoch-{row['epoch']:04}.pt", "--plane", "3,1,4")
        assert {key: alone[key] for key in row if key != "epoch"} == {
            key: row[key] for key in row if key != "epoch"
        }
    assert len({row["activation_regions"] for row in found["epochs"]}) > 1
    lines = succeeds("regions", run, "--history", "--plane", "3,1,4").out.splitlines()
    assert [line.split()[0] for line in lines[3:]] == ["0", "2", "4"]
    on_line = report(run, "--history", "--line", "0,1")
    assert [row["epoch"] for row in on_line["epochs"]] == [0, 2, 4]


def test_a_history_leaves_out_what_is_ahead_of_the_run(run: str) -> None:
    shutil.copytree(run, "ahead")
    shutil.copy("ahead/checkpoints/epoch-0004.pt", "ahead/checkpoints/epoch-0009.pt")
    assert [row["epoch"] for row in report("ahead", "--history")["epochs"]] == [0, 2, 4]


def test_a_history_needs_no_best_checkpoint(run: str) -> None:
    shutil.copytree(run, "diverged")
    Path("diverged/checkpoints/best.pt").unlink()
    assert report("diverged", "--history") == {
        **report(run, "--history"),
        "of": report("diverged", "--history")["of"],
    }


def test_a_line_shows_the_outputs_that_are_largest_somewhere(run: str) -> None:
    opened = open_any(run, ["training.device=cpu"])
    line = slices.between_samples(opened, slices.Samples(opened, "test"), [0, 1], 1.0)
    view = study.line_of(opened, line)
    shown = {curve.name for curve in study.line_panel(view).curves}
    assert len(shown) == 5 and {view.outputs[index] for index in view.pieces.outputs.argmax(1)} <= shown


# --- pictures ---------------------------------------------------------------------------------------------------


def test_pictures_are_written(run: str) -> None:
    for arguments, name in (
        ([], "plane.png"),
        ([], "plane.svg"),
        ([], "plane.html"),
        (["--line", "0,1"], "line.png"),
        (["--line", "0,1"], "line.svg"),
        (["--history"], "history.svg"),
        (["--history", "--line", "0,1"], "history.png"),
        (["--history"], "history.gif"),
        (["--history"], "history.html"),
    ):
        succeeds("regions", run, *arguments, "-o", name, "-q")
        if name.endswith(".svg"):
            ElementTree.parse(name)
        elif name.endswith(".html"):
            assert Path(name).read_text(encoding="utf-8").lower().startswith("<!doctype html>")
        else:
            with Image.open(name) as picture:
                picture.load()
                assert min(picture.size) > 300
                assert getattr(picture, "n_frames", 1) == (3 if name.endswith(".gif") else 1)


# --- what is refused --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--plane", ""], "--plane : expected 3 numbers of samples"),
        (["--line", ""], "--line : expected 2 numbers of samples"),
        (["--axes", ""], "expected two inputs"),
        (["--samples", ""], "'' is not one of class, 0, 1, 2"),
        (["--samples", "class,3"], "'class' is not one of 0, 1, 2"),
        (["--plane", "0,1"], "--plane 0,1: expected 3 numbers of samples, as in --plane 0,1,2"),
        (["--plane", "0,1,x"], "expected 3 numbers"),
        (["--plane", "0,1,1"], "expected 3 different samples"),
        (["--plane", "0,1,-2"], "expected 3 numbers"),
        (["--plane", "0,1,99999"], "there is no test sample 99999: they are counted from 0 to 358"),
        (["--line", "4,4"], "expected 2 different samples"),
        (["--at", "359"], "there is no test sample 359"),
        (["--samples", "x"], "'x' is not one of class, 0, 1, 2"),
        (["--samples", "0,1,2,3"], "name one to three classes"),
        (["--axes", "0"], "expected two inputs"),
        (["--axes", "3,3"], "twice"),
        (["--axes", "0,64"], "'64' is no input; they are counted from 0 to 63"),
        (["--plane", "0,1,2", "--line", "0,1"], "--plane and --line do not go together"),
        (["--at", "0", "--axes", "0,1"], "--axes and --at do not go together"),
        (["--at", "0", "--history"], "--at does not go with --history"),
        (["--window", "0"], "a side is a positive number"),
        (["--window", "nan"], "a side is a positive number"),
        (["--window", "inf"], "a side is a positive number"),
        (["--window", "1e30"], "--window 1e+30: too large for float64"),
        (["--window", "1e-300"], "--window 1e-300: too small for float64"),
        (["--axes", "20,43", "--window", "1e12"], "--window 1e+12: too large for float64"),
        (["--line", "0,1", "--window", "3"], "--window has no meaning with --line"),
        (["--extend", "1"], "--extend has no meaning here"),
        (["--extend", "inf", "--line", "0,1"], "--extend inf: expected a number up to 1,000,000"),
        (["--through", "2"], "--through has no meaning here"),
        (["-o", "plane.gif"], ".svg, .png, .html"),
        (["-o", "plane"], "the ending says the format"),
        (["--line", "0,1", "-o", "line.html"], ".svg"),
        (["--at", "1", "-o", "at.png"], "there is no picture of --at"),
        (["-o", "nowhere/plane.png"], "there is no folder nowhere"),
        (["--split", "tset"], "did you mean test?"),
        (["--checkpoint", "first"], "is not one of best, last"),
        (["optimizer.lr=1"], "cannot change here"),
    ],
)
def test_mistakes(run: str, arguments: list[str], reason: str) -> None:
    done = mlpcli("regions", run, *arguments)
    assert (done.code, done.out) == (2, "")
    assert reason in done.err and "Traceback" not in done.err


def test_other_mistakes() -> None:
    for arguments, reason in (
        (["digits", "--history"], "--history shows the checkpoints that a run has kept, and digits is not a run"),
        (["runs/none"], "runs/none"),
        (["digits", "data.validation=0", "--split", "validation"], "there is no validation split"),
        (["diabetes", "model.activation=relu", "--samples", "class"], "these samples have none"),
        (["iris", "model.activation=relu", "--axes", "0,petal"], "'petal' is no input"),
    ):
        done = mlpcli("regions", *arguments)
        assert (done.code, done.out) == (2, "") and reason in done.err, done
    succeeds("train", "digits", *SMALL, "-o", "plain")
    done = mlpcli("regions", "plain", "--history")
    assert done.code == 2 and "training.keep_checkpoints=20" in done.err


def test_samples_on_a_line_span_no_plane() -> None:
    table(Path("t.csv"), ["a", "b", "c", "y"], [(i, 2 * i, 3 * i, i) for i in range(50)])
    Path("c.yaml").write_text("data: {dataset: csv, path: t.csv, target: y}\n")
    done = mlpcli("regions", "c.yaml", "--plane", "0,1,2")
    assert done.code == 2 and "lie on one line" in done.err


def test_json_is_one_object_without_infinities(run: str) -> None:
    out = succeeds("regions", run, "--json").out
    assert out.count("\n") == 1
    json.loads(out, parse_constant=lambda name: pytest.fail(name))


@given(st.integers(1, 2000))
def test_an_animation_shows_both_ends_and_at_most_so_many_frames(count: int) -> None:
    shown = sorted(frames(count))
    assert shown[0] == 0 and shown[-1] == count - 1
    assert len(shown) == min(count, MOST_FRAMES)
