"""`mlpcli train`."""

import os
from collections.abc import Callable, Sequence
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer

from mlpcli.errors import Interrupted, UsageError
from mlpcli.launch import one_of_several, said_once
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
    seeds: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, help="Train with N seeds, from the config's on, and say how much results vary."
        ),
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(metavar="J", min=1, help="With --seeds: how many train at the same time (1).")
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    no_color: NoColor = False,
) -> None:
    """Train an MLP; prints the run directory and the final metrics.

    Exit codes: 0 done, 1 failed while running, 2 bad usage, config or data, 3 diverged, 130 after Ctrl-C and
    143 after SIGTERM, both after the state was saved. Continue with: mlpcli train --resume RUN

    With --seeds there is a run for each seed in one directory, which --resume continues likewise.

    Many processes train one run: torchrun --nproc-per-node 2 -m mlpcli train CONFIG
    """
    with said_once():
        overrides = _checked(config, overrides or [], resume, output, tensorboard)
        # before torch is imported: a wrong config is answered at once
        settings = load(config, overrides) if config is not None and resume is None else None
        of_seeds = resume is not None and os.path.exists(resume / "seeds.json")
        if not of_seeds and seeds is None and jobs is not None:
            raise UsageError("--jobs needs --seeds N")
        if seeds is not None and resume is not None and not of_seeds:
            raise UsageError(f"--seeds does not go with {resume}, which is no directory of several seeds")
        if (of_seeds or seeds is not None) and one_of_several():
            raise UsageError(
                "each seed trains in a process of its own, so --seeds does not go with torchrun\n"
                "    start mlpcli train --seeds N by itself; --jobs J trains J seeds at the same time"
            )
    if of_seeds or seeds is not None:
        from mlpcli.verbs import seeds as several

        options = several.Options(tensorboard, as_json, quiet, verbose)
        if settings is None:
            assert resume is not None
            several.resume(resume, overrides, seeds, jobs or 1, options)
        else:
            assert seeds is not None
            several.start(settings, seeds, jobs or 1, output, options)
        return

    from mlpcli import console, experiment, resuming
    from mlpcli.together import joined

    console.clean_up_on_signals()
    with joined() as ranks:
        console.set_up_logging(quiet, verbose, speaks=ranks.first)
        if settings is not None and ranks.restarted:
            asked = settings
            resume = ranks.share(lambda: resuming.begun_by_this_launch(output, asked))
        try:
            if resume is None:
                assert settings is not None
                training = experiment.start(settings, output, ranks)
            else:
                training = resuming.resume(resume, overrides or (), ranks)
        except KeyboardInterrupt:
            raise Interrupted("interrupted before the training began", 130) from None
        complete(training, tensorboard, quiet, lambda summary: _print_result(training.run.path, summary, as_json))


def _checked(
    config: str | None, overrides: Sequence[str], resume: Path | None, output: Path | None, tensorboard: bool
) -> list[str]:
    """The overrides, where these arguments go together."""
    if output is not None and output.resolve() == Path.cwd():
        raise UsageError("--output is the working directory, but a run makes a directory of its own")
    if tensorboard:
        from mlpcli.tensorboard import check_installed

        check_installed()
    if resume is None:
        if config is None:
            raise UsageError("train needs a CONFIG, or --resume RUN\n    for a first try: mlpcli train digits")
        return list(overrides)
    overrides = [argument for argument in (config, *overrides) if argument is not None]
    if output is not None:
        raise UsageError("--output does not go with --resume: a run continues in its own directory")
    not_overrides = [argument for argument in overrides if "=" not in argument and argument[:1] != "~"]
    if not_overrides:
        raise UsageError(
            f"--resume continues {resume} with its own config, so {not_overrides[0]!r} has no place here\n"
            "    leave it out; overrides are KEY=VALUE"
        )
    return overrides


def complete(
    training: Any,
    tensorboard: bool,
    quiet: bool,
    show: Callable[[dict[str, Any]], None] = lambda _summary: None,
    *,
    speaks: bool = True,
) -> None:
    """Train to the end, show the summary, and write what else the run is to have."""
    from mlpcli import console
    from mlpcli.config import to_plain
    from mlpcli.tensorboard import Board

    path, first = training.run.path, training.ranks.first
    boards = closing(Board(path, training.trainer.epoch)) if tensorboard and first else nullcontext()
    with boards as board:
        with closing(training.run):
            summary = console.fit(training, quiet, board, speaks=speaks)
        if not first:
            return
        show(summary)
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
            "report: %s",
            writing.report_of_training(path, training.config, training.whole_network(), training.dataset),
        )
    except KeyboardInterrupt:
        log.warning("the report was interrupted; the run is finished\n    write it with: mlpcli report %s", path)
    except Exception as error:
        log.warning("no report: %s\n    the run is finished; try: mlpcli report %s", error, path)
        log.debug("what went wrong", exc_info=True)
