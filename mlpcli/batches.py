"""From stored samples to the numbers that a model sees, a batch at a time."""

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from mlpcli.parts import Part, part_of
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
        rank, ranks: which of how many processes this is, that share each batch: only its part of it is served.
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
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        self.stored, self.targets, self.rows = stored, targets, rows
        self.prepare = prepare
        self.batch_size = batch_size
        self.shuffle_seed = shuffle_seed
        self._gather = gather
        self._augment = augment
        self._rank, self._ranks = rank, ranks
        features = stored.shape[1] if features is None else features
        # what is random about a batch depends on all of it
        self._whole = ranks == 1 or augment is not None
        self._size = size = batch_size if self._whole else part_of(batch_size, rank, ranks).count
        block = size * max(1, BLOCK_BYTES // (size * features * 4))
        block = min(block, self.steps * size)
        self._block = block
        self._in_place = shuffle_seed is None and rows is None and self._whole
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
        size = self._size
        return list(zip(self._inputs[:samples].split(size), self._targets[:samples].split(size), strict=True))

    def part(self, step: int) -> Part | None:
        """Which samples of the mini-batch of step `step` in an epoch are served here; None for all."""
        if self._ranks == 1:
            return None
        return part_of(min(self.batch_size, len(self) - step * self.batch_size), self._rank, self._ranks)

    def epoch(self, epoch: int, skip: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """The mini-batches of epoch `epoch`, without the first `skip`; each is valid until the next is taken.

        The shuffle is a function of the seed and the epoch, so that a run can continue anywhere in it.
        """
        order = torch.arange(len(self))
        if self.shuffle_seed is not None:
            generator = torch.Generator().manual_seed(stream_seed(self.shuffle_seed, f"epoch {epoch}"))
            order = torch.randperm(len(self), generator=generator)
        order = order[skip * self.batch_size :]
        if not self._whole:
            order = torch.cat([batch[self._mine(len(batch))] for batch in order.split(self.batch_size)])
        order = order.to(self.targets.device)
        blocks = order.split(self._block) if len(order) else ()
        step = skip
        for samples, stored in zip(blocks, self._blocks(blocks), strict=True):
            n = len(samples)
            self.prepare(stored, self._inputs[:n])
            torch.index_select(self.targets, 0, samples, out=self._targets[:n])
            for inputs, targets in self._views if n == self._block else self._split(n):
                yield (inputs, targets) if self._augment is None else self._augmented(inputs, targets, epoch, step)
                step += 1
        if step < self.steps:  # a last batch with fewer samples than there are ranks
            yield self._inputs[:0], self._targets[:0]

    def _mine(self, samples: int) -> slice:
        """This rank's samples of a batch of so many."""
        part = part_of(samples, self._rank, self._ranks)
        return slice(part.start, part.start + part.count)

    def _augmented(self, inputs: Tensor, targets: Tensor, epoch: int, step: int) -> tuple[Tensor, Tensor]:
        assert self._augment is not None
        mine = self._mine(len(inputs))
        inputs, targets = self._augment(inputs, targets, epoch, step)
        return inputs[mine], targets[mine]

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
