"""Seeded, stratified cuts: every class keeps its share, and samples keep their order."""

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, from_numpy

from mlpcli.config.datasets import Task

Ints = NDArray[np.int64]


def stratified_cut(targets: Tensor, fraction: float, seed: int, task: Task) -> tuple[Tensor, Tensor]:
    """Cuts round(fraction * samples) samples off, drawn at random with `seed`.

    In classification each class gives its share (largest remainder), and keeps at least one sample; fewer
    are cut where that leaves fewer to cut. In regression the whole is one class.

    Args:
        targets: (samples, ...); class indices int64 (samples,) in classification.
        fraction: of the samples that is cut, in [0, 1).
        seed: of this draw alone.
        task: `classification` or `regression`.

    Returns:
        The indices that are kept and those that are cut, int64, each in ascending order.
    """
    labels = _labels(targets, task)
    counts = np.bincount(labels)
    shares = _shares(counts, round(fraction * len(labels)), np.maximum(counts - 1, 0))
    cut = _draw(labels, counts, shares, seed)
    return _indices(~cut), _indices(cut)


def stratified_limit(targets: Tensor, limit: int, seed: int, task: Task) -> Tensor:
    """The indices of at most `limit` samples, int64 in ascending order, drawn at random with `seed`.

    Each class gives its share (largest remainder), which may be none for a rare class.
    """
    labels = _labels(targets, task)
    counts = np.bincount(labels)
    return _indices(_draw(labels, counts, _shares(counts, limit, counts), seed))


def _labels(targets: Tensor, task: Task) -> Ints:
    if task == "classification":
        return targets.numpy()
    return np.zeros(len(targets), dtype=np.int64)


def _shares(counts: Ints, total: int, most: Ints) -> Ints:
    """How many samples each class gives, `total` in all where `most` a class allows it."""
    total = min(total, int(most.sum()))
    shares, remainders = np.divmod(counts * total, max(1, int(counts.sum())))
    shares = np.minimum(shares, most)
    by_remainder = np.argsort(-remainders, kind="stable")
    # One round is enough unless a class is held back by `most`.
    while left := total - int(shares.sum()):
        willing = by_remainder[(shares < most)[by_remainder]]
        shares[willing[:left]] += 1
    return shares


def _draw(labels: Ints, counts: Ints, shares: Ints, seed: int) -> NDArray[np.bool_]:
    """A mask with `shares[c]` random samples of each class c."""
    keys = np.random.Generator(np.random.PCG64(seed)).random(len(labels))
    by_class = np.lexsort((keys, labels))
    first = np.cumsum(counts) - counts
    rank = np.arange(len(labels)) - np.repeat(first, counts)
    mask = np.zeros(len(labels), dtype=np.bool_)
    mask[by_class[rank < np.repeat(shares, counts)]] = True
    return mask


def _indices(mask: NDArray[np.bool_]) -> Tensor:
    return from_numpy(np.flatnonzero(mask))
