"""A piecewise affine network as plain arrays: what the algorithms of this package work on."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bits = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class PiecewiseAffine:
    """x^(l+1) = σ(W^(l) x^(l) + b^(l)) with σ(z) = z for z > 0 and slope·z else, and no σ after the last layer.

    Attributes:
        weights: float64 (outputs, inputs) of each affine layer.
        biases: float64 (outputs,) of each affine layer.
        slopes: of σ below 0, one for each layer but the last: 0 is relu, 1 the identity.
    """

    weights: Sequence[Floats]
    biases: Sequence[Floats]
    slopes: Sequence[float]

    def __post_init__(self) -> None:
        sizes = [weight.shape[0] for weight in self.weights]
        if len(self.biases) != len(self.weights) or len(self.slopes) != len(self.weights) - 1:
            raise ValueError("one bias a layer, and one slope a layer but the last")
        if any(bias.shape != (size,) for bias, size in zip(self.biases, sizes, strict=True)):
            raise ValueError("a bias that does not fit its weights")
        if any(weight.shape[1] != size for weight, size in zip(self.weights[1:], sizes[:-1], strict=True)):
            raise ValueError("weights that do not follow each other")

    @property
    def inputs(self) -> int:
        """Length of an input."""
        return int(self.weights[0].shape[1])

    @property
    def outputs(self) -> int:
        """Length of an output."""
        return int(self.weights[-1].shape[0])

    @property
    def hidden(self) -> list[int]:
        """Units of each hidden layer."""
        return [len(bias) for bias in self.biases[:-1]]

    @property
    def bends(self) -> list[bool]:
        """Of each hidden layer, whether σ has a kink there."""
        return [slope != 1 for slope in self.slopes]

    @property
    def neurons(self) -> int:
        """Hidden units with a kink, which is what regions are counted against."""
        return sum(size for size, bends in zip(self.hidden, self.bends, strict=True) if bends)

    @property
    def code_starts(self) -> list[int]:
        """Where each hidden layer's bits begin in a pattern, in bytes, and the length of a pattern."""
        return [0, *np.cumsum([-(-size // 8) for size in self.hidden]).tolist()]

    def __call__(self, inputs: Floats) -> Floats:
        """(n, inputs) -> (n, outputs), by a plain forward pass."""
        values = inputs
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            values = values @ weight.T + bias
            if layer < len(self.slopes):
                values = self.bend(layer, values)
        return values

    def bend(self, layer: int, preactivations: Floats) -> Floats:
        """σ of a hidden layer."""
        slope = self.slopes[layer]
        if slope == 0:
            return np.maximum(preactivations, 0.0)
        return np.where(preactivations > 0, preactivations, slope * preactivations)

    def patterns_at(self, inputs: Floats) -> Bits:
        """(n, inputs) -> (n, bytes): which units are positive, by a plain forward pass, see `unpack`.

        Units without a kink count as not positive: nothing depends on their sign.
        """
        values, codes = inputs, []
        for layer in range(len(self.slopes)):
            values = values @ self.weights[layer].T + self.biases[layer]
            codes.append(np.packbits((values > 0) & self.bends[layer], axis=1))
            values = self.bend(layer, values)
        return np.concatenate(codes, axis=1) if codes else np.zeros((len(inputs), 0), np.uint8)

    def unpack(self, patterns: Bits, layer: int) -> NDArray[np.bool_]:
        """(n, bytes) -> (n, units): which units of a hidden layer are positive."""
        start, end = self.code_starts[layer : layer + 2]
        return np.unpackbits(patterns[:, start:end], axis=1, count=self.hidden[layer]).astype(bool)

    def jacobians(self, patterns: Bits, basis: Floats) -> Floats:
        """The derivatives of the outputs where the units are as the patterns say, along directions of the input.

        Args:
            patterns: (n, bytes).
            basis: (k, inputs), the directions.

        Returns:
            (n, outputs, k).
        """
        along = np.broadcast_to(basis @ self.weights[0].T, (len(patterns), len(basis), len(self.biases[0])))
        for layer, slope in enumerate(self.slopes):
            factors = np.where(self.unpack(patterns, layer), 1.0, slope)
            along = (along * factors[:, None, :]) @ self.weights[layer + 1].T
        return np.ascontiguousarray(along.transpose(0, 2, 1))

    def affine_map(self, pattern: Bits) -> tuple[Floats, Floats]:
        """(W, b), with which the network is W x + b where its units are as the pattern (bytes,) says."""
        weight, bias = self.weights[0], self.biases[0]
        for layer, slope in enumerate(self.slopes):
            factors = np.where(self.unpack(pattern[None], layer)[0], 1.0, slope)
            weight = self.weights[layer + 1] @ (factors[:, None] * weight)
            bias = self.weights[layer + 1] @ (factors * bias) + self.biases[layer + 1]
        return weight, bias
