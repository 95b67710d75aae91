"""What goes on inside a network while it trains, looked at on a fixed batch of its training samples.

Looking changes nothing: it draws no random number, moves no parameter and no running statistic, and leaves no
gradient behind, so that a training with it and one without are the same, bit for bit.
"""

import math
import random
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from mlpcli.objective import Loss

PROBES = 25
"""The most epochs of a training after which one looks."""
SPACING = 1.25
"""The least ratio of two of them: a short training has fewer, so that looking stays cheap next to it."""
SAMPLES = 256
"""The most samples that one looks with: enough for a histogram."""
FEW = 64
"""With an eighth of the training samples, if there are fewer, one looks still, to be cheap next to an epoch; but
not with less than this."""
BINS = 40
"""Of a histogram."""


def probed_epochs(epochs: int) -> list[int]:
    """After which epochs of a training one looks, ascending: 0, before its first step, and then ever more rarely,
    spaced logarithmically, up to `epochs`: at most `PROBES` of them."""
    steps = min(PROBES - 2, math.ceil(math.log(epochs, SPACING)) or 1)
    return sorted({0, *(round(epochs ** (k / steps)) for k in range(steps + 1))})


def probe_rows(samples: int, seed: int) -> list[int]:
    """Which of so many training samples one looks with, drawn at random, ascending."""
    count = min(samples, SAMPLES, max(FEW, samples // 8))
    return sorted(random.Random(seed).sample(range(samples), count))


class Probe:
    """A batch on which a network is looked at again and again, in evaluation mode: no dropout, and the running
    statistics of batch normalization.

    Args:
        model: affine layers, normalizations, activations and dropout, as `build_mlp` makes them, perhaps after a
            front.
        loss: what is minimised.
        inputs: (n, features) as the model sees them, on its device and of its type, in which all is computed.
        targets: (n,) class indices or (n, k) real numbers.
    """

    def __init__(self, model: nn.Sequential, loss: Loss, inputs: Tensor, targets: Tensor) -> None:
        self._model, self._loss = model, loss
        self._inputs, self._targets = inputs, targets
        self._linears = [module for module in model if isinstance(module, nn.Linear)]
        self._before: list[Tensor] = []

    def remember(self) -> None:
        """Keep a copy of the weights, just before a step, for the `update_ratio` of the next `look`."""
        self._before = [linear.weight.detach().clone() for linear in self._linears]

    def look(self) -> dict[str, Any]:
        """What is seen, in values that JSON knows; what is not finite, or not known, is None.

        Returns:
            `samples`, `loss` (its mean over them), and `layers`: for each affine layer, first to last,
            `layer` (its number, from 1), `inputs`, `units`, `weight` and `activation` (see `histogram`; the
            activation is the output of σ, in the last layer that of the network), `dead` (hidden units whose σ is
            0 on all samples, None unless σ is relu), `gradient_norm` (2-norm of ∂loss/∂weight) and
            `update_ratio` (‖W − W′‖/‖W′‖ with the W′ that was remembered).
        """
        was_training = self._model.training
        self._model.eval()
        with torch.enable_grad():
            outputs = self._outputs()
            loss = self._loss(outputs[-1], self._targets)
            gradients = torch.autograd.grad(loss, [linear.weight for linear in self._linears])
        self._model.train(was_training)
        with torch.no_grad():
            return self._described(loss, outputs, gradients)

    def _outputs(self) -> list[Tensor]:
        """Of σ in each hidden layer, and of the last layer."""
        outputs: list[Tensor] = []
        x = self._inputs
        for module in self._model:
            x = module(x)
            if isinstance(module, nn.Linear):
                outputs.append(x)
            elif outputs:  # σ, and what is between an affine map and it; dropout is off
                outputs[-1] = x
        return outputs

    def _described(self, loss: Tensor, outputs: list[Tensor], gradients: Iterable[Tensor]) -> dict[str, Any]:
        norms = [torch.linalg.vector_norm(gradient) for gradient in gradients]
        ratios = [
            torch.linalg.vector_norm(linear.weight - before) / torch.linalg.vector_norm(before)
            for linear, before in zip(self._linears, self._before, strict=False)
        ]
        self._before = []
        # read together, because reading waits for the device
        mean, *numbers = map(finite, torch.stack([loss, *norms, *ratios]).tolist())
        numbers += [None] * len(self._linears)  # where there are no ratios
        last = len(self._linears) - 1
        can_die = any(isinstance(module, nn.ReLU) for module in self._model)
        layers = [
            {
                "layer": place + 1,
                "inputs": linear.in_features,
                "units": linear.out_features,
                "weight": histogram(linear.weight),
                "activation": histogram(output),
                "dead": int((output.amax(0) == 0).sum()) if can_die and place < last else None,
                "gradient_norm": numbers[place],
                "update_ratio": numbers[len(self._linears) + place],
            }
            for place, (linear, output) in enumerate(zip(self._linears, outputs, strict=True))
        ]
        return {"samples": len(self._inputs), "loss": mean, "layers": layers}


def histogram(values: Tensor) -> dict[str, Any]:
    """How many numbers of a tensor lie in each of `BINS` equal bins from the least of them to the largest.

    Numbers that are not finite are left out; `low` and `high` are None where none is left. The bins around numbers
    that are all equal reach half as far as these from 0, but at least 0.5, to both sides.
    """
    low, high = _range(values)
    if not (math.isfinite(low) and math.isfinite(high)):
        values = values[torch.isfinite(values)]
        if not len(values):
            return {"low": None, "high": None, "counts": [0] * BINS}
        low, high = _range(values)
    if low == high:
        reach = max(0.5, abs(low) / 2)
        low, high = low - reach, high + reach
    # in bytes, which are counted ten times as fast as int64; the largest number belongs to the last bin
    bins = (values - low).mul_(BINS / (high - low)).to(torch.uint8).clamp_(max=BINS - 1)
    return {"low": low, "high": high, "counts": bins.flatten().bincount(minlength=BINS).tolist()}


def _range(values: Tensor) -> tuple[float, float]:
    low, high = torch.stack(torch.aminmax(values)).tolist()
    return low, high


def finite(number: float) -> float | None:
    """The number, or None for what JSON has no number for."""
    return number if math.isfinite(number) else None
