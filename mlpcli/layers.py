"""The layers of a multi-layer perceptron, listed without torch: what `check` prints and `build_mlp` builds."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Layer:
    """One layer of the network.

    Attributes:
        kind: `linear`, `batch`, `layer` (normalizations), `dropout` or the name of an activation.
        inputs, outputs: length of a sample before and after the layer.
        parameters: trainable numbers in it.
    """

    kind: str
    inputs: int
    outputs: int
    parameters: int = 0

    @property
    def flops(self) -> int:
        """Floating-point operations of the affine map on one sample, a multiply-add counted as two."""
        return 2 * self.inputs * self.outputs if self.kind == "linear" else 0


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
) -> list[Layer]:
    """Every layer in order: affine, normalization, activation, dropout; the last affine layer stands alone."""
    layers: list[Layer] = []
    before = in_features
    for units in hidden_widths(depth, width):
        layers.append(Layer("linear", before, units, before * units + (units if bias else 0)))
        if normalization != "none":
            layers.append(Layer(normalization, units, units, 2 * units))
        layers.append(Layer(activation, units, units))
        if dropout > 0:
            layers.append(Layer("dropout", units, units))
        before = units
    layers.append(Layer("linear", before, out_features, before * out_features + (out_features if bias else 0)))
    return layers


@dataclass(frozen=True)
class StepCost:
    """What one optimizer step costs.

    Attributes:
        flops: matrix products of the forward and the backward pass. The backward pass needs two products a
            layer (weight gradient and input gradient), and none for the gradient of the first layer's input.
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
    linear = [layer for layer in layers if layer.kind == "linear"]
    forward = sum(layer.flops for layer in linear)
    parameters = sum(layer.parameters for layer in layers) * bytes_per_number
    numbers = layers[0].inputs + sum(layer.outputs for layer in layers)
    return StepCost(
        flops=samples * (3 * forward - linear[0].flops),
        parameter_bytes=parameters,
        gradient_bytes=parameters,
        optimizer_bytes=parameters * optimizer_copies,
        activation_bytes=numbers * in_memory * bytes_per_number,
    )
