"""The paths of trainings on a plane of the loss surface, as Li et al. (2018) draw them.

The kept checkpoints of the runs are points in the space of the parameters. The plane goes through the last one
of the first run, along the two principal components of all of them; the objective is computed on a grid in it,
and the paths are projected onto it. "Visualizing the Loss Landscape of Neural Nets", https://arxiv.org/abs/1712.09913.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from mlpcli.errors import UsageError
from mlpcli.network import Network, open_target
from mlpcli.report import landscape_picture
from mlpcli.report.landscape_picture import Surface, Trail
from mlpcli.runs import kept_checkpoints, read_metrics, require_run
from mlpcli.targets import Opened, open_any

log = logging.getLogger("mlpcli")

Floats = NDArray[np.float64]

ANYWHERE = "training.device=auto"
"""The device that there is, wherever the runs were trained."""
SAMPLES = 2048
"""Of the training split, on which the objective is computed."""
PRODUCTS, FEWEST_SAMPLES = 2**27, 256
"""Samples times parameters: of a large network fewer samples are used, so that a picture takes seconds."""
NODES = 35
"""Of the grid along its longer side."""
FEWEST = 3
"""Kept checkpoints of a run: fewer than three points have no plane."""
MOST, MOST_NUMBERS = 200, 2**27
"""Checkpoints of a run that are used, and numbers of all of them in memory; of more, some evenly spread."""
MARGIN = 0.22
"""Of the longer side of the paths' extent, around them."""
NARROWEST = 0.55
"""The shorter side of the window, as a share of the longer one."""


@dataclass(frozen=True, eq=False)
class Plane:
    """A plane in the space of the parameters.

    Attributes:
        origin: (parameters,), the last point of the first run.
        directions: (2, parameters), orthonormal; the origin plus x times the first plus y times the second.
        shares: (2, points), the same directions as sums of the points minus the origin.
        explained: (2,), shares of the points' variance along the directions.
    """

    origin: Floats
    directions: Floats
    shares: Floats
    explained: Floats

    def project(self, points: Floats) -> Floats:
        """(points, parameters) -> (points, 2): the feet of the perpendiculars."""
        coordinates: Floats = (points - self.origin) @ self.directions.T
        return coordinates


def plane_of(points: Floats, origin: Floats) -> Plane:
    """The plane through `origin` along the principal components of the points (points, parameters).

    Raises:
        UsageError: all points are one, or the space has a single dimension.
    """
    if points.shape[1] < 2:
        raise UsageError("a model with a single parameter has no plane of parameters")
    centred = points - points.mean(0)
    left, lengths, right = np.linalg.svd(centred, full_matrices=False)
    if not lengths[0] > 0:
        raise UsageError("the weights are the same in every kept checkpoint, so there is no path to draw")
    signs = np.where(
        (points[0] - origin) @ right[:2].T > 0, -1.0, 1.0
    )  # the first path begins at negative numbers
    # where all points are on a line, the second direction is any that is perpendicular to it
    lasting = lengths[:2] > 1e-12 * lengths[0]
    shares = np.where(lasting, signs / np.where(lasting, lengths[:2], 1.0), 0.0)[:, None] * left[:, :2].T
    explained = lengths**2 / float((lengths**2).sum())
    return Plane(origin, signs[:, None] * right[:2], shares, explained[:2])


@dataclass(frozen=True, eq=False)
class _Kept:
    """A run's kept checkpoints: parameters and floating-point buffers (checkpoints, numbers), one a row."""

    epochs: list[int]
    parameters: Floats
    buffers: Floats


class Objective:
    """The objective as a function of the parameters, on fixed samples, in evaluation mode, without dropout.

    Args:
        network: its model is overwritten.
        inputs: (n, features), as the model sees them.
        targets: of its loss.
    """

    def __init__(self, network: Network, inputs: Tensor, targets: Tensor) -> None:
        self.network, self.inputs, self.targets = network, inputs, targets
        network.model.eval()

    def vector(self, parameters: Floats) -> Tensor:
        """A point as the network has its parameters."""
        return torch.from_numpy(parameters).to(self.inputs)

    @torch.no_grad()
    def __call__(self, parameters: Tensor, buffers: Floats) -> float:
        """At one point."""
        model = self.network.model
        vector_to_parameters(parameters, model.parameters())
        at = 0
        for name, buffer in _float_buffers(model):
            values = torch.from_numpy(buffers[at : at + buffer.numel()]).view(buffer.shape)
            # beyond the checkpoints a variance on a line through them may be negative
            buffer.copy_(values.clamp(min=0) if name.endswith("running_var") else values)
            at += buffer.numel()
        return float(self.network.loss(model(self.inputs), self.targets))


def landscape(
    runs: Sequence[Path],
    output: Path,
    overrides: Sequence[str] = (),
    samples: int = SAMPLES,
    nodes: int = NODES,
) -> dict[str, Any]:
    """Draw the paths of runs on a plane of the loss surface.

    Args:
        runs: run directories with kept checkpoints and of one architecture. The plane goes through the end of the
            first, and the objective is that of the first: its loss, on its training split.
        output: .svg or .png.
        overrides: KEY=VALUE that say where the data is now.
        samples: of the training split at most, evenly spread over it.
        nodes: of the grid along its longer side.

    Returns:
        Plain values: the paths' coordinates and losses, the shares of the variance, and what the picture says.

    Raises:
        UsageError: another ending; a run kept fewer than three checkpoints; the architectures differ.
        UserError: a run, a checkpoint or the data is absent or damaged.
    """
    landscape_picture.check_ending(output)
    surface = survey(runs, overrides, samples, nodes)
    width, height = landscape_picture.draw(surface, output)
    return {
        "file": str(output),
        "width": width,
        "height": height,
        "samples": surface.samples,
        "loss": surface.loss,
        "explained_variance": [float(share) for share in surface.explained],
        "levels": surface.levels,
        "paths": [
            {
                "run": trail.name,
                "epochs": trail.epochs,
                "coordinates": trail.coordinates.tolist(),
                "losses": [value if np.isfinite(value) else None for value in trail.losses],
            }
            for trail in surface.trails
        ],
    }


def survey(
    runs: Sequence[Path], overrides: Sequence[str] = (), samples: int = SAMPLES, nodes: int = NODES
) -> Surface:
    """The paths, and the objective on a grid around them; see `landscape`."""
    files = [_files(run) for run in runs]
    opened = open_any(str(files[0][-1][1]), [ANYWHERE, *overrides])
    size = sum(each.numel() for each in opened.network.model.parameters())
    most = max(FEWEST, min(MOST, MOST_NUMBERS // (size * len(runs))))
    kept = [_read(run, _spread(found, most), opened) for run, found in zip(runs, files, strict=True)]
    points = np.concatenate([each.parameters for each in kept])
    plane = plane_of(points, kept[0].parameters[-1])
    end = kept[0].buffers[-1]
    buffer_directions = plane.shares @ (np.concatenate([each.buffers for each in kept]) - end)

    objective, used, of = _objective(opened, min(samples, max(FEWEST_SAMPLES, PRODUCTS // size)))
    coordinates = [plane.project(each.parameters) for each in kept]
    x, y = _grid(np.concatenate(coordinates), nodes)
    log.info("computing the objective at %s points", f"{len(x) * len(y):,}")
    # in the type of the network: in float64 adding up a point would take as long as the objective there
    origin, along_x, along_y = (objective.vector(each) for each in (plane.origin, *plane.directions))
    z = np.empty((len(y), len(x)))
    for row, up in enumerate(y.tolist()):
        of_row = origin + up * along_y
        for column, right in enumerate(x.tolist()):
            buffers = end + right * buffer_directions[0] + up * buffer_directions[1]
            z[row, column] = objective(torch.add(of_row, along_x, alpha=right), buffers)
    trails = [
        Trail(
            str(run),
            each.epochs,
            projected,
            [
                objective(objective.vector(parameters), buffers)
                for parameters, buffers in zip(each.parameters, each.buffers, strict=True)
            ],
        )
        for run, each, projected in zip(runs, kept, coordinates, strict=True)
    ]
    loss = opened.network.loss.name
    of_first = " of A" if len(runs) > 1 else ""
    about = f"{loss}{of_first} on {used:,}{of} training samples, evaluation mode; paths projected onto the plane"
    return Surface(
        trails, x, y, _finite(z), (float(plane.explained[0]), float(plane.explained[1])), loss, used, about
    )


def _files(run: Path) -> list[tuple[int, Path]]:
    """The epochs that a run has kept so far, each with its checkpoint; at least FEWEST."""
    require_run(run)
    done = max((line["epoch"] for line in read_metrics(run)), default=0)
    found = [(epoch, file) for epoch, file in kept_checkpoints(run) if epoch <= done]
    if len(found) < FEWEST:
        count = f"{len(found)} checkpoint{'' if len(found) == 1 else 's'}" if found else "no checkpoints"
        raise UsageError(
            f"{run} has kept {count}, and its path needs {FEWEST} or more\n"
            "    train with training.keep_checkpoints=20"
        )
    return found


def _spread(files: Sequence[tuple[int, Path]], most: int) -> list[tuple[int, Path]]:
    """At most that many of them, the first and the last among them."""
    count = min(len(files), most)
    return [files[index * (len(files) - 1) // (count - 1)] for index in range(count)]


def _read(run: Path, files: Sequence[tuple[int, Path]], first: Opened) -> _Kept:
    parameters: list[Floats] = []
    buffers: list[Floats] = []
    for _, file in files:
        config, network, _ = open_target(file, "last", [ANYWHERE])
        if _architecture(network.model) != _architecture(first.network.model):
            raise UsageError(
                f"{run} is a network of another architecture than that of {first.of}\n"
                "    paths can share a plane only where the parameters mean the same; compare runs of one model"
            )
        if not parameters:
            other_data = network.description.fingerprint != first.network.description.fingerprint
            for what, differs in (("data", other_data), ("loss", config.loss != first.config.loss)):
                if differs:
                    log.warning("%s has another %s than %s, whose objective is drawn", run, what, first.of)
        parameters.append(parameters_to_vector(network.model.parameters()).detach().double().cpu().numpy())
        floating = [buffer.double().cpu().reshape(-1) for _, buffer in _float_buffers(network.model)]
        buffers.append(torch.cat([torch.empty(0, dtype=torch.float64), *floating]).numpy())
    return _Kept([epoch for epoch, _ in files], np.stack(parameters), np.stack(buffers))


def _architecture(model: nn.Sequential) -> list[str]:
    """What decides what the parameters mean: layers without dropout, which has none, and the shapes of all."""
    layers = [repr(layer) for layer in model if not isinstance(layer, nn.Dropout)]
    return [*layers, *(str(tuple(each.shape)) for each in model.parameters())]


def _float_buffers(model: nn.Module) -> list[tuple[str, Tensor]]:
    """Running statistics, and whatever else is no parameter and no count."""
    return [(name, buffer) for name, buffer in model.named_buffers() if buffer.is_floating_point()]


def _objective(opened: Opened, samples: int) -> tuple[Objective, int, str]:
    """The objective, its number of samples, and how that is said where it is not all of them."""
    split = opened.split("train")
    total = len(split)
    used = min(samples, total)
    split = split.take(torch.linspace(0, total - 1, used, dtype=torch.float64).long())
    inputs, targets = next(iter(opened.network.batches(split, used).epoch(0)))
    objective = Objective(opened.network, inputs.clone(), targets.clone())
    return objective, used, f" of {total:,}" if used < total else ""


def _grid(points: Floats, nodes: int) -> tuple[Floats, Floats]:
    """Places along both axes, of one scale, that hold the points (points, 2) with a margin."""
    low, high = points.min(0), points.max(0)
    longer = float((high - low).max())
    sides = np.maximum(high - low + 2 * MARGIN * longer, NARROWEST * longer * (1 + 2 * MARGIN))
    middle = (low + high) / 2
    counts = np.maximum(2, np.ceil(nodes * sides / sides.max())).astype(int)
    one, other = (
        np.linspace(middle[axis] - sides[axis] / 2, middle[axis] + sides[axis] / 2, counts[axis])
        for axis in (0, 1)
    )
    return one, other


def _finite(z: Floats) -> Floats:
    """What overflows counts as the largest that does not.

    Raises:
        UsageError: nothing is finite.
    """
    finite = np.isfinite(z)
    if not finite.any():
        raise UsageError("the objective is nowhere finite around these paths, so there is nothing to draw")
    return np.where(finite, z, z[finite].max())
