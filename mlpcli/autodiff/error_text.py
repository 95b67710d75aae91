"""What `autodiff error` prints and draws."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from mlpcli.autodiff.diagram import finite
from mlpcli.autodiff.difference_error import ErrorCurve, Sides
from mlpcli.autodiff.error_study import KINDS, Study
from mlpcli.plots import Curve, Panel
from mlpcli.tables import columns

PRIMES = ("f", "f′", "f″", "f‴", "f⁗", "f⁽⁵⁾")
LONGEST = 100
"""Letters of a program in a heading."""
THEORY = 4
"""The colour of theory, after those of the differences."""
NOTHING = Sides(None, None, None, None)
EXPLANATION = (
    "slopes of log error over log h, where truncation rules (large steps) and where round-off does (small ones)\n"
    "- : no such side, or too little of it between h = 1e-1 and 1e-16 to fit a line"
)


def plain(study: Study) -> dict[str, Any]:
    """A study for JSON, with its curves; what is not finite is null."""
    return {
        "by": study.by,
        "backward": study.backward,
        "derivatives": [finite(each) for each in study.derivatives],
        "curves": [
            {
                "difference": curve.difference,
                "type": curve.kind,
                "measured": _sides(curve.measured),
                "theory": None if curve.theory is None else _sides(curve.theory),
                "h": curve.h.tolist(),
                "error": [finite(each) for each in curve.error.tolist()],
            }
            for curve in study.curves
        ],
        "notes": list(study.notes),
    }


def _sides(sides: Sides) -> dict[str, float | None]:
    return {name: None if value is None else finite(value) for name, value in asdict(sides).items()}


def text(of: str, notes: Sequence[str], studies: Sequence[Study]) -> str:
    """Tables: what was measured beside what theory says.

    Args:
        of: the program and its point, or the objective.
        notes: on it.
        studies: of it.
    """
    return "\n\n".join(["\n".join([of, *(f"note: {note}" for note in notes)]), *map(_study, studies), EXPLANATION])


def short(program: str) -> str:
    """A program in a heading."""
    line = "stdin" if program == "-" else " ".join(program.split())
    return line if len(line) <= LONGEST else line[: LONGEST - 1] + "…"


def _study(study: Study) -> str:
    known = ", ".join(f"{name} = {value:.6g}" for name, value in zip(PRIMES, study.derivatives, strict=False))
    header = (
        "type",
        "difference",
        *("large h", "theory"),
        *("small h", "theory"),
        *("best h", "theory"),
        *("its error", "theory"),
    )
    parts = [f"by {study.by}: {known}"]
    if study.curves:
        parts.append(columns([_row(curve) for curve in study.curves], header))
    return "\n".join([*parts, *(f"note: {note}" for note in study.notes)])


def _row(curve: ErrorCurve) -> tuple[str, ...]:
    seen, theory = curve.measured, curve.theory or NOTHING
    return (
        curve.kind,
        curve.difference,
        _number(seen.truncation, "+.2f"),
        _number(theory.truncation, "+.0f"),
        _number(seen.round_off, "+.2f"),
        _number(theory.round_off, "+.0f"),
        _number(seen.step, ".1e"),
        _number(theory.step, ".1e"),
        _number(seen.error, ".1e"),
        _number(theory.error, ".1e"),
    )


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def panels(studies: Sequence[Study]) -> list[Panel]:
    """A row for each study, a column for each number type."""
    found = []
    for study in studies:
        for kind in KINDS:
            curves = [curve for curve in study.curves if curve.kind == kind]
            drawn = [
                Curve(curve.difference, curve.h.tolist(), curve.error.tolist(), colour)
                for colour, curve in enumerate(curves)
            ]
            theory = [
                Curve("theory", curve.h.tolist(), curve.predicted.tolist(), THEORY, "dashes")
                for curve in curves
                if curve.predicted is not None
            ]
            # the complex step first: where it truncates like central differences, those stand above it
            found.append(Panel(f"by {study.by}, {kind}", "step h", "error", (*reversed(drawn), *theory)))
    return found
