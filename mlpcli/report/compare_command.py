"""The command `mlpcli compare`. numpy and torch are imported only when it runs."""

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from mlpcli.errors import GateMissed, UsageError
from mlpcli.options import Json, Quiet, Verbose, check_folder, print_json

MOST = 10
"""Runs side by side: more cannot be told apart in a picture."""


def compare(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN",
            help="Run directories; each is compared with the first, the baseline. KEY=VALUE among them says where "
            "the data is now: data.root=DIR",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Write a page with all of it and the curves: .html."),
    ] = None,
    landscape: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Draw the paths of the kept checkpoints on a plane of the loss surface: .svg, .png. One run will "
            "do.",
        ),
    ] = None,
    fail_on_regression: Annotated[
        list[str] | None,
        typer.Option(
            metavar="METRIC:TOLERANCE",
            help="Exit 1 if a run's test metric is worse than the baseline's by more than this: accuracy:0.005, "
            "rmse:2%. Repeatable.",
        ),
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Put runs side by side: what differs in the config, metrics, work and time, and whether by chance.

    The difference of each run to the first is tested on the same test samples: McNemar's exact test of the
    accuracies, or a paired t-test of the squared errors.
    """
    from mlpcli.report import compare_gates

    gates = compare_gates.parse(fail_on_regression or ())
    overrides = [each for each in runs if "=" in each and not os.path.exists(each)]
    paths = [Path(each) for each in runs if each not in overrides]
    _check(paths, output, landscape, bool(gates))

    from mlpcli.runs import require_run

    for path in paths:
        require_run(path)

    from mlpcli import console
    from mlpcli.report import compare_text
    from mlpcli.report.compare import compare as compared
    from mlpcli.threads import flush_denormals

    flush_denormals()
    console.clean_up_on_signals()
    console.set_up_logging(quiet, verbose)
    report: dict[str, Any] = {}
    with console.interrupted("nothing was finished"):
        drawn = None
        if landscape is not None:
            from mlpcli.report.landscape import landscape as draw

            drawn = draw(paths, landscape, overrides)
        if len(paths) == 1:
            if as_json:
                print_json({"landscape": drawn})
            else:
                typer.echo(landscape)
            return
        comparison = compared(paths, overrides)
        if output is not None:
            from mlpcli.report import compare_page

            compare_page.write(comparison, output, drawn)
        if as_json:
            report = compare_text.plain(comparison)
            print_json(report if drawn is None else report | {"landscape": drawn})
        else:
            typer.echo(compare_text.text(comparison))
    if any(gate.metric == "loss" for gate in gates) and not comparison.same_loss:
        raise UsageError(
            f"{compare_gates.OPTION} loss: the runs minimise different losses, or in different units; choose "
            "another metric"
        )
    missed = compare_gates.missed(
        gates,
        [(side.run, side.found.status, {**side.test, "train_seconds": side.seconds}) for side in comparison.sides],
    )
    if missed:
        raise GateMissed("\n".join(missed))


def _check(runs: list[Path], output: Path | None, landscape: Path | None, gated: bool) -> None:
    """Raises UsageError unless the command line can be carried out, before anything is computed."""
    if not runs:
        raise UsageError("compare needs runs: mlpcli compare RUN RUN; mlpcli runs lists them")
    if len(runs) == 1 and (landscape is None or output is not None or gated):
        alone = (
            "only --landscape is for one" if landscape is not None else "or draw its path with --landscape FILE"
        )
        raise UsageError(f"compare needs two runs or more, and {runs[0]} is one\n    name another, {alone}")
    if len(runs) > MOST:
        raise UsageError(f"compare takes at most {MOST} runs, and these are {len(runs)}")
    if output is not None and output.suffix.lower() != ".html":
        raise UsageError(f"-o {output}: the page is a file that ends in .html")
    if landscape is not None and landscape.suffix.lower() not in (".svg", ".png"):
        raise UsageError(f"--landscape {landscape}: the ending says the format of the picture: .svg or .png")
    for file in (output, landscape):
        if file is not None:
            check_folder(file)
