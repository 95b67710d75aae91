"""`mlpcli runs` and `mlpcli info`."""

from pathlib import Path
from typing import Annotated

import typer

from mlpcli.options import Json, Quiet, Verbose, print_json


def runs(
    directory: Annotated[Path, typer.Argument(metavar="[DIR]", help="Where the runs are.")] = Path("runs"),
    sort: Annotated[
        str | None,
        typer.Option(
            metavar="KEY",
            help="A metric (best first), path, status, started, epochs, seconds, or a key of the config.",
        ),
    ] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE", help="Only runs for which this holds; also != >= <= > <, in quotes. Repeatable."
        ),
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """List runs: status, epochs, time, and the metrics on the validation and the test split.

    For example: mlpcli runs --sort accuracy --where status=finished --where optimizer.name=sgd
    """
    from mlpcli import listing, tables
    from mlpcli.runs import list_runs

    conditions = [listing.parse_condition(text) for text in where or ()]
    if sort is not None:
        listing.check_key("--sort", sort)
    every = list_runs(directory)
    found = listing.listed(every, conditions, sort)
    if as_json:
        print_json({"runs": found})
    elif every and not found:
        typer.echo(f"none of {len(every)} runs is like that")
    else:
        keys = dict.fromkeys([condition.key for condition in conditions] + ([sort] if sort else []))
        values = {key: [listing.value_of(run, key) for run in found] for key in keys if key not in listing.OWN}
        typer.echo(tables.runs(found, values))


def info(as_json: Json = False, quiet: Quiet = False, verbose: Verbose = False) -> None:
    """Show versions, devices, threads, and where things are."""
    from mlpcli import checking, tables

    facts = checking.machine()
    if as_json:
        print_json(facts)
    else:
        typer.echo(tables.facts(facts))
