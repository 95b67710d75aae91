"""A trained model as one torch module, from a row as it is stored to the answer: what an export writes down."""

from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn

from mlpcli.data import Preprocessing, TargetScale
from mlpcli.data.principal import Projection
from mlpcli.evaluation import probabilities
from mlpcli.network import Network


def program(network: Network) -> nn.Sequential:
    """All of a model in evaluation mode, which shares the weights of `network`.

    It takes images as uint8 (n, channels, height, width), or columns of a table as float64 (n, columns). It gives
    the probabilities of the classes (n, classes) in the type of the parameters, or values (n, outputs) in the
    targets' own units as float64: large numbers, such as years, keep their digits.

    Args:
        network: without features that no graph of torch holds: of extractions, `pca` alone.
    """
    stages: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
    if network.extraction is not None:
        assert network.extraction.projection is not None
        stages["projection"] = _Projection(network.extraction.projection)
    if isinstance(network.preprocessing, Preprocessing):
        stages["preprocessing"] = _Affine(network.preprocessing, network.dtype)
    else:
        stages["preprocessing"] = network.preprocessing.as_module()
        stages["cast"] = _Cast(network.dtype)
    stages["model"] = network.model
    if network.target_scale is None:
        stages["probabilities"] = _Probabilities(network.loss.name)
    else:
        stages["values"] = _Values(network.target_scale)
    return nn.Sequential(stages).eval()


def signature(network: Network) -> dict[str, Any]:
    """The inputs and outputs of the program: plain values, with "batch" for the number of rows."""
    about = network.description
    if len(about.input_shape) == 3:
        given = {"name": "image", "dtype": "uint8", "shape": ["batch", *about.input_shape]}
    else:
        given = {"name": "columns", "dtype": "float64", "shape": ["batch", *about.input_shape]}
    if network.target_scale is None:
        dtype = str(network.dtype).removeprefix("torch.")
        answer = {"name": "probabilities", "dtype": dtype, "shape": ["batch", about.outputs]}
    else:
        answer = {"name": "values", "dtype": "float64", "shape": ["batch", about.outputs]}
    return {"inputs": [given], "outputs": [answer]}


def signature_of_model(network: Network) -> dict[str, Any]:
    """As `signature`, of the torch.nn.Sequential alone."""
    about, dtype = network.description, str(network.dtype).removeprefix("torch.")
    return {
        "inputs": [{"name": "features", "dtype": dtype, "shape": ["batch", about.features]}],
        "outputs": [{"name": "outputs", "dtype": dtype, "shape": ["batch", about.outputs]}],
    }


class _Projection(nn.Module):
    """As `Projection`."""

    mean: Tensor
    components: Tensor

    def __init__(self, projection: Projection) -> None:
        super().__init__()
        self.register_buffer("mean", projection.mean.to(torch.float32))
        self.register_buffer("components", projection.components.to(torch.float32))

    def forward(self, pixels: Tensor) -> Tensor:
        return (pixels.to(torch.float32) / 255 - self.mean) @ self.components


class _Affine(nn.Module):
    """As `Preprocessing`, in the arithmetic of `dtype`."""

    shift: Tensor
    scale: Tensor

    def __init__(self, preprocessing: Preprocessing, dtype: torch.dtype) -> None:
        super().__init__()
        self.register_buffer("shift", preprocessing.shift.to(dtype))
        self.register_buffer("scale", preprocessing.scale.to(dtype))

    def forward(self, inputs: Tensor) -> Tensor:
        return (inputs.to(self.shift.dtype) - self.shift) * self.scale


class _Cast(nn.Module):
    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs.to(self.dtype)


class _Probabilities(nn.Module):
    def __init__(self, loss: str) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, outputs: Tensor) -> Tensor:
        return probabilities(self.loss, outputs)


class _Values(nn.Module):
    """As `TargetScale.restore`."""

    mean: Tensor
    std: Tensor

    def __init__(self, scale: TargetScale) -> None:
        super().__init__()
        self.register_buffer("mean", scale.mean)
        self.register_buffer("std", scale.std)

    def forward(self, outputs: Tensor) -> Tensor:
        return outputs.to(torch.float64) * self.std + self.mean
