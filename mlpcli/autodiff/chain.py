"""The product of Jacobians J_L ⋯ J_1, in the order that costs least: the matrix-chain problem.

With J_l of shape (n_l, n_{l−1}), a product of the factors j…i takes n_j n_k n_{i−1} multiply-adds to join at k.
Forward propagation joins from the right, backward propagation from the left; both are two of (L − 1)! orders. The
cost depends on the parenthesisation alone, of which there are Catalan(L − 1), and dynamic programming finds the
best in O(L³) (Godbole 1973; Cormen et al., Introduction to Algorithms, section "Matrix-chain multiplication").
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from mlpcli.arithmetic import one_thread
from mlpcli.autodiff.timing import least_seconds

MOST_TIMED = 10**10
MOST_NUMBERS = 2 * 10**8
"""Products of more multiply-adds, or of matrices that together have more numbers, are counted, and not timed."""

Step = tuple[int, int, int]
"""(i, k, j): the product of the factors i…k, on the right, joined to that of the factors k+1…j, on the left."""


@dataclass(frozen=True)
class Order:
    """One order of all products.

    Attributes:
        name: `forward`, `backward` or `best`.
        multiply_adds: what it costs.
        steps: each product after those that it needs.
    """

    name: str
    multiply_adds: int
    steps: tuple[Step, ...]

    def __str__(self) -> str:
        """The parenthesisation, as in `J3 (J2 J1)`."""
        texts: dict[tuple[int, int], str] = {}
        for i, k, j in self.steps:
            left = texts.pop((k + 1, j), f"J{j}")
            right = texts.pop((i, k), f"J{i}")
            texts[i, j] = f"{f'({left})' if j > k + 1 else left} {f'({right})' if k > i else right}"
        return next(iter(texts.values()), "J1")


def forward(sizes: Sequence[int]) -> Order:
    """J_L (⋯ (J_2 J_1)): Σ n_l n_{l−1} n₀ over l ≥ 2."""
    return _order("forward", sizes, [(1, layer - 1, layer) for layer in range(2, len(sizes))])


def backward(sizes: Sequence[int]) -> Order:
    """((J_L J_{L−1}) ⋯) J_1: Σ n_L n_l n_{l−1} over l < L."""
    last = len(sizes) - 1
    return _order("backward", sizes, [(layer, layer, last) for layer in range(last - 1, 0, -1)])


def best(sizes: Sequence[int]) -> Order:
    """An order of the least cost, by dynamic programming over the sub-chains, the short ones first."""
    import numpy as np

    count = len(sizes) - 1
    exact: Any = (
        np.int64 if count * max(sizes) ** 3 < 2**62 else np.object_
    )  # Python's own integers do not overflow
    n = np.array(sizes, dtype=exact)
    # the least cost of the sub-chain that begins at a factor, by how many products it has; and that ends at one
    begins = np.zeros((count, count), dtype=exact)
    ends = np.zeros((count, count), dtype=exact)
    split = np.zeros((count, count), dtype=np.int32)
    for products in range(1, count):
        chains = count - products
        between = np.lib.stride_tricks.sliding_window_view(n[1:-1], products)
        joined = n[:chains, None] * n[products + 1 :, None] * between
        costs = begins[:chains, :products] + ends[products:, products - 1 :: -1] + joined
        split[:chains, products] = costs.argmin(1)
        begins[:chains, products] = ends[products:, products] = costs.min(1)
    return _order("best", sizes, list(_steps(split.tolist(), count)))


def _steps(split: Sequence[Sequence[int]], count: int) -> Iterator[Step]:
    """The products, each after those that it needs, without recursion: a chain may be long."""
    steps: list[Step] = []
    waiting = [(1, count)]
    while waiting:
        i, j = waiting.pop()
        if i < j:
            k = i + split[i - 1][j - i]
            steps.append((i, k, j))
            waiting += [(i, k), (k + 1, j)]
    return reversed(steps)


def _order(name: str, sizes: Sequence[int], steps: Sequence[Step]) -> Order:
    return Order(name, sum(sizes[j] * sizes[k] * sizes[i - 1] for i, k, j in steps), tuple(steps))


def orders(sizes: Sequence[int]) -> list[Order]:
    """The forward, the backward and the best order."""
    return [forward(sizes), backward(sizes), best(sizes)]


def counts(sizes: Sequence[int]) -> tuple[int, int]:
    """How many orders there are, (L − 1)!, and how many parenthesisations, Catalan(L − 1)."""
    products = len(sizes) - 2
    return math.factorial(products), math.comb(2 * products, products) // (products + 1)


def seconds(sizes: Sequence[int], order: Order) -> float | None:
    """How long the products take in this order, float32 on one thread; None where they are too large."""
    import torch

    kept = sum(a * b for a, b in pairwise(sizes))
    made = sum(sizes[j] * sizes[i - 1] for i, _, j in order.steps)
    if order.multiply_adds > MOST_TIMED or kept + made > MOST_NUMBERS:
        return None
    generator = torch.Generator().manual_seed(0)
    # scaled so that the product of many neither overflows nor vanishes
    factors = {
        (layer, layer): torch.randn(rows, columns, generator=generator) / math.sqrt(columns)
        for layer, (columns, rows) in enumerate(pairwise(sizes), 1)
    }

    def multiply() -> None:
        products = dict(factors)
        for i, k, j in order.steps:
            products[i, j] = products.pop((k + 1, j)) @ products.pop((i, k))

    with one_thread():
        return least_seconds(multiply)
