"""A comparison as text, and as plain values for JSON."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mlpcli.report.charts import short
from mlpcli.report.compare import ABSENT, Comparison, EqualWork, Side
from mlpcli.report.compare_statistics import PairedTest
from mlpcli.report.statistics import Interval
from mlpcli.tables import columns

WIDEST = 24
"""Letters of a value of a config that are shown; --json has all of it."""
MAIN = ("accuracy", "rmse")
"""The metric whose interval is printed beside it."""


def shown(text: object, widest: int | None = None) -> str:
    """A text on one line, without what would control a terminal; of a long one both ends with … between."""
    line = "".join(letter if letter.isprintable() else "�" for letter in " ".join(str(text).split()))
    if widest is None or len(line) <= widest:
        return line
    end = widest // 2
    return f"{line[: widest - end - 1]}…{line[-end:]}"


def value_text(value: Any) -> str:
    """A value of a config."""
    return shown(value if isinstance(value, str) else json.dumps(value))


def interval_text(interval: Interval) -> str:
    """Its ends."""
    return f"{short(interval.low)} to {short(interval.high)}"


def count_text(number: float | None) -> str:
    """A whole number; what is not known is a dash."""
    return ABSENT if number is None or not math.isfinite(number) else f"{number:,.0f}"


def evaluations(side: Side) -> float | None:
    """All gradient evaluations of a run; None where they are not known."""
    return None if side.samples is None else float(side.done * side.samples)


def work_rows(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """A line a run: what was done."""
    rows = [
        [
            f"{side.letter}  {shown(side.run)}",
            side.found.status,
            f"{side.done:,}",
            count_text(side.best),
            count_text(evaluations(side)),
            f"{side.seconds:.1f}",
            count_text(side.parameters),
        ]
        for side in comparison.sides
    ]
    return ["run", "status", "epochs", "best", "gradient evaluations", "seconds", "parameters"], rows


def difference_rows(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """A line a key of the config."""
    rows = [
        [shown(key), *(shown(value_text(value), WIDEST) for value in values)]
        for key, values in comparison.differences.items()
    ]
    return ["differs", *(side.letter for side in comparison.sides)], rows


def metric_rows(comparison: Comparison, *, every: bool = False) -> tuple[list[str], list[list[str]]]:
    """A line a run: its test metrics, with the interval of the main one, or with every interval that is known."""
    head, names = ["test"], comparison.metrics
    wanted = [
        name
        for name in names
        if (every or name in MAIN) and any(name in side.intervals for side in comparison.sides)
    ]
    for name in names:
        head += [name, "95 % interval"] if name in wanted else [name]
    rows = []
    for side in comparison.sides:
        row = [side.letter]
        for name in names:
            value, interval = side.test.get(name), side.intervals.get(name)
            row.append(ABSENT if value is None else f"{value:.4f}" if 1e-3 <= abs(value) < 1e5 else short(value))
            if name in wanted:
                row.append(ABSENT if interval is None else interval_text(interval))
        rows.append(row)
    return head, rows


def equal_title(equal: EqualWork) -> str:
    """What the table of equal work shows."""
    return f"after {equal.evaluations:,} gradient evaluations"


def equal_rows(comparison: Comparison, equal: EqualWork) -> tuple[list[str], list[list[str]]]:
    """A line a run: what it had reached with the work that all have done."""
    names = [
        (split, name)
        for split, found in (("train", equal.train), ("validation", equal.validation))
        for name in dict.fromkeys(name for values in found for name in values)
        if name in ("loss", "accuracy", "rmse")
    ]
    rows = []
    for index, side in enumerate(comparison.sides):
        row = [side.letter, f"{equal.epochs[index]:,}"]
        for split, name in names:
            value = (equal.train if split == "train" else equal.validation)[index].get(name)
            row.append(ABSENT if value is None else short(value))
        rows.append(row)
    return ["run", "epochs", *(f"{split} {name}" for split, name in names)], rows


def sentences(comparison: Comparison) -> list[str]:
    """A sentence a run but the first: its test against the baseline, or why there is none."""
    base, count = comparison.sides[0], comparison.corrected
    found = []
    for side, test in zip(comparison.sides[1:], comparison.tests, strict=True):
        pair = f"{side.letter} against {base.letter}: "
        found.append(pair + (f"{test}." if isinstance(test, str) else _sentence(side, base, test, count)))
    return found


def _sentence(side: Side, base: Side, test: PairedTest, count: int) -> str:
    d = test.difference
    holm = f", p {_p(test.adjusted)} after Holm's correction for {count} tests" if count > 1 else ""
    if d.value == 0:
        size = f"the {test.metric} is the same"
    else:
        size = f"the {test.metric} is {_three(abs(d.value))} {'higher' if d.value > 0 else 'lower'}"
    size += f" (95 % interval of the difference: {_signed(d.low)} to {_signed(d.high)})"
    if test.only is not None:
        ones, others = test.only
        size += (
            f"; of {test.samples:,} test samples {base.letter} alone has {ones:,} right and {side.letter} alone "
        )
        size += f"{others:,}"
    else:
        size += f", on {test.samples:,} test samples"
    chance = "" if d.value == 0 else ", so it may be chance"
    verdict = "significant" if test.significant else f"not significant{chance}"
    return f"{size}. p {_p(test.p)} by {test.test}{holm}: {verdict}."


def _p(value: float) -> str:
    return "< 0.0001" if value < 1e-4 else f"= {value:.4f}" if value < 0.01 else f"= {value:.2f}"


def _signed(value: float) -> str:
    return f"{'+' if value > 0 else '−' if value < 0 else ''}{_three(abs(value))}"


def _three(value: float) -> str:
    """A number with three digits."""
    return short(float(f"{value:.3g}"))


def text(comparison: Comparison) -> str:
    """What `compare` prints."""
    parts = [_table(*work_rows(comparison))]
    if comparison.differences:
        parts.append(_table(*difference_rows(comparison)))
    elif all(side.found.config is not None for side in comparison.sides):
        parts.append("the configs are the same, names aside")
    if comparison.metrics:
        parts.append(_table(*metric_rows(comparison)))
    if comparison.equal_work is not None:
        title = equal_title(comparison.equal_work)
        parts.append(f"{title}:\n{_table(*equal_rows(comparison, comparison.equal_work))}")
    parts.append("\n".join(sentences(comparison)))
    if comparison.notes:
        parts.append("\n".join(shown(note) for note in comparison.notes))
    return "\n\n".join(part for part in parts if part)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return columns(rows, head)


# --- JSON ---------------------------------------------------------------------------------------------------


def plain(comparison: Comparison) -> dict[str, Any]:
    """All of it as plain values; what is not known is null."""
    base = comparison.sides[0]
    equal = comparison.equal_work
    return {
        "baseline": base.run,
        "runs": [_plain_side(side) for side in comparison.sides],
        "differences": {
            key: [None if value is ABSENT else value for value in values]
            for key, values in comparison.differences.items()
        },
        "comparisons": list(_plain_tests(comparison)),
        "equal_work": None
        if equal is None
        else {
            "gradient_evaluations": equal.evaluations,
            "epochs": equal.epochs,
            "train": equal.train,
            "validation": equal.validation,
        },
        "notes": comparison.notes,
    }


def _plain_side(side: Side) -> dict[str, Any]:
    at_best: Mapping[str, Any] = {}
    if side.best in side.found.epochs:
        index = side.found.epochs.index(side.best)
        at_best = {split: side.at(index, split) for split in ("train", "validation")}
    done = evaluations(side)
    return {
        "run": side.run,
        "letter": side.letter,
        "status": side.found.status,
        "epochs": side.done,
        "best": {"epoch": side.best, **at_best},
        "gradient_evaluations": None if done is None else int(done),
        "train_seconds": round(side.seconds, 6),
        "parameters": side.parameters,
        "test": {name: {"value": value, **_ends(side.intervals.get(name))} for name, value in side.test.items()},
    }


def _ends(interval: Interval | None) -> dict[str, float | None]:
    return {"low": None, "high": None} if interval is None else {"low": interval.low, "high": interval.high}


def _plain_tests(comparison: Comparison) -> Iterator[dict[str, Any]]:
    base = comparison.sides[0].run
    for side, test in zip(comparison.sides[1:], comparison.tests, strict=True):
        pair = {"run": side.run, "against": base}
        if isinstance(test, str):
            yield pair | {"test": None, "why": test}
            continue
        yield pair | {
            "test": test.test,
            "metric": test.metric,
            "samples": test.samples,
            "difference": {"value": test.difference.value, **_ends(test.difference)},
            "only": None if test.only is None else {"baseline": test.only[0], "run": test.only[1]},
            "p": test.p,
            "p_adjusted": test.adjusted,
            "significant": test.significant,
        }
