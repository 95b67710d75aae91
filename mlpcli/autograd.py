"""The gradient by torch.autograd and the update by torch.optim: any layer, any optimizer."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from mlpcli.errors import DeviceError
from mlpcli.model import forward
from mlpcli.objective import Loss

Forward = Callable[[nn.Sequential, Tensor, bool], Tensor]


def _compiled(function: Forward) -> Forward:
    """`function` by torch.compile, whose kernels are made on the first call."""
    compiled = torch.compile(function)

    def call(model: nn.Sequential, inputs: Tensor, bfloat16: bool) -> Tensor:
        try:
            return compiled(model, inputs, bfloat16)
        except RuntimeError as error:
            if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
                raise
            reason = str(error).partition("\n")[0]
            raise DeviceError(
                f"training.compile: torch.compile cannot make kernels here: {reason}\n"
                "    it needs a C++ compiler (g++ or clang++); or set training.compile: false"
            ) from error

    return call


class Autograd:
    """The gradient and the update of any model.

    `gradient` then `update` is a step; several `gradient` calls accumulate.

    Args:
        model, loss, optimizer: what is trained, what is minimised, and how θ moves.
        clip_grad_norm: the gradient is scaled down to this norm where it is longer.
        bfloat16: whether the forward pass runs in bfloat16, with parameters in float32.
        compiled: whether torch.compile makes kernels of its own for this model, on the first step.
    """

    def __init__(
        self,
        model: nn.Sequential,
        loss: Loss,
        optimizer: torch.optim.Optimizer,
        *,
        clip_grad_norm: float | None = None,
        bfloat16: bool = False,
        compiled: bool = False,
    ) -> None:
        self.loss = loss
        self.optimizer = optimizer
        self.clip_grad_norm = clip_grad_norm
        self.watch: Callable[[str, Tensor], None] | None = None
        self._model = model
        self._bfloat16 = bfloat16
        self._forward = _compiled(forward) if compiled else forward
        self._parameters = list(model.parameters())

    def gradient(self, inputs: Tensor, targets: Tensor, share: float = 1.0, first: bool = True) -> Tensor:
        """Accumulate `share` of the gradient of the mean loss on a batch in each parameter's `grad`, after
        forgetting the one before if `first`.

        Args:
            inputs: (n, features) as the model sees them.
            targets: (n,) class indices or (n, k) real numbers.

        Returns:
            The model's outputs (n, k).
        """
        if first:
            self.optimizer.zero_grad()
        outputs = self._watched(inputs) if self.watch else self._forward(self._model, inputs, self._bfloat16)
        loss = self.loss(outputs, targets)
        (loss if share == 1.0 else loss * share).backward()
        return outputs.detach()

    def _watched(self, inputs: Tensor) -> Tensor:
        assert self.watch is not None
        watch, handles = self.watch, []
        for name, layer in self._model.named_children():
            text = f"layer {name} ({layer})"
            hook = layer.register_forward_hook(lambda _layer, _inputs, output, text=text: watch(text, output))
            handles.append(hook)
        try:
            return forward(self._model, inputs, self._bfloat16)
        finally:
            for handle in handles:
                handle.remove()

    def step(self, inputs: Tensor, targets: Tensor, lr: float) -> Tensor:
        """`gradient`, then `update`; the outputs (n, k) before it."""
        outputs = self.gradient(inputs, targets)
        self.update(lr)
        return outputs

    def update(self, lr: float) -> None:
        """Clip the gradient where asked for, and let the optimizer move θ; its groups hold `lr` already."""
        if self.clip_grad_norm is not None:
            nn.utils.clip_grad_norm_(self._parameters, self.clip_grad_norm)
        self.optimizer.step()

    def adopt_state(self) -> None:
        """Nothing to do: the optimizer's own state is what is used."""
