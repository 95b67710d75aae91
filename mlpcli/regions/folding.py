"""From a `torch.nn.Sequential` in evaluation mode to a `PiecewiseAffine`, or the reason why there is none."""

import copy

import numpy as np
import torch
from torch import nn

from mlpcli.embedding import InputEmbedding
from mlpcli.errors import FailedError, UsageError
from mlpcli.regions.piecewise import Floats, PiecewiseAffine

AGREES = 1e-9
"""Relative to the largest output."""


def fold(model: nn.Sequential) -> PiecewiseAffine:
    """The network in float64: batch normalization becomes part of the affine map before it, dropout goes.

    Raises:
        UsageError: a layer of it is not piecewise affine, or a weight is not finite.
    """
    weights: list[Floats] = []
    biases: list[Floats] = []
    slopes: list[float] = []
    for module in model:
        match module:
            case nn.Linear():
                weights.append(_array(module.weight))
                biases.append(_array(module.bias) if module.bias is not None else np.zeros(module.out_features))
            case nn.BatchNorm1d():
                assert module.running_mean is not None and module.running_var is not None
                factors = _array(module.weight) / np.sqrt(_array(module.running_var) + module.eps)
                weights[-1] = factors[:, None] * weights[-1]
                biases[-1] = factors * (biases[-1] - _array(module.running_mean)) + _array(module.bias)
            case nn.Dropout():
                pass
            case nn.ReLU():
                slopes.append(0.0)
            case nn.LeakyReLU():
                slopes.append(float(module.negative_slope))
            case nn.Identity():
                slopes.append(1.0)
            case _:
                raise UsageError(f"this network has no affine regions: {_reason(module)}")
    if not all(np.isfinite(array).all() for array in (*weights, *biases)):
        raise UsageError("this network has no affine regions: its weights are not all finite")
    return PiecewiseAffine(weights, biases, slopes)


def _array(tensor: torch.Tensor) -> Floats:
    return tensor.detach().to("cpu", torch.float64).numpy()


def _reason(module: nn.Module) -> str:
    match module:
        case nn.LayerNorm():
            return (
                "layer normalization divides by the spread of each sample, which bends everywhere\n"
                "    model.normalization may be none or batch"
            )
        case InputEmbedding():
            return (
                f"its inputs are embedded ({module.front.kind}) before the first layer\n"
                "    use model.numeric_embedding: none and data.categorical: one_hot"
            )
    name = type(module).__name__.lower()
    return f"{name} is curved everywhere\n    model.activation may be relu, leaky_relu or identity"


def check(network: PiecewiseAffine, model: nn.Sequential, inputs: Floats) -> None:
    """Raises FailedError unless the network gives what the model gives at some inputs, in float64."""
    with torch.no_grad():
        expected = copy.deepcopy(model).to("cpu", torch.float64).eval()(torch.from_numpy(inputs)).numpy()
    error = np.abs(network(inputs) - expected).max(initial=0.0)
    if not error <= AGREES * np.abs(expected).max(initial=1.0):
        raise FailedError(f"the network's affine form differs from the network by {error:.3g}")
