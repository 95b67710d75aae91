"""The page of a sweep, read as a reader does: by the ticks of its axes, by colours and by what stands in it."""

import html
import itertools
import math
import random
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from browser import Browser, browser, needs_browser
from chart_texts import assert_apart
from test_report_page import HOSTILE, MEETING

from mlpcli.plots import COLOURS, SHADES
from mlpcli.report.blocks import Table
from mlpcli.report.drawing import Box, Chart, Dot, Words, svg
from mlpcli.report.drawing import Path as Line
from mlpcli.report.page import charts_of
from mlpcli.sweeping import drawn
from mlpcli.sweeping.page import sections, sweep_page
from mlpcli.sweeping.ranking import dimensions
from mlpcli.sweeping.record import State, SweepResult, TrialRecord

SPACE: dict[str, dict[str, Any]] = {
    "optimizer.lr": {"log_uniform": [1e-4, 1.0]},
    "model.dropout": {"uniform": [0.0, 0.5]},
    "model.depth": {"int": [1, 6], "log": False},
    "model.activation": {"choice": ["relu", "tanh", "gelu"]},
    "model.width": {"choice": [[64, 64], [128, 128, 128], None]},
    "training.batch_size": {"int": [16, 4096], "log": True},
    "model.batch_norm": {"choice": [True, False]},
}
STATES: tuple[State, ...] = ("complete", "pruned", "complete", "failed", "complete", "running", "waiting")
BEST, GREY = 1, 4


def drawn_from(rng: random.Random, spec: dict[str, Any]) -> Any:
    if "choice" in spec:
        return rng.choice(spec["choice"])
    if "uniform" in spec:
        return rng.uniform(*spec["uniform"])
    if "int" in spec:
        return rng.randint(*spec["int"])
    low, high = spec["log_uniform"]
    return math.exp(rng.uniform(math.log(low), math.log(high)))


def trial(
    number: int, state: State, value: float | None, parameters: dict[str, Any], epochs: int = 5
) -> TrialRecord:
    curve = (
        [] if value is None else [(epoch, value * (0.5 + epoch / epochs / 2)) for epoch in range(1, epochs + 1)]
    )
    error = "no room for <this>" if state == "failed" else None
    return TrialRecord(number, state, parameters, value, curve, f"trials/{number:04d}", 1.5, error)


def sweep(
    count: int,
    states: Sequence[State] = ("complete",),
    space: dict[str, dict[str, Any]] = SPACE,
    *,
    less: bool = False,
    values: Sequence[float] = (),
) -> SweepResult:
    """Seeded trials with those states, again and again."""
    rng = random.Random(0)
    trials = []
    for number in range(count):
        state = states[number % len(states)]
        value = values[number] if values else rng.uniform(0.1, 0.95)
        parameters = {} if state == "waiting" else {key: drawn_from(rng, spec) for key, spec in space.items()}
        trials.append(trial(number, state, value if state in ("complete", "pruned") else None, parameters))
    shares = {key: 1 / (index + 2) for index, key in enumerate(space)} if count > 3 else {}
    objective = "validation.loss" if less else "validation.accuracy"
    return SweepResult("digits", objective, less, space, "tpe", "median", trials, shares)


def many_keys(count: int) -> dict[str, dict[str, Any]]:
    return {
        f"model.group_{index}.{key}": spec
        for index, (key, spec) in zip(range(count), itertools.cycle(SPACE.items()))
    }


CASES = {
    "nothing": sweep(0),
    "nothing complete": sweep(5, ["waiting", "running"]),
    "one trial": sweep(1),
    "two trials": sweep(2),
    "all pruned": sweep(12, ["pruned"]),
    "all failed": sweep(3, ["failed"]),
    "all equal": sweep(20, values=[0.5] * 20),
    "one parameter": sweep(30, STATES, {"optimizer.lr": SPACE["optimizer.lr"]}),
    "one choice, no range": sweep(9, space={"a": {"choice": ["x"]}, "b": {"int": [3, 3], "log": False}}),
    "long choices": sweep(9, space={"data.columns": {"choice": [f"{'long ' * 20}{k}" for k in range(30)]}}),
    "every state": sweep(40, STATES),
    "losses": sweep(40, STATES, less=True, values=[10.0 ** (-k % 7) for k in range(40)]),
    "far": sweep(40, less=True, values=[*(1 + k / 40 for k in range(39)), 1e12]),
    "not finite": sweep(9, values=[math.nan, math.inf, -math.inf, 1e308, *[0.1, 0.2, 0.3, 0.4, 0.5]]),
    "twelve parameters": sweep(60, STATES, many_keys(12)),
    "five hundred": sweep(500, STATES, many_keys(12)),
}


# --- any sweep ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_any_sweep_has_a_page(name: str) -> None:
    text = sweep_page(CASES[name])
    assert "Content-Security-Policy\" content=\"default-src 'none'" in text
    assert "<script" not in text
    assert len(text) < 2_000_000
    assert not re.search(r"\b(nan|inf|None)\b", re.sub("<style>.*?</style>", "", text, flags=re.DOTALL))
    assert re.findall('<section id="(.*?)"', text) == ["result", "history", "parameters", "slices", "trials"]


@pytest.mark.parametrize("name", CASES)
def test_no_texts_of_its_charts_meet(name: str) -> None:
    charts = charts_of(sections(CASES[name]))
    assert len({chart.name for chart in charts}) == len(charts)
    for chart in charts:
        assert_apart(chart)
        # nothing is drawn beside the picture
        places = [point for shape in chart.shapes if isinstance(shape, Line) for point in shape.points]
        places += [(shape.x, shape.y) for shape in chart.shapes if isinstance(shape, Dot)]
        assert all(0 <= x <= chart.width and 0 <= y <= chart.height for x, y in places), chart.name


# --- places -------------------------------------------------------------------------------------------------


def number_of(text: str) -> float | None:
    try:
        return float(text.replace(",", ""))
    except ValueError:
        return None


def read(places: Sequence[tuple[float, float]], at: float, log: bool = False) -> float:
    """The number at a place, by the first and the last tick of an axis, as (place, number)."""
    (a, low), (b, high) = places[0], places[-1]
    if log:
        return float(10 ** (math.log10(low) + (at - a) / (b - a) * math.log10(high / low)))
    return low + (at - a) / (b - a) * (high - low)


def y_ticks(chart: Chart) -> list[tuple[float, float]]:
    words = [shape for shape in chart.shapes if isinstance(shape, Words) and shape.anchor == "end"]
    return [(each.y - 4, float(each.text.replace(",", ""))) for each in words]


def x_ticks(chart: Chart, y: float | None = None) -> list[tuple[float, str]]:
    """Of the one axis, or of the one whose ticks stand at `y`; without those that were moved from an end."""
    words = [shape for shape in chart.shapes if isinstance(shape, Words) and shape.anchor == "middle"]
    row = min(each.y for each in words) if y is None else y
    return [(each.x, each.text) for each in words if each.y == row]


def dots(chart: Chart) -> dict[int, Dot]:
    """By the number of the trial, which each says under the pointer."""
    found = [shape for shape in chart.shapes if isinstance(shape, Dot) and shape.tip]
    return {int(re.match(r"trial (\d+)", each.tip)[1]): each for each in found}  # type: ignore[index]


def numbers(ticks: Sequence[tuple[float, str]]) -> list[tuple[float, float]]:
    return [(at, float(text.replace(",", ""))) for at, text in ticks]


@pytest.mark.parametrize("less", [False, True])
def test_the_history_shows_each_value_and_the_best_so_far(less: bool) -> None:
    result = sweep(40, STATES, less=less)
    chart = drawn.history(result)
    # the losses span more than 0.7 decades
    across, down = numbers(x_ticks(chart)), y_ticks(chart)
    shown = dots(chart)
    ended = [each for each in result.trials if each.value is not None]
    assert sorted(shown) == [each.number for each in ended]
    for each in ended:
        dot = shown[each.number]
        assert read(across, dot.x) == pytest.approx(each.number, abs=0.2)
        assert read(down, dot.y, log=less) == pytest.approx(each.value, abs=0.005)
        assert dot.colour == (GREY if each.state == "pruned" else 0)
    (line,) = (shape for shape in chart.shapes if isinstance(shape, Line) and shape.colour == BEST)
    complete = [each.value for each in ended if each.state == "complete" and each.value is not None]
    best = sorted(set(itertools.accumulate(complete, min if less else max)), reverse=less)
    levels = [read(down, y, log=less) for y, _ in itertools.groupby(y for _, y in line.points)]
    assert levels == pytest.approx(best, abs=0.005)


def test_parallel_coordinates_have_a_line_a_trial_through_its_parameters() -> None:
    result = sweep(40, STATES)
    chart = drawn.parallel(result, dimensions(result))
    names = [(shape.text, shape.y) for shape in chart.shapes if isinstance(shape, Words) and shape.style == "halo"]
    rows = {text: y + 8 for text, y in names if text in {*SPACE, result.objective}}
    assert list(rows) == [*SPACE, result.objective]  # in the order of their importance
    lines = [shape for shape in chart.shapes if isinstance(shape, Line) and shape.colour >= 0]
    complete = [each for each in result.trials if each.state == "complete" and each.value is not None]
    worst_first = sorted(complete, key=lambda each: each.value or 0)
    assert len(lines) == len(complete)
    for line, each in zip(lines, worst_first, strict=True):
        assert [y for _, y in line.points] == list(rows.values())
        places = dict(zip(rows, (x for x, _ in line.points), strict=True))
        ticks = {key: x_ticks(chart, y + 14) for key, y in rows.items()}
        for key, log in [("optimizer.lr", True), ("training.batch_size", True)]:
            shown = read(numbers(ticks[key])[1:-1], places[key], log)
            assert shown == pytest.approx(each.parameters[key], rel=0.01), key
        for key in ("model.dropout", "model.depth"):
            assert read(numbers(ticks[key])[1:-1], places[key]) == pytest.approx(each.parameters[key], abs=0.01), (
                key
            )
        nearest = min(ticks["model.activation"], key=lambda tick: abs(tick[0] - places["model.activation"]))
        assert nearest[1] == each.parameters["model.activation"]
        nearest = min(ticks["model.batch_norm"], key=lambda tick: abs(tick[0] - places["model.batch_norm"]))
        assert nearest[1] == str(each.parameters["model.batch_norm"]).lower()
        assert read(numbers(ticks[result.objective])[1:-1], places[result.objective]) == pytest.approx(
            each.value, abs=0.01
        )
    assert lines[-1].style == "strong" and lines[-1].colour == BEST
    shades = [line.colour for line in lines[:-1]]
    assert shades == sorted(shades) and set(shades) == {len(COLOURS) + index for index in range(len(SHADES))}
    assert "model.width: 1 is [64, 64]; 2 is [128, 128, 128]; 3 is null." in chart.caption


def test_slices_show_the_value_against_each_parameter() -> None:
    result = sweep(40, STATES)
    charts, beyond = drawn.slices(result, dimensions(result))
    assert [chart.title for chart in charts] == list(SPACE) and not beyond
    complete = [each for each in result.trials if each.state == "complete"]
    best = max(complete, key=lambda each: each.value or 0)
    for chart in charts:
        down, across, shown = y_ticks(chart), x_ticks(chart), dots(chart)
        assert sorted(shown) == [each.number for each in complete]
        assert [number for number, dot in shown.items() if dot.colour == BEST] == [best.number]
        for each in complete:
            dot, value = shown[each.number], each.parameters[chart.title]
            assert read(down, dot.y) == pytest.approx(each.value, abs=0.01)
            if "choice" in SPACE[chart.title]:
                index = SPACE[chart.title]["choice"].index(value)
                assert min(across, key=lambda tick: abs(tick[0] - dot.x)) == across[index]
            else:
                log = chart.title in ("optimizer.lr", "training.batch_size")
                assert read(numbers(across)[1:-1], dot.x, log) == pytest.approx(value, rel=0.02, abs=0.01)


def test_choices_that_look_alike_have_places_of_their_own() -> None:
    choices = [0.1234567, 0.1234568, 1, 1.0, True, "1"]
    trials = [trial(k, "complete", 0.1 * k, {"a": value}) for k, value in enumerate(choices)]
    result = SweepResult("s", "validation.accuracy", False, {"a": {"choice": choices}}, "grid", "none", trials, {})
    ((chart,), _) = drawn.slices(result, dimensions(result))
    places = [dots(chart)[k].x for k in range(6)]
    assert places == sorted(places) and len(set(places)) == 6


@pytest.mark.parametrize("less", [False, True])
def test_a_value_that_is_far_worse_stands_at_the_edge(less: bool) -> None:
    sign = 1 if less else -1
    plain = [sign * (1 + k / 40) for k in range(39)]
    result = sweep(40, less=less, values=[*plain, sign * 1e12])
    chart = drawn.history(result)
    assert chart.caption == f"1 value worse than {plain[-1]:.4g} stands at the edge."
    shown, down = dots(chart), y_ticks(chart)
    assert shown[39].y == shown[38].y and "1e12" in shown[39].tip
    assert [read(down, shown[k].y) for k in range(39)] == pytest.approx(plain, abs=0.01)


def test_a_few_values_that_differ_much_are_all_shown() -> None:
    chart = drawn.history(sweep(5, values=[1, 2, 3, 4, -1000]))
    assert not chart.caption
    assert read(y_ticks(chart), dots(chart)[4].y) == pytest.approx(-1000, abs=10)


def test_curves_end_where_a_trial_was_pruned() -> None:
    complete = trial(0, "complete", 0.9, {})
    pruned = trial(1, "pruned", 0.4, {}, epochs=3)
    gap = TrialRecord(2, "failed", {}, None, [(1, 0.2), (2, math.nan), (3, 0.3)], None, None, "x")
    result = SweepResult("s", "validation.accuracy", False, {}, "random", "median", [complete, pruned, gap], {})
    chart = drawn.intermediate(result)
    across, down = numbers(x_ticks(chart)), y_ticks(chart)
    shown = dots(chart)
    assert set(shown) == {1, 2}
    assert shown[1].tip == "trial 1: pruned after epoch 3, 0.4"
    assert read(across, shown[1].x) == pytest.approx(3, abs=0.02)
    lines = {line.colour: line for line in chart.shapes if isinstance(line, Line) and line.colour >= 0}
    assert [read(across, x) for x, _ in lines[BEST].points] == pytest.approx([1, 2, 3, 4, 5], abs=0.02)
    assert [read(down, y) for _, y in lines[BEST].points] == pytest.approx(
        [0.54, 0.63, 0.72, 0.81, 0.9], abs=0.005
    )
    assert [read(across, x) for x, _ in lines[GREY].points] == pytest.approx([1, 3], abs=0.02)


def test_bars_are_as_long_as_the_importances() -> None:
    result = sweep(9)
    chart = drawn.importances(result)
    bars = [shape for shape in chart.shapes if isinstance(shape, Box)]
    shares = sorted(result.importances.values(), reverse=True)
    assert [bar.width / bars[0].width for bar in bars] == pytest.approx([share / shares[0] for share in shares])
    assert "Hutter" in sweep_page(result)
    assert "Hutter" not in sweep_page(sweep(2))


# --- words --------------------------------------------------------------------------------------------------


def test_the_result_names_the_best_trial() -> None:
    result = sweep(5, ["complete", "failed"], values=[0.25, 0.99, 0.75, 0.99, 0.5])
    text = sweep_page(result)
    assert "Trial 2 is the best of 3 complete trials: validation.accuracy 0.75." in text
    assert "3 complete, 2 failed" in text
    assert '<a href="trials/0002/">run directory</a>' in text
    assert "mlpcli report trials/0002" in text
    less = SweepResult(**{**vars(result), "less_is_better": True})
    assert "Trial 0 is the best of 3 complete trials" in sweep_page(less)


def test_a_best_value_near_an_end_of_its_range_is_said() -> None:
    values = [0.5 + k / 100 for k in range(10)]
    trials = [
        trial(k, "complete", value, {"optimizer.lr": 0.9, "model.dropout": 0.2}) for k, value in enumerate(values)
    ]
    space = {key: SPACE[key] for key in ("optimizer.lr", "model.dropout")}
    result = SweepResult("s", "validation.accuracy", False, space, "random", "none", trials, {})
    assert "The best trial is near an end of the range of optimizer.lr (1)." in sweep_page(result)
    few = SweepResult(**{**vars(result), "trials": trials[:3]})
    assert "near an end" not in sweep_page(few)


def test_all_trials_are_listed_the_best_first() -> None:
    result = sweep(40, STATES)
    (table,) = (block for block in sections(result)[-1].blocks if isinstance(block, Table))
    assert sorted(int(row[0]) for row in table.rows) == list(range(40))
    states = [row[1] for row in table.rows]
    assert states == sorted(states, key=["complete", "pruned", "failed", "running", "waiting"].index)
    complete = [float(row[2]) for row in table.rows if row[1] == "complete"]
    assert complete == sorted(complete, reverse=True)
    assert {row[-1] for row in table.rows if row[1] == "failed"} == {"no room for <this>"}
    for row, link in zip(table.rows, table.links, strict=True):
        assert link == f"trials/{int(row[0]):04d}/"


def test_a_run_directory_is_a_relative_link_whatever_its_name() -> None:
    one = TrialRecord(0, "complete", {}, 0.5, [], 'javascript:alert(1)//"> #?%', 1.0, None)
    result = SweepResult("s", "validation.accuracy", False, {}, "random", "none", [one], {})
    links = re.findall('<a href="(?!#)(.*?)"', sweep_page(result))
    assert links == ["javascript%3Aalert%281%29//%22%3E%20%23%3F%25/"] * 2


def hostile() -> SweepResult:
    space = {HOSTILE[0]: {"choice": HOSTILE}, HOSTILE[1]: {"uniform": [0, 1]}}
    trials = [
        TrialRecord(
            k,
            "complete",
            {HOSTILE[0]: HOSTILE[k % 4], HOSTILE[1]: k / 9},
            k / 9,
            [(1, k / 9)],
            HOSTILE[2],
            1,
            None,
        )
        for k in range(9)
    ]
    trials.append(TrialRecord(9, "failed", {}, None, [], None, None, HOSTILE[2]))
    shares = {HOSTILE[0]: 0.7, HOSTILE[1]: 0.3}
    return SweepResult(HOSTILE[0], HOSTILE[3], False, space, HOSTILE[1], HOSTILE[2], trials, shares)


def test_names_are_escaped() -> None:
    text = sweep_page(hostile())
    assert not [name for name in HOSTILE[:3] if name in text]
    assert html.escape(HOSTILE[0]).replace("&quot;", "&#34;") in text
    assert "49" not in re.sub(r"[\d.]{3,}", "", text) and HOSTILE[3] in text
    assert all(
        re.search("&lt;script&gt;", svg(chart))
        for chart in charts_of(sections(hostile()))
        if chart.name == "parallel"
    )


@pytest.fixture(scope="module")
def tab() -> Iterator[Browser]:
    with browser() as opened:
        yield opened


@needs_browser
@pytest.mark.parametrize(
    "name", ["nothing", "one trial", "every state", "long choices", "five hundred", "hostile"]
)
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)])
def test_a_page_stands_alone_at_any_width(tab: Browser, tmp_path: Path, name: str, width: int, dark: bool) -> None:
    file = tmp_path / "sweep.html"
    file.write_text(sweep_page(hostile() if name == "hostile" else CASES[name]), encoding="utf-8")
    tab.open(file, width, dark=dark)
    assert tab.complaints() == []
    assert tab.requests() == []
    assert tab.value("document.documentElement.scrollWidth") <= width
    assert tab.value("document.querySelectorAll('script, img').length") == 0
    assert tab.value("window.changed") is None
    assert tab.value(MEETING) == []
