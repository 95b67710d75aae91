"""The gradient by torch.autograd and the update by torch.optim: any layer, any optimizer."""

from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from mlpcli.errors import DeviceError
from mlpcli.model import Dropout, forward
from mlpcli.objective import Loss
from mlpcli.parts import Part
from mlpcli.ranks import Ranks
from mlpcli.sharding import is_sharded
from mlpcli.sums import Sums

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
        ranks: the processes that share each batch.
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
        ranks: Ranks | None = None,
    ) -> None:
        self.loss = loss
        self.optimizer = optimizer
        self.clip_grad_norm = clip_grad_norm
        self.watch: Callable[[str, Tensor], None] | None = None
        self._model = model
        self._bfloat16 = bfloat16
        self._forward = _compiled(forward) if compiled else forward
        self._parameters = list(model.parameters())
        self._dropouts = [layer for layer in model.modules() if isinstance(layer, Dropout)]
        self._ranks = Ranks() if ranks is None else ranks
        self._sharded = is_sharded(model)  # then whoever shards sums the gradients, too
        # else the gradient is one piece, to be summed over the ranks in one go
        self._sums: Sums | None = None
        if self._ranks.several and not self._sharded:
            lengths = [parameter.numel() for parameter in self._parameters]
            self._sums = self._ranks.sums(self._parameters[0].new_empty(sum(lengths), requires_grad=False))
            self.adopt_state()

    def gradient(
        self,
        inputs: Tensor,
        targets: Tensor,
        share: float = 1.0,
        first: bool = True,
        last: bool = True,
        part: Part | None = None,
    ) -> Tensor:
        """Accumulate `share` of the gradient of the mean loss on a batch in each parameter's `grad`, after
        forgetting the one before if `first`; if `last`, add up what all ranks accumulated.

        Args:
            inputs: (n, features) as the model sees them.
            targets: (n,) class indices or (n, k) real numbers.
            part: which samples of the batch they are; None for all.

        Returns:
            The model's outputs (n, k).
        """
        if first and self._sums is not None:
            self._sums.flat.zero_()
        elif first:
            self.optimizer.zero_grad()
        for dropout in self._dropouts:
            dropout.part = part
        # in shards, a layer is computed by all ranks together
        with self._ranks.answers("a layer") if self._sharded else nullcontext():
            outputs = self._outputs_after_backward(inputs, targets, share, part)
        if last and self._sums is not None:
            self._sums.begin(0, len(self._sums.flat))()
        return outputs.detach()

    def _outputs_after_backward(self, inputs: Tensor, targets: Tensor, share: float, part: Part | None) -> Tensor:
        outputs = self._watched(inputs) if self.watch else self._forward(self._model, inputs, self._bfloat16)
        if part is None:
            loss = self.loss(outputs, targets)
            (loss if share == 1.0 else loss * share).backward()
        else:
            # shards are averaged over the ranks
            share *= self._ranks.size if self._sharded else 1
            (self.loss.total(outputs, targets) * (share / part.of)).backward()
        return outputs

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

    def step(self, inputs: Tensor, targets: Tensor, lr: float, part: Part | None = None) -> Tensor:
        """`gradient`, then `update`; the outputs (n, k) before it."""
        outputs = self.gradient(inputs, targets, part=part)
        self.update(lr)
        return outputs

    def update(self, lr: float) -> None:
        """Clip the gradient where asked for, and let the optimizer move θ; its groups hold `lr` already."""
        with self._ranks.answers("an update") if self._sharded else nullcontext():
            if self.clip_grad_norm is not None:
                nn.utils.clip_grad_norm_(self._parameters, self.clip_grad_norm)
            self.optimizer.step()

    def adopt_state(self) -> None:
        """Of the optimizer's state nothing; gradients that were set to None are views of the one piece again."""
        if self._sums is not None:
            places = self._sums.flat.split([parameter.numel() for parameter in self._parameters])
            for parameter, place in zip(self._parameters, places, strict=True):
                parameter.grad = place.view_as(parameter)
