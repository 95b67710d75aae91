"""The command `mlpcli regions`. numpy and torch are imported only when it runs."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlpcli.errors import UsageError
from mlpcli.options import CheckpointOption, Json, Quiet, Verbose, check_folder, one_of

if TYPE_CHECKING:
    from mlpcli.regions.slices import Line, Plane, Samples
    from mlpcli.targets import Opened

Place = tuple[str, list[int]]

CURVES = (".svg", ".png")
PICTURES = (*CURVES, ".html")
ANIMATIONS = (*CURVES, ".gif", ".html")

LONGEST = 1e6
"""--extend: on a much longer segment, float64 does not tell the regions near the samples apart."""


def regions(
    target: Annotated[
        str,
        typer.Argument(
            metavar="TARGET|CONFIG",
            help="A run directory, a checkpoint; a config or the name of a starter for its initial weights.",
            show_default=False,
        ),
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE ...]",
            help="Set a key of a config, or where a run's data is: data.root=DIR",
            show_default=False,
        ),
    ] = None,
    plane: Annotated[
        str | None, typer.Option(metavar="I,J,K", help="The plane through these samples of the split.")
    ] = None,
    samples: Annotated[
        str | None,
        typer.Option(
            metavar="class|NAME,...",
            help="The plane through the first samples of three classes, or of the classes named.",
        ),
    ] = None,
    axes: Annotated[
        str | None,
        typer.Option(metavar="A,B", help="The plane along two inputs, by column name or number from 0."),
    ] = None,
    through: Annotated[
        int, typer.Option(metavar="I", min=0, help="With --axes: the sample that the plane goes through.")
    ] = 0,
    window: Annotated[
        float | None,
        typer.Option(metavar="SIDE", help="Side of the square that is cut, in the units on the picture."),
    ] = None,
    line: Annotated[
        str | None, typer.Option(metavar="I,J", help="Instead of a plane: the segment between two samples.")
    ] = None,
    extend: Annotated[
        float,
        typer.Option(metavar="T", min=0.0, help="With --line: go on at both ends, by T times its length."),
    ] = 0.0,
    at: Annotated[
        int | None,
        typer.Option(
            metavar="I", min=0, help="Instead: the affine map at a sample, and how far its region reaches."
        ),
    ] = None,
    history: Annotated[
        bool, typer.Option("--history", help="Count in every checkpoint that the run has kept.")
    ] = False,
    split: Annotated[
        str, typer.Option(metavar="train|validation|test", help="Where the samples are from.")
    ] = "test",
    checkpoint: CheckpointOption = "best",
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Draw it: .svg, .png, .html; a line .svg or .png; --history also .gif.",
        ),
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Cut a plane or a line of the input space into the regions on which a ReLU network is affine, exactly.

    Without options: two-dimensional inputs as they are, else the plane through the first samples of three classes.
    For relu, leaky_relu and identity, any depth and width.
    """
    one_of("--checkpoint", checkpoint, ("best", "last"))
    one_of("--split", split, ("train", "validation", "test"))
    ways = {"--plane": plane, "--samples": samples, "--axes": axes, "--line": line, "--at": at}
    given = [name for name, value in ways.items() if value is not None]
    if len(given) > 1:
        raise UsageError(f"{given[0]} and {given[1]} do not go together: choose one")
    if window is not None and not 0 < window < float("inf"):
        raise UsageError(f"--window {window:g}: a side is a positive number")
    if not extend <= LONGEST:
        raise UsageError(f"--extend {extend:g}: expected a number up to {LONGEST:,.0f}")
    for name, used, goes_with in (
        ("--window", window is not None, line is None and at is None),
        ("--extend", extend != 0, line is not None),
        ("--through", through != 0, axes is not None),
    ):
        if used and not goes_with:
            raise UsageError(f"{name} has no meaning {'with ' + given[0] if given else 'here'}")
    through_three = None if plane is None else _numbers("--plane", plane, 3)
    between = None if line is None else _numbers("--line", line, 2)
    _check_output(output, given, history)
    if at is not None and history:
        raise UsageError("--at does not go with --history")

    from mlpcli import console
    from mlpcli.regions.history import checkpoints_of
    from mlpcli.targets import open_any

    found = checkpoints_of(target) if history else []
    console.clean_up_on_signals()
    console.set_up_logging(quiet, verbose)
    overrides = ["training.device=cpu", *(overrides or ())]
    with console.interrupted("nothing was written" if output else "nothing was finished"):
        # a run without a best checkpoint has a history all the same
        opened = open_any(str(found[0][1]) if history else target, overrides, which=checkpoint)
        from mlpcli.regions import folding, slices

        folding.fold(opened.network.model)  # before the samples are looked at: whether there are regions at all
        of_split = slices.Samples(opened, split)
        if at is not None:
            _show_sample(opened, of_split, at, as_json)
            return
        place: Line | Plane
        if between is not None:
            place = slices.between_samples(opened, of_split, between, extend)
        elif axes is not None or (not given and slices.is_plane(opened)):
            place = _along_axes(opened, of_split, "0,1" if axes is None else axes, through, window)
        else:
            three = _of_classes(opened, of_split, samples) if through_three is None else through_three
            place = slices.through_samples(opened, of_split, three, window)
        if history:
            _show_history(opened, place, target, found, overrides, output, as_json)
        elif isinstance(place, slices.Line):
            _show_line(opened, place, output, as_json)
        else:
            _show_plane(opened, place, output, as_json)


def _numbers(option: str, text: str, count: int) -> list[int]:
    """Different numbers of samples, as many as asked for."""
    parts = [part.strip() for part in text.split(",")]
    if len(parts) != count or not all(part.isascii() and part.isdecimal() for part in parts):
        example = ",".join(map(str, range(count)))
        raise UsageError(f"{option} {text}: expected {count} numbers of samples, as in {option} {example}")
    numbers = [int(part) for part in parts]
    if len(set(numbers)) < count:
        raise UsageError(f"{option} {text}: expected {count} different samples")
    return numbers


def _check_output(output: Path | None, given: list[str], history: bool) -> None:
    """Raises UsageError unless the file can be what is drawn, before anything is computed."""
    if output is None:
        return
    if "--at" in given:
        raise UsageError(f"-o {output}: there is no picture of --at")
    allowed = CURVES if "--line" in given else ANIMATIONS if history else PICTURES
    if output.suffix.lower() not in allowed:
        raise UsageError(f"-o {output}: the ending says the format of the picture: {', '.join(allowed)}")
    check_folder(output)


def _of_classes(opened: "Opened", of_split: "Samples", samples: str | None) -> list[int]:
    if samples is None and not opened.network.description.classes:
        return [0, 1, 2]
    return of_split.of_classes("class" if samples is None else samples)


def _along_axes(opened: "Opened", of_split: "Samples", axes: str, through: int, window: float | None) -> "Plane":
    from mlpcli.regions import slices

    names = [name.strip() for name in axes.split(",")]
    if len(names) != 2:
        raise UsageError(f"--axes {axes}: expected two inputs, as in --axes 0,1")
    one, two = (slices.axis(opened, name) for name in names)
    return slices.along_axes(opened, of_split, (one, two), through, window)


def _print(report: dict[str, Any], text: str, as_json: bool) -> None:
    # on one line: indented, the coordinates of thousands of regions would take as many lines
    typer.echo(json.dumps(report, allow_nan=False) if as_json else text)


def _show_sample(opened: "Opened", of_split: "Samples", at: int, as_json: bool) -> None:
    from mlpcli.regions import study, text

    (x,) = of_split.prepared([at])
    report = study.at_sample(opened, x, f"{of_split.name} sample {of_split.text(at)}")
    _print(report, text.at(report), as_json)


def _show_plane(opened: "Opened", plane: "Plane", output: Path | None, as_json: bool) -> None:
    from mlpcli.regions import study, text

    view = study.view_of(opened, plane)
    report = study.of_plane(view)
    if output is not None:
        from mlpcli.regions import picture

        picture.draw(view, output)
    if as_json:
        report["cells"] = list(study.every_cell(view))
    _print(report, text.plane(report), as_json)


def _show_line(opened: "Opened", line: "Line", output: Path | None, as_json: bool) -> None:
    from mlpcli import plots
    from mlpcli.regions import study, text

    view = study.line_of(opened, line)
    report = study.of_line(view)
    if output is not None:
        plots.draw([study.line_panel(view)], line.text, output)
    _print(report, text.line(report), as_json)


def _show_history(
    opened: "Opened",
    place: "Line | Plane",
    target: str,
    found: list[tuple[int, Path]],
    overrides: list[str],
    output: Path | None,
    as_json: bool,
) -> None:
    from mlpcli import plots
    from mlpcli.regions import history, slices, study, text

    rows, views, captions = [], [], []
    animated = output is not None and output.suffix.lower() not in CURVES
    shown = history.frames(len(found)) if animated else set()
    for index, (epoch, then) in enumerate(history.through(opened, found, overrides)):
        if isinstance(place, slices.Line):
            counts = study.line_counts(study.line_of(then, place))
        else:
            view = study.view_of(then, place, target)
            counts = study.counts(view)
            if index in shown:
                views.append(view)
                captions.append(f"epoch {epoch}: {len(view.cells):,} regions")
        rows.append({"epoch": epoch, **counts})
    of = f"{target}, {place.text}"
    report = {"of": of, "epochs": rows}
    if output is not None and animated:
        from mlpcli.regions import picture

        picture.animate(views, captions, output)
    elif output is not None:
        where = "on the segment" if isinstance(place, slices.Line) else "in the window"
        plots.draw([history.panel(rows, where)], of, output)
    _print(report, text.history(report), as_json)
