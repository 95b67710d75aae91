"""`mlpcli report`: what it says of whole, old and damaged runs, at the end of a training and while one goes on."""

import json
import re
import shutil
from html import unescape
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from command import mlpcli, succeeds
from PIL import Image

from mlpcli import starters
from mlpcli.config import config_from_plain, load_config, to_plain
from mlpcli.report import commands, writing
from mlpcli.report.gathering import gather
from mlpcli.report.sections.settings import differs
from mlpcli.report.sureness import intervals
from mlpcli.runs import Run


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run without a report."""
    path = tmp_path_factory.mktemp("runs") / "digits"
    succeeds("train", "digits", "training.epochs=6", "report=false", "-o", path, "-q")
    return path


@pytest.fixture
def run(digits: Path) -> Path:
    """A copy of it, to damage."""
    return Path(shutil.copytree(digits, "run"))


def text_of(path: Path) -> str:
    """What the page says, without its markup."""
    page = (path / "report.html").read_text(encoding="utf-8")
    body = page.partition("<body>")[2]
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", body)).split())


def report(path: Path, *more: str) -> str:
    done = succeeds("report", path, *more)
    assert done.out == f"{path}/report.html\n"
    return text_of(path)


# --- at the end of a training -------------------------------------------------------------------------------


def test_a_training_ends_with_its_report(reports: None) -> None:
    done = succeeds("train", "iris", "training.epochs=3")
    path = Path("runs/iris")
    assert "report: runs/iris/report.html" in done.err
    assert done.out.splitlines()[0] == "runs/iris"
    summary = json.loads((path / "summary.json").read_text())
    assert f"{summary['best']['epoch']} of 3" in text_of(path)
    names = {file.stem for file in (path / "plots").iterdir()}
    assert {"loss", "accuracy", "confusion-counts", "calibration", "weights-1"} <= names
    for file in (path / "plots").iterdir():
        Image.open(file).verify()
    # made of what was in memory, it is what a fresh process makes of the files
    page = (path / "report.html").read_bytes()
    succeeds("report", path)
    assert (path / "report.html").read_bytes() == page


def test_a_report_that_is_not_asked_for_is_not_made(reports: None) -> None:
    succeeds("train", "iris", "training.epochs=1", "report=false")
    assert not Path("runs/iris/report.html").exists()
    succeeds("train", "--resume", "runs/iris", "training.epochs=2", "report=true")
    assert Path("runs/iris/report.html").exists()


def test_a_finished_run_that_is_resumed_has_the_report_of_its_best_epoch(reports: None) -> None:
    succeeds("train", "diabetes", "training.epochs=30", "optimizer.lr=0.05", "report=false")
    succeeds("train", "--resume", "runs/diabetes", "report=true")
    page = Path("runs/diabetes/report.html").read_bytes()
    succeeds("report", "runs/diabetes")
    assert Path("runs/diabetes/report.html").read_bytes() == page


@pytest.mark.parametrize("failure", [RuntimeError("a bug"), KeyboardInterrupt()])
def test_what_a_report_does_never_costs_the_run(
    reports: None, monkeypatch: pytest.MonkeyPatch, failure: BaseException
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise failure

    monkeypatch.setattr(writing, "write_report", fail)
    done = succeeds("train", "iris", "training.epochs=1")
    assert "warning: " in done.err and "mlpcli report runs/iris" in done.err
    assert "test loss" in done.out
    assert succeeds("runs", "--json").json["runs"][0]["status"] == "finished"


# --- the numbers --------------------------------------------------------------------------------------------


def test_the_page_has_the_numbers_of_the_summary(run: Path) -> None:
    text = report(run)
    summary = json.loads((run / "summary.json").read_text())
    for name, value in summary["test"].items():
        assert f"{name} {value:.6f}" in text
    assert f"{summary['parameters']:,}" in text
    assert f"{summary['samples_per_second']:,.0f}" in text
    assert f"{summary['best']['epoch']} of 6" in text


@pytest.mark.parametrize(
    ("starter", "overrides"),
    [
        ("digits", ["loss={name: cross_entropy, label_smoothing: 0.1}"]),
        ("iris", ["loss={name: cross_entropy, class_weights: [1, 2, 3]}"]),
        ("iris", ["loss=mse"]),
        ("diabetes", ["loss=huber"]),
        ("diabetes", ["loss=mae"]),
    ],
)
def test_intervals_lie_around_the_metrics(starter: str, overrides: list[str]) -> None:
    succeeds("train", starter, "training.epochs=3", *overrides, "-o", "run")
    found = gather(Path("run"))
    assert found.test is not None
    sure = intervals(found.test, found.test_metrics)
    missing = {"loss"} if overrides == ["loss=mse"] else set()
    assert sure.keys() == found.test_metrics.keys() - missing
    for name, interval in sure.items():
        assert interval.value == pytest.approx(found.test_metrics[name], rel=1e-4)
        assert interval.low < interval.value < interval.high or name == "top5_accuracy"


def test_the_interval_of_r2_covers_it_in_nineteen_of_twenty_samples(digits: Path) -> None:
    found = gather(digits).test
    assert found is not None
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(300):
        targets = rng.normal(size=(200, 1))
        outputs = targets + 0.5 * rng.normal(size=(200, 1))
        squares = ((outputs - targets) ** 2).sum()
        r2 = 1 - squares / ((targets - targets.mean()) ** 2).sum()
        # only what the interval is made of matters
        answers = SimpleNamespace(
            targets=targets,
            outputs=outputs,
            classifies=False,
            network=SimpleNamespace(target_scale=None),
        )
        interval = intervals(answers, {"r2": float(r2)})["r2"]  # type: ignore[arg-type]  # as much as it reads
        covered.append(interval.low <= 0.75 <= interval.high)
    assert 0.9 <= np.mean(covered) <= 0.99


@pytest.mark.parametrize("name", starters.names())
def test_what_is_marked_in_a_config_is_all_that_it_needs(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_config(starters.find(name))
    plain = to_plain(config)
    kept: dict[str, Any] = {}
    for keys in differs(config):
        value, inner = plain, kept
        for key in keys[:-1]:
            value, inner = value[key], inner.setdefault(key, {})
        inner[keys[-1]] = value[keys[-1]]
    for section in [
        ("optimizer",),
        ("scheduler",),
        ("loss",),
        ("model", "numeric_embedding"),
        ("data", "features"),
    ]:
        value, inner = plain, kept
        for key in section:
            value, inner = value.get(key, {}), inner.get(key, {})
        if inner and "name" not in inner:
            inner["name"] = value["name"]  # which the keys that are marked need
    assert config_from_plain(kept) == config
    assert ("seed",) not in differs(config)


# --- old, damaged and unfinished runs -----------------------------------------------------------------------


def test_a_run_without_anything_but_its_config_is_shown(run: Path) -> None:
    for name in ("metrics.jsonl", "summary.json", "environment.json", "diagnostics.jsonl"):
        (run / name).unlink()
    shutil.rmtree(run / "checkpoints")
    (run / "checkpoints").mkdir()
    text = report(run)
    assert "No epoch is finished" in text
    assert "environment.json is missing" in text
    assert "best.pt cannot be used" in text and "last.pt cannot be used" in text
    assert "dataset: digits" in text
    assert not (run / "README.md").exists()


def test_damage_is_said_and_the_rest_is_shown(run: Path) -> None:
    (run / "config.yaml").write_text("model: [", encoding="utf-8")
    (run / "summary.json").write_text("[]", encoding="utf-8")
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    (run / "metrics.jsonl").write_text("\n".join([*lines[:4], '{"epoch": 5, "tr']), encoding="utf-8")
    with (run / "diagnostics.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"epoch": 7, "layers": 3}\nnonsense\n')
    text = report(run)
    for sentence in (
        "config.yaml cannot be read, so the checkpoint’s own config is shown",
        "summary.json is damaged",
        "metrics.jsonl is damaged from line 5 on; the 4 lines before are shown",
        "2 lines of diagnostics.jsonl are damaged and left out",
    ):
        assert sentence in text
    assert "not known how it ended" in text and "--resume" not in text
    assert succeeds("runs", run, "--json").json["runs"][0]["status"] == "unknown"
    # measured now, as there is no summary
    accuracy = succeeds("eval", run, "--json").json["metrics"]["accuracy"]
    assert f"accuracy {accuracy:.6f}" in text
    assert "Most confident mistakes" in text or "There is no mistake" in text


def test_a_damaged_best_checkpoint_leaves_the_summary_and_the_last_network(run: Path) -> None:
    content = (run / "checkpoints/best.pt").read_bytes()
    (run / "checkpoints/best.pt").write_bytes(content[: len(content) // 2])
    text = report(run)
    assert "best.pt cannot be used" in text
    assert "The intervals need the data" in text
    assert "last.pt" in text and "First-layer weights" in text and "Calibration" not in text


def test_values_of_a_wrong_kind_are_missing_values(run: Path) -> None:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    lines[0]["train"], lines[1]["lr"], lines[2]["seconds"] = "lost", None, True
    lines[3]["validation"]["loss"] = float("nan")
    lines[4]["train"]["loss"] = float("inf")
    (run / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    assert "The training loss is not finite in epoch 1" in report(run)


def test_absent_data_leaves_what_needs_none(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlpcli import data
    from mlpcli.errors import DataError

    def absent(*_: Any, **__: Any) -> None:
        raise DataError("the files are not here:\n    look elsewhere")

    monkeypatch.setattr(data, "load", absent)
    text = report(run)
    assert "The data cannot be read, so no sample is shown: the files are not here" in text
    assert "First-layer weights" in text and "Confusion" not in text


def test_a_run_that_diverged_says_where() -> None:
    assert mlpcli("train", "digits", "optimizer.lr=1e6", "-o", "run").code == 3
    text = report(Path("run"))
    assert "The run diverged at epoch 1, step" in text
    assert "No epoch is finished" in text
    assert "mlpcli eval" not in text  # there is no best checkpoint


def test_the_card_of_a_run_without_a_best_checkpoint_is_of_the_last_one() -> None:
    assert mlpcli("train", "digits", "optimizer.lr=1e6", "-o", "run").code == 3
    report(Path("run"))
    card = Path("run/README.md").read_text(encoding="utf-8")
    assert "best.pt" not in card and "It was measured" not in card and "The training diverged." in card
    assert 'torch.load("checkpoints/last.pt"' in code_of(card)
    command = next(line for line in card.splitlines() if line.startswith("mlpcli eval"))
    succeeds(*command.split()[1:])


def test_an_interrupted_run_says_how_to_go_on(run: Path) -> None:
    (run / "summary.json").unlink()
    text = report(run)
    assert "The run was interrupted after 6 finished epochs; go on with: mlpcli train --resume run" in text
    assert "of the best epoch so far" in text


@pytest.mark.parametrize("overrides", [[], ["data.validation=0"], ["training.epochs=1"], ["model.depth=1"]])
def test_short_and_small_runs_have_reports(overrides: list[str]) -> None:
    succeeds("train", "breast_cancer", "training.epochs=2", *overrides, "-o", "run")
    text = report(Path("run"))
    assert "ROC curve of class benign" in text and "Too few epochs" in text
    assert ("There is no validation split" in text) == (overrides == ["data.validation=0"])


def test_what_is_no_run_is_refused() -> None:
    done = mlpcli("report", "nothing")
    assert done.code == 2 and "there is no run directory nothing" in done.err


def test_other_overrides_than_places_are_refused(run: Path) -> None:
    done = mlpcli("report", run, "optimizer.lr=1")
    assert done.code == 2 and "optimizer.lr cannot change here" in done.err
    done = mlpcli("report", run, "data.roto=1")
    assert done.code == 2 and "unknown key data.roto" in done.err
    assert not (run / "report.html").exists()


def test_a_resumed_run_says_how_it_went_on(run: Path) -> None:
    assert "on the CPU to the last bit" in report(run)
    succeeds("train", "--resume", run, "training.epochs=7", "-q")
    text = report(run)
    assert "# and went on" in text and "the config as it is now, from the start" in text
    assert "on the CPU to the last bit" not in text


# --- while it goes on ---------------------------------------------------------------------------------------


def test_watching_writes_the_page_again_until_the_run_ends(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    summary = (run / "summary.json").read_text(encoding="utf-8")
    best = (run / "checkpoints/best.pt").rename(run / "best")
    (run / "metrics.jsonl").unlink()
    (run / "summary.json").unlink()
    training = Run.open(run)
    pages: list[str] = []

    def sleep(_seconds: float) -> None:
        pages.append((run / "report.html").read_text(encoding="utf-8"))
        match len(pages):
            case 1:
                (run / "metrics.jsonl").write_text("".join(lines[:3]), encoding="utf-8")
                best.rename(run / "checkpoints/best.pt")
            case 3:
                (run / "metrics.jsonl").write_text("".join(lines), encoding="utf-8")
                (run / "summary.json").write_text(summary, encoding="utf-8")
                training.close()

    monkeypatch.setattr(commands, "time", SimpleNamespace(sleep=sleep, strftime=lambda _: "now"))
    done = succeeds("report", run, "--watch")
    assert done.err.count("written at now") == 2  # nothing happened before the third look
    refresh = '<meta http-equiv="refresh"'
    assert all(refresh in page for page in pages)
    assert "The test split is measured once the best checkpoint is written" in unescape(pages[0])
    assert "Confusion matrix" in pages[1] and pages[1] == pages[2]
    last = (run / "report.html").read_text(encoding="utf-8")
    assert refresh not in last and f"{json.loads(summary)['best']['epoch']} of 6" in last
    assert (run / "plots/loss.png").exists()


def test_ctrl_c_ends_watching(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def sleep(_seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(commands, "time", SimpleNamespace(sleep=sleep, strftime=lambda _: "now"))
    training = Run.open(run)
    done = mlpcli("report", run, "--watch")
    training.close()
    assert done.code == 130 and "the page is as it was last written" in done.err


# --- the model card -----------------------------------------------------------------------------------------


def code_of(card: str) -> str:
    return card.partition("```python\n")[2].partition("```")[0]


def test_the_code_of_the_card_is_the_model(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report(run)
    card = (run / "README.md").read_text(encoding="utf-8")
    assert "Trained by mlpcli" in card and "| accuracy |" in card and "## Limits" in card
    found = gather(run)
    assert found.test is not None
    monkeypatch.chdir(run)
    names: dict[str, Any] = {}
    exec(compile(code_of(card), "README.md", "exec"), names)
    classes = found.test.about.classes
    expected = [classes[index] for index in found.test.predicted]
    assert names["predict"](found.test.split.inputs) == expected


@pytest.mark.parametrize(
    "overrides",
    [
        ["model={depth: 3, width: 8, normalization: batch, activation: leaky_relu}"],
        ["model={depth: 2, width: 8, normalization: layer, bias: false}", "training.precision=float64"],
    ],
)
def test_the_code_of_a_regression_gives_values_in_their_units(
    overrides: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    succeeds("train", "diabetes", "training.epochs=2", *overrides, "-o", "run")
    report(Path("run"))
    found = gather(Path("run"))
    assert found.test is not None
    monkeypatch.chdir("run")
    names: dict[str, Any] = {}
    exec(compile(code_of(Path("README.md").read_text(encoding="utf-8")), "README.md", "exec"), names)
    values = names["predict"](found.test.split.inputs).numpy()
    np.testing.assert_allclose(values, found.test.outputs, rtol=1e-4)


def test_a_card_that_someone_wrote_stays(run: Path) -> None:
    (run / "README.md").write_text("mine", encoding="utf-8")
    report(run)
    assert (run / "README.md").read_text(encoding="utf-8") == "mine"


def test_a_table_with_embeddings_refers_to_export() -> None:
    succeeds("init", "table.yaml", "--dataset", "table_regression")
    succeeds("train", "table.yaml", "training.epochs=1", "-o", "run")
    report(Path("run"))
    card = Path("run/README.md").read_text(encoding="utf-8")
    assert "```python" not in card and "export it" in card


def test_the_path_on_the_loss_surface_is_a_part_of_the_page() -> None:
    succeeds("train", "iris", "training.epochs=4", "training.keep_checkpoints=all", "-q")
    path = Path("runs/iris")
    assert "Paths on the loss surface" not in report(path)
    assert "Paths on the loss surface" in report(path, "--landscape")
    assert "data:image/svg+xml;base64," in (path / "report.html").read_text()
    assert (path / "plots/landscape.svg").read_text().startswith("<?xml")


def test_a_path_needs_kept_checkpoints(run: Path) -> None:
    done = mlpcli("report", run, "--landscape")
    assert done.code == 2 and "training.keep_checkpoints=20" in done.err
