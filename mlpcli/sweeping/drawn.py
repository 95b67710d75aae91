"""The charts of a sweep. Wherever the best trial is told apart, it is orange, and better ones stand out more."""

from collections.abc import Sequence
from itertools import pairwise

from mlpcli.axes import Axis, Categories
from mlpcli.plots import COLOURS, SHADES, Point
from mlpcli.report.charts import Frame, empty, short, thinned
from mlpcli.report.drawing import LETTER, WIDTH, Box, Chart, Dot, Path, Shape, Words, cut
from mlpcli.sweeping.ranking import Dimension, Values, best_so_far, finite, ranked, text_of, value_axis
from mlpcli.sweeping.record import SweepResult, TrialRecord

BEST, GREY = 1, 4
"""Colours of the best trial, and of those that are not complete."""
NONE = "no trial is complete"
MOST_TIPS = 2000
"""Points of the slices up to which each says under the pointer which trial it is."""
TALL = 240.0
"""The height of the planes of the two charts about all trials."""
MOST_POINTS = 20_000
"""Of all intermediate curves together."""
MANY = 60
"""Complete trials beyond which their lines are hairs."""
SIDE, ROW = 14.0, 60.0
"""Of parallel coordinates: left and right of the axes, and from one to the next."""


def history(result: SweepResult) -> Chart:
    """The value of each trial, and the best so far."""
    name, title = "history", f"{result.objective} of each trial"
    pruned = [
        (trial, value)
        for trial in result.trials
        if trial.state == "pruned" and (value := finite(trial.value)) is not None
    ]
    done = ranked(result)
    if not done and not pruned:
        return empty(name, title, NONE)
    values = value_axis([value for _, value in done + pruned], less_is_better=result.less_is_better)
    numbers = [float(trial.number) for trial in result.trials]
    legend = [("complete", 0), ("best so far", BEST)] if done else []
    legend += [("pruned, at its end", GREY)] if pruned else []
    frame = Frame(Axis("linear", numbers, 6), values.axis, "trial", result.objective, legend, TALL)
    for group, colour in ((pruned, GREY), (done, 0)):
        for trial, value in group:
            at = (frame.across(trial.number), frame.down(values.shown(value)))
            frame.shapes.append(Dot(*at, colour, 2.5, 0.7, _tip(trial, value, result.objective)))
    found = best_so_far(result)
    if found:
        steps: list[Point] = [found[0]]
        for (_, before), (number, value) in pairwise(found):
            steps += [(number, before), (number, value)]
        steps.append((max(numbers), found[-1][1]))
        places = tuple((frame.across(x), frame.down(values.shown(y))) for x, y in steps)
        frame.shapes.append(Path("line", places, BEST))
    return frame.chart(name, title, _beyond(values))


def parallel(result: SweepResult, found: Sequence[Dimension]) -> Chart:
    """A line a complete trial, through its place on the axis of each parameter and of the objective."""
    name, title = "parallel", "Parallel coordinates"
    done = ranked(result)
    if not done:
        return empty(name, title, NONE)
    values = value_axis([value for _, value in done], less_is_better=result.less_is_better)
    rows = [40 + ROW * index for index in range(len(found) + 1)]
    shapes: list[Shape] = [Words("small", 0, 10, "worst fifth")]
    shapes += [Box(76 + 14 * index, 2, 13, 8, len(COLOURS) + index) for index in range(len(SHADES))]
    shapes += [
        Words("small", 150, 10, "best fifth"),
        Box(232, 2, 12, 8, BEST),
        Words("small", 249, 10, "the best"),
    ]
    shapes += [Path("axis", ((SIDE, y), (WIDTH - SIDE, y))) for y in rows]
    style = "thin" if len(done) <= MANY else "hair"
    for rank, (trial, value) in reversed(list(enumerate(done))):
        places = [each.spread(trial) for each in found]
        shares = [each.axis.share(place) for each, place in zip(found, places, strict=True) if place is not None]
        if len(shares) < len(found):
            continue
        shares.append(values.axis.share(values.shown(value)))
        line = tuple((_across(share), y) for share, y in zip(shares, rows, strict=True))
        shapes.append(Path("strong", line, BEST) if rank == 0 else Path(style, line, shade(rank, len(done))))
        shapes.append(Dot(*line[-1], BEST, 0, tip=_tip(trial, value, result.objective)))
    axes = [(each.key, each.axis) for each in found] + [(result.objective, values.axis)]
    for y, (key, axis) in zip(rows, axes, strict=True):
        shapes.append(Words("halo", 0, y - 8, cut(key, WIDTH)))
        shapes += _ticks(axis, y)
    choices = [(each.key, _names(each.axis.names)[1]) for each in found if isinstance(each.axis, Categories)]
    order = "the most important parameter to the least" if result.importances else "one parameter to the next"
    captions = [f"From {order}, and at last to the objective."]
    captions += [f"{key}: {numbered}." for key, numbered in choices if numbered]
    captions += [text] if (text := _beyond(values)) else []
    return Chart(name, title, tuple(shapes), rows[-1] + 24, " ".join(captions))


def _across(share: float) -> float:
    return SIDE + min(max(share, 0.0), 1.0) * (WIDTH - 2 * SIDE)


def _ticks(axis: Axis | Categories, y: float) -> list[Shape]:
    """Marks and their texts below an axis, without those texts that would meet the one before."""
    ticks = axis.ticks()
    if isinstance(axis, Categories):
        names, _ = _names(axis.names)
        ticks = [(place, name) for (place, _), name in zip(ticks, names, strict=True)]
    shapes: list[Shape] = []
    free = -1.0
    for tick, text in ticks:
        at, half = _across(axis.share(tick)), LETTER["halo"] * len(text) / 2
        middle = min(max(at, half), WIDTH - half)
        shapes.append(Path("axis", ((at, y), (at, y + 3))))
        if middle - half >= free:
            shapes.append(Words("halo", middle, y + 14, text, "middle"))
            free = middle + half
    return shapes


def _names(choices: Sequence[str]) -> tuple[list[str], str]:
    """The names of choices as ticks, and what these say where they are but numbers."""
    room = (WIDTH - 70) / len(choices) / LETTER["small"]
    if max(map(len, choices)) + 1 <= room:
        return list(choices), ""
    numbers = [str(index + 1) for index in range(len(choices))]
    return numbers, "; ".join(
        f"{number} is {cut(name, 300)}" for number, name in zip(numbers, choices, strict=True)
    )


def shade(rank: int, count: int) -> int:
    """The colour of a trial: the darkest for the best fifth, and so on."""
    return len(COLOURS) + len(SHADES) - 1 - len(SHADES) * rank // count


def slices(result: SweepResult, found: Sequence[Dimension]) -> tuple[list[Chart], str]:
    """Of each parameter: the value of each complete trial against it; and what a reader has to know besides."""
    done = ranked(result)
    if not done:
        return [], ""
    values = value_axis([value for _, value in done], less_is_better=result.less_is_better)
    tips = len(done) * len(found) <= MOST_TIPS
    return [_slice(result, index, each, done, values, tips) for index, each in enumerate(found)], _beyond(values)


def _slice(
    result: SweepResult,
    index: int,
    dimension: Dimension,
    done: Sequence[tuple[TrialRecord, float]],
    values: Values,
    tips: bool,
) -> Chart:
    axis, caption = dimension.axis, ""
    if isinstance(axis, Categories):
        names, caption = _names(axis.names)
        axis = Categories(names)
    frame = Frame(axis, values.axis, cut(dimension.key, WIDTH - 40), result.objective)
    opacity = 0.75 if len(done) <= 200 else 0.45
    for rank, (trial, value) in reversed(list(enumerate(done))):
        place = dimension.spread(trial)
        if place is None:
            continue
        at = (frame.across(place), frame.down(values.shown(value)))
        text = text_of(trial.parameters[dimension.key])
        tip = f"{_tip(trial, value, result.objective)}, {dimension.key} {text}" if tips else ""
        frame.shapes.append(Dot(*at, BEST, 4.0, 1.0, tip) if rank == 0 else Dot(*at, 0, 2.5, opacity, tip))
    return frame.chart(f"slice-{index + 1}", dimension.key, f"{caption}." if caption else "")


def importances(result: SweepResult) -> Chart:
    """The share of each parameter, as a bar."""
    found = sorted(result.importances.items(), key=lambda pair: -pair[1])
    left = min(190.0, 8 + LETTER["small"] * max(len(key) for key, _ in found))
    longest = max(max(share for _, share in found), 1e-12)
    room = WIDTH - left - 44
    shapes: list[Shape] = []
    for index, (key, share) in enumerate(found):
        y, wide = 24.0 * index, room * max(share, 0.0) / longest
        tip = f"{key}: {share:.1%}"
        shapes.append(Words("small", left - 6, y + 14, cut(key, left - 6), "end"))
        shapes.append(Box(left, y + 3, max(wide, 0.5), 15, 0, 0.9, tip))
        shapes.append(Words("small", left + wide + 5, y + 14, f"{share:.1%}" if share < 0.1 else f"{share:.0%}"))
    shapes.append(Path("axis", ((left, 0), (left, 24.0 * len(found)))))
    return Chart("importances", "Importance of each parameter", tuple(shapes), 24.0 * len(found) + 6)


def intermediate(result: SweepResult) -> Chart:
    """The objective of each trial over its epochs; of what is not complete, up to a dot at its end."""
    name, title = "intermediate", f"{result.objective} over the epochs"
    lines = {
        trial.number: points
        for trial in result.trials
        if (
            points := [(float(epoch), value) for epoch, each in trial.curve if (value := finite(each)) is not None]
        )
    }
    if not lines:
        return empty(name, title, "no trial has finished an epoch")
    values = value_axis([y for line in lines.values() for _, y in line], less_is_better=result.less_is_better)
    epochs = [x for line in lines.values() for x, _ in line]
    ranks = {trial.number: rank for rank, (trial, _) in enumerate(ranked(result))}
    other = [trial for trial in result.trials if trial.number in lines and trial.number not in ranks]
    legend = [("the best", BEST)] if ranks else []
    legend += [("best fifth", shade(0, 1)), ("worst fifth", len(COLOURS))] if len(ranks) > 1 else []
    words = "pruned" if all(trial.state == "pruned" for trial in other) else "not complete"
    legend += [(words, GREY)] if other else []
    frame = Frame(Axis("linear", epochs, 6), values.axis, "epoch", result.objective, legend, TALL)
    most = max(8, MOST_POINTS // len(lines))

    def placed(line: Sequence[Point]) -> tuple[Point, ...]:
        return tuple((frame.across(x), frame.down(values.shown(y))) for x, y in thinned(line, most))

    for trial in other:
        places = placed(lines[trial.number])
        frame.shapes.append(Path("thin", places, GREY))
        at = f"{trial.state} after epoch {lines[trial.number][-1][0]:g}"
        tip = f"trial {trial.number}: {at}, {short(lines[trial.number][-1][1])}"
        frame.shapes.append(Dot(*places[-1], GREY, 2.0, 0.8, tip))
    for number, rank in reversed(ranks.items()):
        if number in lines:
            places = placed(lines[number])
            one = len(places) == 1
            colour = BEST if rank == 0 else shade(rank, len(ranks))
            frame.shapes.append(
                Dot(*places[0], colour) if one else Path("strong" if rank == 0 else "thin", places, colour)
            )
    return frame.chart(name, title, _beyond(values))


def _tip(trial: TrialRecord, value: float, objective: str) -> str:
    return f"trial {trial.number}: {objective} {short(value)}" + ("" if trial.state == "complete" else ", pruned")


def _beyond(values: Values) -> str:
    if values.edge is None:
        return ""
    edge = f"worse than {short(values.edge)}"
    return (
        f"1 value {edge} stands at the edge."
        if values.beyond == 1
        else f"{values.beyond:,} values {edge} stand at the edge."
    )
