"""Which samples of a batch are whose, where several processes share it."""

from typing import NamedTuple


class Part(NamedTuple):
    """Consecutive samples of a batch: `count` of them from `start` on, of `of`."""

    start: int
    count: int  # type: ignore[assignment]  # which a tuple has as a method, of no use here
    of: int


def part_of(samples: int, rank: int, ranks: int) -> Part:
    """The part of rank `rank` (from 0) in a batch of so many samples: as many as others have, or one more."""
    each, more = divmod(samples, ranks)
    return Part(rank * each + min(rank, more), each + (rank < more), samples)
