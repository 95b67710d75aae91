"""Backpropagation written out for the multi-layer perceptron: forward, backward, update, in place, without a tape.

With x⁰ the inputs, z = x W + b and h = σ(z) in each hidden layer, x its h (times the dropout mask), and δ the
derivative of the loss by z, the chain rule gives for each layer, last to first (Rumelhart, Hinton & Williams
1986):

    ∂L/∂W = xᵀ δ        ∂L/∂b = Σ δ        δ of the layer before = δ Wᵀ ⊙ mask ⊙ σ′(z)

All parameters lie in one flat buffer, and so do the gradient and what the optimizer keeps, so that an update is
one pass over memory. Weights are stored (inputs, outputs), the transpose of torch's layout, for which the products
of small batches are faster. The model's own parameters are views of that buffer.

In mixed precision (Micikevicius et al. 2018) the factors of all products are bfloat16: the activations, δ, and a
copy of θ that is made anew after each update; so is a batch's gradient. θ itself, the sum of gradients over chunks
and the optimizer's state keep their type.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mlpcli.embedding import InputEmbedding
from mlpcli.model import DropoutMask, flat_views, flatten
from mlpcli.objective import Loss
from mlpcli.parts import Part
from mlpcli.ranks import Ranks
from mlpcli.sums import Sums

aten = torch.ops.aten

OPTIMIZERS = (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW)
"""What the update covers."""


@dataclass(frozen=True)
class Activation:
    """σ and its derivative.

    Attributes:
        forward: (z, h): writes σ(z) into h, which is z itself unless `keeps_z`.
        backward: (δ, z, h): multiplies δ by σ′(z) in place.
        keeps_z: whether the derivative needs z besides h.
    """

    forward: Callable[[Tensor, Tensor], object]
    backward: Callable[[Tensor, Tensor, Tensor], object]
    keeps_z: bool = False


BUCKET_NUMBERS = 2**17
"""At least so many are summed over the ranks at once: fewer would pay more often for the way there and back."""

SLOPE = nn.LeakyReLU().negative_slope

ACTIVATIONS: dict[type[nn.Module], Activation] = {
    nn.Identity: Activation(lambda z, h: None, lambda d, z, h: None),
    nn.ReLU: Activation(
        lambda z, h: torch.relu_(h),
        lambda d, z, h: aten.threshold_backward.grad_input(d, h, 0, grad_input=d),
    ),
    nn.LeakyReLU: Activation(
        lambda z, h: F.leaky_relu_(h, SLOPE),
        lambda d, z, h: aten.leaky_relu_backward.grad_input(d, h, SLOPE, True, grad_input=d),
    ),
    nn.Tanh: Activation(
        lambda z, h: torch.tanh_(h),
        lambda d, z, h: aten.tanh_backward.grad_input(d, h, grad_input=d),
    ),
    nn.Sigmoid: Activation(
        lambda z, h: torch.sigmoid_(h),
        lambda d, z, h: aten.sigmoid_backward.grad_input(d, h, grad_input=d),
    ),
    nn.GELU: Activation(
        lambda z, h: aten.gelu.out(z, out=h),
        lambda d, z, h: aten.gelu_backward.grad_input(d, z, grad_input=d),
        keeps_z=True,
    ),
    nn.SiLU: Activation(
        lambda z, h: aten.silu.out(z, out=h),
        lambda d, z, h: aten.silu_backward.grad_input(d, z, grad_input=d),
        keeps_z=True,
    ),
}


@dataclass(frozen=True)
class Affine:
    """An affine layer's place in the buffers: views, shaped (inputs, outputs) and (outputs,).

    Attributes:
        name: of the layer in the model, for messages.
        weight, weight_t, bias: θ, as the products take it.
        weight_into, bias_into: where its gradient is accumulated; in mixed precision, where it is computed.
        start: where its place in the flat buffers begins.
    """

    name: str
    weight: Tensor
    weight_t: Tensor
    bias: Tensor | None
    weight_into: Tensor
    bias_into: Tensor | None
    start: int


@dataclass(frozen=True)
class Hidden:
    """What the n samples of a batch leave in one hidden layer, each (n, units).

    Attributes:
        z, h: before and after σ, one tensor where the derivative needs no z.
        mask: of dropout; None without it.
        x, x_t: what the next layer sees, and its transpose.
        delta, delta_t: the derivative of the loss by z, and its transpose.
    """

    z: Tensor
    h: Tensor
    mask: DropoutMask | None
    x: Tensor
    x_t: Tensor
    delta: Tensor
    delta_t: Tensor


@dataclass(frozen=True)
class Workspace:
    """Everything of a batch of n samples: made once for each n that occurs."""

    hidden: list[Hidden]
    outputs: Tensor
    delta: Tensor
    ones: Tensor
    inputs: Tensor
    """(n, features) in bfloat16, and likewise the next two; empty where nothing is mixed."""
    low_outputs: Tensor
    low_delta: Tensor


class Explicit:
    """The gradient and the update of a plain multi-layer perceptron.

    `gradient` then `update` is a step; several `gradient` calls accumulate. The state of `optimizer` is kept in
    views of flat buffers: after loading a state into the optimizer call `adopt_state`.

    Args:
        model: affine layers, activations and dropout, as `build_mlp` makes them, perhaps after a front that
            learns nothing. Its parameters are moved into a flat buffer.
        loss: what is minimised.
        optimizer: of `OPTIMIZERS`, over the model's parameters; its options and its state.
        batch_size: the most samples of one call.
        clip_grad_norm: the gradient is scaled down to this norm where it is longer.
        bfloat16: whether the factors of products are of that type.
        ranks: the processes that share each batch.

    Raises:
        TypeError: a layer or an optimizer that this engine does not cover.
    """

    def __init__(
        self,
        model: nn.Sequential,
        loss: Loss,
        optimizer: torch.optim.Optimizer,
        batch_size: int,
        clip_grad_norm: float | None = None,
        bfloat16: bool = False,
        ranks: Ranks | None = None,
    ) -> None:
        if not isinstance(optimizer, OPTIMIZERS):
            raise TypeError(f"no explicit update for {type(optimizer).__name__}")
        self.loss = loss
        self.optimizer = optimizer
        self.clip_grad_norm = clip_grad_norm
        self.watch: Callable[[str, Tensor], None] | None = None
        self._model = model
        self._ranks = Ranks() if ranks is None else ranks
        self._theta = flatten(model)
        options = optimizer.param_groups[0]
        self._momentum = float(options.get("momentum", 0.0))
        names = ("exp_avg", "exp_avg_sq") if "betas" in options else ("momentum_buffer",) if self._momentum else ()
        self._state = {name: torch.zeros_like(self._theta) for name in names}
        # a number for each parameter, as torch.optim has it, all equal
        self._adam_steps = self._theta.new_zeros(len(list(model.parameters())), dtype=torch.float32)
        self._adam_step = self._adam_steps[0]
        # the velocity μv + g needs no pass of its own where the products can be added to μv straight away
        self._accumulates = (
            names == ("momentum_buffer",)
            and not options["nesterov"]
            and not options["weight_decay"]
            and clip_grad_norm is None
            and not bfloat16
        )
        self._sums = self._ranks.sums(self._theta) if self._ranks.several else None
        self._into = torch.zeros_like(self._theta) if self._sums is None else self._sums.flat
        if self._accumulates:
            self._state["momentum_buffer"] = self._into
        self._mixed = bfloat16
        self._factors = self._theta.bfloat16() if bfloat16 else self._theta
        self._products = torch.zeros_like(self._factors) if bfloat16 else self._into
        self._affine: list[Affine] = []
        self._activation: Activation = ACTIVATIONS[nn.Identity]
        self._dropout = 0.0
        self._front: InputEmbedding | None = None
        self._read(model)
        self._batch_size = batch_size
        self._full: Workspace | None = None
        self._workspaces: dict[Part, Workspace] = {}
        self.adopt_state()

    def _read(self, model: nn.Sequential) -> None:
        places = zip(flat_views(model, self._factors), flat_views(model, self._products), strict=True)
        for name, module in model.named_children():
            if isinstance(module, nn.Linear):
                text = f"layer {name} ({module})"
                weight, weight_into = next(places)
                bias, bias_into = next(places) if module.bias is not None else (None, None)
                start = int(weight_into.storage_offset())
                self._affine.append(Affine(text, weight.t(), weight, bias, weight_into.t(), bias_into, start))
            elif isinstance(module, nn.Dropout):
                self._dropout = module.p
            elif type(module) in ACTIVATIONS:
                self._activation = ACTIVATIONS[type(module)]
            elif isinstance(module, InputEmbedding) and not list(module.parameters()):
                self._front = module
            else:
                raise TypeError(f"no explicit derivative for {type(module).__name__}")

    def _workspace(self, part: Part) -> Workspace:
        """Buffers for the samples of a part; those of a smaller batch are the first rows of the full one's."""
        space = self._workspaces.get(part)
        if space is None:
            if self._full is None or part.count > len(self._full.outputs):
                self._full = self._allocate(max(part.count, self._batch_size))
            space = self._workspaces[part] = _first_rows(self._full, part, self._dropout)
        return space

    def _allocate(self, n: int) -> Workspace:
        hidden = []
        for affine in self._affine[:-1]:
            z, delta = (self._factors.new_empty(n, affine.weight.shape[1]) for _ in range(2))
            h = torch.empty_like(z) if self._activation.keeps_z else z
            x = torch.empty_like(z) if self._dropout else h
            hidden.append(Hidden(z, h, None, x, x.t(), delta, delta.t()))
        classes = self._affine[-1].weight.shape[1]
        rows = n if self._mixed else 0
        return Workspace(
            hidden=hidden,
            # column by column, because the softmax runs down the columns
            outputs=self._theta.new_empty(classes, n).t(),
            delta=self._theta.new_empty(classes, n).t(),
            ones=self._factors.new_ones(n),
            inputs=self._factors.new_empty(rows, self._affine[0].weight.shape[0]),
            low_outputs=self._factors.new_empty(rows, classes),
            low_delta=self._factors.new_empty(rows, classes),
        )

    def gradient(
        self,
        inputs: Tensor,
        targets: Tensor,
        share: float = 1.0,
        first: bool = True,
        last: bool = True,
        part: Part | None = None,
    ) -> Tensor:
        """Accumulate `share` of the gradient of the mean loss on a batch, after forgetting the one before if
        `first`; if `last`, add up what all ranks accumulated.

        Args:
            inputs: (n, features) as the model sees them.
            targets: (n,) class indices or (n, k) real numbers.
            part: which samples of the batch they are; None for all.

        Returns:
            The model's outputs (n, k), which the next call overwrites.
        """
        part = part or Part(0, len(inputs), len(inputs))
        space = self._workspace(part)
        # of what is kept each rank adds its share to the sum
        keep = 1.0 if not first else self._momentum / self._ranks.size if self._accumulates else 0.0
        sums = self._sums if last else None
        # --- forward
        if self._front is not None:
            inputs = self._front(inputs)
        x = inputs = space.inputs.copy_(inputs) if self._mixed else inputs
        for affine, here in zip(self._affine, space.hidden, strict=False):
            self._affine_map(affine, x, here.z)
            self._activation.forward(here.z, here.h)
            if here.mask is not None:
                torch.mul(here.h, here.mask.draw(), out=here.x)
            x = here.x
        self._affine_map(self._affine[-1], x, space.low_outputs if self._mixed else space.outputs)
        if self._mixed:
            space.outputs.copy_(space.low_outputs)
        # --- backward
        self.loss.derivative(space.outputs, targets, space.delta)
        if self._mixed:
            self._backward(space, inputs, space.low_delta.copy_(space.delta), 0.0, share / part.of, None)
            if first:
                self._into.copy_(self._products)
            else:
                self._into.add_(self._products)
            if sums is not None:
                sums.begin(0, len(self._into))()
        else:
            self._backward(space, inputs, space.delta, keep, share / part.of, sums)
        return space.outputs

    def accumulated(self) -> list[Tensor]:
        """The gradient so far for each parameter of the model, in its shape: views of the buffer."""
        return list(flat_views(self._model, self._into))

    def _backward(
        self, space: Workspace, inputs: Tensor, delta: Tensor, keep: float, scale: float, sums: Sums | None
    ) -> None:
        """`keep` times the gradient so far, plus `scale` times that of this batch; with `sums` over all ranks,
        layer by layer as they are ready."""
        delta_t = delta.t()
        end, waits = len(self._into), []
        for layer in range(len(self._affine) - 1, -1, -1):
            affine = self._affine[layer]
            before = space.hidden[layer - 1] if layer else None
            x_t = inputs.t() if before is None else before.x_t
            affine.weight_into.addmm_(x_t, delta, beta=keep, alpha=scale)
            if affine.bias_into is not None:
                affine.bias_into.addmv_(delta_t, space.ones, beta=keep, alpha=scale)
            if before is not None:
                torch.mm(delta, affine.weight_t, out=before.delta)
                if before.mask is not None:
                    before.delta.mul_(before.mask.numbers)
                self._activation.backward(before.delta, before.z, before.h)
                delta, delta_t = before.delta, before.delta_t
            if sums is not None and (layer == 0 or (sums.piecewise and end - affine.start >= BUCKET_NUMBERS)):
                waits.append(sums.begin(affine.start, end))
                end = affine.start
        for wait in waits:
            wait()

    def _affine_map(self, affine: Affine, x: Tensor, out: Tensor) -> None:
        if affine.bias is None:
            torch.mm(x, affine.weight, out=out)
        else:
            torch.addmm(affine.bias, x, affine.weight, out=out)
        if self.watch is not None:
            self.watch(affine.name, out)

    def step(self, inputs: Tensor, targets: Tensor, lr: float | Tensor, part: Part | None = None) -> Tensor:
        """`gradient`, then `update`; the outputs (n, k) before it, which the next call overwrites."""
        outputs = self.gradient(inputs, targets, part=part)
        self.update(lr)
        return outputs

    def update(self, lr: float | Tensor) -> None:
        """Clip the accumulated gradient where asked for, and move θ; `lr` may be a number on the device."""
        self._move(lr)
        if self._mixed:
            self._factors.copy_(self._theta)

    def _move(self, lr: float | Tensor) -> None:
        if self.clip_grad_norm is not None:
            norm = torch.linalg.vector_norm(self._into)
            self._into.mul_((self.clip_grad_norm / (norm + 1e-6)).clamp_(max=1.0))
        if self._accumulates:
            if isinstance(lr, Tensor):
                self._theta.addcmul_(self._into, lr, value=-1)
            else:
                self._theta.add_(self._into, alpha=-lr)
            return
        options = self.optimizer.param_groups[0]
        if "betas" in options:
            self._adam_steps.add_(1)
            step = torch._fused_adamw_ if options["decoupled_weight_decay"] else torch._fused_adam_
            step(
                [self._theta],
                [self._into],
                [self._state["exp_avg"]],
                [self._state["exp_avg_sq"]],
                [],
                [self._adam_step],
                lr=lr,
                beta1=options["betas"][0],
                beta2=options["betas"][1],
                weight_decay=options["weight_decay"],
                eps=options["eps"],
                amsgrad=False,
                maximize=False,
            )
            return
        torch._fused_sgd_(
            [self._theta],
            [self._into],
            list(self._state.values()),
            weight_decay=options["weight_decay"],
            momentum=self._momentum,
            lr=lr,
            dampening=0.0,
            nesterov=options["nesterov"],
            maximize=False,
            is_first_step=False,
        )

    def adopt_state(self) -> None:
        """Take the optimizer's state over into the flat buffers, and let the optimizer hold views of them; and θ,
        which may have changed too, into the factors of mixed precision."""
        if self._mixed:
            self._factors.copy_(self._theta)
        state = self.optimizer.state
        parameters = list(self._model.parameters())
        for name, flat in self._state.items():
            for parameter, view in zip(parameters, flat_views(self._model, flat), strict=True):
                loaded = state[parameter].get(name)
                if loaded is None:
                    view.zero_()
                else:
                    view.copy_(loaded)
                state[parameter][name] = view
        if "exp_avg" in self._state:
            for parameter, steps in zip(parameters, self._adam_steps, strict=True):
                steps.fill_(state[parameter].get("step", 0.0))
                state[parameter]["step"] = steps


def _first_rows(full: Workspace, part: Part, dropout: float) -> Workspace:
    hidden, n = [], part.count
    for each in full.hidden:
        z, delta = each.z[:n], each.delta[:n]
        h = z if each.h is each.z else each.h[:n]
        mask = DropoutMask(torch.empty_like(z), dropout, part) if dropout else None
        x = h if each.x is each.h else each.x[:n]
        hidden.append(Hidden(z, h, mask, x, x.t(), delta, delta.t()))
    others = (full.outputs, full.delta, full.ones, full.inputs, full.low_outputs, full.low_delta)
    return Workspace(hidden, *(each[:n] for each in others))
