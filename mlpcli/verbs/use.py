"""`mlpcli predict` and `mlpcli export`: a trained model at work."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from mlpcli.options import (
    CheckpointOption,
    DeviceOption,
    Json,
    PlaceOverrides,
    Quiet,
    TargetArgument,
    Verbose,
    check_folder,
    one_of,
    print_json,
)


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
