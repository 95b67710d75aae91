"""Which plane or line of a network's input space: through samples, or along its own axes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from mlpcli.data import Preprocessing, Split
from mlpcli.errors import UsageError
from mlpcli.options import one_of
from mlpcli.regions.piecewise import Floats
from mlpcli.regions.view import MARK_FILLS, Mark
from mlpcli.targets import Opened

ROOM = 1.25
"""The window reaches so much further from its centre than the samples."""
MOST_TEXTS = 12
"""Samples that are named in a picture."""
MARGIN = 0.1
"""Of the range of a feature, on both sides."""
MOST_MARKS = 500
"""Samples that are marked where the plane is the whole input space."""
FLAT = 1e-9
"""Samples whose triangle is that thin, relative to its longest side, lie on a line."""
ZOOM = 1e9
"""A window may be so many times as large, or as small, as without --window; beyond, float64 tells little apart."""


@dataclass(frozen=True, eq=False)
class Plane:
    """A window of a plane of the network's input space: origin + u₁ basis₁ + u₂ basis₂.

    Attributes:
        text: which plane, for a person.
        x_label, y_label: of u₁ and u₂, with units.
        origin: (inputs,).
        basis: (2, inputs).
        window: (low u₁, low u₂, high u₁, high u₂).
        marks: samples that lie in it.
    """

    text: str
    x_label: str
    y_label: str
    origin: Floats
    basis: Floats
    window: tuple[float, float, float, float]
    marks: list[Mark]

    @property
    def corners(self) -> Floats:
        """(4, 2), counterclockwise."""
        left, bottom, right, top = self.window
        return np.array([[left, bottom], [right, bottom], [right, top], [left, top]])


@dataclass(frozen=True, eq=False)
class Line:
    """A segment of the network's input space: origin + t direction, low ≤ t ≤ high; samples are at 0 and `end`.

    Attributes:
        text: which one, for a person.
        label: of t, with its unit.
        origin: (inputs,).
        direction: (inputs,), of length 1.
        low, end, high: of t.
    """

    text: str
    label: str
    origin: Floats
    direction: Floats
    low: float
    end: float
    high: float


class Samples:
    """The samples of a split as the network sees them.

    Args:
        opened: a network with its data.
        name: of the split.
    """

    def __init__(self, opened: Opened, name: str) -> None:
        self.name = name
        self.network = opened.network
        self.split: Split = opened.split(name)

    def __len__(self) -> int:
        return len(self.split)

    def prepared(self, indices: Sequence[int]) -> Floats:
        """(n, inputs), float64.

        Raises:
            UsageError: there is no such sample.
        """
        for index in indices:
            if not 0 <= index < len(self):
                raise UsageError(
                    f"there is no {self.name} sample {index}: they are counted from 0 to {len(self) - 1}"
                )
        stored = torch.cat([self.split.take(torch.tensor([index])).inputs for index in indices])
        return self.network.preprocessing(stored, torch.float64).numpy()

    def text(self, index: int) -> str:
        """What a sample is: its number, and its class where it has one."""
        target = self.split.targets[index]
        classes = self.network.description.classes
        return f"{index}: {classes[int(target)]}" if classes else f"{index}"

    def short(self, index: int, among: int) -> tuple[str, int]:
        """The text of a sample, without one where it is among many; and its class, where there are few of them."""
        group = (
            int(self.split.targets[index]) if 0 < len(self.network.description.classes) <= len(MARK_FILLS) else 0
        )
        return (self.text(index) if among <= MOST_TEXTS else ""), group

    def of_classes(self, wanted: str) -> list[int]:
        """Three samples, the first ones of their classes.

        Args:
            wanted: `class` for the first three classes, or one to three names of classes, with commas between.

        Raises:
            UsageError: there is no such class, or it has not enough samples.
        """
        classes, targets = self.network.description.classes, self.split.targets
        if not classes:
            raise UsageError("--samples chooses by class, and these samples have none\n    use --plane 0,1,2")
        names = [name.strip() for name in wanted.split(",")]
        if names == ["class"]:
            present = [name for index, name in enumerate(classes) if bool((targets == index).any())][:3]
        else:
            present = [wanted] if wanted in classes else names
        for name in present:
            one_of("--samples", name, ("class", *classes) if len(present) == 1 else classes)
        if not 1 <= len(present) <= 3:
            raise UsageError(
                f"--samples {wanted}: a plane goes through three samples, so name one to three classes"
            )
        chosen: list[int] = []
        for name in [present[turn % len(present)] for turn in range(3)]:
            of_class = torch.nonzero(targets == classes.index(name)).flatten().tolist()
            free = [index for index in of_class if index not in chosen]
            if not free:
                raise UsageError(
                    f"the {self.name} split has too few samples of class {name!r} for --samples {wanted}"
                )
            chosen.append(free[0])
        return chosen


def unit(opened: Opened) -> str:
    """What a distance in the network's input space is measured in."""
    return "inputs" if opened.config.data.standardize == "none" else "standardised inputs"


def through_samples(opened: Opened, samples: Samples, indices: Sequence[int], side: float | None) -> Plane:
    """The plane through three samples: the first two on a horizontal line, the origin in their middle.

    Args:
        indices: three of them.
        side: of the square window; None for one that holds the samples.

    Raises:
        UsageError: they do not span a plane, or the window is far too large or small.
    """
    points = samples.prepared(indices)
    if points.shape[1] == 1:
        raise UsageError("this network has one input, so there is no plane\n    use --line 0,1")
    centre = points.mean(0)
    along, other = points[1] - points[0], points[2] - points[0]
    length = float(np.linalg.norm(along))
    across = other - along * (other @ along / length**2) if length else other
    height = float(np.linalg.norm(across))
    longest = max(length, float(np.linalg.norm(other)))
    numbers = ", ".join(map(str, indices))
    if longest == 0 or length <= FLAT * longest or height <= FLAT * longest:
        raise UsageError(
            f"the {samples.name} samples {numbers} lie on one line, so no plane is theirs\n"
            "    choose others with --plane, or --line"
        )
    basis = np.stack((along / length, across / height))
    places = (points - centre) @ basis.T
    half = ROOM * float(np.abs(places).max())
    if side is not None:
        _check_side(side, 2 * half)
        half = side / 2
    distance = f"in {unit(opened)}"
    return Plane(
        f"the plane through {samples.name} samples {numbers}",
        f"distance from the middle of the samples, {distance}",
        f"distance, {distance}",
        centre,
        basis,
        (-half, -half, half, half),
        [Mark(float(x), float(y), samples.text(index)) for (x, y), index in zip(places, indices, strict=True)],
    )


def _check_side(side: float, usual: float) -> None:
    """Raises UsageError where a window is so large or so small that the regions in it would be rounding errors."""
    if not usual / ZOOM <= side <= usual * ZOOM:
        raise UsageError(
            f"--window {side:g}: too {'large' if side > usual else 'small'} for float64 to tell regions apart\n"
            f"    without --window it is {usual:.4g} wide"
        )


def is_plane(opened: Opened) -> bool:
    """Whether the input space is that of two numbers: a column with its missing values has two inputs, too."""
    network = opened.network
    if isinstance(network.preprocessing, Preprocessing):
        return network.description.features == 2
    return network.description.features == len(network.preprocessing.number_columns) == 2


@dataclass(frozen=True)
class Axis:
    """One input of the network, which is (x − shift)·scale for the stored x.

    Attributes:
        position: of the input.
        column: of the stored x.
        name: for a person.
    """

    position: int
    column: int
    name: str
    shift: float
    scale: float


def axis(opened: Opened, text: str) -> Axis:
    """The input that a person names by its column or its number, counted from 0.

    Raises:
        UsageError: there is none, or it is no number.
    """
    network, about = opened.network, opened.network.description
    encoding = network.preprocessing
    if isinstance(encoding, Preprocessing):
        names = [column.name for column in about.columns]
        if text in names:
            position = names.index(text)
        elif text.isdecimal() and int(text) < about.features:
            position = int(text)
        else:
            known = f" or one of {', '.join(names)}" if names else ""
            raise UsageError(
                f"--axes: {text!r} is no input; they are counted from 0 to {about.features - 1}{known}"
            )
        name = names[position] if names else f"input {position}"
        if len(about.input_shape) == 3 and network.extraction is None:
            _, height, width = about.input_shape
            channel, rest = divmod(position, height * width)
            name = f"pixel ({rest // width}, {rest % width})" + (
                f" of channel {channel}" if about.input_shape[0] > 1 else ""
            )
        shift, scale = (
            values.expand(about.features)[position].item() for values in (encoding.shift, encoding.scale)
        )
        return Axis(position, position, name, shift, scale)
    columns = encoding.number_columns.tolist()
    names = [about.columns[column].name for column in columns]
    if text not in names and not (text.isdecimal() and int(text) < len(names)):
        raise UsageError(f"--axes: {text!r} is no column of numbers; there are {', '.join(names) or 'none'}")
    position = names.index(text) if text in names else int(text)
    shift, scale = float(encoding.shift[position]), float(encoding.scale[position])
    return Axis(position, columns[position], names[position], shift, scale)


def along_axes(
    opened: Opened, samples: Samples, axes: tuple[Axis, Axis], through: int, side: float | None
) -> Plane:
    """The plane through a sample along two inputs, in the units in which they are stored.

    Args:
        axes: which two.
        through: the sample.
        side: of the square window around the sample; None for the range of the split, with a margin.

    Raises:
        UsageError: there is no such sample, both axes are one, or the window is far too large or small.
    """
    if axes[0].position == axes[1].position:
        raise UsageError(f"--axes names {axes[0].name} twice, and a plane has two axes")
    (point,) = samples.prepared([through])
    stored = [(float(point[each.position]) / each.scale) + each.shift for each in axes]
    origin, basis = point.copy(), np.zeros((2, len(point)))
    for row, each in enumerate(axes):
        origin[each.position] = -each.shift * each.scale
        basis[row, each.position] = each.scale
    whole_space = len(point) == 2
    ranges = [_with_margin(_range(samples.split, each.column)) for each in axes]
    if side is not None:
        _check_side(side, max(high - low for low, high in ranges))
        middles = [(low + high) / 2 for low, high in ranges] if whole_space else stored
        ranges = [(middle - side / 2, middle + side / 2) for middle in middles]
    (left, right), (bottom, top) = ranges
    marks = [Mark(stored[0], stored[1], samples.text(through))]
    text = f"the plane through {samples.name} sample {through} along {axes[0].name} and {axes[1].name}"
    if whole_space:
        text = f"the input space, with the {samples.name} samples"
        shown = np.unique(np.linspace(0, len(samples) - 1, min(len(samples), MOST_MARKS)).astype(int)).tolist()
        values = samples.split.take(torch.tensor(shown)).inputs
        marks = [
            Mark(float(row[axes[0].column]), float(row[axes[1].column]), *samples.short(index, len(shown)))
            for index, row in zip(shown, values, strict=True)
            if not row.isnan().any()
        ]
    return Plane(text, axes[0].name, axes[1].name, origin, basis, (left, bottom, right, top), marks)


def _range(split: Split, column: int) -> tuple[float, float]:
    """Of the values of a column that are not missing."""
    low, high = np.inf, -np.inf
    for inputs, _ in split.chunks():
        values = inputs[:, column].double()
        values = values[~values.isnan()]
        if len(values):
            low, high = min(low, float(values.min())), max(high, float(values.max()))
    return (low, high) if low <= high else (0.0, 0.0)


def _with_margin(ends: tuple[float, float]) -> tuple[float, float]:
    low, high = ends
    room = MARGIN * (high - low) if high > low else max(1.0, abs(low)) / 2
    return low - room, high + room


def between_samples(opened: Opened, samples: Samples, indices: Sequence[int], extend: float) -> Line:
    """The segment between two samples, longer at both ends by `extend` times its length.

    Raises:
        UsageError: they are one point.
    """
    start, end = samples.prepared(indices)
    length = float(np.linalg.norm(end - start))
    one, two = indices
    if length == 0:
        raise UsageError(f"the {samples.name} samples {one} and {two} are the same point\n    choose others")
    extended = f", {extend:g} times its length further at both ends" if extend else ""
    return Line(
        f"the segment from {samples.name} sample {samples.text(one)} to {samples.text(two)}{extended}",
        f"distance from sample {one}, in {unit(opened)}",
        start,
        (end - start) / length,
        0.0 - extend * length,
        length,
        (1 + extend) * length,
    )
