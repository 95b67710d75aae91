"""How the CPU's threads compute: how many there are, and how they round what is next to nothing."""

import copy
import time

import torch
from torch import Tensor

from mlpcli.training import Trainer

ROWS = 1024
"""The most samples of a timed batch: enough to tell, where a step takes the whole training split."""

SECONDS = 0.02
"""Timed for each number of threads, or one gradient where that takes longer."""

GAIN = 0.9
"""More threads must take at most this share of the time of fewer: a tie is not worth a core, nor a result that
depends on the noise of the timing."""


def flush_denormals() -> None:
    """Let numbers closer to 0 than the smallest normal one count as 0, in this thread and those it starts.

    Momenta of units that no longer learn decay into the denormal numbers, on which the CPU is many times slower.
    Call it before any arithmetic: torch's other threads take the mode over when the first needs them.
    """
    torch.set_flush_denormal(True)


def fastest_threads(trainer: Trainer, most: int) -> int:
    """The number of threads, of 1, 2, 4, … and `most`, with which a gradient is computed fastest.

    Times the gradient of one batch. The trainer must be at its start, and is left as it was; torch's own number of
    threads is left at the result.
    """
    if trainer.batches.targets.is_cuda or most == 1:
        return most
    counts = [*(2**k for k in range(most.bit_length()) if 2**k < most), most]
    inputs, targets = next(trainer.batches.epoch(0))
    generator = torch.get_rng_state()
    weights = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    optimizer = copy.deepcopy(trainer.optimizer.state_dict())
    trainer.model.train()
    best, shortest = 1, float("inf")
    for count in counts:
        torch.set_num_threads(count)
        seconds = _seconds(trainer, inputs[:ROWS], targets[:ROWS])
        if seconds < GAIN * shortest:
            best, shortest = count, seconds
    torch.set_num_threads(best)
    trainer.model.load_state_dict(weights)
    trainer.optimizer.zero_grad()
    trainer.optimizer.load_state_dict(optimizer)
    trainer.engine.adopt_state()
    torch.set_rng_state(generator)
    return best


def _seconds(trainer: Trainer, inputs: Tensor, targets: Tensor) -> float:
    """Of one gradient, the shortest of several after a first one that warms up."""
    shortest = float("inf")
    trainer.engine.gradient(inputs, targets, last=False)
    until = time.perf_counter() + SECONDS
    while shortest == float("inf") or time.perf_counter() < until:
        started = time.perf_counter()
        trainer.engine.gradient(inputs, targets, last=False)
        shortest = min(shortest, time.perf_counter() - started)
    return shortest
