"""`mlpcli eval`."""

import math
from typing import Annotated

import typer

from mlpcli.errors import GateMissed, UsageError
from mlpcli.options import (
    CheckpointOption,
    Json,
    PlaceOverrides,
    Quiet,
    TargetArgument,
    Verbose,
    one_of,
    print_json,
)


def evaluate(
    target: TargetArgument,
    overrides: PlaceOverrides = None,
    checkpoint: CheckpointOption = "best",
    split: Annotated[str, typer.Option(metavar="train|validation|test", help="What to measure on.")] = "test",
    fail_under: Annotated[
        list[str] | None,
        typer.Option(metavar="METRIC=VALUE", help="Exit 1 unless the metric is at least this. Repeatable."),
    ] = None,
    fail_over: Annotated[
        list[str] | None,
        typer.Option(metavar="METRIC=VALUE", help="Exit 1 unless the metric is at most this. Repeatable."),
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Measure a trained model on a split: metrics, confusion matrix, precision and recall of each class.

    The numbers equal those that training wrote for the same checkpoint and split, to the last digit.
    """
    from mlpcli import tables

    one_of("--checkpoint", checkpoint, ("best", "last"))
    one_of("--split", split, ("train", "validation", "test"))
    gates = [(*_gate("--fail-under", text), True) for text in fail_under or ()]
    gates += [(*_gate("--fail-over", text), False) for text in fail_over or ()]

    from mlpcli import console, experiment

    console.clean_up_on_signals()
    console.set_up_logging(quiet, verbose)
    result = experiment.evaluate_target(target, which=checkpoint, split=split, overrides=overrides or ())
    metrics = result["metrics"] | result.get("scores", {})
    for name, _, _ in gates:
        one_of("a gate's metric", name, tuple(metrics))
    if as_json:
        # JSON has no infinity: what is not finite is null
        finite = {name: value if math.isfinite(value) else None for name, value in result["metrics"].items()}
        print_json(result | {"metrics": finite})
    else:
        typer.echo(tables.evaluation(result))
    missed = [
        f"{name} is {metrics[name]:.6g}, {'under' if at_least else 'over'} the gate {value:g}"
        for name, value, at_least in gates
        if not (metrics[name] >= value if at_least else metrics[name] <= value)
    ]
    if missed:
        raise GateMissed("\n".join(missed))


def _gate(option: str, text: str) -> tuple[str, float]:
    name, equals, value = text.partition("=")
    try:
        number = float(value)
    except ValueError:
        equals = ""
    if not equals or number != number:
        raise UsageError(f"{option} {text}: expected METRIC=NUMBER, as in {option} accuracy=0.97")
    return name, number
