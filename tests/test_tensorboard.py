"""What TensorBoard shows of a run, read back with its own reader."""

import errno
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from command import interrupted, mlpcli, succeeds
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2

from mlpcli import tensorboard
from mlpcli.runs import read_diagnostics, read_metrics
from mlpcli.tensorboard import flat

RUN = Path("runs/iris")
TRAIN = ("train", "iris", "training.epochs=4", "model.activation=relu")


def shown(run: Path = RUN) -> EventAccumulator:
    reader = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0, "histograms": 0, "images": 0})
    reader.Reload()
    return reader


def curve(reader: EventAccumulator, tag: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in reader.Scalars(tag)]


def approx(values: list[tuple[int, float]]) -> Any:
    return [(step, pytest.approx(value, rel=1e-6)) for step, value in values]


def expected_scalars(run: Path) -> dict[str, list[tuple[int, float]]]:
    """From the run's own files."""
    found: dict[str, list[tuple[int, float]]] = {}
    for line in read_metrics(run):
        values = {
            f"{name}/{split}": line[split][name] for split in ("train", "validation") for name in line[split]
        }
        values |= {f"training/{name}": line[name] for name in ("lr", "seconds")}
        for tag, value in values.items():
            found.setdefault(tag, []).append((line["epoch"], value))
    for line in read_diagnostics(run):
        values = {"diagnostics/loss": line["loss"]}
        for layer in line["layers"]:
            for key in ("gradient_norm", "update_ratio", "dead"):
                values[f"{key}/layer_{layer['layer']}"] = layer[key]
        for tag, value in values.items():
            if value is not None:
                found.setdefault(tag, []).append((line["epoch"], value))
    return found


def test_everything_of_a_run_is_shown() -> None:
    summary = succeeds(*TRAIN, "--tensorboard", "--json").json
    reader = shown()
    expected = expected_scalars(RUN) | {
        f"hparam/test_{name}": [(4, value)] for name, value in summary["test"].items()
    }
    assert set(reader.Tags()["scalars"]) == set(expected)
    for tag, values in expected.items():
        assert curve(reader, tag) == approx(values), tag
    assert "dead/layer_1" in expected and "dead/layer_2" not in expected  # null in the last layer
    assert [step for step, _ in expected["gradient_norm/layer_1"]] == [0, 1, 2, 3, 4]
    for line in read_diagnostics(RUN):
        for layer in line["layers"]:
            for key in ("weight", "activation"):
                events = reader.Histograms(f"{key}/layer_{layer['layer']}")
                found = next(event for event in events if event.step == line["epoch"]).histogram_value
                low, high, counts = layer[key].values()
                assert (found.min, found.max, found.num) == (low, high, sum(counts))
                # TensorBoard's own writer leaves out buckets at both ends that are empty
                buckets = dict(zip(found.bucket_limit, found.bucket, strict=True))
                width = (high - low) / 40
                assert {round((limit - low) / width): count for limit, count in buckets.items() if count} == {
                    place: count for place, count in enumerate(counts, 1) if count
                }
    assert len(os.listdir(RUN / "tensorboard")) == 1  # one directory, one file: no runs within the run


def test_the_config_and_the_final_metrics_are_hyperparameters() -> None:
    summary = succeeds(*TRAIN, "--tensorboard", "--json").json
    reader = shown()
    data = [reader.SummaryMetadata(tag).plugin_data for tag in reader.PluginTagToContent("hparams")]
    decoded = [plugin_data_pb2.HParamsPluginData.FromString(each.content) for each in data]
    (start,) = [each.session_start_info.hparams for each in decoded if each.HasField("session_start_info")]
    assert start["optimizer.lr"].number_value > 0 and start["optimizer.name"].string_value == "sgd"
    assert start["model.bias"].number_value == 1  # as torch has it
    (experiment,) = [each.experiment for each in decoded if each.HasField("experiment")]
    assert {info.name.tag for info in experiment.metric_infos} == {
        f"hparam/test_{name}" for name in summary["test"]
    }


def test_values_of_a_config_are_flat() -> None:
    values = {"a": 1, "b": {"c": None, "d": [1, 2], "e": {"f": "x", "g": True}}}
    assert flat(values) == [("a", 1), ("b.d", "[1, 2]"), ("b.e.f", "x"), ("b.e.g", True)]


def test_a_resumed_run_goes_on_and_takes_back_what_is_done_again() -> None:
    interrupted(14, *TRAIN, "--tensorboard")  # in the third of four epochs of six steps
    assert [step for step, _ in curve(shown(), "loss/train")] == [1, 2]
    # as a process leaves it that is killed between its events and its checkpoint
    board = tensorboard.Board(RUN, 2)
    board.epoch({"epoch": 3, "lr": 99.0, "train": {"loss": 99.0}})
    board.close()
    assert curve(shown(), "loss/train")[-1] == (3, 99.0)
    succeeds("train", "--resume", str(RUN), "--tensorboard")
    reader = shown()
    for tag, values in expected_scalars(RUN).items():
        assert curve(reader, tag) == approx(values), tag


def test_a_run_that_began_without_it_is_shown_from_the_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    succeeds(*TRAIN)
    (RUN / "plots").mkdir()
    Image.new("RGB", (7, 5), (9, 8, 7)).save(RUN / "plots/loss.png")
    succeeds("train", "--resume", str(RUN), "--tensorboard")
    reader = shown()
    for tag, values in expected_scalars(RUN).items():
        assert curve(reader, tag) == approx(values), tag
    (image,) = reader.Images("plots/loss")
    assert (image.width, image.height) == (7, 5)
    assert image.encoded_image_string == (RUN / "plots/loss.png").read_bytes()


@pytest.mark.parametrize("arguments", [["train", "iris"], ["train", "--resume", "absent"]])
def test_without_the_package_nothing_is_begun(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    done = mlpcli(*arguments, "--tensorboard")
    assert (done.code, done.out) == (2, "") and not Path("runs").exists()
    assert (
        done.err == "error: --tensorboard needs the package tensorboard\n    pip install 'mlpcli[tensorboard]'\n"
    )


def test_a_full_disk_costs_the_events_but_not_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    written = []

    def write(self: tensorboard.Board, step: int, **_: object) -> None:
        written.append(step)
        if step == 2:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tensorboard.Board, "_write", write)
    done = succeeds(*TRAIN, "--tensorboard", "--json")
    assert done.json["epochs"] == 4 and written[-1] == 2
    assert done.err.count("warning: cannot write runs/iris/tensorboard: the disk is full") == 1
    assert json.loads((RUN / "summary.json").read_text())["status"] == "finished"


def test_a_place_that_cannot_be_written_costs_nothing_either() -> None:
    succeeds(*TRAIN)
    (RUN / "tensorboard").write_text("a file")
    done = succeeds("train", "--resume", str(RUN), "training.epochs=5", "--tensorboard")
    assert done.err.count("warning: cannot write runs/iris/tensorboard: a part of this path is a file") == 1
