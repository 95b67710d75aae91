"""A comparison as one HTML page, made of the same blocks as the report on a run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlpcli.report import compare_text as words
from mlpcli.report.blocks import Block, Charts, Section, Table, Text
from mlpcli.report.compare import Comparison
from mlpcli.report.compare_charts import charts
from mlpcli.report.landscape_section import landscape_section
from mlpcli.report.page import page
from mlpcli.runs import write_whole

CHANCE = (
    "On the test split, each run at its best epoch. “Significant” means p < 0.05{holm}: of networks that do not "
    "differ, at most 5 % are called different by chance. Another seed of the same training is another network, on "
    "which a test says nothing."
)
WORK = (
    "A gradient evaluation is the gradient of the loss of one sample: an epoch takes as many as there are "
    "training samples, in one step (GD) or in many (SGD). Seconds are those of the training passes alone."
)
EQUAL = "As many as every run has done, and what each had reached with them, at the end of an epoch."
CURVES = (
    "Train metrics are those of the pass itself, each batch before its step; validation metrics are measured "
    "after the epoch."
)


def write(comparison: Comparison, file: Path, landscape: Mapping[str, Any] | None = None) -> None:
    """Write the page, whole or not at all.

    Args:
        comparison: of two runs or more.
        file: the page.
        landscape: what `landscape.landscape` says of a picture of their paths, which is embedded.

    Raises:
        StorageError: it could not be written.
    """
    names = [words.shown(side.found.name, 40) for side in comparison.sides]
    title = f"{len(names)} runs compared" if len(names) > 3 else " and ".join(names)
    other = "each other run" if len(names) > 2 else names[1]
    subtitle = f"{names[0]} is the baseline, with which {other} is compared"
    content = page(title, subtitle, sections(comparison, landscape), "Made by mlpcli compare.")
    write_whole(file, content.encode(errors="backslashreplace"))


def sections(comparison: Comparison, landscape: Mapping[str, Any] | None = None) -> list[Section]:
    """What the page shows."""
    several = comparison.corrected > 1
    holm = " after Holm's correction for several tests" if several else ""
    notes = [Text(words.shown(note), "note") for note in comparison.notes]
    head, rows = words.work_rows(comparison)
    runs: list[Block] = [Text(row[0]) for row in rows]  # long names would leave a table no room on a telephone
    letters = [[side.letter, *row[1:]] for side, row in zip(comparison.sides, rows, strict=True)]
    runs += [_table("", (head, letters), WORK), *notes]
    chance: list[Block] = [Text(sentence, "verdict") for sentence in words.sentences(comparison)]
    chance.append(Text(CHANCE.format(holm=holm)))
    if comparison.metrics:
        metrics = words.metric_rows(comparison, every=True)
        chance.append(_table("Metrics on the test split", metrics, ""))
    found = [Section("runs", "Runs", runs), Section("chance", "More than chance?", chance)]
    if comparison.equal_work is not None:
        reached = words.equal_rows(comparison, comparison.equal_work)
        equal = _table(words.equal_title(comparison.equal_work).capitalize(), reached, EQUAL)
        found.append(Section("work", "Equal work", [equal]))
    drawn: list[Block] = [Charts(row) for row in charts(comparison)]
    if drawn:
        found.append(Section("curves", "Curves", [*drawn, Text(CURVES)]))
    if landscape is not None:
        found.append(landscape_section(landscape))
    differing = words.difference_rows(comparison)
    found.append(
        Section(
            "config",
            "What differs in the config",
            [_table("", differing, "")] if differing[1] else [Text("Nothing that is known, names aside.")],
        )
    )
    return found


def _table(title: str, table: tuple[Sequence[str], Sequence[Sequence[str]]], caption: str) -> Table:
    head, rows = table
    return Table(title, head, rows, caption=caption)
