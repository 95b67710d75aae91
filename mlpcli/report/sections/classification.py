"""What a classifier gets right and wrong, and whether its probabilities can be believed."""

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from PIL import Image

from mlpcli.axes import Axis
from mlpcli.report import classifying
from mlpcli.report.answers import Answers
from mlpcli.report.blocks import Block, Charts, Gallery, Picture, Section, Table, Text
from mlpcli.report.charts import UNIT, Frame, empty, rates, short, thinned
from mlpcli.report.charts_grid import WITH_NUMBERS, confusion_chart
from mlpcli.report.drawing import Box, Chart, Path
from mlpcli.report.gathering import Gathered
from mlpcli.report.images import encoded, shown_size, strip
from mlpcli.report.sections.samples import column_names, columns_note, images_of, shows_images, values_of

MISTAKES = 24
"""Most confident mistakes that are shown."""
EXAMPLES = 8
"""Of each class."""
MOST_CLASSES = 20
"""With examples."""
MOST_ROWS = 25
"""Of the table of classes, before a reader asks for the others."""
CONFUSIONS = 10
IMAGE, STRIP = 84, 520
"""Pixels of the longer side of an image, and of a row of them, on the page."""


def section(run: Gathered) -> Section:
    """Everything about a classifier's answers on the test split."""
    answers = run.test
    assert answers is not None and answers.classifies
    title = "Classification on the test split"
    if not np.isfinite(answers.outputs).all():
        return Section(
            "classification", title, [Text("Some probabilities are not finite, so nothing is shown.", "note")]
        )
    counts = classifying.confusion(answers.predicted, answers.targets.astype(np.int64), answers.about.outputs)
    blocks: list[Block] = [Charts(_confusions(counts, run.classes))]
    if len(run.classes) > 2:
        blocks.append(_confused(counts, run.classes))
    blocks.append(_by_class(counts, run.classes))
    if len(run.classes) == 2:
        blocks.append(Charts(_curves(answers, run.classes[1])))
    blocks += _calibration(answers)
    blocks += _mistakes(answers, run.classes)
    blocks += _examples(answers, run.classes)
    return Section("classification", title, blocks)


def _confusions(counts: classifying.Ints, classes: list[str]) -> list[Chart]:
    """In samples and in percent; one picture where there is no room for numbers, which the pointer then shows."""
    if len(classes) > WITH_NUMBERS:
        return [confusion_chart("confusion", "Confusion matrix", counts, classes, rates=True)]
    rates_title = "Confusion matrix: % of each true class"
    return [
        confusion_chart("confusion-counts", "Confusion matrix: samples", counts, classes, rates=False),
        confusion_chart("confusion-rates", rates_title, counts, classes, rates=True),
    ]


def _confused(counts: classifying.Ints, classes: list[str]) -> Table:
    pairs = classifying.most_confused(counts, CONFUSIONS)
    rows = [
        [classes[true], classes[predicted], f"{count:,}", f"{count / counts[true].sum():.1%}"]
        for true, predicted, count in pairs
    ]
    caption = "" if rows else "There is no mistake on the test split."
    return Table(
        "Most frequent confusions", ["true", "predicted", "samples", "of true"], rows, (0, 1), caption=caption
    )


def by_class_rows(counts: classifying.Ints, classes: list[str]) -> list[list[str]]:
    """A row for each class: name, samples, precision, recall, F1."""
    return [
        [name, f"{of.samples:,}", *(_rate(value) for value in (of.precision, of.recall, of.f1))]
        for name, of in zip(classes, classifying.by_class(counts), strict=True)
    ]


def _by_class(counts: classifying.Ints, classes: list[str]) -> Table:
    rows = by_class_rows(counts, classes)
    caption = "– where there is nothing to divide by: a class that is never predicted, or has no test samples."
    if len(classes) > MOST_ROWS:
        of = classifying.by_class(counts)
        order = sorted(range(len(classes)), key=lambda i: (math.isnan(of[i].f1), of[i].f1))
        rows = [rows[i] for i in order]
        caption = f"The lowest F1 first. {caption}"
    return Table(
        "By class", ["class", "samples", "precision", "recall", "F1"], rows, caption=caption, more=MOST_ROWS
    )


def _rate(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.4f}"


def _curves(answers: Answers, name: str) -> list[Chart]:
    """ROC, and precision over recall, of the second class."""
    positive = answers.targets == 1
    of = f"of class {name}"
    roc = classifying.roc(answers.outputs[:, 1], positive)
    both = classifying.precision_recall(answers.outputs[:, 1], positive)
    if roc is None or both is None:
        return [empty("roc", "ROC curve", "all test samples are of one class")]
    return [
        rates(
            "roc",
            f"ROC curve {of}",
            "false positive rate",
            "true positive rate",
            thinned(list(zip(roc.x.tolist(), roc.y.tolist(), strict=True))),
            reference=((0.0, 0.0), (1.0, 1.0)),
            caption=f"Area under the curve {roc.area:.4f}; dashed: guessing.",
        ),
        rates(
            "precision-recall",
            f"Precision and recall {of}",
            "recall",
            "precision",
            thinned(list(zip(both.x.tolist(), both.y.tolist(), strict=True))),
            reference=((0.0, float(positive.mean())), (1.0, float(positive.mean()))),
            caption=f"Average precision {both.area:.4f}; dashed: guessing.",
        ),
    ]


def _calibration(answers: Answers) -> list[Block]:
    found = classifying.calibration(answers.outputs, answers.targets.astype(np.int64))
    unit = Axis("linear", UNIT, 6)
    name = "confidence (probability of the predicted class)"
    frame = Frame(unit, unit, name, "accuracy")
    tallest = max(int(found.counts.max()), 1)
    amounts = Frame(unit, Axis("linear", [0, tallest], 6), name, "samples")
    for low, high, count, sure, right in zip(
        found.edges[:-1], found.edges[1:], found.counts, found.confidence, found.accuracy, strict=True
    ):
        if not count:
            continue
        tip = f"confidence {sure:.1%}, accuracy {right:.1%}, {count:,} samples"
        for picture, value in ((frame, float(right)), (amounts, float(count))):
            left, end = picture.across(low) + 0.5, picture.across(high) - 0.5
            top = picture.down(value)
            picture.shapes.append(Box(left, top, end - left, picture.bottom - top, 0, 0.85, tip))
    corner = ((frame.across(0), frame.down(0)), (frame.across(1), frame.down(1)))
    frame.shapes.append(Path("dashes", corner, 1))
    confidence = float(np.nansum(found.confidence * found.counts) / found.counts.sum())
    accuracy = float((answers.predicted == answers.targets).mean())
    side = "overconfident" if confidence > accuracy else "underconfident"
    text = (
        f"Expected calibration error {found.error:.4f} ({classifying.BINS} equal bins), Brier score "
        f"{found.brier:.4f}, negative log-likelihood {short(found.nll)}. On average the network is "
        f"{100 * confidence:.1f} % sure and {100 * accuracy:.1f} % right: {side} by "
        f"{100 * abs(confidence - accuracy):.1f} points."
    )
    caption = "Bars on the dashed line: as often right as the probability says."
    charts = [
        frame.chart("calibration", "Calibration", caption),
        amounts.chart("confidence", "Samples by confidence"),
    ]
    return [Charts(charts), Text(text)]


def _mistakes(answers: Answers, classes: list[str]) -> list[Block]:
    title = "Most confident mistakes"
    found = classifying.most_confident_mistakes(
        answers.outputs, answers.targets.astype(np.int64), MISTAKES
    ).tolist()
    wrong = int((answers.predicted != answers.targets).sum())
    if not found:
        return [Text("There is no mistake on the test split.")]
    caption = f"{len(found)} of {wrong:,} mistakes on {len(answers.targets):,} samples."
    told = [
        (
            index,
            classes[int(answers.targets[index])],
            classes[int(answers.predicted[index])],
            float(answers.outputs[index].max()),
            float(answers.outputs[index, int(answers.targets[index])]),
        )
        for index in found
    ]
    if shows_images(answers):
        photo = answers.about.input_shape[0] == 3
        pictures = [
            Picture(
                encoded(Image.fromarray(image), photo),
                shown_size(image.shape[0], image.shape[1], IMAGE),
                f"test sample {index}",
                (f"true {true}: {_chance(of_true)}", f"predicted {predicted}: {_chance(sure)}", f"sample {index}"),
                True,
            )
            for image, (index, true, predicted, sure, of_true) in zip(images_of(answers, found), told, strict=True)
        ]
        return [Gallery(title, pictures, caption)]
    head = ["sample", "true", "predicted", "p(predicted)", "p(true)", *column_names(answers)]
    rows = [
        [str(index), true, predicted, _chance(sure), _chance(of_true), *values]
        for (index, true, predicted, sure, of_true), values in zip(told, values_of(answers, found), strict=True)
    ]
    return [Table(title, head, rows, (0, 1, 2), caption=f"{caption} {columns_note(answers)}")]


def _chance(probability: float) -> str:
    percent = 100 * probability
    if 0 < percent < 0.1:
        return "<\xa00.1\xa0%"
    return ">\xa099.9\xa0%" if 99.9 < percent < 100 else f"{percent:.1f}\xa0%"


def _examples(answers: Answers, classes: list[str]) -> list[Block]:
    """The first samples of each class; of a table the one that is right with the highest probability."""
    order = np.argsort(answers.targets, kind="stable")
    starts = np.searchsorted(answers.targets[order], np.arange(len(classes) + 1))
    by_class = [order[start:end] for start, end in pairwise(starts)][:MOST_CLASSES]
    caption = f"The first {MOST_CLASSES} of {len(classes):,} classes. " if len(classes) > MOST_CLASSES else ""
    if not shows_images(answers):
        return _typical(answers, classes, by_class, caption)
    photo = answers.about.input_shape[0] == 3
    pictures = []
    for name, samples in zip(classes, by_class, strict=False):
        chosen = samples[:EXAMPLES].tolist()
        if not chosen:
            continue
        wrong = (answers.predicted[chosen] != answers.targets[chosen]).tolist()
        row = strip(images_of(answers, chosen), wrong)
        size = shown_size(row.height, row.width, STRIP)
        pictures.append(Picture(encoded(row, photo), size, f"test samples of class {name}", (name,)))
    caption += f"The first {EXAMPLES} test samples of each class; those in an orange frame are classified wrong."
    return [Gallery("Examples of each class", pictures, caption)]


def _typical(
    answers: Answers, classes: list[str], by_class: Sequence[classifying.Ints], caption: str
) -> list[Block]:
    found = []
    for index, samples in enumerate(by_class):
        right = samples[answers.predicted[samples] == index]
        if len(right):
            found.append(int(right[answers.outputs[right, index].argmax()]))
    if not found:
        return []
    head = ["class", "sample", "probability", *column_names(answers)]
    rows = [
        [classes[int(answers.targets[i])], str(i), _chance(float(answers.outputs[i].max())), *values]
        for i, values in zip(found, values_of(answers, found), strict=True)
    ]
    caption += (
        f"The sample of each class that is classified right with the highest probability. {columns_note(answers)}"
    )
    return [Table("Examples of each class", head, rows, caption=caption)]
