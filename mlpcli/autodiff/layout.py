"""Places for the boxes and arrows of a directed acyclic graph, in layers from top to bottom.

The method of Sugiyama, Tagawa and Toda (1981): layers by longest paths, the order within a layer by barycenter
sweeps, then the coordinates. Each label takes part as a small box of its own on its edge, so nothing overlaps.
"""

import random
from bisect import bisect_right, insort
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

Size = tuple[float, float]
Point = tuple[float, float]

BOX_GAP, LABEL_GAP, LINE_GAP = 26.0, 14.0, 14.0
"""At least so far apart are two boxes, two labels, and a line from whatever is beside it."""
RANK_GAP, STEEPEST, MOST_GAP = 15.0, 0.16, 70.0
"""Between two ranks: the least height, how much more for each pixel that a line moves sideways, and the most."""
ROUNDING = 1e-3
ORDER_SWEEPS, PLACE_SWEEPS = 12, 24
MOST_STARTS, VERTICES_SWEPT = 30, 3000


@dataclass(frozen=True)
class Rectangle:
    """A rectangle by its middle, its width and its height, in pixels; y grows downwards."""

    x: float
    y: float
    width: float
    height: float

    @property
    def left(self) -> float:
        """Its least x."""
        return self.x - self.width / 2

    @property
    def right(self) -> float:
        """Its largest x."""
        return self.x + self.width / 2

    @property
    def top(self) -> float:
        """Its least y."""
        return self.y - self.height / 2

    @property
    def bottom(self) -> float:
        """Its largest y."""
        return self.y + self.height / 2


@dataclass(frozen=True)
class Layout:
    """Where everything stands.

    Attributes:
        layers: of each box, from 0; a parent's is below its child's.
        boxes: a rectangle for each box.
        labels: a rectangle for each edge's label.
        lines: for each edge the points that it goes through, from its parent's bottom to its child's top; the
            line is vertical at both ends, and beside boxes.
        width: of all.
        height: of all.
    """

    layers: list[int]
    boxes: list[Rectangle]
    labels: list[Rectangle]
    lines: list[list[Point]]
    width: float
    height: float


def layers_of(boxes: int, edges: Sequence[tuple[int, int]]) -> list[int]:
    """The longest path from a root to each box; a root moves down to the layer above the first of its children.

    Args:
        boxes: how many there are, in topological order.
        edges: (parent, child), parent below child.
    """
    children: dict[int, list[int]] = defaultdict(list)
    for parent, child in edges:
        children[parent].append(child)
    layers = [0] * boxes
    for box in range(boxes):
        for child in children[box]:
            layers[child] = max(layers[child], layers[box] + 1)
    for box, layer in enumerate(layers):
        if layer == 0 and children[box]:
            layers[box] = min(layers[child] for child in children[box]) - 1
    return layers


def place(
    boxes: Sequence[Size],
    edges: Sequence[tuple[int, int]],
    labels: Sequence[Size],
) -> Layout:
    """Lays out a directed acyclic graph; two edges between the same boxes stay two lines.

    Args:
        boxes: width and height of each in pixels, in topological order, at least one.
        edges: (parent, child), parent below child, as often as there are edges.
        labels: width and height of each edge's label.
    """
    layers = layers_of(len(boxes), edges)
    # Boxes stand in the even ranks; an edge goes through a vertex of its own in each rank between its ends.
    sizes: list[Size] = list(boxes)
    ranks: list[list[int]] = [[] for _ in range(2 * max(layers) + 1)]
    for box, layer in enumerate(layers):
        ranks[2 * layer].append(box)
    chains: list[list[int]] = []
    for (parent, child), label in zip(edges, labels, strict=True):
        chain = [parent]
        for rank in range(2 * layers[parent] + 1, 2 * layers[child]):
            last = rank == 2 * layers[child] - 1
            ranks[rank].append(len(sizes))
            chain.append(len(sizes))
            sizes.append(label if last else (0.0, 0.0))
        chains.append([*chain, child])

    above: list[list[int]] = [[] for _ in sizes]
    below: list[list[int]] = [[] for _ in sizes]
    for chain in chains:
        for upper, lower in pairwise(chain):
            below[upper].append(lower)
            above[lower].append(upper)
    ranks = _ordered(ranks, above, below)
    if _turned(ranks, len(boxes)):
        ranks = [rank[::-1] for rank in ranks]
    x = _abscissae(ranks, sizes, len(boxes), above, below)
    return _finished(layers, ranks, chains, sizes, len(boxes), x)


def _ordered(ranks: list[list[int]], above: list[list[int]], below: list[list[int]]) -> list[list[int]]:
    """The ranks, each in the order in which the fewest lines cross, of those that the sweeps meet.

    A small graph is begun several times, first in the order of its boxes, then in shuffled ones.
    """
    best, fewest = ranks, _crossings(ranks, below)
    shuffle = random.Random(0).shuffle  # the same picture every time
    for start in range(max(1, min(MOST_STARTS, VERTICES_SWEPT // len(above)))):
        tried = [list(rank) for rank in ranks]
        if start:
            for rank in tried:
                shuffle(rank)
        for sweep in range(ORDER_SWEEPS):
            if not fewest:
                return best
            down = sweep % 2 == 0
            for index in range(1, len(tried)) if down else reversed(range(len(tried) - 1)):
                _sort(tried[index], tried[index - 1 if down else index + 1], above if down else below)
            crossings = _crossings(tried, below)
            if crossings < fewest:
                best, fewest = [list(rank) for rank in tried], crossings
    return best


def _turned(ranks: list[list[int]], boxes: int) -> bool:
    """Whether the mirror image has more neighbours in the order in which they were given."""
    pairs = [pair for rank in ranks for pair in pairwise([vertex for vertex in rank if vertex < boxes])]
    return 2 * sum(left > right for left, right in pairs) > len(pairs)


def _sort(rank: list[int], other: list[int], beside: list[list[int]]) -> None:
    """Sorts a rank by the mean place of each vertex's neighbours in the other one, or by its own without any."""
    # As shares of the rank's length, so that vertices with and without neighbours can be compared.
    places = {vertex: (index + 0.5) / len(other) for index, vertex in enumerate(other)}
    own = {vertex: (index + 0.5) / len(rank) for index, vertex in enumerate(rank)}

    def mean(vertex: int) -> float:
        found = [places[each] for each in beside[vertex]]
        return sum(found) / len(found) if found else own[vertex]

    rank.sort(key=mean)


def _crossings(ranks: list[list[int]], below: list[list[int]]) -> int:
    total = 0
    for upper, lower in pairwise(ranks):
        place = {vertex: index for index, vertex in enumerate(lower)}
        passed: list[int] = []
        for vertex in upper:
            ends = sorted(place[each] for each in below[vertex])
            total += sum(len(passed) - bisect_right(passed, end) for end in ends)
            for end in ends:
                insort(passed, end)
    return total


def _abscissae(
    ranks: list[list[int]], sizes: list[Size], boxes: int, above: list[list[int]], below: list[list[int]]
) -> list[float]:
    """The x of each vertex's middle: near its neighbours, in the order of its rank, without overlaps."""

    def apart(left: int, right: int) -> float:
        widths = (sizes[left][0] + sizes[right][0]) / 2
        if left < boxes and right < boxes:
            return widths + BOX_GAP
        return widths + (LABEL_GAP if sizes[left][0] and sizes[right][0] else LINE_GAP)

    gaps = [[apart(left, right) for left, right in pairwise(rank)] for rank in ranks]
    x = [0.0] * len(sizes)
    for rank, between in zip(ranks, gaps, strict=True):
        at = -sum(between) / 2
        for vertex, gap in zip(rank, [*between, 0.0], strict=True):
            x[vertex] = at
            at += gap

    light = _light(boxes, above, below)

    def pull(one: int, other: int) -> float:
        """Long edges are drawn straight first (Gansner et al. 1993, section 4.2), and roots stand aside."""
        if one in light or other in light:
            return 0.1
        return 1.0 if one < boxes or other < boxes else 8.0

    for sweep in range(PLACE_SWEEPS):
        ending = sweep >= PLACE_SWEEPS - 2
        down = sweep % 2 == 0
        for index in range(len(ranks)) if down else reversed(range(len(ranks))):
            rank, wanted, weights = ranks[index], [], []
            for vertex in rank:
                beside = above[vertex] + below[vertex] if ending else above[vertex] if down else below[vertex]
                pulls = [pull(vertex, each) for each in beside]
                weight = sum(pulls)
                middle = sum(p * x[each] for p, each in zip(pulls, beside, strict=True))
                wanted.append(middle / weight if weight else x[vertex])
                weights.append(weight or 0.1)
            for vertex, at in zip(rank, separated(wanted, weights, gaps[index]), strict=True):
                x[vertex] = at
    return x


def _light(boxes: int, above: list[list[int]], below: list[list[int]]) -> set[int]:
    """Roots that are used once, where something else is used too, and the edges from them."""
    found: set[int] = set()
    for box in range(boxes):
        chain = [box] if not above[box] and len(below[box]) == 1 else []
        while chain and (below[chain[-1]][0] >= boxes):
            chain.append(below[chain[-1]][0])
        if chain and len(above[below[chain[-1]][0]]) > 1:
            found.update(chain)
    return found


def separated(wanted: Sequence[float], weights: Sequence[float], gaps: Sequence[float]) -> list[float]:
    """Positions x with x[i+1] − x[i] ≥ gaps[i] that minimise Σ weights[i] (x[i] − wanted[i])².

    Pool adjacent violators (Ayer et al. 1955) after the gaps are taken out.
    """
    offsets = [0.0]
    for gap in gaps:
        offsets.append(offsets[-1] + gap)
    pools: list[tuple[float, float, int]] = []  # mean, weight, how many
    for at, weight, offset in zip(wanted, weights, offsets, strict=True):
        mean, total, count = at - offset, weight, 1
        while pools and pools[-1][0] >= mean:
            before, heavy, many = pools.pop()
            mean = (before * heavy + mean * total) / (heavy + total)
            total, count = total + heavy, count + many
        pools.append((mean, total, count))
    means = [mean for mean, _, count in pools for _ in range(count)]
    return [mean + offset for mean, offset in zip(means, offsets, strict=True)]


def _finished(
    layers: list[int],
    ranks: list[list[int]],
    chains: list[list[int]],
    sizes: list[Size],
    boxes: int,
    x: list[float],
) -> Layout:
    """Ports and heights, with the left and upper end at 0."""
    left = min(at - width / 2 for at, (width, _) in zip(x, sizes, strict=True))
    x = [at - left for at in x]
    rank_of = {vertex: index for index, rank in enumerate(ranks) for vertex in rank}
    leaving = _ports(chains, 0, 1, sizes, x)
    entering = _ports(chains, -1, -2, sizes, x)

    sideways = [0.0] * len(ranks)  # the longest way sideways of a line from a rank to the next
    through: list[list[tuple[float, int]]] = []
    for index, chain in enumerate(chains):
        points = [(x[vertex], rank_of[vertex]) for vertex in chain]
        points[0] = (leaving[index], points[0][1])
        points[-1] = (entering[index], points[-1][1])
        through.append(points)
        for (one, rank), (other, _) in pairwise(points):
            sideways[rank] = max(sideways[rank], abs(other - one))
    heights = [max(sizes[vertex][1] for vertex in rank) for rank in ranks]
    tops, at = [], 0.0
    for height, move in zip(heights, sideways, strict=True):
        tops.append(at)
        at += height + min(MOST_GAP, RANK_GAP + STEEPEST * move)
    middles = [top + height / 2 for top, height in zip(tops, heights, strict=True)]

    def rectangle(vertex: int) -> Rectangle:
        return Rectangle(x[vertex], middles[rank_of[vertex]], *sizes[vertex])

    lines = []
    for chain, points in zip(chains, through, strict=True):
        first, *inner, last = points
        line = [(first[0], tops[first[1]] + heights[first[1]])]
        for place, rank in inner:
            beside_boxes = rank % 2 == 0
            ends = (tops[rank], tops[rank] + heights[rank]) if beside_boxes else (middles[rank],)
            line += [(place, end) for end in ends]
        line.append((last[0], tops[last[1]]))
        start, end = (first[0], rectangle(chain[0]).bottom), (last[0], rectangle(chain[-1]).top)
        # A box that is as high as its rank touches the rank's end, up to rounding.
        lines.append(
            [start, *(point for point in line if start[1] + ROUNDING < point[1] < end[1] - ROUNDING), end]
        )
    width = max(at + width / 2 for at, (width, _) in zip(x, sizes, strict=True))
    return Layout(
        layers,
        [rectangle(box) for box in range(boxes)],
        [rectangle(chain[-2]) for chain in chains],
        lines,
        width,
        tops[-1] + heights[-1],
    )


def _ports(chains: list[list[int]], end: int, beside: int, sizes: list[Size], x: list[float]) -> list[float]:
    """For each edge the x at which it meets the box at its `end` (0 or -1), in the order of what comes beside."""
    meeting: dict[int, list[int]] = defaultdict(list)
    for index, chain in enumerate(chains):
        meeting[chain[end]].append(index)
    ports = [0.0] * len(chains)
    for box, edges in meeting.items():
        edges.sort(key=lambda index: x[chains[index][beside]])
        width = sizes[box][0]
        step = min(width / 4, width * 0.8 / len(edges))
        for place, index in enumerate(edges):
            ports[index] = x[box] + (place - (len(edges) - 1) / 2) * step
    return ports


def curve(line: Sequence[Point]) -> list[tuple[Point, Point, Point]]:
    """A line of a layout as cubic Bézier pieces that follow its first point: (control, control, end).

    x is a cubic function of y between them, vertical at both ends, without overshoot (Fritsch and Butland 1984).
    """
    steps = [(x1 - x0) / (y1 - y0) for (x0, y0), (x1, y1) in pairwise(line)]
    slopes = [0.0]
    for before, after in pairwise(steps):
        slopes.append(2 * before * after / (before + after) if before * after > 0 else 0.0)
    slopes.append(0.0)
    pieces = []
    for ((x0, y0), (x1, y1)), (s0, s1) in zip(pairwise(line), pairwise(slopes), strict=True):
        third = (y1 - y0) / 3
        pieces.append(((x0 + s0 * third, y0 + third), (x1 - s1 * third, y1 - third), (x1, y1)))
    return pieces
