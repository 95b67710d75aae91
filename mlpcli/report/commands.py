"""The command `mlpcli report`. numpy, torch and jinja2 are imported only when it runs."""

import time
from pathlib import Path
from typing import Annotated

import typer

from mlpcli.options import Json, PlaceOverrides, Quiet, Verbose, print_json
from mlpcli.runs import METRICS, SUMMARY, is_being_trained, require_run

POLL_SECONDS = 1.0
"""How often `--watch` looks whether the run went on."""


def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.")],
    overrides: PlaceOverrides = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Write the page again after every epoch, until the run ends.")
    ] = False,
    landscape: Annotated[
        bool,
        typer.Option(
            "--landscape", help="Also draw the path of the kept checkpoints on a plane of the loss surface."
        ),
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Write report.html, plots/ and the model card README.md into a run directory.

    The page is one file that needs no network: curves, test metrics with intervals, mistakes, the network, the
    config. Of a run that was interrupted, diverged or is damaged it shows what there is, and says what is missing.
    """
    require_run(run)

    from mlpcli import console
    from mlpcli.report.writing import write_report
    from mlpcli.threads import flush_denormals

    console.clean_up_on_signals()
    console.set_up_logging(quiet, verbose)
    flush_denormals()
    with console.interrupted("the page is as it was last written"):
        if watch:
            _watch(run, overrides or [])
        file = write_report(run, overrides or (), landscape=landscape)
    if as_json:
        print_json({"report": str(file), "bytes": file.stat().st_size})
    else:
        typer.echo(file)


def _watch(run: Path, overrides: list[str]) -> None:
    """Write the page whenever the run went on, until nothing trains in it any more."""
    from mlpcli import console
    from mlpcli.report.writing import write_report

    seen = None
    while is_being_trained(run):
        state = _state(run)
        if state != seen:
            seen = state
            file = write_report(run, overrides, live=True)
            console.log.info("%s, written at %s", file, time.strftime("%H:%M:%S"))
        time.sleep(POLL_SECONDS)


def _state(run: Path) -> list[tuple[int, int] | None]:
    """What changes when the run goes on: sizes and times of its files."""
    found: list[tuple[int, int] | None] = []
    for name in (METRICS, SUMMARY):
        try:
            status = (run / name).stat()
            found.append((status.st_size, status.st_mtime_ns))
        except OSError:
            found.append(None)
    return found
