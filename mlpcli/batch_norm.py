"""Batch normalization of a batch that several processes share: by the means and variances of all of it."""

from typing import Any

import torch
from torch import Tensor, nn

from mlpcli.ranks import Ranks
from mlpcli.sharding import is_sharded


class SharedBatchNorm(nn.BatchNorm1d):
    """torch.nn.BatchNorm1d whose batch is that of all ranks, in training; in evaluation it is torch's own.

    Args:
        like: whose parameters and buffers it takes over.
        ranks: who shares the batch.
    """

    def __init__(self, like: nn.BatchNorm1d, ranks: Ranks) -> None:
        super().__init__(like.num_features, like.eps, like.momentum)
        self.weight, self.bias = like.weight, like.bias
        self.running_mean, self.running_var = like.running_mean, like.running_var
        self.num_batches_tracked = like.num_batches_tracked
        self._ranks = ranks

    def forward(self, input: Tensor) -> Tensor:
        """The batch (n, features), of which each rank has n of its own, 0 at least."""
        if not self.training:
            return super().forward(input)
        assert self.running_mean is not None and self.running_var is not None and self.momentum is not None
        kind, input = input.dtype, input.to(self.running_mean.dtype)
        samples = float(self._ranks.sum(torch.tensor(float(len(input)), dtype=torch.float64)))
        mean = self._sum(input.sum(0)) / samples
        centred = input - mean
        variance = self._sum(centred.square().sum(0)) / samples
        with torch.no_grad():
            assert self.num_batches_tracked is not None
            self.num_batches_tracked.add_(1)
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * (samples / (samples - 1)), self.momentum)
        return (centred * torch.rsqrt(variance + self.eps) * self.weight + self.bias).to(kind)

    def _sum(self, tensor: Tensor) -> Tensor:
        total: Tensor = _Sum.apply(tensor, self._ranks)
        return total


class _Sum(torch.autograd.Function):
    """The sum over all ranks; its derivative is the sum of theirs, as what it is used for counts on every rank."""

    @staticmethod
    def forward(context: Any, tensor: Tensor, ranks: Ranks) -> Tensor:
        context.ranks = ranks
        return ranks.sum(tensor.clone())

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return context.ranks.sum(gradient.clone()), None


def computes_together(model: nn.Module) -> bool:
    """Whether ranks that compute the model's outputs need each other for it."""
    return is_sharded(model) or any(isinstance(layer, SharedBatchNorm) for layer in model.modules())


def share_batch_norm(model: nn.Sequential, ranks: Ranks) -> None:
    """Let every batch normalization of the model be of the whole batch."""
    for place, layer in enumerate(model):
        if isinstance(layer, nn.BatchNorm1d):
            model[place] = SharedBatchNorm(layer, ranks)
