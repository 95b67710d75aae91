"""The scores that `eval` adds, against scikit-learn called directly and against what can be counted by hand."""

import json
from pathlib import Path

import numpy as np
import pytest
from command import mlpcli, succeeds
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics

from mlpcli.scores import Array, scores

NAMES = ["balanced_accuracy", "macro_f1", "roc_auc", "average_precision"]


def drawn(classes: int, samples: int, seed: int) -> tuple[Array, Array]:
    """Probabilities with ties, that tell something of the classes, of which each has a sample."""
    generator = np.random.default_rng(seed)
    targets = generator.permutation(np.arange(samples) % classes)
    shares = generator.integers(1, 20, (samples, classes)).astype(float)
    shares[np.arange(samples), targets] += generator.integers(0, 20, samples)
    return shares / shares.sum(1, keepdims=True), targets


@given(st.integers(3, 6), st.integers(6, 60), st.integers(0, 2**32 - 1))
def test_more_than_two_classes_as_scikit_learn_has_them(classes: int, samples: int, seed: int) -> None:
    probabilities, targets = drawn(classes, samples, seed)
    predicted, one_hot = probabilities.argmax(1), np.eye(classes)[targets]
    expected = {
        "balanced_accuracy": metrics.balanced_accuracy_score(targets, predicted),
        "macro_f1": metrics.f1_score(targets, predicted, average="macro", zero_division=0),
        "roc_auc": metrics.roc_auc_score(targets, probabilities, multi_class="ovr"),
        "average_precision": metrics.average_precision_score(one_hot, probabilities),
    }
    assert scores(probabilities, targets) == pytest.approx(expected, rel=1e-12)


@given(st.integers(2, 60), st.integers(0, 2**32 - 1))
def test_two_classes_are_scored_by_the_second(samples: int, seed: int) -> None:
    probabilities, targets = drawn(2, samples, seed)
    predicted = probabilities.argmax(1)
    expected = {
        "balanced_accuracy": metrics.balanced_accuracy_score(targets, predicted),
        "macro_f1": metrics.f1_score(targets, predicted, average="macro", zero_division=0),
        "roc_auc": metrics.roc_auc_score(targets, probabilities[:, 1]),
        "average_precision": metrics.average_precision_score(targets, probabilities[:, 1]),
    }
    assert scores(probabilities, targets) == pytest.approx(expected, rel=1e-12)


def test_by_hand() -> None:
    targets = np.array([0, 0, 0, 1, 1])
    second = np.array([0.1, 0.2, 0.7, 0.6, 0.9])
    expected = {
        "balanced_accuracy": (2 / 3 + 1) / 2,
        "macro_f1": (2 * 2 / (2 * 2 + 1) + 2 * 2 / (2 * 2 + 1)) / 2,
        "roc_auc": 5 / 6,  # pairs of one of each class in the right order
        "average_precision": (1 / 1 + 2 / 3) / 2,  # precision where each of the second class is found
    }
    assert scores(np.stack([1 - second, second], 1), targets) == pytest.approx(expected)


def test_guessing_all_alike() -> None:
    """Ties count half; precision is the share of the class."""
    found = scores(np.full((8, 2), 0.5), np.array([0, 0, 0, 0, 0, 0, 1, 1]))
    assert found == pytest.approx(
        {"balanced_accuracy": 0.5, "macro_f1": 3 / 7, "roc_auc": 0.5, "average_precision": 0.25}
    )


def test_a_class_without_samples_is_left_out() -> None:
    """Also where it is predicted: the samples count as missed."""
    targets = np.array([0, 0, 2, 2])
    shares = np.array([[0.6, 0.3, 0.1], [0.2, 0.7, 0.1], [0.3, 0.2, 0.5], [0.1, 0.0, 0.9]])
    expected = {
        "balanced_accuracy": (1 / 2 + 1) / 2,
        "macro_f1": (2 / 3 + 1) / 2,
        "roc_auc": (3 / 4 + 1) / 2,
        "average_precision": ((1 / 1 + 2 / 3) / 2 + 1) / 2,
    }
    assert scores(shares, targets) == pytest.approx(expected)


@pytest.mark.parametrize("classes", [2, 3])
def test_of_one_class_alone_there_are_no_curves(classes: int) -> None:
    shares = np.eye(classes)[[0, 1, 1, 1]] * 0.5 + 0.5 / classes
    assert scores(shares, np.array([1, 1, 1, 1])) == pytest.approx({"balanced_accuracy": 0.75, "macro_f1": 6 / 7})


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_has_no_scores(value: float) -> None:
    assert scores(np.array([[0.5, 0.5], [value, 0.5]]), np.array([0, 1])) == {}


# --- eval ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("iris") / "run"
    succeeds("train", "iris", "training.epochs=3", "-o", folder, "-q")
    return folder


def test_eval_has_the_scores_and_training_has_not(run: Path) -> None:
    result = succeeds("eval", run, "--json").json
    assert list(result["scores"]) == NAMES
    confusion = np.array(result["confusion"])
    recall = confusion.diagonal() / confusion.sum(1)
    assert result["scores"]["balanced_accuracy"] == pytest.approx(recall.mean())
    assert not set(NAMES) & set(json.loads((run / "summary.json").read_text())["test"])
    lines = succeeds("eval", run).out.splitlines()
    for name in NAMES:
        assert [line.split() for line in lines if line.startswith(name)] == [
            [name, f"{result['scores'][name]:.6f}"]
        ]


def test_gates_on_scores(run: Path) -> None:
    value = succeeds("eval", run, "--json").json["scores"]["balanced_accuracy"]
    gates = ["--fail-under", f"balanced_accuracy={value!r}", "--fail-over", f"balanced_accuracy={value!r}"]
    assert mlpcli("eval", run, *gates).code == 0  # met exactly
    done = mlpcli("eval", run, "--fail-under", "roc_auc=1.01", "--fail-under", "macro_f1=0")
    assert done.code == 1 and "roc_auc is " in done.err and "under the gate 1.01" in done.err


def test_regression_has_no_scores() -> None:
    succeeds("train", "diabetes", "training.epochs=1", "-o", "run", "-q")
    assert "scores" not in succeeds("eval", "run", "--json").json
    done = mlpcli("eval", "run", "--fail-under", "roc_auc=0.5")
    assert done.code == 2 and "'roc_auc' is not one of loss, mse" in done.err
