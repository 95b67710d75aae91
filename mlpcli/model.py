"""The multi-layer perceptron as a plain `torch.nn.Sequential`."""

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from mlpcli.embedding import InputEmbedding
from mlpcli.layers import Layer, mlp_layers
from mlpcli.parts import Part

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "identity": nn.Identity,
}


def build_mlp(
    in_features: int,
    out_features: int,
    *,
    depth: int,
    width: int | Sequence[int],
    activation: str = "relu",
    dropout: float = 0.0,
    normalization: str = "none",
    bias: bool = True,
    init: str = "default",
    seed: int | None = None,
    front: Callable[[], InputEmbedding] | None = None,
) -> nn.Sequential:
    """x^(l+1) = σ(W^(l) x^(l) + b^(l)) for l = 1..depth, without σ after the last layer.

    Args:
        in_features: length of an input vector.
        out_features: number of classes, or of target coordinates.
        depth: number of affine layers; 1 is the linear model.
        width: units of every hidden layer, or one entry a hidden layer.
        activation: σ, a key of `ACTIVATIONS`.
        dropout: probability with which a hidden unit is dropped in training.
        normalization: `none`, `batch` or `layer`, between an affine layer and σ.
        bias: whether the affine layers have biases.
        init: `default`, `kaiming`, `xavier`, `orthogonal` or `zeros`, see `initialize`.
        seed: seeds the initial weights and leaves torch's global generator alone; None uses that generator.
        front: makes what stands before the first affine layer, with weights from the same generator.

    Returns:
        A model that maps (n, in_features) to (n, out_features), in float32.

    Raises:
        ValueError: a list of widths that does not have depth − 1 entries.
    """
    with torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            torch.default_generator.manual_seed(seed)
        first = [] if front is None else [front()]
        layers = mlp_layers(
            first[0].front.outputs if first else in_features,
            out_features,
            depth=depth,
            width=width,
            activation=activation,
            dropout=dropout,
            normalization=normalization,
            bias=bias,
        )
        model = nn.Sequential(*first, *(_module(layer, dropout, bias) for layer in layers))
        initialize(model, init, activation)
    return model


def _module(layer: Layer, dropout: float, bias: bool) -> nn.Module:
    if layer.kind == "linear":
        return nn.Linear(layer.inputs, layer.outputs, bias=bias)
    if layer.kind == "batch":
        return nn.BatchNorm1d(layer.outputs)
    if layer.kind == "layer":
        return nn.LayerNorm(layer.outputs)
    if layer.kind == "dropout":
        return Dropout(dropout)
    return ACTIVATIONS[layer.kind]()


class Dropout(nn.Dropout):
    """torch.nn.Dropout with masks of `DropoutMask`, which both engines draw alike.

    Attributes:
        part: which samples of the batch are here; None for all.
    """

    part: Part | None = None

    def forward(self, input: Tensor) -> Tensor:
        """The input with its mask in training; itself in evaluation."""
        if not self.training or self.p == 0:
            return input
        mask = torch.empty_like(input, requires_grad=False)
        return input * DropoutMask(mask, self.p, self.part).draw()


class DropoutMask:
    """Draws a dropout mask: 0 with probability p, else 1/(1 − p).

    From 16 random bits a number, so p is rounded to a multiple of 2⁻¹⁶: that takes the CPU a fifth of the time of
    torch's `bernoulli_`, which was a third of a step.

    Args:
        numbers: contiguous; `draw` writes the mask into it.
        p: probability of 0, at least 0 and less than 1.
        part: which rows of the batch's mask `numbers` (rows, units) are; None for all. All of it is drawn, so that
            every process of a training draws the same numbers, and they are those of a single process.
    """

    def __init__(self, numbers: Tensor, p: float, part: Part | None = None) -> None:
        self.numbers = numbers
        self._kept = max(1, round((1 - p) * 2**16))
        units = numbers.shape[-1]
        first, drawn = (0, numbers.numel()) if part is None else (part.start * units, part.of * units)
        self._bits = torch.empty(-(-drawn // 4), dtype=torch.int64, device=numbers.device)
        self._lanes = self._bits.view(torch.int16)[first : first + numbers.numel()].view(numbers.shape)
        self._is_kept = torch.empty_like(numbers, dtype=torch.bool)

    def draw(self) -> Tensor:
        """The numbers, drawn anew from torch's generator."""
        self._bits.random_(-(2**63), None)
        torch.le(self._lanes, self._kept - 2**15 - 1, out=self._is_kept)
        return self.numbers.copy_(self._is_kept).mul_(2**16 / self._kept)


def gain(activation: str) -> float:
    """The factor on the standard deviation of W that keeps the scale of the signal through σ.

    torch.nn.init's values where it has one. For gelu and silu, 1/√E[σ(z)²] with z standard normal, the
    argument of He et al. (2015) that gives √2 for relu, by the trapezoidal rule on [−10, 10].
    """
    if activation in ("gelu", "silu"):
        z = torch.linspace(-10, 10, 20_001, dtype=torch.float64)
        density = torch.exp(-z * z / 2) / math.sqrt(2 * math.pi)
        second_moment = torch.trapezoid(ACTIVATIONS[activation]()(z) ** 2 * density, z)
        return 1 / math.sqrt(float(second_moment))
    if activation == "identity":
        return 1.0
    return nn.init.calculate_gain(activation)  # type: ignore[arg-type]  # a Literal there, checked by our schema


@torch.no_grad()
def initialize(model: nn.Sequential, init: str, activation: str) -> None:
    """Set the initial weights in place.

    `default` leaves torch.nn.Linear's own; `kaiming` (normal, fan-in), `xavier` (normal) and `orthogonal` use
    the gain of `activation` in hidden layers and 1 in the last, with zero biases; `zeros` sets the last layer
    to zero, so that the model starts at the constant 0.
    """
    linears = [module for module in model if isinstance(module, nn.Linear)]
    if init == "zeros":
        linears = linears[-1:]
    elif init == "default":
        return
    for linear in linears:
        scale = 1.0 if linear is linears[-1] else gain(activation)
        if init == "kaiming":
            nn.init.normal_(linear.weight, std=scale / math.sqrt(linear.in_features))
        elif init == "xavier":
            nn.init.xavier_normal_(linear.weight, gain=scale)
        elif init == "orthogonal":
            nn.init.orthogonal_(linear.weight, gain=scale)
        else:
            nn.init.zeros_(linear.weight)
        if linear.bias is not None:
            nn.init.zeros_(linear.bias)


ALIGNMENT = 64
"""Numbers: every tensor of a flat buffer starts at a multiple, as the fastest matrix products want it."""


@torch.no_grad()
def flatten(model: nn.Sequential) -> Tensor:
    """Move all parameters into one buffer, of which they become views; returns the buffer.

    A weight of shape (outputs, inputs) is stored as its transpose. Values, shapes and names stay, and
    `load_state_dict` writes into the buffer.
    """
    parameters = list(model.parameters())
    length = sum(_aligned(p.numel()) for p in parameters)
    flat = parameters[0].new_zeros(length, requires_grad=False)
    for parameter, view in zip(parameters, flat_views(model, flat), strict=True):
        view.copy_(parameter)
        parameter.data = view
    return flat


def flat_views(model: nn.Sequential, flat: Tensor) -> Iterator[Tensor]:
    """The places of the parameters in a buffer laid out by `flatten`, in order and in their shapes."""
    start = 0
    for parameter in model.parameters():
        place = flat[start : start + parameter.numel()]
        yield place.view(parameter.shape[::-1]).t() if parameter.ndim == 2 else place.view(parameter.shape)
        start += _aligned(parameter.numel())


def _aligned(numbers: int) -> int:
    return -(-numbers // ALIGNMENT) * ALIGNMENT


def forward(model: nn.Sequential, inputs: Tensor, bfloat16: bool) -> Tensor:
    """The model's outputs; with `bfloat16` its products run in that type and the outputs are float32."""
    if not bfloat16:
        return model(inputs)  # type: ignore[no-any-return]  # torch types a module's result as Any
    with torch.autocast(inputs.device.type, dtype=torch.bfloat16):
        return model(inputs).float()  # type: ignore[no-any-return]  # likewise
