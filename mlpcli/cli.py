"""The verbs: parse, call, print, exit code. torch is imported only inside a command that needs it."""

import json
import math
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import closing, suppress
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from mlpcli import __version__
from mlpcli.autodiff.commands import app as autodiff
from mlpcli.errors import ConfigError, GateMissed, Interrupted, MlpcliError, UsageError
from mlpcli.options import (
    CheckpointOption,
    ConfigArgument,
    DeviceOption,
    Json,
    Overrides,
    PlaceOverrides,
    Quiet,
    TargetArgument,
    Verbose,
    check_folder,
    one_of,
    print_json,
)
from mlpcli.regions.commands import regions

app = typer.Typer(
    name="mlpcli",
    help="Train multi-layer perceptrons from a YAML file.\n\n"
    "Start with: mlpcli train digits — or write a config of your own: mlpcli init",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)
app.add_typer(autodiff)
app.command()(regions)


@app.command()
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
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Train an MLP; prints the run directory and the final metrics.

    Exit codes: 0 done, 1 failed while running, 2 bad usage, config or data, 3 diverged, 130 after Ctrl-C and
    143 after SIGTERM, both after the state was saved. Continue with: mlpcli train --resume RUN
    """
    if output is not None and output.resolve() == Path.cwd():
        raise UsageError("--output is the working directory, but a run makes a directory of its own")
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
        settings = _load(config, overrides)

    from mlpcli import console, experiment, resuming

    console.clean_up_on_signals()
    console.set_up_logging(quiet, verbose)
    try:
        training = resuming.resume(resume, overrides or ()) if resume else experiment.start(settings, output)
    except KeyboardInterrupt:
        raise Interrupted("interrupted before the training began", 130) from None
    with closing(training.run):
        summary = console.fit(training, quiet)
    if as_json:
        print_json({"run": str(training.run.path), **summary})
        return
    typer.echo(training.run.path)
    best = summary["best"]
    typer.echo(f"test {console.format_metrics(summary['test'])}")
    typer.echo(
        f"epoch {best['epoch']} of {summary['epochs']} was best by {best['monitor']}; "
        f"{summary['train_seconds']:.1f} s of training, {summary['samples_per_second'] or 0:,.0f} samples/s"
    )


def _load(config: str, overrides: Sequence[str] | None) -> Any:
    from mlpcli import starters
    from mlpcli.config import load_config

    return load_config(starters.find(config), overrides or ())


@app.command(name="eval")
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


@app.command()
def predict(
    target: TargetArgument,
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT...", help="Image files, folders of images, or tables (.csv, .tsv, .parquet); globs too."
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="Write FILE: .csv, .jsonl or .parquet; else CSV on stdout."
        ),
    ] = None,
    top: Annotated[int, typer.Option(metavar="K", min=1, help="Show the K most probable classes.")] = 1,
    checkpoint: CheckpointOption = "best",
    device: DeviceOption = None,
    on_bad_file: Annotated[
        str, typer.Option(metavar="error|skip", help="What a file or a row does that cannot be read.")
    ] = "error",
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Predict: a class with its probability, or values, for each image or row of a table, in order.

    The inputs are brought into the form of the training data as the training did it. Inputs of any size take
    bounded memory, unless --json prints their predictions.
    """
    one_of("--checkpoint", checkpoint, ("best", "last"))
    one_of("--on-bad-file", on_bad_file, ("error", "skip"))

    from mlpcli import console, predicting, prediction_files
    from mlpcli.network import open_target
    from mlpcli.threads import flush_denormals

    if output is not None:
        prediction_files.check_ending(output)
        check_folder(output)
    console.clean_up_on_signals()
    console.set_up_logging(quiet, verbose)
    flush_denormals()
    with console.interrupted("nothing was written" if output else "what was printed is not all"):
        config, network, _ = open_target(target, checkpoint, _on_device(device))
        chunks = predicting.predict(network, config, inputs, skip=on_bad_file == "skip", output=output)
        found = prediction_files.batches(chunks, network.description, top)
        if output is not None:
            count = prediction_files.write_file(found, output)
            if as_json:
                print_json({"output": str(output), "count": count})
            else:
                typer.echo(output)
                console.log.info("%s predictions", f"{count:,}")
        elif as_json:
            print_json({"predictions": [row for batch in found for row in prediction_files.plain(batch)]})
        else:
            for text in prediction_files.as_csv(found):
                sys.stdout.write(text)
            sys.stdout.flush()  # here, where a closed pipe ends the command quietly


@app.command()
def export(
    target: TargetArgument,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The file to write.")],
    overrides: PlaceOverrides = None,
    format: Annotated[
        str | None,
        typer.Option(metavar="onnx|pt2|safetensors", help="What to write; else the ending of FILE says it."),
    ] = None,
    checkpoint: CheckpointOption = "best",
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Write a model that runs without mlpcli, preprocessing included, after its outputs were compared with ours.

    onnx runs in ONNX Runtime, pt2 in PyTorch (torch.export); safetensors holds the weights alone.
    """
    one_of("--checkpoint", checkpoint, ("best", "last"))

    from mlpcli import console, exporting

    console.clean_up_on_signals()
    console.set_up_logging(quiet, verbose)
    check_folder(output)
    with console.interrupted("nothing was written"):
        result = exporting.export(target, output, format, which=checkpoint, overrides=overrides or ())
    if as_json:
        print_json(result)
    else:
        typer.echo(output)


def _on_device(device: str | None) -> list[str]:
    return [] if device is None else [f"training.device={device}"]


@app.command()
def check(
    config: ConfigArgument,
    overrides: Overrides = None,
    data: Annotated[bool, typer.Option("--data", help="Load the data too and describe it.")] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="With --data: draw training images with their labels, before and after augmentation, as a PNG.",
        ),
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Validate a config; print it resolved, with the layers, parameters, FLOPs and bytes of a step."""
    from mlpcli import checking, tables

    if output is not None and not data:
        raise UsageError("--output draws the data: add --data")
    settings = _load(config, overrides)
    if data:
        from mlpcli import console, looking

        console.clean_up_on_signals()
        console.set_up_logging(quiet, verbose)
        if output is not None:
            looking.check_drawn(settings, output)  # before the data is read, which may take a while
            check_folder(output)
        with console.interrupted("nothing was written"):
            settings, dataset = looking.load(settings)
            report = looking.describe(settings, dataset)
            if output is not None:
                looking.draw(settings, dataset, output)
    else:
        report = checking.describe(settings, checking.known_shape(settings))
    if as_json:
        print_json(report)
    else:
        typer.echo(tables.check(settings, report))


@app.command()
def init(
    path: Annotated[
        Path, typer.Argument(metavar="[PATH]", help="The file to write, or a directory to write it in.")
    ] = Path("config.yaml"),
    dataset: Annotated[str, typer.Option(metavar="NAME", help="A starter's name or a data set.")] = "digits",
    show: Annotated[bool, typer.Option("--list", help="List the starters and write nothing.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Write a commented starter config, and a JSON Schema beside it with which editors complete and check."""
    from mlpcli import starters

    if show:
        listed = {name: starters.summary(name) for name in starters.names()}
        if as_json:
            print_json(listed)
            return
        width = max(map(len, listed))
        for name, summary in listed.items():
            typer.echo(f"{name:<{width}}  {summary}")
        return
    from mlpcli.config import config_schema
    from mlpcli.runs import read_json, storage, to_json, write_whole

    file = path / "config.yaml" if os.path.isdir(path) else path
    schema = file.with_name("mlpcli.schema.json")
    text = starters.adapted(dataset)
    table = file.with_name(f"{dataset}.csv") if dataset in starters.WITH_TABLE else None
    if table is not None:
        text = text.replace(f"path: {table.name}", f"path: {json.dumps(str(table))}", 1)
        if os.path.lexists(table) and not force:
            raise UsageError(f"{table} already exists\n    choose another folder, or overwrite it with --force")
    if os.path.lexists(file) and not force:
        raise UsageError(f"{file} already exists\n    choose another name, or overwrite it with --force")
    if os.path.lexists(schema) and read_json(schema).get("title") != config_schema()["title"] and not force:
        raise UsageError(f"{schema} is not a schema of mlpcli\n    overwrite it with --force")
    with storage(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(schema, to_json(config_schema()))
        if table is not None:
            from mlpcli.starter_tables import as_csv

            write_whole(table, as_csv(dataset))
        write_whole(file, f"# yaml-language-server: $schema={schema.name}\n{text}".encode())
    if as_json:
        written = {"config": str(file), "schema": str(schema)}
        print_json(written if table is None else written | {"table": str(table)})
    else:
        typer.echo(file)
        if not quiet:
            if table is not None:
                typer.echo(f"its table: {table}", err=True)
            first = (
                ""
                if table or "\n  path:" not in text
                else "first set data.path to yours, and what depends on it; "
            )
            typer.echo(f"{first}train it with: mlpcli train {file}", err=True)
            if verbose:
                typer.echo(f"its schema, for editors: {schema}", err=True)


@app.command()
def schema(as_json: Json = False, quiet: Quiet = False, verbose: Verbose = False) -> None:
    """Print the JSON Schema of the config, for editors and other programs."""
    from mlpcli.config import config_schema

    print_json(config_schema())


@app.command()
def runs(
    directory: Annotated[Path, typer.Argument(metavar="[DIR]", help="Where the runs are.")] = Path("runs"),
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """List runs: status, epochs, time, and the metrics on the validation and the test split."""
    from mlpcli import tables
    from mlpcli.runs import list_runs

    found = list_runs(directory)
    if as_json:
        print_json({"runs": found})
    else:
        typer.echo(tables.runs(found))


@app.command()
def info(as_json: Json = False, quiet: Quiet = False, verbose: Verbose = False) -> None:
    """Show versions, devices, threads, and where things are."""
    from mlpcli import checking, tables

    facts = checking.machine()
    if as_json:
        print_json(facts)
    else:
        typer.echo(tables.facts(facts))


def _show_version(value: bool) -> None:
    if value:
        typer.echo(f"mlpcli {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options that go before the command."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with the promised code; a user's mistake never shows a traceback."""
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
        _fail(_message(error), error.exit_code)
    except OSError as error:  # of stdout, for one: wherever a file is opened, its errors are known
        where = f"{error.filename}: " if error.filename is not None else ""
        _fail(f"error: {where}{error.strerror or error}", 1)
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        _fail("error: not enough memory\n    try a smaller training.batch_size, model.width or data.limit", 1)
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


def _message(error: MlpcliError) -> str:
    """An error as it is shown: config problems open with their place, so that editors can jump to it."""
    if isinstance(error, ConfigError):
        count = len(error.problems)
        return f"{error}\n{count} problem{'s' if count > 1 else ''} in the config"
    return str(error) if isinstance(error, Interrupted) else f"error: {error}"


def _is_out_of_memory(error: BaseException) -> bool:
    text = str(error)
    return isinstance(error, MemoryError) or "out of memory" in text or "allocate memory" in text
