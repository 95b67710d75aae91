"""A sweep as one HTML page, made of the same blocks as the report on a run."""

import shlex
from collections import Counter
from typing import Any
from urllib.parse import quote

from mlpcli.report.blocks import Block, Charts, Code, Section, Table, Text, Tile, Tiles
from mlpcli.report.charts import short
from mlpcli.report.page import page
from mlpcli.sweeping import drawn
from mlpcli.sweeping.ranking import FEW, Dimension, dimensions, finite, ranked, space_text, text_of
from mlpcli.sweeping.record import State, SweepResult, TrialRecord

STATES: tuple[State, ...] = ("complete", "pruned", "failed", "running", "waiting")
"""In the order in which trials are listed."""
SHOWN = 20
"""Rows of the table of trials before a reader asks for the others."""
LUCK = (
    "The best of many is the best partly by luck, so its value flatters it. A split that no trial was chosen by, "
    "such as the test split, says how good it is."
)
FANOVA = (
    "How much of the variance of the objective over the space a parameter explains alone, as a share of the sum "
    "over the parameters: the fANOVA of Hutter, Hoos and Leyton-Brown (2014), by a random forest fitted to the "
    "complete trials. Of few trials it is a rough guess."
)
WIDEST = 40
"""Letters of a value in the table of trials."""
CURVES = (
    "The better the value of a complete trial, the more its curve stands out. "
    "A dot is the end of a trial that is not complete."
)


def sweep_page(result: SweepResult) -> str:
    """The whole page; every name and value in it is escaped.

    Args:
        result: may have any number of trials, in any state; values that are not finite count as none.
    """
    less = "least" if result.less_is_better else "greatest"
    subtitle = f"{_many(len(result.trials), 'trial')} for the {less} {result.objective}"
    subtitle += f"; sampler {result.sampler}, pruner {result.pruner}"
    return page(result.name, subtitle, sections(result), "Made by mlpcli sweep.")


def sections(result: SweepResult) -> list[Section]:
    """What the page shows."""
    found = dimensions(result)
    parameters = [drawn.parallel(result, found)]
    notes: list[Block] = []
    if result.importances:
        parameters.append(drawn.importances(result))
        notes = [Text(FANOVA)]
    curves: list[Block] = [Text(CURVES)] if any(trial.curve for trial in result.trials) else []
    charts, beyond = drawn.slices(result, found)
    pieces: list[Block] = [Charts(charts)] if charts else [Text("No trial is complete.")]
    pieces += [Text(beyond)] if beyond else []
    return [
        Section("result", "Result", _result(result, found)),
        Section("history", "History", [Charts([drawn.history(result), drawn.intermediate(result)]), *curves]),
        Section("parameters", "Parameters", [Charts(parameters), *notes]),
        Section("slices", "Slices", pieces),
        Section("trials", "Trials", [_trials(result, found) if result.trials else Text("There is none.")]),
    ]


def _result(result: SweepResult, found: list[Dimension]) -> list[Block]:
    counts = Counter(trial.state for trial in result.trials)
    done = ranked(result)
    seconds = [took for trial in result.trials if (took := finite(trial.seconds)) is not None]
    detail = ", ".join(f"{counts[state]:,} {state}" for state in STATES if counts[state])
    tiles = [Tile("trials", f"{len(result.trials):,}", detail)]
    if seconds:
        tiles.append(
            Tile("seconds of all trials", short(sum(seconds)), f"{short(sum(seconds) / len(seconds))} a trial")
        )
    if not done:
        return [Text("No trial is complete, so there is no best one.", "note"), Tiles(tiles)]
    best, value = done[0]
    tiles.insert(0, Tile(f"best {result.objective}", short(value), f"trial {best.number}"))
    which = f"the best of {len(done):,} complete trials" if len(done) > 1 else "the only complete trial"
    verdict = f"Trial {best.number} is {which}: {result.objective} {value:.6g}."
    rows = [
        [each.key, text_of(best.parameters.get(each.key)), space_text(result.space[each.key])] for each in found
    ]
    blocks: list[Block] = [Text(verdict, "verdict"), Tiles(tiles)]
    ends = [f"{each.key} ({text_of(end)})" for each in found if (end := each.end(best)) is not None]
    if ends and len(done) > FEW:
        near = f"The best trial is near an end of the range of {', '.join(ends)}."
        blocks.append(Text(f"{near} Where the config allows a wider range, it may hold a better one.", "note"))
    rows += [["run directory", best.run, ""]] if best.run is not None else []
    blocks.append(
        Table(
            "The best trial",
            ["key", "value", "range or choices"],
            rows,
            texts=(0, 1, 2),
            links=[*([""] * len(found)), _link(best)],
        )
    )
    if best.run is not None:
        run = shlex.quote(best.run)
        lines = ["mlpcli train best.yaml", f"mlpcli eval {run}", f"mlpcli report {run}"]
        blocks.append(Code("In the directory of the sweep: train it again, evaluate it, make its report", lines))
    return [*blocks, Text(LUCK)]


def _trials(result: SweepResult, found: list[Dimension]) -> Table:
    """The complete ones from the best on, then the others."""
    done = [trial for trial, _ in ranked(result)]
    first = {trial.number for trial in done}
    others = [trial for trial in result.trials if trial.number not in first]
    trials = done + sorted(others, key=lambda trial: (STATES.index(trial.state), trial.number))
    failed = any(trial.error for trial in trials)
    head = ["trial", "state", result.objective, "epochs", "seconds", *(each.key for each in found)]
    texts = [len(head) - len(found) + index for index, each in enumerate(found) if each.choices]
    return Table(
        "",
        [*head, "error"] if failed else head,
        [_row(trial, found, failed) for trial in trials],
        texts=(0, 1, *texts, *((len(head),) if failed else ())),
        marked=(0,) if done else (),
        caption="The number of a trial leads to its run directory. Of a pruned trial, the value is its last.",
        more=SHOWN,
        links=[_link(trial) for trial in trials],
    )


def _row(trial: TrialRecord, found: list[Dimension], failed: bool) -> list[str]:
    value, seconds = finite(trial.value), finite(trial.seconds)
    row = [
        str(trial.number),
        trial.state,
        "–" if value is None else f"{value:.6g}",
        str(trial.curve[-1][0]) if trial.curve else "–",
        "–" if seconds is None else short(seconds),
        *(_short_text(trial.parameters[each.key]) if each.key in trial.parameters else "–" for each in found),
    ]
    return [*row, trial.error or ""] if failed else row


def _short_text(value: Any) -> str:
    """A value of a parameter, or its beginning."""
    text = text_of(value)
    return text if len(text) <= WIDEST else f"{text[: WIDEST - 1]}…"


def _link(trial: TrialRecord) -> str:
    """The relative URL of its run directory; empty if it has none."""
    return "" if trial.run is None else quote(trial.run.rstrip("/") + "/")


def _many(count: int, word: str) -> str:
    return f"{count:,} {word}" if count == 1 else f"{count:,} {word}s"
