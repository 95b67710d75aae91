"""What several commands take and do alike: options, arguments, and checks of them."""

import difflib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from mlpcli.errors import UsageError

Json = Annotated[bool, typer.Option("--json", help="Print exactly one JSON object on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Only warnings and errors on stderr.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="More details on stderr.")]


NoColor = Annotated[
    bool,
    typer.Option("--no-color", help="No colours in help and errors; nor with the environment variable NO_COLOR."),
]
"""`cli.main` has obeyed it before: Typer would see it after what it may have to say of other arguments."""

Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[KEY=VALUE ...]",
        help="Set a key of the config: optimizer.lr=0.05 'model.width=[512,256]'; '~scheduler' removes one.",
        show_default=False,
    ),
]
ConfigArgument = Annotated[
    str,
    typer.Argument(metavar="CONFIG", help="Path of a config, or the name of a starter (mlpcli init --list)."),
]

TargetArgument = Annotated[Path, typer.Argument(metavar="TARGET", help="A run directory or a checkpoint file.")]
CheckpointOption = Annotated[str, typer.Option(metavar="best|last", help="Which checkpoint of a run.")]
PlaceOverrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[KEY=VALUE ...]",
        help="Where the data or the device is now: data.root=DIR data.path=DIR training.device=cpu",
        show_default=False,
    ),
]
DeviceOption = Annotated[
    str | None, typer.Option(metavar="auto|cpu|cuda", help="Where to compute; else as in the training.")
]


def print_json(value: Any) -> None:
    """Print one JSON object on stdout."""
    typer.echo(json.dumps(value, indent=2, allow_nan=False))


def one_of(what: str, value: str, allowed: Sequence[str]) -> None:
    """Raises UsageError unless `value`, given for `what`, is `allowed`."""
    if value not in allowed:
        close = difflib.get_close_matches(value, allowed, n=1)
        hint = f"\n    did you mean {close[0]}?" if close else ""
        raise UsageError(f"{what}: {value!r} is not one of {', '.join(allowed)}{hint}")


def check_folder(output: Path) -> None:
    """Raises UsageError unless the folder of a file that will be written is there."""
    if not os.path.isdir(output.parent):
        raise UsageError(
            f"-o {output}: there is no folder {output.parent}\n    make it first: mkdir -p {output.parent}"
        )
