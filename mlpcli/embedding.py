"""How the rows of a table enter the network: embeddings of their numbers and categories.

After Gorishniy, Rubachev & Babenko (2022), "On Embeddings for Numerical Features in Tabular Deep Learning".
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mlpcli.layers import Front, embedding_size

UNBOUNDED = torch.finfo(torch.float32).max
"""Where no clamp is: finite, because an infinity in a model means that its training diverged."""
QUANTILE_ROWS = 2**20
"""Rows whose quantiles are taken; of more rows, a sample of this size, which places them to within 0.2 %."""


class InputEmbedding(nn.Module):
    """(n, front.features) -> (n, front.outputs): [embedded numbers | passed through | embedded categories].

    The state dict has all that is fitted, under `numeric` and `categories`.

    Args:
        front: what it embeds and how.
        sigma: standard deviation of the initial frequencies of `periodic`.
        edges: for `piecewise_linear`, as `quantile_edges` makes them; None where a state dict is loaded next.
    """

    def __init__(self, front: Front, *, sigma: float = 0.1, edges: Sequence[Tensor] | None = None) -> None:
        super().__init__()
        self.front = front
        self.numeric: nn.Module | None = None
        if "periodic" in front.parts:
            self.numeric = Periodic(front.numbers, front.frequencies, front.size, sigma)
        elif "piecewise_linear" in front.parts:
            self.numeric = PiecewiseLinear(front.components, edges)
        # row 0 stays zero: torch gives it no gradient
        tables = (nn.Embedding(count + 1, embedding_size(count), padding_idx=0) for count in front.categories)
        self.categories = nn.ModuleList(tables)

    def forward(self, inputs: Tensor) -> Tensor:
        """The embedded rows."""
        front = self.front
        codes = front.features - len(front.categories)
        embedded = 0 if self.numeric is None else front.numbers
        parts = [] if self.numeric is None else [self.numeric(inputs[:, :embedded])]
        if embedded < codes:
            parts.append(inputs[:, embedded:codes])
        for place, table in enumerate(self.categories, codes):
            parts.append(table(inputs[:, place].long()))
        return torch.cat(parts, dim=1)

    def __repr__(self) -> str:
        """On one line, as it stands in messages."""
        front = self.front
        return f"InputEmbedding({front.kind}, in_features={front.features}, out_features={front.outputs})"


class Periodic(nn.Module):
    """(n, numbers) -> (n, numbers · size): ReLU(affine(v)) of each number x (PLR, section 3.3 of the paper).

    v = [sin(2πcx), cos(2πcx)] with `frequencies` learned c, and each number has an affine map of its own, whose
    initial weights are those of torch.nn.Linear.

    Args:
        numbers: numbers in a row.
        frequencies: c for each of them.
        size: what each number becomes.
        sigma: standard deviation of the initial c, which are normal with mean 0.
    """

    def __init__(self, numbers: int, frequencies: int, size: int, sigma: float) -> None:
        super().__init__()
        bound = 1 / math.sqrt(2 * frequencies)
        self.frequencies = nn.Parameter(torch.empty(numbers, frequencies).normal_(std=sigma))
        self.weight = nn.Parameter(torch.empty(numbers, 2 * frequencies, size).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(numbers, size).uniform_(-bound, bound))

    def forward(self, numbers: Tensor) -> Tensor:
        """The embedded numbers, one after the other."""
        # a number's samples lie together, so that all numbers take one batched product
        angles = numbers.t().unsqueeze(2) * (2 * math.pi * self.frequencies).unsqueeze(1)
        waves = torch.cat((angles.sin(), angles.cos()), dim=2)
        embedded = torch.baddbmm(self.bias.unsqueeze(1), waves, self.weight).relu()
        return embedded.transpose(0, 1).flatten(1)


class PiecewiseLinear(nn.Module):
    """(n, numbers) -> (n, components): how far each number is through each of its bins (PLE, equation 1).

    For a number x with edges b_0 < … < b_T: (x − b_{t−1})/(b_t − b_{t−1}) for t = 1 … T, clamped to [0, 1], but
    not below in the first bin nor above in the last. A number with one edge b has one bin, of width 1: x − b.
    The components of all numbers lie side by side without padding. Nothing is learned.

    Args:
        components: bins of all numbers together.
        edges: ascending, for each number; None where a state dict is loaded next.
    """

    column: Tensor
    left: Tensor
    scale: Tensor
    low: Tensor
    high: Tensor

    def __init__(self, components: int, edges: Sequence[Tensor] | None) -> None:
        super().__init__()
        # for each component: its number, the left edge and 1/width of its bin, and where it is clamped
        self.register_buffer("column", torch.zeros(components, dtype=torch.int64))
        self.register_buffer("left", torch.zeros(components))
        self.register_buffer("scale", torch.ones(components))
        self.register_buffer("low", torch.zeros(components))
        self.register_buffer("high", torch.ones(components))
        if edges is None:
            return
        assert components == components_of(edges)
        counts = torch.tensor([max(1, len(each) - 1) for each in edges])
        last = counts.cumsum(0) - 1
        self.column = torch.arange(len(edges)).repeat_interleave(counts)
        self.left = torch.cat([each[: max(1, len(each) - 1)] for each in edges])
        self.scale = torch.cat([1 / each.diff() if len(each) > 1 else torch.ones_like(each) for each in edges])
        self.low[last - counts + 1] = -UNBOUNDED
        self.high[last] = UNBOUNDED

    def forward(self, numbers: Tensor) -> Tensor:
        """The components of the numbers, one number after the other."""
        of_each = numbers.index_select(1, self.column)
        return of_each.sub_(self.left).mul_(self.scale).clamp_(self.low, self.high)


def components_of(edges: Sequence[Tensor]) -> int:
    """Bins of all numbers together, `Front.components`."""
    return sum(max(1, len(each) - 1) for each in edges)


def quantile_edges(inputs: Tensor, bins: int) -> list[Tensor]:
    """The edges of equally many samples a bin, for `PiecewiseLinear` (section 3.2.1 of the paper).

    Args:
        inputs: (n, numbers) finite, on the CPU, of the training split as the model sees it; n is at least 1.
        bins: of each number; fewer where quantiles coincide.

    Returns:
        For each number its smallest value, the quantiles (interpolated linearly), and its largest, ascending, each
        once, rounded to float32, in the type of `inputs`; for a constant number its value alone.
    """
    rows = inputs
    if len(inputs) > QUANTILE_ROWS:
        generator = torch.Generator().manual_seed(0)
        rows = inputs[torch.randint(len(inputs), (QUANTILE_ROWS,), generator=generator)]
    levels = torch.linspace(0, 1, bins + 1, dtype=torch.float64)
    lowest, highest = inputs.aminmax(dim=0)
    return [
        _apart(torch.cat((low[None], column.double().quantile(levels[1:-1]), high[None]))).to(inputs.dtype)
        for column, low, high in zip(rows.t(), lowest, highest, strict=True)
    ]


def _apart(edges: Tensor) -> Tensor:
    """The ascending edges in float32, without those that it cannot tell from the one before: no bin is empty."""
    rounded = edges.float()
    return rounded[rounded.diff(prepend=torch.tensor([-math.inf])) > torch.finfo(torch.float32).tiny]
