"""Runs side by side: the tests, the table, the page, the gates."""

import json
import math
import shutil
import signal
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from command import mlpcli, succeeds
from scipy import stats

from mlpcli.config import parse_config
from mlpcli.report import compare_gates
from mlpcli.report.compare import compare, differences
from mlpcli.report.compare_charts import Curve, overlaid
from mlpcli.report.compare_statistics import PairedTest, mcnemar, paired_t, with_holm
from mlpcli.report.drawing import Dot, Words
from mlpcli.report.drawing import Path as Line
from mlpcli.report.statistics import Interval


def train(run: str, *overrides: str, config: str = "iris") -> Path:
    succeeds("train", config, "-q", "training.epochs=4", *overrides, "-o", run)
    return Path(run)


# --- statistics ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other", "both", "none"), [(3, 9, 50, 4), (0, 1, 0, 0), (40, 2, 100, 0), (7, 7, 3, 3)]
)
def test_mcnemar_is_the_binomial_test_of_what_only_one_gets_right(
    one: int, other: int, both: int, none: int
) -> None:
    first = np.repeat([True, False, True, False], [one, other, both, none])
    second = np.repeat([False, True, True, False], [one, other, both, none])
    test = mcnemar(first, second)
    n = one + other + both + none
    assert test.only == (one, other) and test.samples == n
    assert test.p == pytest.approx(stats.binomtest(one, one + other).pvalue)
    assert test.difference.value == pytest.approx(second.mean() - first.mean())
    assert test.difference.low <= test.difference.value <= test.difference.high
    swapped = mcnemar(second, first)
    assert swapped.p == test.p and swapped.difference.low == pytest.approx(-test.difference.high)


def test_the_interval_of_a_difference_covers_it() -> None:
    """In at least 93 % of drawn test splits, where 95 are promised."""
    random = np.random.default_rng(0)
    covered = 0
    for _ in range(500):
        cells = random.choice(4, 150, p=[0.04, 0.1, 0.8, 0.06])
        test = mcnemar((cells == 0) | (cells == 2), (cells == 1) | (cells == 2))
        covered += test.difference.low <= 0.06 <= test.difference.high
    assert covered >= 465


def test_equal_classifiers_do_not_differ() -> None:
    right = np.array([True, False, True])
    test = mcnemar(right, right)
    assert test.p == 1 and not test.significant and test.difference.value == 0
    assert test.difference.low < 0 < test.difference.high


def test_the_t_test_is_that_of_scipy() -> None:
    random = np.random.default_rng(1)
    first, second = random.exponential(size=60), random.exponential(1.4, size=60)
    test, oracle = paired_t(first, second), stats.ttest_rel(second, first)
    assert test.p == pytest.approx(oracle.pvalue)
    low, high = oracle.confidence_interval()
    assert (test.difference.low, test.difference.high) == pytest.approx((low, high), rel=1e-4)
    assert test.metric == "mse" and test.difference.value == pytest.approx(second.mean() - first.mean())


@pytest.mark.parametrize(
    ("first", "second", "p"), [([1.0, 2.0], [1.0, 2.0], 1), ([1.0, 2.0], [2.0, 3.0], 0), ([1.0], [5.0], 1)]
)
def test_the_t_test_at_its_edges(first: list[float], second: list[float], p: float) -> None:
    """Equal errors, errors that all differ alike, and a single sample."""
    assert paired_t(np.array(first), np.array(second)).p == p


def test_holm_by_hand() -> None:
    def of(p: float) -> PairedTest:
        return PairedTest("accuracy", "a test", 10, Interval(0, 0, 0), p, p)

    # sorted 0.01 0.02 0.03 0.04 times 4 3 2 1: 0.04 0.06 0.06 0.04, and never less than a smaller one's
    adjusted = [test.adjusted for test in with_holm([of(0.03), of(0.01), of(0.04), of(0.02)])]
    assert adjusted == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert [test.adjusted for test in with_holm([of(0.6), of(0.7)])] == [1, 1]
    assert with_holm([]) == []
    assert [test.adjusted for test in with_holm([of(0.2)])] == [0.2]


# --- the comparison -----------------------------------------------------------------------------------------


def test_identical_runs_do_not_differ() -> None:
    one, other = train("runs/one"), train("runs/other")
    done = succeeds("compare", one, other, "--json").json
    assert done["baseline"] == "runs/one" and done["differences"] == {} and done["notes"] == []
    (test,) = done["comparisons"]
    assert test["p"] == 1 and not test["significant"] and test["difference"]["value"] == 0
    assert test["only"] == {"baseline": 0, "run": 0} and test["samples"] == 30
    text = succeeds("compare", one, other).out
    assert "the configs are the same, names aside" in text and "the accuracy is the same" in text
    assert "not significant." in text and "chance" not in text


def test_a_much_worse_run_is_significantly_worse() -> None:
    good = train("runs/good", "training.epochs=20", config="digits")
    bad = train("runs/bad", "optimizer.lr=1e-6", "training.epochs=1", config="digits")
    done = succeeds("compare", good, bad, "--json").json
    (test,) = done["comparisons"]
    assert test["significant"] and test["p"] < 1e-10 and test["difference"]["high"] < 0
    assert done["differences"] == {"optimizer.lr": [0.1, 1e-6], "training.epochs": [20, 1]} | {
        key: value for key, value in done["differences"].items() if key == "training.threads"
    }
    for side in done["runs"]:
        summary = json.loads(Path(side["run"], "summary.json").read_text(encoding="utf-8"))
        assert {name: value["value"] for name, value in side["test"].items()} == summary["test"]
        ends = side["test"]["accuracy"]
        assert ends["low"] < ends["value"] < ends["high"]
        assert side["best"]["epoch"] == summary["best"]["epoch"]
        assert side["best"]["validation"] == summary["best"]["validation"]
    text = succeeds("compare", good, bad).out
    assert "B against A: the accuracy is" in text and "significant" in text and "not significant" not in text


def test_a_regression_is_tested_on_squared_errors() -> None:
    one = train("runs/one", config="diabetes")
    other = train("runs/other", "optimizer.lr=1e-6", config="diabetes")
    done = succeeds("compare", one, other, "--json").json
    (test,) = done["comparisons"]
    values = [side["test"]["mse"]["value"] for side in done["runs"]]
    assert test["metric"] == "mse" and test["difference"]["value"] == pytest.approx(values[1] - values[0])
    assert "the paired t-test on squared errors" in succeeds("compare", one, other).out


def test_several_runs_are_corrected_for() -> None:
    runs = [train(f"runs/{seed}", f"seed={seed}", "data.test=0.2") for seed in (0,)]
    runs += [train(f"runs/lr-{lr}", f"optimizer.lr={lr}") for lr in (1e-5, 1e-4)]
    done = succeeds("compare", *runs, "--json").json
    p = [test["p"] for test in done["comparisons"]]
    adjusted = [test["p_adjusted"] for test in done["comparisons"]]
    assert max(adjusted) >= max(p) and min(adjusted) == pytest.approx(min(1, 2 * min(p)))
    assert "after Holm's correction for 2 tests" in succeeds("compare", *runs).out


def test_gd_and_sgd_do_the_same_work_in_an_epoch() -> None:
    gd = train("runs/gd", "optimizer={name: gd, lr: 0.1}", "~training.batch_size")
    sgd = train("runs/sgd", "optimizer={name: sgd, lr: 0.1}", "training.batch_size=7", "training.epochs=6")
    comparison = compare([gd, sgd])
    samples = comparison.sides[0].samples
    assert samples == 96
    assert comparison.sides[0].work() == [epoch * 96.0 for epoch in (1, 2, 3, 4)]
    assert comparison.sides[1].work()[:4] == comparison.sides[0].work()
    done = succeeds("compare", gd, sgd, "--json").json
    assert [side["gradient_evaluations"] for side in done["runs"]] == [4 * 96, 6 * 96]
    equal = done["equal_work"]
    assert equal["gradient_evaluations"] == 384 and equal["epochs"] == [4, 4]
    lines = [json.loads(line) for line in (sgd / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert equal["train"][1]["loss"] == lines[3]["train"]["loss"]
    assert "after 384 gradient evaluations" in succeeds("compare", gd, sgd).out


def test_the_work_of_l_bfgs_is_unknown() -> None:
    runs = train("runs/sgd"), train("runs/lbfgs", "optimizer=lbfgs", "~training.batch_size")
    done = succeeds("compare", *runs, "--json", "-o", "page.html").json
    assert done["runs"][1]["gradient_evaluations"] is None and done["equal_work"] is None
    assert any("L-BFGS" in note for note in done["notes"])


def test_other_test_samples_are_not_paired() -> None:
    one, other = train("runs/one"), train("runs/other", "seed=1")
    wine = train("runs/digits", config="digits")
    done = succeeds("compare", one, other, wine, "--json").json
    assert [test["test"] for test in done["comparisons"]] == [None, None]
    assert "hold different samples" in done["comparisons"][0]["why"]
    assert "predict different things" in done["comparisons"][1]["why"]
    assert all(side["test"]["accuracy"]["low"] is not None for side in done["runs"]), "metrics side by side"
    # another validation split leaves the test split as it is
    third = train("runs/third", "data.validation=0.3")
    (test,) = succeeds("compare", one, third, "--json").json["comparisons"]
    assert test["samples"] == 30


def test_without_its_data_a_run_is_shown_without_a_test(tmp_path: Path) -> None:
    rows = "".join(f"{index},{index % 7},{'ab'[index % 2]}\n" for index in range(60))
    Path("table.csv").write_text("x,y,label\n" + rows, encoding="utf-8")
    Path("table.yaml").write_text(
        "data: {dataset: csv, path: table.csv, target: label}\nmodel: {depth: 1}\ntraining: {epochs: 2}\n",
        encoding="utf-8",
    )
    runs = [train(f"runs/{name}", config="table.yaml") for name in ("one", "other")]
    (tmp_path / "moved").mkdir()
    shutil.move("table.csv", "moved/table.csv")
    done = succeeds("compare", *runs, "--json", "-o", "page.html").json
    assert done["comparisons"][0]["test"] is None and "no predictions of A" in done["comparisons"][0]["why"]
    assert any("table.csv" in note for note in done["notes"])
    assert done["runs"][0]["test"]["accuracy"]["low"] is None and done["runs"][0]["gradient_evaluations"] is None
    moved = succeeds("compare", *runs, "data.path=moved/table.csv", "--json").json
    assert moved["comparisons"][0]["p"] == 1 and moved["notes"] == []


def test_an_interrupted_and_a_diverged_run_are_shown_with_what_there_is() -> None:
    whole = train("runs/whole")

    def stop(*_: Any) -> None:
        signal.raise_signal(signal.SIGINT)

    with patch("mlpcli.console.Display.epoch", stop):
        assert mlpcli("train", "iris", "-q", "-o", "runs/part").code == 130
    assert mlpcli("train", "digits", "-q", "optimizer.lr=1e17", "-o", "runs/wild").code == 3
    done = succeeds("compare", whole, "runs/part", "runs/wild", "--json", "-o", "page.html").json
    assert [side["status"] for side in done["runs"]] == ["finished", "interrupted", "diverged"]
    assert done["runs"][1]["epochs"] == 1 and done["comparisons"][0]["samples"] == 30
    assert done["runs"][2]["epochs"] == 0 and done["comparisons"][1]["test"] is None
    assert any(note.startswith("B: ") for note in done["notes"])
    assert any(note.startswith("C: ") for note in done["notes"])
    text = succeeds("compare", "runs/wild", "runs/part").out
    assert "no predictions of A" in text
    done = mlpcli("compare", whole, "runs/part", "--fail-on-regression", "accuracy:1")
    assert done.code == 1 and "runs/part is interrupted" in done.err


def test_missing_numbers_leave_gaps() -> None:
    one, other = train("runs/one"), train("runs/other")
    lines = (other / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    second = json.loads(lines[1])
    second["train"]["loss"] = second["validation"]["loss"] = None
    (other / "metrics.jsonl").write_text("\n".join([lines[0], json.dumps(second), *lines[2:]]), encoding="utf-8")
    summary = json.loads((other / "summary.json").read_text(encoding="utf-8"))
    summary["test"]["loss"] = None
    (other / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    done = succeeds("compare", one, other, "--json", "-o", "page.html").json
    assert "loss" not in done["runs"][1]["test"] and "loss" in done["runs"][0]["test"]
    done = mlpcli("compare", one, other, "--fail-on-regression", "loss:1")
    assert done.code == 1 and "runs/other has no such metric" in done.err


def test_damaged_files_are_noted() -> None:
    one, other = train("runs/one"), train("runs/other")
    (other / "summary.json").write_text('{"status": "finished", "best": 3, "parameters": "x", "test": [1]}')
    (other / "config.yaml").write_text("data: {dataset: irris}")
    done = succeeds("compare", one, other, "--json", "-o", "page.html").json
    assert any(note.startswith("B: config.yaml cannot be read") for note in done["notes"])
    assert done["runs"][1]["parameters"] == done["runs"][0]["parameters"] and done["differences"] == {}
    (other / "metrics.jsonl").unlink()
    succeeds("compare", other, one, "-o", "page.html")


def test_configs_are_compared_key_by_key() -> None:
    first = parse_config("data: {dataset: iris}\nname: a\n", "one")
    second = parse_config("data: {dataset: iris}\nname: b\noptimizer: {name: adam, lr: 0.1}\n", "two")
    found = differences([first, None, second])
    assert "name" not in found
    assert found["optimizer.name"] == [first.optimizer.name, "-", "adam"]
    assert differences([first, first]) == {} and differences([None, first]) == {}


def test_losses_that_are_different_functions_are_not_compared() -> None:
    one, other = train("runs/one"), train("runs/other", "loss=mse")
    done = mlpcli("compare", one, other)
    assert "minimise different losses" in done.out
    done = mlpcli("compare", one, other, "--fail-on-regression", "loss:0.1")
    assert done.code == 2 and "different losses" in done.err


def test_losses_of_targets_that_are_standardised_otherwise_are_not_compared() -> None:
    one = train("runs/one", config="diabetes")
    other = train("runs/other", "data.validation=0.3", config="diabetes")
    longer = train("runs/longer", "training.epochs=5", config="diabetes")
    done = mlpcli("compare", one, other, "--fail-on-regression", "loss:1000")
    assert done.code == 2 and "different units" in done.err and "another training split" in done.out
    assert mlpcli("compare", one, other, "--fail-on-regression", "mse:1e9").code == 0
    assert mlpcli("compare", one, longer, "--fail-on-regression", "loss:1000").code == 0


# --- the page -----------------------------------------------------------------------------------------------


class Tags(HTMLParser):
    """Every element of a page, and its texts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_stands_alone_and_runs_nothing() -> None:
    name = "runs/<img src=x onerror=alert(1)> & \x1b[31m " + "long " * 30
    hostile = train(name, "data.validation=0", "training.epochs=1")
    runs = [train("runs/one"), hostile]
    succeeds("compare", *runs, "-o", "page.html")
    page = Tags(Path("page.html").read_text(encoding="utf-8"))
    kinds = {tag for tag, _ in page.tags}
    assert not kinds & {"script", "link", "iframe", "img"} and "svg" in kinds
    assert "<img src=x onerror=alert(1)>" in page.text and "\x1b" not in page.text
    for _, attributes in page.tags:
        assert not any(key.startswith("on") for key in attributes)
        assert not (attributes.get("href") or "#").startswith("http")
    assert "gradient evaluations" in page.text and "McNemar" in page.text
    text = succeeds("compare", *runs).out
    assert "\x1b" not in text and "<img src=x" in text


def test_ten_runs_are_told_apart_and_more_are_refused() -> None:
    run = train("runs/one", "training.epochs=2")
    runs = []
    for index in range(10):
        shutil.copytree(run, f"runs/{index}")
        runs.append(f"runs/{index}")
    succeeds("compare", *runs, "-o", "page.html")
    text = Path("page.html").read_text(encoding="utf-8")
    assert "J dashed" in text and 'class="dashes c4"' in text
    done = mlpcli("compare", *runs, "runs/0")
    assert done.code == 2 and "at most 10 runs" in done.err


def test_a_chart_thins_long_curves_and_spreads_letters() -> None:
    long = [(float(epoch), 1 + math.sin(epoch / 50)) for epoch in range(1, 10_001)]
    gap = [(1.0, 2.0), (2.0, math.nan), (3.0, 1.0), (4.0, 1.5)]
    same = [(1.0, 1.0), (10_000.0, long[-1][1])]
    found = [Curve("A", 0, long), Curve("B", 1, gap), Curve("C", 2, same), Curve("D", 3, [])]
    chart = overlaid("name", "title", "epoch", "loss", found)
    lines = [shape for shape in chart.shapes if isinstance(shape, Line) and shape.style == "line"]
    assert len(lines) == 3 and max(len(line.points) for line in lines) <= 410
    assert sum(isinstance(shape, Dot) for shape in chart.shapes) == 1, "a point between gaps"
    letters = {shape.text: shape for shape in chart.shapes if isinstance(shape, Words) and shape.style == "tiny"}
    assert set(letters) == {"A", "B", "C"} and abs(letters["A"].y - letters["C"].y) >= 9
    empty = overlaid("name", "title", "epoch", "loss", [Curve("A", 0, [(1.0, math.nan)])])
    assert any(isinstance(shape, Words) and "nothing here is finite" in shape.text for shape in empty.shapes)


# --- the command line ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["runs/one"], "two runs or more"),
        (["runs/one", "nowhere"], "there is no run directory nowhere"),
        (["runs/one", "runs/one", "-o", "page.pdf"], ".html"),
        (["runs/one", "runs/one", "-o", "nowhere/page.html"], "there is no folder"),
        (["runs/one", "runs/one", "--fail-on-regression", "accuracy"], "expected METRIC:TOLERANCE"),
        (["runs/one", "runs/one", "--fail-on-regression", "accuracy:-1"], "expected METRIC:TOLERANCE"),
        (["runs/one", "runs/one", "--fail-on-regression", "accuracy:nan"], "expected METRIC:TOLERANCE"),
        (["runs/one", "runs/one", "--fail-on-regression", "accuracy:x%"], "expected METRIC:TOLERANCE"),
        (["runs/one", "runs/one", "--fail-on-regression", "acuracy:1"], "did you mean accuracy"),
        (["runs/one", "runs/one", "--fail-on-regression", "rmse:1"], "these runs have no rmse"),
        (["runs/one", "runs/one", "seed=3"], "cannot change here"),
        (["a=b"], "compare needs runs"),
    ],
)
def test_what_cannot_be_done_exits_2(arguments: list[str], problem: str) -> None:
    train("runs/one", "training.epochs=1")
    done = mlpcli("compare", *arguments)
    assert done.code == 2 and problem in done.err, done


def test_gates_pass_and_fail() -> None:
    good = train("runs/good", "training.epochs=20", config="digits")
    bad = train("runs/bad", "optimizer.lr=1e-6", "training.epochs=1", config="digits")
    gate = "--fail-on-regression"
    succeeds("compare", good, good, gate, "accuracy:0", gate, "loss:0%", gate, "train_seconds:0")
    succeeds("compare", bad, good, gate, "accuracy:0", gate, "error:0")
    succeeds("compare", good, bad, gate, "accuracy:0.999")
    done = mlpcli("compare", good, bad, gate, "accuracy:0.01", gate, "loss:5%", "--json")
    assert done.code == 1 and done.json["baseline"] == "runs/good", "the result is printed all the same"
    first, second = done.err.strip().splitlines()[-2:]
    assert "accuracy of runs/bad is" in first and "the tolerance is 0.01" in first
    assert "loss of runs/bad is" in second and "the tolerance is 5 %" in second


@pytest.mark.parametrize(
    ("text", "baseline", "value", "holds"),
    [
        ("accuracy:0.01", 0.97, 0.96, True),
        ("accuracy:0.01", 0.97, 0.959, False),
        ("accuracy:1%", 0.5, 0.495, True),
        ("accuracy:1%", 0.5, 0.494, False),
        ("rmse:2%", 100.0, 102.0, True),
        ("rmse:2%", 100.0, 102.1, False),
        ("r2:10%", -1.0, -1.1, True),
        ("r2:10%", -1.0, -1.2, False),
        ("error:0", 0.1, 0.1, True),
        ("error:0", 0.1, 0.05, True),
    ],
)
def test_what_a_gate_holds(text: str, baseline: float, value: float, holds: bool) -> None:
    (gate,) = compare_gates.parse([text])
    assert gate.holds(baseline, value) == holds


def test_gates_know_which_metrics_are_better_when_they_are_more() -> None:
    for name in compare_gates.METRICS:
        worse = compare_gates.Gate(name, 0.0, relative=False).worse(0.5, 0.75)
        assert worse == (-0.25 if name in ("accuracy", "top5_accuracy", "r2") else 0.25)
