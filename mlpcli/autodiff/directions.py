"""Directions in which a network's parameters are moved: coordinates, and random ones of all at once."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

UNIT: float = torch.finfo(torch.float64).eps / 2
STEP: float = (3 * UNIT) ** (1 / 3)
"""h of a central difference: what balances truncation and round-off where f and f‴ are of like size."""


@dataclass(frozen=True)
class Direction:
    """Where a parameter is moved.

    Attributes:
        name: of the parameter.
        origin: its value.
        index: of the coordinate along which it is moved, or None.
        spread: otherwise the direction, in its shape and of length 1.
    """

    name: str
    origin: Tensor
    index: int | None
    spread: Tensor | None = None

    @property
    def vector(self) -> Tensor:
        """In the parameter's shape."""
        if self.spread is not None:
            return self.spread
        vector = torch.zeros_like(self.origin)
        vector.view(-1)[self.index] = 1.0
        return vector

    def rate(self, gradient: Tensor) -> float:
        """Of change along it, by the gradient of the parameter."""
        if self.spread is not None:
            return float((gradient * self.spread).sum())
        return float(gradient.reshape(-1)[self.index].item())

    @property
    def step(self) -> float:
        """h."""
        return STEP if self.index is None else STEP * max(1.0, abs(float(self.origin.view(-1)[self.index])))

    def move(self, parameter: Tensor, by: float) -> None:
        """The parameter becomes its origin plus `by` along the direction."""
        if self.spread is not None:
            torch.add(self.origin, self.spread, alpha=by, out=parameter)
        else:
            parameter.view(-1)[self.index] = self.origin.view(-1)[self.index] + by


def directions(model: nn.Module, limit: int, generator: torch.Generator) -> Iterator[Direction]:
    """All coordinates, or, of a parameter that has more than its share of `limit`, a random direction of all its
    coordinates and as many of them as are its share."""
    held = _held(model)
    parameters = {name: p.detach().clone() for name, p in model.named_parameters()}
    free = {name: (~held[name]).view(-1).nonzero().view(-1) for name in parameters}
    left, open_ = limit, len(parameters)
    for name in sorted(parameters, key=lambda name: len(free[name])):
        share = max(1, left // open_)
        coordinates, origin = free[name], parameters[name]
        if len(coordinates) > share:
            drawn = torch.randperm(len(coordinates), generator=generator)[:share]
            coordinates = coordinates[drawn].sort().values
            spread = torch.randn(origin.shape, generator=generator, dtype=origin.dtype).to(origin.device)
            spread[held[name]] = 0.0
            yield Direction(name, origin, None, spread / spread.norm())
        for index in coordinates.tolist():
            yield Direction(name, origin, index)
        left, open_ = left - len(coordinates), open_ - 1


def _held(model: nn.Module) -> dict[str, Tensor]:
    """For each parameter, which of its coordinates are no variables: what a missing category becomes stays 0."""
    held = {name: torch.zeros_like(p, dtype=torch.bool) for name, p in model.named_parameters()}
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding) and module.padding_idx is not None:
            held[f"{name}.weight"][module.padding_idx] = True
    return held
