"""Exports, each run in a process that never imports mlpcli, against mlpcli's own answers."""

import copy
import json
import resource
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command import mlpcli, succeeds

from mlpcli import data, export_formats, exporting
from mlpcli.data import Description
from mlpcli.errors import DataError, FailedError, StorageError, UsageError
from mlpcli.exporting import export
from mlpcli.network import Network, open_target
from mlpcli.predictor import Predictor
from mlpcli.program import program

CSV = ["dataset: csv", "target: kind", "test: 0.3", "validation: 0"]
PERIODIC = "{name: periodic, frequencies: 4, size: 3}"

TRAININGS: dict[str, list[str]] = {
    "digits": ["digits", "model={width: [16], dropout: 0.3}"],
    "iris": ["iris", "model={width: [8], normalization: batch, activation: gelu}", "training.precision=bfloat16"],
    "diabetes": ["diabetes", "loss=huber", "model={width: [8], normalization: layer, activation: silu}"],
    "pca": ["digits", "data.features={name: pca, components: 9, whiten: true}", "model={depth: 1}"],
    "mse": ["digits", "loss=mse", "model={width: [8]}", "optimizer.lr=0.01", "training.precision=float64"],
    "double": ["table.yaml", "model={width: [8], activation: gelu}", "training.precision=float64"],
    "csv": ["table.yaml"],
    "embedded": ["table.yaml", "data.categorical=embedding", f"model.numeric_embedding={PERIODIC}"],
    "binned": ["table.yaml", "model.numeric_embedding={name: piecewise_linear, bins: 4}"],
}
EXPORTS = [
    *[("digits", format) for format in ("onnx", "pt2", "safetensors")],
    *[("iris", format) for format in ("onnx", "safetensors")],
    *[("diabetes", format) for format in ("onnx", "pt2", "safetensors")],
    ("pca", "onnx"),
    ("pca", "safetensors"),
    ("mse", "onnx"),
    ("double", "pt2"),
    ("csv", "onnx"),
    ("csv", "safetensors"),
    *[("embedded", format) for format in ("onnx", "pt2", "safetensors")],
    ("binned", "onnx"),
]

READERS = {
    "onnx": """
import onnxruntime

def read(file):
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    (given,), (answer,) = session.get_inputs(), session.get_outputs()
    about = {"inputs": [given.name, given.type, given.shape], "outputs": [answer.name, answer.type, answer.shape]}
    metadata = session.get_modelmeta().custom_metadata_map
    return metadata, about, lambda rows: session.run(None, {given.name: rows})[0]
""",
    "pt2": """
import torch

def read(file):
    keys = "mlpcli", "task", "config", "classes", "targets", "columns", "inputs", "outputs"
    metadata = dict.fromkeys(keys, "")
    model = torch.export.load(file, extra_files=metadata).module()
    metadata = {key: each if isinstance(each, str) else each.decode() for key, each in metadata.items()}
    return metadata, {}, lambda rows: model(torch.from_numpy(rows)).detach().numpy()
""",
}
MAIN = """
import json, sys
import numpy as np
for file, rows, answers in json.loads(sys.argv[1]):
    metadata, about, run = read(file)
    rows = np.load(rows)
    np.savez(answers, all=run(rows), each=np.concatenate([run(rows[i:i + 1]) for i in range(5)]))
    print(json.dumps([metadata, about]))
assert not [name for name in sys.modules if name.partition(".")[0] == "mlpcli"]
"""


class Exports:
    """Trainings and exports, each made once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.results: dict[tuple[str, str], Any] = {}
        generator = np.random.default_rng(0)
        lines = ["year,size,colour,shape,kind"]
        for _ in range(120):
            colour, shape = generator.choice(["red", "green", "blue", ""]), generator.choice(["round", "flat"])
            size = generator.normal()
            kind = "big" if size + (colour == "red") > 0 else "small"
            shown = "" if generator.random() < 0.2 else f"{size:.4f}"
            lines.append(f"{generator.integers(1990, 2020)},{shown},{colour},{shape},{kind}")
        (folder / "table.csv").write_text("\n".join([*lines, ""]))
        keys = "".join(f"  {key}\n" for key in [*CSV, f"path: '{folder / 'table.csv'}'"])
        (folder / "table.yaml").write_text(f"data:\n{keys}model: {{width: [8]}}\n")

    def run(self, name: str) -> Path:
        """The run of a training."""
        path = self.folder / name
        if not path.exists():
            config, *rest = TRAININGS[name]
            config = str(self.folder / config) if config.endswith(".yaml") else config
            succeeds("train", config, "training.epochs=2", "training.threads=1", *rest, "-o", path, "-q")
        return path

    def network(self, name: str) -> Network:
        """As mlpcli has it, in the arithmetic of an export."""
        network = open_target(self.run(name), "best")[1]
        return replace(network, precision="float32") if network.precision == "bfloat16" else network

    def file(self, name: str, format: str) -> Path:
        """An export."""
        path = self.folder / f"{name}.{format}"
        if (name, format) not in self.results:
            self.results[name, format] = export(self.run(name), path, format)
        return path

    def rows(self, name: str) -> torch.Tensor:
        """Rows of its data as they are stored, before any extraction; of the csv, first one with nothing in it."""
        config, _, _ = open_target(self.run(name), "best")
        if config.data.dataset == "digits":
            from sklearn.datasets import load_digits

            return torch.from_numpy(load_digits().data[-60:].astype(np.uint8))
        rows = data.load(config.data, config.seed).test.inputs
        if config.data.dataset == "csv":
            rows = torch.cat((torch.tensor([[torch.nan, torch.nan, -1, -1]], dtype=torch.float64), rows))
        return rows

    def expected(self, name: str) -> Any:
        """mlpcli's own answers to `rows`."""
        network, rows = self.network(name), self.rows(name)
        return Predictor(network)(rows if network.extraction is None else network.extraction(rows)).numpy()


@pytest.fixture(scope="session")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Exports:
    return Exports(tmp_path_factory.mktemp("exports"))


Read = dict[str, tuple[dict[str, str], dict[str, Any], Any]]


@pytest.fixture(scope="session")
def read(exports: Exports) -> dict[str, Read]:
    """By format and training: metadata, names and shapes, and the answers, from a process without mlpcli."""
    return {format: _read(exports, format) for format in READERS}


def _read(exports: Exports, format: str) -> Read:
    names = [name for name, each in EXPORTS if each == format]
    jobs = []
    for name in names:
        rows, answers = (exports.folder / f"{name}.{format}.{what}" for what in ("rows.npy", "answers.npz"))
        shape = exports.network(name).description.input_shape
        np.save(rows, exports.rows(name).reshape(-1, *shape).numpy())
        jobs.append([str(each) for each in (exports.file(name, format), rows, answers)])
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", READERS[format] + MAIN, json.dumps(jobs)],
        capture_output=True,
        text=True,
        cwd=exports.folder,
    )
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    return {
        name: (metadata, about, np.load(answers))
        for name, (metadata, about), (_, _, answers) in zip(names, found, jobs, strict=True)
    }


# --- what is written ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "format"), [each for each in EXPORTS if each[1] in READERS])
def test_an_export_answers_as_mlpcli_does(name: str, format: str, exports: Exports, read: dict[str, Read]) -> None:
    _, _, answers = read[format][name]
    expected = exports.expected(name)
    regression = exports.network(name).target_scale is not None
    double = exports.network(name).dtype == torch.float64
    assert answers["all"].dtype == (np.float64 if regression or double else np.float32)
    assert answers["all"].shape == expected.shape
    # digits of targets far from 0 are not what tells models apart
    spread = np.abs(expected - expected.mean(0)).max() if regression else np.abs(expected).max()
    limit = 1e-12 if double else 1e-5
    assert np.abs(answers["all"] - expected).max() <= limit * spread
    assert np.abs(answers["each"] - expected[:5]).max() <= limit * spread
    if not regression:
        np.testing.assert_allclose(answers["all"].sum(1), 1, rtol=1e-5)
    checked = exports.results[name, format]["checked"]
    assert checked["source"] == "test split" and checked["difference"] <= limit


def test_answers_without_mlpcli_are_as_good_as_eval_says(exports: Exports, read: dict[str, Read]) -> None:
    """Along a way of its own: answers from the file, classes from the data."""
    config, _, _ = open_target(exports.run("csv"), "best")
    targets = data.load(config.data, config.seed).test.targets.numpy()
    predicted = read["onnx"]["csv"][2]["all"][1:].argmax(1)  # the first row has no target
    measured = succeeds("eval", exports.run("csv"), "--json").json["metrics"]
    assert (predicted == targets).mean() == pytest.approx(measured["accuracy"])
    config, _, _ = open_target(exports.run("diabetes"), "best")
    targets = data.load(config.data, config.seed).test.targets.numpy()
    measured = succeeds("eval", exports.run("diabetes"), "--json").json["metrics"]
    errors = read["onnx"]["diabetes"][2]["all"] - targets
    assert np.sqrt((errors**2).mean()) == pytest.approx(measured["rmse"], rel=1e-5)


def test_onnx_states_names_types_and_a_free_batch_size(exports: Exports, read: dict[str, Read]) -> None:
    assert read["onnx"]["digits"][1] == {
        "inputs": ["image", "tensor(uint8)", ["batch", 1, 8, 8]],
        "outputs": ["probabilities", "tensor(float)", ["batch", 10]],
    }
    assert read["onnx"]["csv"][1] == {
        "inputs": ["columns", "tensor(double)", ["batch", 4]],
        "outputs": ["probabilities", "tensor(float)", ["batch", 2]],
    }
    assert read["onnx"]["diabetes"][1] == {
        "inputs": ["columns", "tensor(double)", ["batch", 10]],
        "outputs": ["values", "tensor(double)", ["batch", 1]],
    }
    result = exports.results["digits", "onnx"]
    file = exports.file("digits", "onnx")
    assert result == {
        "format": "onnx",
        "file": str(file),
        "bytes": file.stat().st_size,
        "opset": 18,
        "inputs": [{"name": "image", "dtype": "uint8", "shape": ["batch", 1, 8, 8]}],
        "outputs": [{"name": "probabilities", "dtype": "float32", "shape": ["batch", 10]}],
        "checked": {"samples": 256, "source": "test split", "difference": result["checked"]["difference"]},
    }


def safe(file: Path) -> tuple[dict[str, str], dict[str, Any]]:
    """The metadata and the tensors of a safetensors file."""
    from safetensors import safe_open

    with safe_open(file, "np") as opened:
        return opened.metadata(), {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118


@pytest.mark.parametrize(("name", "format"), EXPORTS)
def test_the_metadata_says_what_the_numbers_mean(
    name: str, format: str, exports: Exports, read: dict[str, Read]
) -> None:
    file = exports.file(name, format)
    metadata = safe(file)[0] if format == "safetensors" else read[format][name][0]
    about: Description = exports.network(name).description
    state = torch.load(exports.run(name) / "checkpoints/best.pt", weights_only=True)
    assert metadata["mlpcli"] == state["mlpcli"]
    assert metadata["task"] == about.task
    assert json.loads(metadata["classes"]) == about.classes
    assert json.loads(metadata["targets"]) == about.target_names
    assert json.loads(metadata["config"])["model"] == state["config"]["model"]
    columns = json.loads(metadata["columns"])
    assert columns == [{"name": column.name, "categories": column.categories} for column in about.columns]
    for key in ("inputs", "outputs"):
        assert json.loads(metadata[key]) == exports.results[name, format][key]
    if name == "csv":
        assert [column["name"] for column in columns] == ["year", "size", "colour", "shape"]
        assert columns[0]["categories"] is None and sorted(columns[3]["categories"]) == ["flat", "round"]


def test_a_safetensors_file_is_enough_to_compute_the_answers(exports: Exports) -> None:
    """With numpy alone."""
    metadata, tensors = safe(exports.file("digits", "safetensors"))
    x = exports.rows("digits").numpy().astype(np.float32)
    x = (x - tensors["preprocessing.shift"].astype(np.float32)) * tensors["preprocessing.scale"].astype(np.float32)
    for index, layer in enumerate(json.loads(metadata["layers"])):
        if layer.startswith("Linear"):
            x = x @ tensors[f"{index}.weight"].T + tensors[f"{index}.bias"]
        elif layer.startswith("ReLU"):
            x = np.maximum(x, 0)
        else:
            assert layer.startswith("Dropout")
    shares = np.exp(x) / np.exp(x).sum(1, keepdims=True)
    np.testing.assert_allclose(shares, exports.expected("digits"), rtol=1e-4, atol=1e-6)

    _, tensors = safe(exports.file("diabetes", "safetensors"))
    network = exports.network("diabetes")
    assert network.target_scale is not None
    assert tensors["target_scale.mean"] == network.target_scale.mean.numpy()
    assert tensors["target_scale.std"] == network.target_scale.std.numpy()


@pytest.mark.parametrize("name", [name for name, format in EXPORTS if format == "safetensors"])
def test_a_safetensors_file_has_the_state_dict_bit_for_bit(name: str, exports: Exports) -> None:
    _, tensors = safe(exports.file(name, "safetensors"))
    state = torch.load(exports.run(name) / "checkpoints/best.pt", weights_only=True)
    assert state["model"].keys() <= tensors.keys()
    for key, value in state["model"].items():
        assert np.array_equal(tensors[key], value.numpy()) and tensors[key].dtype == value.numpy().dtype
    assert {name.partition(".")[0] for name in tensors.keys() - state["model"].keys()} <= set(export_formats.PARTS)
    checked = exports.results[name, "safetensors"]["checked"]
    assert checked["difference"] == 0


@pytest.mark.parametrize("format", READERS)
def test_no_file_holds_a_sample_or_a_path_of_this_machine(format: str, exports: Exports) -> None:
    content = exports.file("digits", format).read_bytes()
    assert str(Path(exporting.__file__).parent).encode() not in content
    example = export_formats._example(exports.network("digits"))
    assert not example.any() and len(example) == 2


# --- what is refused ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["onnx", "pt2"])
def test_wrong_answers_leave_the_earlier_file(
    format: str, exports: Exports, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(network: Network) -> Any:
        made = copy.deepcopy(program(network))
        with torch.no_grad():
            made.get_submodule("model")[-1].bias[0] += 1e-3
        return made

    monkeypatch.setattr(export_formats, "program", wrong)
    file = Path(f"iris.{format}")
    for _ in range(2):
        with pytest.raises(
            FailedError, match=r"differ from those of .*\n +by 0\.0\d+ of .* at most 1e-05 is expected"
        ):
            export(exports.run("iris"), file, format)
        assert [each.name for each in Path().iterdir()] == ([file.name] if file.exists() else [])
        file.write_text("earlier")
    assert file.read_text() == "earlier"


def test_a_wrong_weight_in_safetensors_is_noticed(exports: Exports, monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = export_formats._tensors

    def wrong(network: Network) -> dict[str, torch.Tensor]:
        found = tensors(network)
        return found | {"target_scale.std": found["target_scale.std"].nextafter(torch.tensor(torch.inf).double())}

    monkeypatch.setattr(export_formats, "_tensors", wrong)
    with pytest.raises(FailedError, match=r"and at most 0 is expected$"):
        export(exports.run("diabetes"), Path("diabetes.safetensors"), None)
    assert not list(Path().iterdir())


def test_answers_that_are_not_finite_are_refused(exports: Exports) -> None:
    state = torch.load(exports.run("iris") / "checkpoints/best.pt", weights_only=True)
    state["model"]["0.weight"][0, 0] = torch.inf
    torch.save(state, "broken.pt")
    with pytest.raises(FailedError, match=r"the answers of broken\.pt to the test split are not all finite"):
        export(Path("broken.pt"), Path("iris.safetensors"), None)


def test_a_full_disk_leaves_the_earlier_file(exports: Exports) -> None:
    run, file = exports.run("digits"), Path("digits.safetensors")
    file.write_text("earlier")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))  # larger files are refused, as by a full disk
    try:
        with pytest.raises(StorageError, match=r"cannot write digits\.safetensors"):
            export(run, file, None)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [each.read_text() for each in Path().iterdir()] == ["earlier"]


def test_a_place_that_is_not_there_is_said(exports: Exports) -> None:
    with pytest.raises(StorageError, match=r"cannot write no/such/digits\.safetensors"):
        export(exports.run("digits"), Path("no/such/digits.safetensors"), None)


@pytest.mark.parametrize(
    ("file", "format", "expected"),
    [
        ("model.pt2", "onnx", r"expected a name that ends in \.onnx$"),
        ("model", "pt2", r"expected a name that ends in \.pt2$"),
        ("model.pt", None, r"expected a name that ends in \.onnx, \.pt2, \.safetensors$"),
        ("model.h5", "keras", "^keras is no format; expected onnx, pt2 or safetensors$"),
    ],
)
def test_the_ending_says_the_format(file: str, format: str | None, expected: str) -> None:
    with pytest.raises(UsageError, match=expected):
        export(Path("no such run"), Path(file), format)


@pytest.mark.parametrize(("format", "package"), [("onnx", "onnxscript"), ("safetensors", "safetensors")])
def test_an_absent_package_is_named(format: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        UsageError, match=rf"{format} needs the package {package}.*\n +pip install 'mlpcli\[export\]'"
    ):
        export(Path("no such run"), Path(f"model.{format}"), format)


def test_features_that_no_graph_holds_are_refused_but_for_the_weights() -> None:
    pytest.importorskip("skimage")
    hog = "data.features={name: hog, cell: 4, block: 1}"
    succeeds("train", "digits", hog, "training.epochs=1", "data.limit=100", "-q")
    for format in ("onnx", "pt2"):
        with pytest.raises(UsageError, match=r"its hog features .*\n.* data.features=none or pca, .* safetensors"):
            export(Path("runs/digits"), Path(f"model.{format}"), format)
    result = export(Path("runs/digits"), Path("model.safetensors"), None)
    assert result["inputs"] == [{"name": "features", "dtype": "float32", "shape": ["batch", 36]}]


def test_what_onnx_runtime_lacks_is_said(exports: Exports) -> None:
    with pytest.raises(UsageError, match=r"cannot run this model in float64: .*Erf.*\n.*--format pt2"):
        export(exports.run("double"), Path("iris.onnx"), "onnx")
    assert not list(Path().iterdir())


def test_a_model_beyond_the_limit_of_onnx_is_refused(exports: Exports, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export_formats, "LARGEST_ONNX", 100)
    with pytest.raises(UsageError, match="at most 2 GiB"):
        export(exports.run("iris"), Path("iris.onnx"), "onnx")


# --- without the data ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["embedded", "pca", "diabetes"])
def test_without_the_data_random_rows_take_its_place(
    name: str, exports: Exports, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def absent(*_: Any) -> Any:
        raise DataError("there is no file\n    look elsewhere")

    run = exports.run(name)
    monkeypatch.setattr(exporting.data, "load", absent)
    result = export(run, Path("model.pt2"), "pt2")
    assert result["checked"]["source"] == "random rows"
    assert result["checked"]["samples"] == (257 if name == "embedded" else 256)
    assert "compared on random rows: there is no file" in caplog.text and "elsewhere" not in caplog.text


def test_a_table_with_other_columns_is_no_sample(exports: Exports, caplog: pytest.LogCaptureFixture) -> None:
    Path("other.csv").write_text("a,kind\n" + "1,big\n2,small\n" * 10)
    change = [f"data.path.train={Path('other.csv').resolve()}"]
    result = export(exports.run("csv"), Path("model.safetensors"), None, overrides=change)
    assert result["checked"]["source"] == "random rows"
    assert "other columns" in caplog.text


# --- the command --------------------------------------------------------------------------------------------


def test_the_command_prints_the_result_and_nothing_of_the_exporters(
    exports: Exports, capfd: pytest.CaptureFixture[str]
) -> None:
    run = exports.run("iris")
    done = succeeds("export", run, "-o", "iris.onnx", "--json")
    assert done.json["format"] == "onnx" and done.json["bytes"] == Path("iris.onnx").stat().st_size
    assert done.err == "" and capfd.readouterr() == ("", "")
    before = Path("iris.onnx").read_bytes()
    done = mlpcli("export", run, "-o", "iris.pt2", "--format", "onnx")
    assert done.code == 2 and done.err == "error: iris.pt2: expected a name that ends in .onnx\n"
    assert [each.name for each in Path().iterdir()] == ["iris.onnx"]
    assert Path("iris.onnx").read_bytes() == before
