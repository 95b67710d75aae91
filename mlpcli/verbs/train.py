"""`mlpcli train`."""

from contextlib import closing, nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer

from mlpcli.errors import Interrupted, UsageError
from mlpcli.launch import said_once
from mlpcli.options import Json, NoColor, Overrides, Quiet, Verbose, print_json
from mlpcli.verbs.configs import load


def train(
    config: Annotated[
        str | None,
        typer.Argument(
            metavar="[CONFIG]",
            help="Path of a config, or the name of a starter (mlpcli init --list).",
            show_default=False,
        ),
    ] = None,
    overrides: Overrides = None,
    resume: Annotated[
        Path | None,
        typer.Option("--resume", metavar="RUN", help="Continue this run where its last checkpoint stands."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="DIR", help="Name the run directory (else runs/<name>)."),
    ] = None,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Also write RUN/tensorboard, for TensorBoard to show.")
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    no_color: NoColor = False,
) -> None:
    """Train an MLP; prints the run directory and the final metrics.

    Exit codes: 0 done, 1 failed while running, 2 bad usage, config or data, 3 diverged, 130 after Ctrl-C and
    143 after SIGTERM, both after the state was saved. Continue with: mlpcli train --resume RUN
    """
    if output is not None and output.resolve() == Path.cwd():
        raise UsageError("--output is the working directory, but a run makes a directory of its own")
    if tensorboard:
        from mlpcli.tensorboard import check_installed

        check_installed()
    if resume is not None:
        overrides = [argument for argument in (config, *(overrides or ())) if argument is not None]
        if output is not None:
            raise UsageError("--output does not go with --resume: a run continues in its own directory")
        not_overrides = [argument for argument in overrides if "=" not in argument and argument[:1] != "~"]
        if not_overrides:
            raise UsageError(
                f"--resume continues {resume} with its own config, so {not_overrides[0]!r} has no place here\n"
                "    leave it out; overrides are KEY=VALUE"
            )
    elif config is None:
        raise UsageError("train needs a CONFIG, or --resume RUN\n    for a first try: mlpcli train digits")
    else:
        # before torch is imported: a wrong config is answered at once
        with said_once():
            settings = load(config, overrides)

    from mlpcli import console, experiment, resuming
    from mlpcli.together import joined

    console.clean_up_on_signals()
    with joined() as ranks:
        console.set_up_logging(quiet, verbose, speaks=ranks.first)
        if resume is None and ranks.restarted:
            resume = ranks.share(lambda: resuming.begun_by_this_launch(output, settings.name or ""))
        try:
            if resume is None:
                training = experiment.start(settings, output, ranks)
            else:
                training = resuming.resume(resume, overrides or (), ranks)
        except KeyboardInterrupt:
            raise Interrupted("interrupted before the training began", 130) from None
        _run(training, tensorboard, quiet, as_json)


def _run(training: Any, tensorboard: bool, quiet: bool, as_json: bool) -> None:
    from mlpcli import console
    from mlpcli.config import to_plain
    from mlpcli.tensorboard import Board

    path, first = training.run.path, training.ranks.first
    boards = closing(Board(path, training.trainer.epoch)) if tensorboard and first else nullcontext()
    with boards as board:
        with closing(training.run):
            summary = console.fit(training, quiet, board)
        if not first:
            return
        _print_result(path, summary, as_json)
        if training.config.report:
            write_report_at_the_end(training)
        if board is not None:
            board.finish(to_plain(training.config), summary)


def _print_result(path: Path, summary: dict[str, Any], as_json: bool) -> None:
    from mlpcli import console

    if as_json:
        print_json({"run": str(path), **summary})
        return
    typer.echo(path)
    best = summary["best"]
    typer.echo(f"test {console.format_metrics(summary['test'])}")
    typer.echo(
        f"epoch {best['epoch']} of {summary['epochs']} was best by {best['monitor']}; "
        f"{summary['train_seconds']:.1f} s of training, {summary['samples_per_second'] or 0:,.0f} samples/s"
    )


def write_report_at_the_end(training: Any) -> None:
    """The report of a run that is finished, whatever becomes of the report: what fails here only warns."""
    from mlpcli.console import log

    path = training.run.path
    try:
        from mlpcli.report import writing

        log.info(
            "report: %s", writing.report_of_training(path, training.config, training.network, training.dataset)
        )
    except KeyboardInterrupt:
        log.warning("the report was interrupted; the run is finished\n    write it with: mlpcli report %s", path)
    except Exception as error:
        log.warning("no report: %s\n    the run is finished; try: mlpcli report %s", error, path)
        log.debug("what went wrong", exc_info=True)
