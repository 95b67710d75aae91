"""Scaling of inputs and targets, from the training split alone."""

import math
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from mlpcli.data.dataset import Preprocessing, TargetScale

Standardize = Literal["pixel", "feature", "scale", "none"]

CHUNK = 1 << 18
"""Values that are converted at once: 1 MiB as int32, which stays in the cache."""


def fit(inputs: Tensor, input_shape: tuple[int, ...], standardize: Standardize) -> Preprocessing:
    """The preprocessing that `data.standardize` asks for.

    Args:
        inputs: the training inputs, uint8 or float (samples, features), at least one sample.
        input_shape: (channels, height, width) of an image, or (features,).
        standardize: `pixel` gives every channel mean 0 and standard deviation 1, `feature` every feature;
            `scale` maps the range of an image set, or of each feature of a table, to [0, 1]; `none` nothing.

    Returns:
        shift and scale of shape (1,) where all features share them. Constant inputs are shifted only.
    """
    is_image = len(input_shape) == 3
    if standardize == "none":
        return Preprocessing(torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64))
    if standardize == "scale":
        low, high = torch.aminmax(inputs) if is_image else torch.aminmax(inputs, dim=0)
        low, high = low.reshape(-1).to(torch.float64), high.reshape(-1).to(torch.float64)
        return Preprocessing(low, 1 / _or_one(high - low))
    groups = input_shape[0] if standardize == "pixel" else inputs.shape[1]
    mean, std = moments(inputs, groups)
    if 1 < groups < inputs.shape[1]:
        mean, std = (each.repeat_interleave(inputs.shape[1] // groups) for each in (mean, std))
    return Preprocessing(mean, 1 / _or_one(std))


def fit_targets(targets: Tensor) -> TargetScale:
    """Mean and standard deviation of each target: float64 (samples, outputs) -> (outputs,)."""
    mean, std = moments(targets, targets.shape[1])
    return TargetScale(mean, _or_one(std))


def moments(values: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """Mean and population standard deviation of `groups` blocks of adjacent columns.

    Args:
        values: uint8 or float (samples, columns), at least one sample; uint8 sums are exact.
        groups: a divisor of columns; 1 pools all of them.

    Returns:
        float64 (groups,) each; the standard deviation of equal values is exactly 0.
    """
    if values.dtype == torch.uint8:
        return _integer_moments(values, groups)
    rows = max(1, CHUNK // values.shape[1])
    chunks = [values[start : start + rows] for start in range(0, len(values), rows)]
    blocks = [chunk.reshape(len(chunk), groups, -1) for chunk in chunks]
    n = values.numel() // groups
    mean = torch.stack([block.sum((0, 2), dtype=torch.float64) for block in blocks]).sum(0) / n
    squares = [(block - mean[:, None]).square_().sum((0, 2)) for block in blocks]
    std = (torch.stack(squares).sum(0) / n).sqrt()
    low, high = (each.to(torch.float64).reshape(groups, -1) for each in torch.aminmax(values, dim=0))
    low, high = low.amin(1), high.amax(1)
    # The rounding of the mean must not make a constant look as if it varied.
    return torch.where(low == high, low, mean), torch.where(low == high, 0.0, std)


def _integer_moments(values: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    # 32768 * 255 ** 2 < 2 ** 31, so that the sums of a chunk fit int32, which numpy adds fastest.
    rows = min(1 << 15, max(1, CHUNK // values.shape[1]))
    sums, squares = np.zeros((2, values.shape[1]), dtype=np.int64)
    for start in range(0, len(values), rows):
        chunk = values[start : start + rows].numpy().astype(np.int32)
        sums += chunk.sum(0, dtype=np.int32)
        chunk *= chunk
        squares += chunk.sum(0, dtype=np.int32)
    n = values.numel() // groups
    pairs = list(zip(*(each.reshape(groups, -1).sum(1).tolist() for each in (sums, squares)), strict=True))
    # Python's integers: n * squares passes 2 ** 63 for MNIST already.
    mean = [total / n for total, _ in pairs]
    std = [math.sqrt((n * square - total * total) / (n * n)) for total, square in pairs]
    return torch.tensor(mean, dtype=torch.float64), torch.tensor(std, dtype=torch.float64)


def _or_one(spread: Tensor) -> Tensor:
    return torch.where(spread == 0, torch.ones_like(spread), spread)
