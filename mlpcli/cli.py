"""The command line: which verbs there are, what every process does at its start, and how it ends."""

import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from io import TextIOWrapper
from typing import Annotated, NoReturn

import typer

from mlpcli import __version__
from mlpcli.autodiff.commands import app as autodiff
from mlpcli.errors import MlpcliError, UsageError, in_words, message
from mlpcli.launch import one_of_several, said_once
from mlpcli.options import NoColor
from mlpcli.regions.commands import regions
from mlpcli.report.commands import report
from mlpcli.report.compare_command import compare
from mlpcli.sweeping.commands import sweep
from mlpcli.verbs.configs import check, init, schema
from mlpcli.verbs.evaluate import evaluate
from mlpcli.verbs.show import info, runs
from mlpcli.verbs.train import train
from mlpcli.verbs.use import export, predict

app = typer.Typer(
    name="mlpcli",
    help="Train multi-layer perceptrons from a YAML file.\n\n"
    "Start with: mlpcli train digits — or write a config of your own: mlpcli init",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)
app.command()(train)
app.command()(sweep)
app.command(name="eval")(evaluate)
for verb in (predict, export, check, init, schema, runs, compare, report):
    app.command()(verb)
app.add_typer(autodiff)
app.command()(regions)
app.command()(info)


def _show_version(value: bool) -> None:
    if value:
        typer.echo(f"mlpcli {__version__}")
        raise typer.Exit


@app.callback()
def options(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
    no_color: NoColor = False,
) -> None:
    """Options that go before the command."""
    if one_of_several() and context.invoked_subcommand != "train":
        with said_once():
            raise UsageError(
                f"mlpcli {context.invoked_subcommand} is for one process; torchrun is for mlpcli train\n"
                f"    start it as it is: mlpcli {context.invoked_subcommand}"
            )


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with the promised code; a user's mistake never shows a traceback."""
    if "--no-color" in (sys.argv if arguments is None else arguments):
        os.environ["NO_COLOR"] = "1"  # which what draws help and errors looks at, each time
    _open_standard_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # for terminals and pipes that are not UTF-8
    # Imports that Ctrl-C breaks off fail in strange ways, and until a run is made there is nothing to clean up.
    interruptible = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if interruptible:
        signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    try:
        app(arguments)
    except MlpcliError as error:
        _fail(message(error), error.exit_code)
    except Exception as error:
        known = in_words(error)
        if known is None:
            raise
        _fail(message(known), known.exit_code)
    finally:
        if interruptible:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def _open_standard_streams() -> None:
    """Give a process that was started without stdin, stdout or stderr ones that lead nowhere."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free, which is this one
            setattr(sys, name, open(number, "r" if number == 0 else "w", closefd=False))  # noqa: SIM115  # open to the end


def _fail(message: str, code: int) -> NoReturn:
    with suppress(OSError):  # there may be no one to tell
        typer.echo(message, err=True)
    sys.exit(code)
