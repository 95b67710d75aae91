"""The layers of a multi-layer perceptron, listed without torch: what `check` prints and `build_mlp` builds."""

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Layer:
    """One layer of the network.

    Attributes:
        kind: `linear`, `batch`, `layer` (normalizations), `dropout`, the name of an activation, or `Front.kind`.
        inputs, outputs: length of a sample before and after the layer.
        parameters: trainable numbers in it.
        flops: floating-point operations of its affine maps on one sample, a multiply-add counted as two.
    """

    kind: str
    inputs: int
    outputs: int
    parameters: int = 0
    flops: int = 0


def embedding_size(categories: int) -> int:
    """Numbers that each of so many categories becomes: the rule of fastai, `emb_sz_rule`, found by experiments."""
    return max(1, min(600, round(1.6 * math.pow(categories, 0.56))))


@dataclass(frozen=True)
class Front:
    """What stands before the first affine layer of a table's network: embeddings of numbers and categories.

    The row of a table is [numbers | others, which pass through | codes of categories].

    Attributes:
        features: length of a row.
        numbers: how many stand first in it.
        numeric: how they are embedded, `none`, `periodic` or `piecewise_linear`.
        frequencies, size: of `periodic`: of each number, and what each number becomes.
        components: of `piecewise_linear`: bins of all numbers together.
        categories: how many each code tells apart, besides 0 for missing and unseen.
    """

    features: int
    numbers: int = 0
    numeric: str = "none"
    frequencies: int = 0
    size: int = 0
    components: int = 0
    categories: tuple[int, ...] = ()

    @property
    def parts(self) -> list[str]:
        """What there is to embed: `periodic` or `piecewise_linear`, `embedding`. Empty: no front is needed."""
        numeric = [self.numeric] if self.numeric != "none" and self.numbers else []
        return numeric + (["embedding"] if self.categories else [])

    @property
    def kind(self) -> str:
        """The parts as a word."""
        return " + ".join(self.parts)

    @property
    def outputs(self) -> int:
        """Length of an embedded row."""
        sizes = {"periodic": self.numbers * self.size, "piecewise_linear": self.components}
        passed = self.features - self.numbers - len(self.categories)
        embedded = sum(embedding_size(count) for count in self.categories)
        return sizes.get(self.numeric, self.numbers) + passed + embedded

    @property
    def widest(self) -> int:
        """The most numbers that a sample takes on its way."""
        return max(self.outputs, 2 * self.numbers * self.frequencies)

    @property
    def layer(self) -> Layer:
        """As an entry in the list of layers."""
        parameters = sum((count + 1) * embedding_size(count) for count in self.categories)
        flops = 0
        if self.numeric == "periodic":
            parameters += self.numbers * (self.frequencies + 2 * self.frequencies * self.size + self.size)
            flops = 2 * self.numbers * 2 * self.frequencies * self.size
        return Layer(self.kind, self.features, self.outputs, parameters, flops)


def hidden_widths(depth: int, width: int | Sequence[int]) -> list[int]:
    """Units of each hidden layer, first to last; empty for depth 1, the linear model.

    Raises:
        ValueError: a list of widths that does not have one entry a hidden layer.
    """
    if isinstance(width, int):
        return [width] * (depth - 1)
    if len(width) != depth - 1:
        raise ValueError(f"depth {depth} has {depth - 1} hidden layers, but {len(width)} widths are given")
    return list(width)


def mlp_layers(
    in_features: int,
    out_features: int,
    *,
    depth: int,
    width: int | Sequence[int],
    activation: str = "relu",
    dropout: float = 0.0,
    normalization: str = "none",
    bias: bool = True,
    front: Front | None = None,
) -> list[Layer]:
    """Every layer in order: the front, where there is one; affine, normalization, activation, dropout; the last
    affine layer stands alone."""
    layers: list[Layer] = [] if front is None else [front.layer]
    before = in_features if front is None else front.outputs
    for units in hidden_widths(depth, width):
        layers.append(_affine(before, units, bias))
        if normalization != "none":
            layers.append(Layer(normalization, units, units, 2 * units))
        layers.append(Layer(activation, units, units))
        if dropout > 0:
            layers.append(Layer("dropout", units, units))
        before = units
    layers.append(_affine(before, out_features, bias))
    return layers


def _affine(inputs: int, outputs: int, bias: bool) -> Layer:
    return Layer("linear", inputs, outputs, inputs * outputs + (outputs if bias else 0), 2 * inputs * outputs)


@dataclass(frozen=True)
class StepCost:
    """What one optimizer step costs.

    Attributes:
        flops: matrix products of the forward and the backward pass. The backward pass needs two products a
            layer (weight gradient and input gradient), and none for the gradient of the samples.
        parameter_bytes, gradient_bytes, optimizer_bytes: θ, its gradient, and what the optimizer keeps.
        activation_bytes: every layer's output on the samples that are in memory at once, with its input.
    """

    flops: int
    parameter_bytes: int
    gradient_bytes: int
    optimizer_bytes: int
    activation_bytes: int

    @property
    def bytes(self) -> int:
        """All of it."""
        return self.parameter_bytes + self.gradient_bytes + self.optimizer_bytes + self.activation_bytes


def step_cost(
    layers: Sequence[Layer], *, samples: int, in_memory: int, bytes_per_number: int, optimizer_copies: int
) -> StepCost:
    """The cost of one step over `samples` samples, `in_memory` of them at a time.

    Args:
        layers: of the network.
        samples: whose gradient the step uses.
        in_memory: samples of one forward and backward pass.
        bytes_per_number: of θ.
        optimizer_copies: numbers that the optimizer keeps for each parameter.
    """
    forward = sum(layer.flops for layer in layers)
    first = next(layer for layer in layers if layer.parameters)
    parameters = sum(layer.parameters for layer in layers) * bytes_per_number
    numbers = layers[0].inputs + sum(layer.outputs for layer in layers)
    return StepCost(
        flops=samples * (3 * forward - (first.flops if first.kind == "linear" else 0)),
        parameter_bytes=parameters,
        gradient_bytes=parameters,
        optimizer_bytes=parameters * optimizer_copies,
        activation_bytes=numbers * in_memory * bytes_per_number,
    )
