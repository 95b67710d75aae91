"""Scaling of inputs and targets, from the training split alone."""

import math
from collections.abc import Iterator
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from mlpcli.data.dataset import CHUNK, Preprocessing, Split, TargetScale

Standardize = Literal["pixel", "feature", "scale", "none"]


def fit(train: Split, input_shape: tuple[int, ...], standardize: Standardize) -> Preprocessing:
    """The preprocessing that `data.standardize` asks for.

    Args:
        train: the training split, of uint8 or float inputs, at least one sample.
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
        low, high = _range(train)
        if is_image:
            low, high = low.amin(0, keepdim=True), high.amax(0, keepdim=True)
        return Preprocessing(low, 1 / _or_one(high - low))
    groups = input_shape[0] if standardize == "pixel" else train.features
    mean, std = moments(train, groups)
    if 1 < groups < train.features:
        mean, std = (each.repeat_interleave(train.features // groups) for each in (mean, std))
    return Preprocessing(mean, 1 / _or_one(std))


def fit_targets(targets: Tensor) -> TargetScale:
    """Mean and standard deviation of each target: float64 (samples, outputs) -> (outputs,)."""
    mean, std = moments(Split(targets, targets), targets.shape[1])
    return TargetScale(mean, _or_one(std))


def moments(split: Split, groups: int) -> tuple[Tensor, Tensor]:
    """Mean and population standard deviation of `groups` blocks of adjacent features.

    Args:
        split: of uint8 or float inputs, at least one sample; uint8 sums are exact.
        groups: a divisor of the features; 1 pools all of them.

    Returns:
        float64 (groups,) each; the standard deviation of equal values is exactly 0.
    """
    n = len(split) * split.features // groups
    if split.stored.dtype == torch.uint8:
        return _integer_moments(split, n, groups)

    def blocks() -> Iterator[Tensor]:
        return (inputs.reshape(len(inputs), groups, -1) for inputs, _ in split.chunks())

    mean = torch.stack([block.sum((0, 2), dtype=torch.float64) for block in blocks()]).sum(0) / n
    squares = [(block - mean[:, None]).square_().sum((0, 2)) for block in blocks()]
    std = (torch.stack(squares).sum(0) / n).sqrt()
    low, high = (each.reshape(groups, -1) for each in _range(split))
    low, high = low.amin(1), high.amax(1)
    # The rounding of the mean must not make a constant look as if it varied.
    return torch.where(low == high, low, mean), torch.where(low == high, 0.0, std)


def _range(split: Split) -> tuple[Tensor, Tensor]:
    """The least and the largest value of each feature: float64 (features,)."""
    lows, highs = zip(*(torch.aminmax(inputs, dim=0) for inputs, _ in split.chunks()), strict=True)
    return torch.stack(lows).amin(0).to(torch.float64), torch.stack(highs).amax(0).to(torch.float64)


def _integer_moments(split: Split, n: int, groups: int) -> tuple[Tensor, Tensor]:
    sums, squares = np.zeros((2, split.features), dtype=np.int64)
    # 32768 * 255 ** 2 < 2 ** 31, so that the sums of a chunk fit int32, which numpy adds fastest.
    for inputs, _ in split.chunks(min(1 << 15, max(1, CHUNK // split.features))):
        chunk = inputs.numpy().astype(np.int32)
        sums += chunk.sum(0, dtype=np.int32)
        chunk *= chunk
        squares += chunk.sum(0, dtype=np.int32)
    pairs = list(zip(*(each.reshape(groups, -1).sum(1).tolist() for each in (sums, squares)), strict=True))
    # Python's integers: n * squares passes 2 ** 63 for MNIST already.
    mean = [total / n for total, _ in pairs]
    std = [math.sqrt((n * square - total * total) / (n * n)) for total, square in pairs]
    return torch.tensor(mean, dtype=torch.float64), torch.tensor(std, dtype=torch.float64)


def _or_one(spread: Tensor) -> Tensor:
    return torch.where(spread == 0, torch.ones_like(spread), spread)
