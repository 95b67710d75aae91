"""The explicit engine's step as one CUDA graph: the GPU is given a step at a time, not a kernel at a time.

A small network's kernels take less time than launching them from Python. A graph (Gray 2019, "Getting Started with
CUDA Graphs") records the launches once and replays them, on the same addresses. So each batch is copied to where
the recorded step reads it, and the learning rate is a number on the device.
"""

import logging
from collections.abc import Callable

import torch
from torch import Tensor

from mlpcli.explicit import Explicit
from mlpcli.parts import Part

log = logging.getLogger("mlpcli")

EAGER_STEPS = 3
"""Steps before the recording, in which libraries allocate and choose their kernels."""


def record(step: Callable[[], object]) -> Callable[[], None]:
    """Record what `step` launches on the GPU, without running it; what is returned runs it.

    Raises:
        RuntimeError: something in it cannot be recorded.
    """
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


class Captured:
    """An engine that replays the steps of `engine`; those of another batch size, and single gradients, it runs.

    Args:
        engine: whose state is on a CUDA device.
        batch_size: of the recorded step.
        record: step -> what runs it again on the same tensors.
    """

    def __init__(
        self,
        engine: Explicit,
        batch_size: int,
        record: Callable[[Callable[[], object]], Callable[[], None]] = record,
    ) -> None:
        self.engine = engine
        self.gradient = engine.gradient
        self.update = engine.update
        self.adopt_state = engine.adopt_state
        self._batch_size = batch_size
        self._record = record
        self._eager_steps = EAGER_STEPS
        self._replay: Callable[[], None] | None = None
        self._inputs: Tensor
        self._targets: Tensor
        self._outputs: Tensor
        self._lr: Tensor

    @property
    def watch(self) -> Callable[[str, Tensor], None] | None:
        """Called with each affine layer's text and output where it is set; then nothing is replayed."""
        return self.engine.watch

    @watch.setter
    def watch(self, watch: Callable[[str, Tensor], None] | None) -> None:
        self.engine.watch = watch

    def step(self, inputs: Tensor, targets: Tensor, lr: float, part: Part | None = None) -> Tensor:
        """`gradient`, then `update`: see `Explicit.step`."""
        assert part is None, "a graph is of a whole batch"
        if len(inputs) != self._batch_size or self._eager_steps or self.watch is not None:
            self._eager_steps = max(0, self._eager_steps - 1)
            return self.engine.step(inputs, targets, lr)
        if self._replay is None:
            self._replay = self._recorded(inputs, targets)
        self._inputs.copy_(inputs)
        self._targets.copy_(targets)
        self._lr.fill_(lr)
        self._replay()
        return self._outputs

    def _recorded(self, inputs: Tensor, targets: Tensor) -> Callable[[], None]:
        self._inputs, self._targets = torch.empty_like(inputs), torch.empty_like(targets)
        self._lr = torch.zeros((), dtype=torch.float32, device=inputs.device)

        def step() -> None:
            self._outputs = self.engine.step(self._inputs, self._targets, self._lr)

        try:
            return self._record(step)
        except RuntimeError as error:
            reason = str(error).partition("\n")[0]
            log.warning("every step is launched kernel by kernel, as it cannot be captured: %s", reason)
            return step
