"""Times that can be compared: one thread, and the least of several calls."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

BUDGET = 0.06
"""Seconds after which no third call, or later one, begins."""


@contextmanager
def one_thread() -> Iterator[None]:
    """torch computes on one thread, so that times follow the operations, and not how many cores are free."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def least_seconds(call: Callable[[], object]) -> float:
    """The shortest of at least two calls within BUDGET seconds: what else the machine does only adds.

    Seconds are those that this thread computes; while others have the processor, they stand still.
    """
    times: list[float] = []
    begin = time.perf_counter()
    while len(times) < 2 or time.perf_counter() - begin < BUDGET:
        before = time.thread_time()
        call()
        times.append(time.thread_time() - before)
    return min(times)
