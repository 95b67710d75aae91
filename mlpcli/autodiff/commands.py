"""The commands of `mlpcli autodiff`. torch and sympy are imported only inside a command that needs them."""

import os
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated

import typer

from mlpcli.errors import FailedError, UsageError
from mlpcli.options import CheckpointOption, Json, Quiet, Verbose, one_of, print_json

app = typer.Typer(
    name="autodiff",
    help="How a gradient is computed: graphs, four ways to differentiate, and what each costs.",
    no_args_is_help=True,
)

ProgramArgument = Annotated[
    str,
    typer.Argument(
        metavar="PROGRAM", help="An expression, a file of assignments, or - for stdin.", show_default=False
    ),
]
AtOption = Annotated[
    list[str] | None,
    typer.Option("--at", metavar="NAME=NUMBER", help="The value of an input. Repeatable.", show_default=False),
]
OutputOption = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="FILE", help="Draw it: .svg, .png, .html, .dot, .mmd or .json."),
]

ObjectiveArgument = Annotated[
    str,
    typer.Argument(
        metavar="TARGET|CONFIG",
        help="A run directory or a checkpoint: its weights. A config or the name of a starter: the initial ones.",
        show_default=False,
    ),
]
OverridesArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE ...]", help="Set a key: model.activation=tanh.", show_default=False),
]
SamplesOption = Annotated[
    int, typer.Option(metavar="N", min=1, help="Samples of the training split, drawn by the config's seed.")
]
PlotOption = Annotated[
    Path | None, typer.Option("--output", "-o", metavar="FILE", help="Draw the curves: .svg or .png.")
]
MOST_BY = 8
"""Inputs by which `error` differentiates unasked."""


@app.command()
def graph(
    program: ProgramArgument,
    at: AtOption = None,
    forward: Annotated[
        str | None, typer.Option(metavar="NAME", help="Also the tangents in the direction of this input.")
    ] = None,
    output: OutputOption = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Build the graph of PROGRAM, run both passes, and compare the ways to its gradient.

    PROGRAM knows + - * / **, exp log sin cos tan tanh sqrt sigmoid relu abs max min, and the constants pi and e.
    """
    from mlpcli.autodiff import drawing, graph_text, programs
    from mlpcli.autodiff.graph import run

    found, values = programs.load(program, at or ())
    if output is not None:
        drawing.check_file(output, drawing.ENDINGS, len(found.nodes))
    done = run(found, values, None if forward is None else programs.direction(found, forward))

    from mlpcli.autodiff import methods

    report = {**drawing.described(done), **methods.described(found, methods.gradients(found, values))}
    if output is not None:
        drawing.draw(done, output)
    if as_json:
        print_json(report)
    else:
        typer.echo(graph_text.graph(report))


@app.command()
def model(
    target: ObjectiveArgument,
    overrides: OverridesArgument = None,
    samples: SamplesOption = 64,
    sample: Annotated[
        int | None, typer.Option(metavar="I", help="One sample of the training split, counted from 0, instead.")
    ] = None,
    checkpoint: CheckpointOption = "best",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Draw it: .svg, .png, .dot or .mmd.")
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Show a network's objective on a batch as a graph of layers, parameters and loss.

    With the RMS of each value and each adjoint: where gradients vanish or explode, and which units are dead.
    """
    from mlpcli.autodiff import network_text

    one_of("--checkpoint", checkpoint, ("best", "last"))
    if output is not None:
        from mlpcli.autodiff import formats

        formats.check_file(output, formats.FORMATS, 1)  # before the data is read, which may take a while

    from mlpcli import console
    from mlpcli.autodiff import network_graph
    from mlpcli.autodiff.wiring import open_objective

    console.clean_up_on_signals()
    console.set_up_logging(quiet, verbose)
    it = open_objective(target, overrides or (), which=checkpoint, samples=samples, sample=sample)
    found = network_graph.trace(it.model, it.loss, it.inputs, it.targets)
    report = {"of": it.of, "notes": it.notes, **found.to_plain()}
    if output is not None:
        formats.draw_diagram(network_graph.diagram(found, it.of), output)
    if as_json:
        print_json(report)
    else:
        typer.echo(network_text.model(report))


@app.command()
def check(
    target: ObjectiveArgument,
    overrides: OverridesArgument = None,
    samples: SamplesOption = 64,
    limit: Annotated[
        int,
        typer.Option(
            metavar="N", min=1, help="Forward propagation and finite differences take at most N coordinates."
        ),
    ] = 1000,
    checkpoint: CheckpointOption = "best",
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Compare the ways to the gradient of a network's objective, parameter by parameter.

    Exit codes: 0 all agree, 1 some do not, 2 bad usage, config or data.
    """
    from mlpcli.autodiff import network_text

    one_of("--checkpoint", checkpoint, ("best", "last"))

    from mlpcli import console
    from mlpcli.autodiff import gradient_check
    from mlpcli.autodiff.wiring import open_objective

    console.clean_up_on_signals()
    console.set_up_logging(quiet, verbose)
    it = open_objective(target, overrides or (), which=checkpoint, samples=samples)
    found = gradient_check.check(it.model, it.loss, it.inputs, it.targets, limit=limit, seed=it.seed)
    report = {"of": it.of, "notes": it.notes, **found.to_plain()}
    if as_json:
        print_json(report)
    else:
        typer.echo(network_text.check(report))
    if found.wrong:
        raise FailedError(found.complaint())


@app.command()
def error(
    program: Annotated[
        str,
        typer.Argument(
            metavar="PROGRAM|TARGET|CONFIG",
            help="An expression, a file of assignments, - for stdin; or a run, a checkpoint, a config, a starter.",
            show_default=False,
        ),
    ],
    overrides: OverridesArgument = None,
    at: AtOption = None,
    by: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only the derivative by this input of the program.")
    ] = None,
    samples: SamplesOption = 64,
    checkpoint: CheckpointOption = "best",
    output: PlotOption = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Show the error of finite differences and of the complex step against the step size, beside theory.

    For a program, its derivative by each input; for a network, that of its objective along a random direction of
    the parameters.
    """
    from mlpcli import plots
    from mlpcli.autodiff import programs

    one_of("--checkpoint", checkpoint, ("best", "last"))
    if output is not None:
        plots.check_ending(output)
    network = not at and by is None and _is_network(program)
    if not network:
        if overrides:
            raise UsageError(
                f"{overrides[0]!r} has no place here, because {program[:40]!r} is a program\n"
                f"    inputs get their values with --at {overrides[0]}"
            )
        _check_starter(program, at)
        graph, values = programs.load(program, at or ())
        names = _inputs(graph.inputs, by)

    from mlpcli import console
    from mlpcli.autodiff import error_study, error_text

    console.clean_up_on_signals()
    console.set_up_logging(quiet, verbose)
    if network:
        from mlpcli.autodiff.wiring import open_objective

        it = open_objective(program, overrides or (), which=checkpoint, samples=samples)
        of, notes = it.of, it.notes
        studies = [error_study.of_network(it.model, it.loss, it.inputs, it.targets, it.seed)]
    else:
        place = ", ".join(f"{name}={values[name]:g}" for name in graph.inputs)
        of, notes = f"{error_text.short(program)} at {place}", graph.notes
        studies = [error_study.of_program(graph, values, name) for name in names]
    if output is not None:
        plots.draw(error_text.panels(studies), of, output, columns=len(error_study.KINDS))
    if as_json:
        print_json({"of": of, "notes": notes, "studies": [error_text.plain(study) for study in studies]})
    else:
        typer.echo(error_text.text(of, notes, studies))


@app.command()
def cost(
    width: Annotated[
        str | None, typer.Option(metavar="W,W,...", help="Sweep these widths alone.", show_default=False)
    ] = None,
    depth: Annotated[
        str | None, typer.Option(metavar="L,L,...", help="Sweep these depths alone.", show_default=False)
    ] = None,
    inputs: Annotated[
        str | None,
        typer.Option(metavar="D,D,...", help="Sweep these numbers of inputs alone.", show_default=False),
    ] = None,
    jacobian: Annotated[
        str | None,
        typer.Option(
            metavar="N0,N1,...",
            help="Instead: the orders in which a chain of Jacobians between layers of these sizes is multiplied.",
            show_default=False,
        ),
    ] = None,
    output: PlotOption = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Count and measure a value and its gradient, four ways, for MLPs of growing width, depth and inputs.

    Without options it sweeps all three, which takes about ten seconds.
    """
    from dataclasses import replace

    from mlpcli import plots
    from mlpcli.autodiff import cost as costs
    from mlpcli.autodiff import cost_text, sizes

    asked = {"width": width, "depth": depth, "inputs": inputs}
    given = {name: sizes.sweep_values(name, text) for name, text in asked.items() if text is not None}
    if jacobian is not None:
        if given:
            raise UsageError(f"--{next(iter(given))} does not go with --jacobian, which sweeps nothing")
        if output is not None:
            raise UsageError(f"-o {output} draws the sweeps, and --jacobian has none")
        orders = cost_text.chain_report(sizes.chain_sizes(jacobian))
        if as_json:
            print_json(orders)
        else:
            typer.echo(cost_text.chain_text(orders))
        return
    if output is not None:
        plots.check_ending(output)
    sweeps = [replace(costs.SWEEPS[name], values=values) for name, values in given.items()]
    sweeps = sweeps or list(costs.SWEEPS.values())
    for sweep in sweeps:
        costs.check(sweep)

    from mlpcli import console

    console.clean_up_on_signals()
    console.set_up_logging(quiet, verbose)
    reports = [cost_text.sweep_report(sweep) for sweep in sweeps]
    if output is not None:
        plots.draw(cost_text.panels(reports), "Time of a value and of its gradient, of MLPs", output)
    if as_json:
        print_json({"sweeps": reports})
    else:
        typer.echo(cost_text.sweeps_text(reports))


def _is_network(target: str) -> bool:
    """Whether that is a run directory, a checkpoint, a config or a starter, and not a program."""
    from mlpcli import starters

    return (
        target in starters.names()
        or os.path.isdir(target)
        or Path(target).suffix.lower() in (".yaml", ".yml", ".pt")
    )


def _check_starter(program: str, at: Sequence[str] | None) -> None:
    """Raises UsageError where a starter seems to be misspelt: a program that is one name would be of no use."""
    from mlpcli import starters

    close = get_close_matches(program, starters.names(), n=1)
    if close and not at and program.isidentifier():
        raise UsageError(f"there is no starter config {program!r}\n    did you mean {close[0]}?")


def _inputs(names: Iterable[str], by: str | None) -> list[str]:
    """The inputs by which to differentiate."""
    found = list(names)
    if not found:
        raise UsageError("the program has no input that its value depends on, so it has no derivative")
    if by is not None:
        one_of("--by", by, found)
        return [by]
    if len(found) > MOST_BY:
        raise UsageError(f"the program has {len(found):,} inputs\n    choose one with --by {found[0]}")
    return found
