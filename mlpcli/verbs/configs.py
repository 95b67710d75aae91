"""`mlpcli check`, `mlpcli init` and `mlpcli schema`: what there is to a training before it is one."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from mlpcli.errors import UsageError
from mlpcli.options import ConfigArgument, Json, Overrides, Quiet, Verbose, check_folder, print_json


def load(config: str, overrides: Sequence[str] | None) -> Any:
    """The config of a path or a starter's name, with overrides. Raises ConfigError, UsageError."""
    from mlpcli import starters
    from mlpcli.config import load_config

    return load_config(starters.find(config), overrides or ())


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
    from mlpcli import starters
    from mlpcli.config import load_plan

    plan = load_plan(starters.find(config), overrides or ())
    settings = plan.config
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
    if plan.sweep is not None:
        report["sweep"] = plan.sweep.model_dump(exclude_none=True)
    if as_json:
        print_json(report)
    else:
        typer.echo(tables.check(settings, report))


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


def schema(as_json: Json = False, quiet: Quiet = False, verbose: Verbose = False) -> None:
    """Print the JSON Schema of the config, for editors and other programs."""
    from mlpcli.config import config_schema

    print_json(config_schema())
