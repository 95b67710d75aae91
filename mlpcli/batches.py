"""From stored samples to the numbers that a model sees, a batch at a time."""

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from mlpcli.seeds import stream_seed

Augment = Callable[[Tensor, Tensor, int, int], tuple[Tensor, Tensor]]

BLOCK_BYTES = 2**20
"""Samples are gathered and standardised this many bytes at a time: few calls, and the block stays in the cache."""


class Batches:
    """A split in memory, served in mini-batches or chunks.

    The samples of several batches are gathered and standardised at once, into buffers that are made here.

    Args:
        stored: (m, features), as the source has them (images in uint8).
        targets: (n,) class indices, or (n, k) standardised real numbers.
        prepare: (stored rows, out) -> writes the numbers that the model sees into `out`.
        batch_size: samples of a mini-batch; the last one of an epoch may be smaller.
        shuffle_seed: of the shuffles; None for the stored order.
        rows: (n,) which rows of `stored` are the samples; None for all of them.
        features: numbers that it sees of a sample, as many as are stored unless stated.
        dtype: of them.
        gather: (stored, row numbers of each block) -> the rows of each, where that is not for this process to do.
        augment: (inputs, targets, epoch, step in it) -> what takes the place of a batch.
    """

    def __init__(
        self,
        stored: Tensor,
        targets: Tensor,
        prepare: Callable[[Tensor, Tensor], object],
        batch_size: int,
        shuffle_seed: int | None,
        *,
        rows: Tensor | None = None,
        features: int | None = None,
        dtype: torch.dtype = torch.float32,
        gather: Callable[[Tensor, Sequence[Tensor]], Iterator[Tensor]] | None = None,
        augment: Augment | None = None,
    ) -> None:
        self.stored, self.targets, self.rows = stored, targets, rows
        self.prepare = prepare
        self.batch_size = batch_size
        self.shuffle_seed = shuffle_seed
        self._gather = gather
        self._augment = augment
        features = stored.shape[1] if features is None else features
        block = batch_size * max(1, BLOCK_BYTES // (batch_size * features * 4))
        block = min(block, self.steps * batch_size)
        self._block = block
        self._in_place = shuffle_seed is None and rows is None
        self._stored = stored.new_empty((0 if self._in_place or gather else block, stored.shape[1]))
        self._inputs = targets.new_empty((block, features), dtype=dtype)
        self._targets = targets.new_empty((block, *targets.shape[1:]))
        self._views = self._split(block)

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def steps(self) -> int:
        """Mini-batches in an epoch."""
        return math.ceil(len(self) / self.batch_size)

    def _split(self, samples: int) -> list[tuple[Tensor, Tensor]]:
        """The first samples of the buffers as batches."""
        size = self.batch_size
        return list(zip(self._inputs[:samples].split(size), self._targets[:samples].split(size), strict=True))

    def epoch(self, epoch: int, skip: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """The mini-batches of epoch `epoch`, without the first `skip`; each is valid until the next is taken.

        The shuffle is a function of the seed and the epoch, so that a run can continue anywhere in it.
        """
        order = torch.arange(len(self))
        if self.shuffle_seed is not None:
            generator = torch.Generator().manual_seed(stream_seed(self.shuffle_seed, f"epoch {epoch}"))
            order = torch.randperm(len(self), generator=generator)
        order = order[skip * self.batch_size :].to(self.targets.device)
        blocks = order.split(self._block) if len(order) else ()
        step = skip
        for samples, stored in zip(blocks, self._blocks(blocks), strict=True):
            n = len(samples)
            self.prepare(stored, self._inputs[:n])
            torch.index_select(self.targets, 0, samples, out=self._targets[:n])
            for inputs, targets in self._views if n == self._block else self._split(n):
                yield (inputs, targets) if self._augment is None else self._augment(inputs, targets, epoch, step)
                step += 1

    def _blocks(self, blocks: Sequence[Tensor]) -> Iterator[Tensor]:
        """The stored rows of the samples of each block in turn, valid until the next is taken."""
        if self._in_place:
            for samples in blocks:
                first = int(samples[0])
                yield self.stored[first : first + len(samples)]
            return
        places = [s if self.rows is None else self.rows.index_select(0, s.to(self.rows.device)) for s in blocks]
        if self._gather is not None:
            for stored in self._gather(self.stored, places):
                yield stored.to(self.targets.device)
            return
        for each in places:
            # index_select copies whole rows: three times as fast as indexing on bytes
            yield torch.index_select(self.stored, 0, each, out=self._stored[: len(each)])
