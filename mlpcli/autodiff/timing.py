"""Times that can be compared: the least of several calls."""

import time
from collections.abc import Callable

BUDGET = 0.06
"""Seconds after which no third call, or later one, begins."""


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
