"""The pieces into which a network cuts a segment of its input space, exactly: `plane`, in one dimension."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlpcli.regions.piecewise import Bits, Floats, Ints, PiecewiseAffine
from mlpcli.regions.resolution import FINEST, Rule

BLOCK_NUMBERS = 1 << 23
"""More preactivations are not held at a time: 64 MiB."""
STRAIGHT = 1e-12
"""Outputs that bend by less, relative to the largest of them, do not bend."""


@dataclass(frozen=True, eq=False)
class Pieces:
    """Intervals that fill a segment, on each of which the network is affine.

    Attributes:
        points: float64 (pieces + 1,), their ends, ascending.
        outputs: float64 (pieces + 1, outputs) of the network, there.
        makers: int64 (pieces + 1,), which hidden unit is zero there, counted over all layers; −1 at both ends.
        patterns: uint8 (pieces, bytes), which units are positive, see `PiecewiseAffine.unpack`.
        by_layer: pieces after each hidden layer.
    """

    points: Floats
    outputs: Floats
    makers: Ints
    patterns: Bits
    by_layer: list[int]

    def __len__(self) -> int:
        return len(self.patterns)

    @property
    def affine(self) -> int:
        """Affine regions: how many pieces there are once neighbours with the same affine map are one.

        The bend at a point is taken as far as the shorter of its pieces goes, so that what rounding does to the
        slope of a short one makes no bend.
        """
        lengths = np.diff(self.points)
        slopes = np.diff(self.outputs, axis=0) / lengths[:, None]
        bends = np.abs(np.diff(slopes, axis=0)).max(1, initial=0.0) * np.minimum(lengths[1:], lengths[:-1])
        return 1 + int(np.count_nonzero(bends > STRAIGHT * np.abs(self.outputs).max()))


def cut_line(network: PiecewiseAffine, origin: Floats, direction: Floats, low: float, high: float) -> Pieces:
    """The activation regions of a network on the segment origin + t direction, low ≤ t ≤ high.

    Args:
        network: of any depth and width.
        origin, direction: (inputs,), the direction is not 0.
        low, high: the ends, low < high.
    """
    return _Cutting(network).run(origin, direction, low, high)


@dataclass(frozen=True, eq=False)
class _Part:
    """A part of the segment before a layer.

    Attributes:
        points, makers: (vertices,).
        values: (vertices, inputs of the layer).
        codes: patterns (vertices − 1, bytes) of each layer before.
    """

    points: Floats
    makers: Ints
    values: Floats
    codes: tuple[Bits, ...] = ()

    def split(self, most: int) -> Iterator["_Part"]:
        """Parts of at most so many pieces, that share their ends."""
        for start in range(0, len(self.points) - 1, most):
            ends = slice(start, start + most + 1)
            codes = tuple(code[start : start + most] for code in self.codes)
            yield _Part(self.points[ends], self.makers[ends], self.values[ends], codes)


class _Cutting:
    def __init__(self, network: PiecewiseAffine) -> None:
        self.network = network
        self.rules = [Rule.of(network, layer, FINEST) for layer in range(len(network.slopes))]
        self.first_of_layer = np.cumsum([0, *network.hidden]).tolist()
        self.by_layer = [0] * len(network.slopes)

    def run(self, origin: Floats, direction: Floats, low: float, high: float) -> Pieces:
        points = np.array([low, high], dtype=np.float64)
        whole = _Part(points, np.array([-1, -1]), origin + points[:, None] * direction)
        parts: list[_Part] = []
        waiting = [(whole, 0)]
        while waiting:
            part, layer = waiting.pop()
            rows = part.values @ self.network.weights[layer].T + self.network.biases[layer]
            if layer == len(self.rules):
                parts.append(_Part(part.points, part.makers, rows, part.codes))
                continue
            cut = self._cut(part, layer, rows)
            self.by_layer[layer] += len(cut.points) - 1
            smaller = cut.split(max(1, BLOCK_NUMBERS // max(self.network.hidden)))
            waiting.extend((each, layer + 1) for each in reversed(list(smaller)))
        codes = [np.concatenate(layer) for layer in zip(*(part.codes for part in parts), strict=True)]
        count = sum(len(part.points) - 1 for part in parts)

        def joined(name: str) -> Any:
            ends = [getattr(part, name)[:-1] for part in parts]
            return np.concatenate([*ends, getattr(parts[-1], name)[-1:]])

        return Pieces(
            points=joined("points"),
            outputs=joined("values"),
            makers=joined("makers"),
            patterns=np.concatenate(codes, axis=1) if codes else np.zeros((count, 0), np.uint8),
            by_layer=self.by_layer,
        )

    def _cut(self, part: _Part, layer: int, rows: Floats) -> _Part:
        """The part cut by a layer with these preactivations, and behind its σ."""
        rule, lengths = self.rules[layer], np.linalg.norm(part.values, axis=1)
        rule.settle(rows, lengths)
        signs = np.sign(rows).astype(np.int8)
        if self.network.bends[layer]:
            pieces, units = np.nonzero(signs[:-1] * signs[1:] < 0)
        else:
            pieces = units = np.empty(0, np.int64)
        at_start = rows[pieces, units]
        share = at_start / (at_start - rows[pieces + 1, units])
        order = np.lexsort((share, pieces))
        pieces, units, share = pieces[order], units[order], share[order]
        added = rows[pieces] + share[:, None] * (rows[pieces + 1] - rows[pieces])
        count = np.arange(len(pieces))
        added[count, units] = 0.0
        rule.settle(added, lengths[pieces] + share * (lengths[pieces + 1] - lengths[pieces]))
        # units that are zero at one place make one point, at which all of them are zero
        again = np.zeros(len(pieces), bool)
        again[1:] = (pieces[1:] == pieces[:-1]) & (
            (added[count[:-1], units[1:]] == 0) | (added[count[1:], units[:-1]] == 0)
        )
        kept = np.flatnonzero(~again)
        added[kept[np.cumsum(~again) - 1], units] = 0.0
        pieces, units, share, added = pieces[kept], units[kept], share[kept], added[kept]
        points = part.points[pieces] + share * (part.points[pieces + 1] - part.points[pieces])
        places = np.concatenate((np.arange(len(rows)), pieces + 0.5))
        order = np.argsort(places, kind="stable")
        rows = np.concatenate((rows, added))[order]
        positive = np.packbits((rows > 0) & self.network.bends[layer], axis=1)
        origins = np.floor(places[order])[:-1].astype(np.int64)
        return _Part(
            points=np.concatenate((part.points, points))[order],
            makers=np.concatenate((part.makers, self.first_of_layer[layer] + units))[order],
            values=self.network.bend(layer, rows),
            codes=(*(code[origins] for code in part.codes), positive[:-1] | positive[1:]),
        )
