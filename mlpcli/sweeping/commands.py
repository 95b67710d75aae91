"""`mlpcli sweep`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlpcli.errors import FailedError, MlpcliError, UsageError
from mlpcli.options import Json, NoColor, Overrides, Quiet, Verbose, print_json
from mlpcli.sweeping import directory, text
from mlpcli.sweeping.directory import Place
from mlpcli.sweeping.storing import check_installed, opened

if TYPE_CHECKING:
    from mlpcli.config import SweepPlan

WHAT = "a config with a sweep section"


def sweep(
    config: Annotated[
        str | None,
        typer.Argument(
            metavar="[CONFIG]",
            help=f"Path of {WHAT}; with --status also the directory of a sweep.",
            show_default=False,
        ),
    ] = None,
    overrides: Overrides = None,
    resume: Annotated[
        Path | None,
        typer.Option(
            "--resume", metavar="DIR", help="Continue the sweep in DIR; sweep.trials=N plans more trials."
        ),
    ] = None,
    status: Annotated[
        bool, typer.Option("--status", help="Say how the sweep does, also while it runs, and train nothing.")
    ] = False,
    storage: Annotated[
        str | None,
        typer.Option(
            "--storage",
            metavar="URL",
            help="Count the trials in a database, which workers on many machines join by the same command.",
        ),
    ] = None,
    jobs: Annotated[
        int | None, typer.Option("--jobs", "-j", min=1, help="Trials at a time; else sweep.jobs.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="DIR", help="Name the sweep's directory (else sweeps/<name>)."),
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    no_color: NoColor = False,
) -> None:
    """Train a config many times with other values of some keys, and rank the trainings.

    Exit codes: 0 done, 1 no trial is complete, 2 bad usage, config or data, 130 after Ctrl-C and 143 after
    SIGTERM, both after every trial was saved. Continue with: mlpcli sweep --resume DIR
    """
    arguments = [argument for argument in (config, *(overrides or ())) if argument is not None]
    if status:
        _status(resume, arguments, storage, as_json)
        return
    if resume is not None:
        _check_resume(resume, arguments, output)
        place = directory.place_of(resume, storage)
        check_installed(place.url)
        plan = _plan(str(resume / directory.SWEEP), arguments)
        path: Path | None = resume
    elif config is None:
        raise UsageError(
            "sweep needs a CONFIG, or --resume DIR\n    the CONFIG has a sweep section: see docs/sweep.md"
        )
    else:
        if output is not None and output.resolve() == Path.cwd():
            raise UsageError("--output is the working directory, but a sweep makes a directory of its own")
        check_installed(storage)
        plan = _plan(config, overrides or [])
        place, path = Place(str(plan.config.name), storage), None
    from mlpcli import console
    from mlpcli.sweeping.running import run

    console.set_up_logging(quiet, verbose)
    path, cut_short = run(plan, place, path, output, jobs, quiet)
    _tell(plan, place, path, as_json, cut_short)


def _check_resume(resume: Path, arguments: list[str], output: Path | None) -> None:
    if output is not None:
        raise UsageError("--output does not go with --resume: a sweep continues in its own directory")
    wrong = [argument for argument in arguments if "=" not in argument and argument[:1] != "~"]
    if wrong:
        raise UsageError(
            f"--resume continues {resume} with its own config, so {wrong[0]!r} has no place here\n"
            "    leave it out; overrides are KEY=VALUE"
        )


def _plan(config: str, overrides: list[str]) -> "SweepPlan":
    """The plan of a file. Raises UsageError where it has no sweep."""
    from mlpcli import starters
    from mlpcli.config import load_plan

    plan = load_plan(starters.find(config), overrides)
    if plan.sweep is None:
        raise UsageError(
            f"{config} has no sweep section, so there is nothing to vary\n"
            "    for example: 'sweep={space: {optimizer.lr: {log_uniform: [0.001, 1]}}}'; see docs/sweep.md\n"
            f"    or train it once: mlpcli train {config}"
        )
    return plan


def _status(resume: Path | None, arguments: list[str], url: str | None, as_json: bool) -> None:
    target, *changes = [*([] if resume is None else [str(resume)]), *arguments] or [""]
    if not target:
        raise UsageError("--status needs the directory of a sweep, or its CONFIG and --storage URL")
    path = Path(target)
    if path.is_dir():
        place = directory.place_of(path, url)
        check_installed(place.url)
        plan = _plan(str(path / directory.SWEEP), changes)
    elif url is None:
        raise UsageError(
            f"--status: {target} is not the directory of a sweep\n    or give the CONFIG and --storage URL"
        )
    else:
        check_installed(url)
        plan = _plan(target, changes)
        place, path = Place(str(plan.config.name), url), Path()
    from mlpcli.sweeping.results import gathered
    from mlpcli.sweeping.study import known

    with opened(place, path) as storage:
        result = gathered(known(storage, place, plan), path)
    if as_json:
        print_json(text.as_plain(target, result))
    else:
        typer.echo(text.status(target, result))


def _tell(plan: "SweepPlan", place: Place, path: Path, as_json: bool, cut_short: MlpcliError | None) -> None:
    """Write the results, and print them unless something has cut the sweep short."""
    from mlpcli.sweeping import results
    from mlpcli.sweeping.study import known

    with opened(place, path) as storage:
        result = results.gathered(known(storage, place, plan), path, importances=True)
    results.write(path, result, plan)
    if cut_short is not None and text.counts(result).keys() & {"waiting", "running"}:
        raise cut_short
    if as_json:
        print_json(text.as_plain(str(path), result))
    else:
        typer.echo(text.summary(str(path), result))
    left = text.counts(result).get("waiting", 0)
    if left:
        typer.echo(f"{left} trials wait; continue with: mlpcli sweep --resume {path}", err=True)
    if not text.ranked(result):
        raise FailedError(f"no trial of {path} is complete\n    see why: mlpcli sweep --status {path}")
