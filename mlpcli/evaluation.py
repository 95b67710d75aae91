"""A model on a split -> numbers."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mlpcli.batches import Batches
from mlpcli.embedding import InputEmbedding
from mlpcli.model import forward
from mlpcli.objective import Metrics
from mlpcli.ranks import Ranks
from mlpcli.sharding import is_sharded

aten = torch.ops.aten

CHUNK_NUMBERS = 2**19
"""Numbers of the widest layer that are in memory at once: what the CPU's cache holds. A constant: the same chunks
give the same sums, so evaluating a checkpoint again gives the numbers that training wrote, to the last digit."""


SHORT = 32
"""Classes up to which a row of outputs is short."""


@dataclass(frozen=True)
class Evaluation:
    """What a model does on a split.

    Attributes:
        samples: how many.
        metrics: by name.
        confusion: (classes, classes) counts, true class by predicted class; None in regression.
    """

    samples: int
    metrics: dict[str, float]
    confusion: Tensor | None = None

    def per_class(self) -> list[dict[str, float | None]]:
        """Precision, recall and number of samples of each class.

        Precision is None for a class that is never predicted, recall for a class without samples.
        """
        if self.confusion is None:
            return []
        rows: list[dict[str, float | None]] = []
        for index, row in enumerate(self.confusion):
            correct, samples = int(row[index]), int(row.sum())
            predicted = int(self.confusion[:, index].sum())
            rows.append(
                {
                    "precision": correct / predicted if predicted else None,
                    "recall": correct / samples if samples else None,
                    "samples": samples,
                }
            )
        return rows


IN_PLACE: dict[type[nn.Module], Callable[[Tensor], object]] = {
    nn.ReLU: torch.relu_,
    nn.LeakyReLU: F.leaky_relu_,
    nn.GELU: aten.gelu_,
    nn.SiLU: aten.silu_,
    nn.Tanh: torch.tanh_,
    nn.Sigmoid: torch.sigmoid_,
}


class Inference:
    """The model's outputs in evaluation mode, computed in buffers that are made once.

    Args:
        model: as `build_mlp` makes it, in evaluation mode; its weights may be copied here.
        rows: the most samples of one call.
        bfloat16: whether products run in that type.
    """

    @torch.no_grad()
    def __init__(self, model: nn.Sequential, rows: int, bfloat16: bool = False) -> None:
        self._model = model
        self._bfloat16 = bfloat16
        linears = [layer for layer in model if isinstance(layer, nn.Linear) and not bfloat16]
        self._buffers = {layer: layer.weight.new_empty((rows, layer.out_features)) for layer in linears}
        # transposed whichever engine trained them, because the layout decides how the products round
        self._weights = {layer: layer.weight.t().contiguous() for layer in linears}

    @torch.no_grad()
    def __call__(self, inputs: Tensor) -> Tensor:
        """The outputs (n, k) of prepared inputs (n, features), which stay as they are; valid until the next
        call."""
        if self._bfloat16:
            return forward(self._model, inputs, bfloat16=True)
        x = inputs
        for layer in self._model:
            if isinstance(layer, nn.Linear):
                out = self._buffers[layer][: len(x)]
                if layer.bias is None:
                    x = torch.mm(x, self._weights[layer], out=out)
                else:
                    x = torch.mm(x, self._weights[layer], out=out).add_(layer.bias)
            elif type(layer) in IN_PLACE:
                IN_PLACE[type(layer)](x)
            elif not isinstance(layer, nn.Dropout):
                x = layer(x)
        return x


def probabilities(loss: str, outputs: Tensor) -> Tensor:
    """What a classifier's outputs (n, classes) say of the classes, each row with sum 1.

    Their softmax where `loss` is cross_entropy. The other losses fit the outputs to one-hot vectors, whose means
    are the probabilities: then they are the point nearest to the outputs of those that are at least 0 with sum 1
    (Held, Wolfe & Crowder 1974), so that the largest output stays the most probable class.
    """
    if loss == "cross_entropy":
        # a short row is not enough for vector instructions; down the columns it takes a quarter of the time
        return outputs.softmax(1) if outputs.shape[1] > SHORT else outputs.t().softmax(0).t()
    ordered = outputs.sort(1, descending=True).values
    surplus = (ordered.cumsum(1) - 1) / torch.arange(1, outputs.shape[1] + 1, device=outputs.device)
    return (outputs - surplus.amax(1, keepdim=True)).clamp(min=0)


def chunk_rows(model: nn.Sequential) -> int:
    """Samples that are measured at once."""
    widths = [max(m.in_features, m.out_features) for m in model if isinstance(m, nn.Linear)]
    widths += [m.front.widest for m in model if isinstance(m, InputEmbedding)]
    return max(1, CHUNK_NUMBERS // max(widths))


@torch.no_grad()
def evaluate(
    model: nn.Sequential,
    batches: Batches,
    metrics: Metrics,
    *,
    bfloat16: bool = False,
    shared: "Shared | None" = None,
) -> Evaluation:
    """Measure the model in evaluation mode (dropout off, running statistics); its mode is restored.

    Args:
        model: maps prepared inputs (n, features) to outputs (n, k).
        batches: of at least one sample, in stored order.
        metrics: fresh sums to add to.
        bfloat16: whether the forward pass runs in bfloat16.
        shared: who shares the work; None where nobody does.
    """
    was_training = model.training
    model.eval()
    outputs_of: Callable[[Tensor], Tensor] = (
        partial(forward, model, bfloat16=bfloat16)
        if is_sharded(model)
        else Inference(model, batches.batch_size, bfloat16)
    )
    if shared is None:
        for inputs, targets in batches.epoch(0):
            metrics.add(outputs_of(inputs), targets)
    else:
        for outputs, targets in shared.outputs(outputs_of, batches):
            metrics.add(outputs, targets)
    model.train(was_training)
    return Evaluation(metrics.samples, metrics.result(), metrics.confusion())


@dataclass(frozen=True)
class Shared:
    """A split that several ranks measure together.

    Its chunks are those of a single process, go to the ranks in turn, and are counted in their order on every
    rank: so the numbers are the same to the last digit, on each of them.

    Attributes:
        ranks: who shares.
        targets: of the whole split.
    """

    ranks: Ranks
    targets: Tensor

    @staticmethod
    def rows(samples: int, chunk: int, ranks: Ranks) -> Tensor:
        """The samples of this rank's chunks, in order; those of the last chunk for a rank that would have none."""
        chunks = torch.arange(samples).split(chunk)
        return torch.cat(chunks[ranks.rank :: ranks.size] or chunks[-1:])

    def outputs(self, outputs_of: Callable[[Tensor], Tensor], batches: Batches) -> Iterator[tuple[Tensor, Tensor]]:
        """Outputs and targets of every chunk; `batches` are this rank's own."""
        mine = batches.epoch(0)
        size = batches.batch_size
        outputs = inputs = None
        for start in range(0, len(self.targets), size * self.ranks.size):
            batch = next(mine, None)
            if batch is not None:
                inputs = batch[0]
            # also where there is none: a network in shards is computed by all together
            assert inputs is not None, "every rank has a chunk"
            with self.ranks.answers("a layer"):
                computed = outputs_of(inputs)
            if outputs is None:
                outputs = computed.new_zeros(size, computed.shape[1])
            outputs[: len(computed)] = computed
            for rank, theirs in enumerate(self.ranks.gather(outputs)):
                targets = self.targets[start + rank * size : start + (rank + 1) * size]
                if len(targets):
                    yield theirs[: len(targets)], targets
