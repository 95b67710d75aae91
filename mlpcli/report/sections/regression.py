"""How far a regression is off, and where."""

import math

import numpy as np

from mlpcli.report.answers import Answers
from mlpcli.report.blocks import Block, Charts, Section, Table, Text
from mlpcli.report.charts import histogram, points, short
from mlpcli.report.drawing import Chart
from mlpcli.report.gathering import Gathered, shortened
from mlpcli.report.sections.samples import column_names, columns_note, values_of

MOST_POINTS = 1500
"""Of a picture; of more samples every second, every third, … is drawn."""
MOST_TARGETS = 4
WORST = 20
"""Rows that are shown."""
BINS = 40


def section(run: Gathered) -> Section:
    """Everything about a regression's answers on the test split."""
    answers = run.test
    assert answers is not None and not answers.classifies
    names = [shortened(name) for name in answers.about.target_names]
    blocks: list[Block] = []
    for index, name in enumerate(names[:MOST_TARGETS]):
        blocks.append(Charts(_charts(answers, index, name)))
    if len(names) > MOST_TARGETS:
        blocks.append(Text(f"The first {MOST_TARGETS} of {len(names)} targets are drawn.", "note"))
    blocks += [_by_target(answers), _worst(answers)]
    return Section("regression", "Regression on the test split", blocks)


def _charts(answers: Answers, index: int, name: str) -> list[Chart]:
    true, predicted = answers.targets[:, index], answers.outputs[:, index]
    residual = predicted - true
    every = max(1, math.ceil(len(true) / MOST_POINTS))
    chosen = np.arange(0, len(true), every)
    tips = [f"sample {i}: true {short(float(true[i]))}, predicted {short(float(predicted[i]))}" for i in chosen]
    caption = f"Every {every}th of {len(true):,} samples. " if every > 1 else ""
    finite = residual[np.isfinite(residual)]
    counts, edges = np.histogram(finite, BINS) if len(finite) else (np.zeros(0), np.zeros(2))
    bias = float(finite.mean()) if len(finite) else math.nan
    suffix = f"-{index + 1}" if len(answers.about.target_names) > 1 else ""
    return [
        points(
            f"predicted{suffix}",
            f"Predicted against true: {name}",
            f"true {name}",
            f"predicted {name}",
            true[chosen].tolist(),
            predicted[chosen].tolist(),
            diagonal=True,
            tips=tips,
            caption=f"{caption}Dashed: exactly right.",
        ),
        points(
            f"residuals{suffix}",
            f"Residuals: {name}",
            f"predicted {name}",
            "predicted − true",
            predicted[chosen].tolist(),
            residual[chosen].tolist(),
            level=0.0,
            tips=tips,
            caption=f"{caption}A trend or a funnel is something the network has not learned.",
        ),
        histogram(
            f"residual-histogram{suffix}",
            f"Distribution of the residuals: {name}",
            "predicted − true",
            edges.tolist(),
            [("", counts.tolist(), 0)],
            y_name="samples",
            caption=f"Mean {short(bias)}.",
        ),
    ]


def _by_target(answers: Answers) -> Table:
    rows = []
    for index, name in enumerate(map(shortened, answers.about.target_names)):
        true, residual = answers.targets[:, index], answers.outputs[:, index] - answers.targets[:, index]
        deviation = float(((true - true.mean()) ** 2).sum())
        square = float((residual**2).sum())
        r2 = f"{1 - square / deviation:.4f}" if deviation else "–"
        rows.append(
            [
                name,
                short(float(np.sqrt((residual**2).mean()))),
                short(float(np.abs(residual).mean())),
                short(float(np.median(np.abs(residual)))),
                short(float(residual.mean())),
                r2,
                f"{short(float(true.min()))} to {short(float(true.max()))}",
            ]
        )
    head = ["target", "RMSE", "MAE", "median |error|", "mean error", "R²", "range of true values"]
    return Table("By target", head, rows, caption="In the units of the targets.")


def _worst(answers: Answers) -> Table:
    residual = answers.outputs - answers.targets
    spread = np.maximum(answers.targets.std(0), 1e-300)
    size = np.nan_to_num((np.abs(residual) / spread).max(1), nan=np.inf)
    found = np.argsort(-size, kind="stable")[:WORST].tolist()
    several = len(answers.about.target_names) > 1
    rows = []
    for index, values in zip(found, values_of(answers, found), strict=True):
        worst = int((np.abs(residual[index]) / spread).argmax())
        target = [shortened(answers.about.target_names[worst])] if several else []
        true, predicted = float(answers.targets[index, worst]), float(answers.outputs[index, worst])
        rows.append([str(index), *target, short(true), short(predicted), short(predicted - true), *values])
    head = ["sample", *(["target"] if several else []), "true", "predicted", "error", *column_names(answers)]
    caption = f"The {len(rows)} largest errors of {len(residual):,} samples. {columns_note(answers)}"
    return Table("Worst rows", head, rows, (0, 1) if several else (0,), caption=caption)
