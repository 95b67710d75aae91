"""The cells into which a network cuts a polygon in a plane of its input space, exactly.

Layer by layer and neuron by neuron, each cell is cut where the neuron's preactivation is zero. Preactivations
travel with the vertices and are interpolated on the edges that are cut; the network is never evaluated at an
interpolated point. Where cells become many, the complex is taken apart into blocks of neighbours, which go their
ways to the last layer one after the other and are joined in the end. In a block, a unit that does not change its
sign is affine on every cell: what all of those units give to the next layer is summed up at once, and only the
others travel.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from mlpcli.regions.complex import END, FUNCTIONS, LEFT, MAKER, OUTSIDE, RIGHT, SEAM, START, Complex, Mask, corners
from mlpcli.regions.piecewise import Bits, Floats, Ints, PiecewiseAffine
from mlpcli.regions.resolution import Inconsistent, Rule, settled

BLOCK_CELLS = 4000
"""More are taken apart, because a cut looks at all edges of a block."""
PARTS = 8
"""Into so many, a power of two."""


@dataclass(frozen=True, eq=False)
class Cells:
    """Convex cells that fill a polygon, on each of which the network is affine.

    Attributes:
        points: float64 (vertices, 2), in the plane's coordinates.
        outputs: float64 (vertices, outputs) of the network.
        starts, ends: int64 (edges,), vertices.
        left, right: int64 (edges,), cells, seen from start to end with the second axis upwards; −1 outside.
        makers: int64 (edges,), which hidden unit is zero there, counted over all layers; −1 for the window.
        patterns: uint8 (cells, bytes), which units are positive, see `PiecewiseAffine.unpack`.
        by_layer: cells after each hidden layer.
        resolution: ε of `Rule`: what is closer together, relative to its terms, counts as one.
    """

    points: Floats
    outputs: Floats
    starts: Ints
    ends: Ints
    left: Ints
    right: Ints
    makers: Ints
    patterns: Bits
    by_layer: list[int]
    resolution: float

    def __len__(self) -> int:
        return len(self.patterns)

    def corners(self) -> tuple[Ints, Ints]:
        """Every vertex of every cell, in the order of the cells, and where each cell's begin."""
        return corners(np.stack((self.starts, self.ends, self.left, self.right)), len(self))


def cut_plane(network: PiecewiseAffine, origin: Floats, basis: Floats, window: Floats) -> Cells:
    """The activation regions of a network in the polygon `window` of the plane origin + u₁ basis₁ + u₂ basis₂.

    Args:
        network: of any depth and width.
        origin: (inputs,).
        basis: (2, inputs), linearly independent.
        window: (n, 2), the corners of a convex polygon in coordinates u, counterclockwise.

    Raises:
        FailedError: float64 cannot tell what lies where, however coarse the resolution.
    """
    return settled(lambda epsilon: _Cutting(network, epsilon).run(origin, basis, np.asarray(window, np.float64)))


LENGTH, BEHIND, VALUES = FUNCTIONS, FUNCTIONS + 1, FUNCTIONS + 2
"""Columns of a block's numbers: ‖x‖ of the inputs of the layer; the norm of what the units give that do not
travel; the preactivations of those that do. What the others give to each unit of the next layer follows. Norms are
convex, so that interpolation bounds them from above."""


@dataclass(eq=False)
class _Block:
    """Cells on their way through a layer.

    Attributes:
        complex: its numbers have the columns above.
        layer: that cuts.
        next: the first unit that has not yet cut.
        units: those that travel, ascending.
        on: bool (units of the layer,), which of the others are positive here.
        codes: patterns of the layers before, for the cells that the complex began with.
    """

    complex: Complex
    layer: int
    next: int
    units: Ints
    on: Mask
    codes: list[Bits]


@dataclass(eq=False)
class _Cutting:
    network: PiecewiseAffine
    epsilon: float
    by_layer: list[int] = field(default_factory=list)
    directions: list[Floats] = field(default_factory=list)
    seams: int = 0

    def run(self, origin: Floats, basis: Floats, window: Floats) -> Cells:
        network = self.network
        hidden = len(network.slopes)
        self.by_layer = [0] * hidden
        self.rules = [Rule.of(network, layer, self.epsilon) for layer in range(hidden)]
        self.first_of_layer = np.cumsum([0, *network.hidden]).tolist()
        inputs = origin + window @ basis
        rows = inputs @ network.weights[0].T + network.biases[0]
        whole = Complex.polygon(window)
        waiting = [self._enter(whole, 0, rows, np.linalg.norm(inputs, axis=1), [])]
        finished: list[_Block] = []
        while waiting:
            block = waiting.pop()
            if block.layer == hidden:
                finished.append(block)
            elif self._cut(block):
                waiting.append(self._pass(block))
            else:
                waiting.extend(self._parts(block))
        return self._joined(finished)

    def _enter(self, complex: Complex, layer: int, rows: Floats, lengths: Floats, codes: list[Bits]) -> _Block:
        """A block before a hidden layer, with its preactivations, or after the last, with the outputs.

        Args:
            complex: its cells.
            layer: the number of the layer.
            rows: (vertices, units).
            lengths: (vertices,), ‖x‖ of the inputs of the layer.
            codes: the patterns of the layers before.
        """
        units = np.arange(rows.shape[1])
        on = np.zeros(len(units), bool)
        behind = np.zeros(len(rows))
        if layer < len(self.rules):
            doubtful = self.rules[layer].doubtful(rows, lengths)
            settled = rows[:, doubtful]
            self.rules[layer].only(doubtful).settle(settled, lengths)
            rows[:, doubtful] = settled
            carried = self.network.biases[layer + 1]
            units, rows, behind = self._leave_behind(complex, layer, units, on, rows, behind, carried)
        numbers = np.concatenate((lengths[:, None], behind[:, None], rows), axis=1)
        return _Block(complex.with_functions(numbers), layer, 0, units, on, codes)

    def _leave_behind(
        self, complex: Complex, layer: int, units: Ints, on: Mask, values: Floats, behind: Floats, carried: Floats
    ) -> tuple[Ints, Floats, Floats]:
        """Sum up what those units give that have one sign on all cells: only the others travel on.

        Args:
            complex: the cells.
            layer: of the units.
            units: that travelled so far.
            on: (units of the layer,), changed in place, see `_Block`.
            values: (vertices, units), their preactivations.
            behind: (vertices,), see BEHIND.
            carried: (vertices, units of the next layer), or (units of the next layer,), what the others give.

        Returns:
            The units that travel on; their values with what is carried; and what is behind now.
        """
        slope = self.network.slopes[layer]
        bends = self.network.bends[layer]
        travels = _undecided(complex, values) if bends else np.zeros(len(units), bool)
        positive = np.any(values > 0, axis=0)
        on[units[positive & ~travels]] = bends
        gives = ~travels & (positive if slope == 0 else True)
        given = values[:, gives]
        if slope != 0:
            given *= np.where(positive[gives], 1.0, slope)
        carried = given @ self.network.weights[layer + 1][:, units[gives]].T + carried
        behind = np.hypot(behind, np.linalg.norm(given, axis=1))
        return units[travels], np.concatenate((values[:, travels], carried), axis=1), behind

    def _cut(self, block: _Block) -> bool:
        """Cut by one unit after the other; False where the block has become too large before the last."""
        complex, units = block.complex, block.units
        rule = self.rules[block.layer].only(units)
        first = int(np.searchsorted(units, block.next))
        later = slice(VALUES + first, VALUES + len(units))
        signs = np.empty((len(units), 2 * complex.vertices), np.int8)
        signs[first:, : complex.vertices] = np.sign(complex.numbers[: complex.vertices, later]).T
        for place, unit in enumerate(units[first:].tolist(), first):
            if complex.cells > BLOCK_CELLS:
                block.next = unit
                return False
            before = complex.vertices
            maker = self.first_of_layer[block.layer] + unit
            complex.cut(signs[place, :before], complex.numbers[:before, VALUES + place], maker)
            if complex.vertices == before:
                continue
            if complex.vertices > signs.shape[1]:
                signs = np.concatenate((signs, np.empty_like(signs)), axis=1)
            added = slice(before, complex.vertices)
            complex.numbers[added, VALUES + place] = 0.0
            rest = complex.numbers[added, VALUES + place + 1 : VALUES + len(units)]
            rule.only(slice(place + 1, None)).settle(rest, complex.numbers[added, LENGTH])
            signs[place + 1 :, added] = np.sign(rest).T
        return True

    def _pass(self, block: _Block) -> _Block:
        """Through σ and the affine map after it: the block before the next layer."""
        network, layer, complex, units = self.network, block.layer, block.complex, block.units
        self.by_layer[layer] += complex.cells
        numbers = complex.numbers[: complex.vertices]
        values, carried = numbers[:, VALUES : VALUES + len(units)], numbers[:, VALUES + len(units) :]
        codes = [code[complex.origins] for code in block.codes]
        codes.append(self._patterns(block, values))
        bent = network.bend(layer, values)
        lengths = np.hypot(numbers[:, BEHIND], np.linalg.norm(bent, axis=1))
        rows = carried + bent @ network.weights[layer + 1][:, units].T
        return self._enter(complex, layer + 1, rows, lengths, codes)

    def _patterns(self, block: _Block, values: Floats) -> Bits:
        """Which units of the layer are positive somewhere on each cell, and so nowhere negative."""
        packed = _positive(block.complex, values)
        positive = np.repeat(block.on[None], block.complex.cells, axis=0)
        positive[:, block.units] = np.unpackbits(packed, axis=1, count=len(block.units))
        return np.packbits(positive, axis=1)

    def _parts(self, block: _Block) -> Iterator[_Block]:
        """The block taken apart into neighbours."""
        complex = block.complex
        table = complex.table[:, : complex.edges]
        vertices, begins = complex.corners()
        counts = np.diff(np.append(begins, len(vertices)))
        centres = np.add.reduceat(complex.numbers[vertices, :FUNCTIONS], begins) / counts[:, None]
        parts = np.append(_halved(centres, PARTS), OUTSIDE)
        of_left, of_right = parts[table[LEFT]], parts[table[RIGHT]]
        opened = np.flatnonzero((of_left != of_right) & (of_left >= 0) & (of_right >= 0))
        table[SEAM, opened] = np.arange(self.seams, self.seams + len(opened))
        self.seams += len(opened)
        ends = complex.numbers[table[END, opened], :FUNCTIONS]
        self.directions.append(ends - complex.numbers[table[START, opened], :FUNCTIONS])
        for part in range(PARTS):
            taken, on = complex.part(np.flatnonzero(parts[:-1] == part)), block.on.copy()
            behind, values, carried = np.split(taken.numbers[:, BEHIND:], (1, 1 + len(block.units)), axis=1)
            units, rows, behind = self._leave_behind(
                taken, block.layer, block.units, on, values, behind[:, 0], carried
            )
            taken.numbers = np.concatenate((taken.numbers[:, :BEHIND], behind[:, None], rows), axis=1)
            yield _Block(taken, block.layer, block.next, units, on, block.codes)

    def _joined(self, blocks: list[_Block]) -> Cells:
        """The blocks as one complex again."""
        complexes = [block.complex for block in blocks]
        tables = []
        vertices = cells = 0
        for complex in complexes:
            table = complex.table[:, : complex.edges]
            table[: END + 1] += vertices
            table[LEFT : RIGHT + 1][table[LEFT : RIGHT + 1] >= 0] += cells
            tables.append(table)
            vertices, cells = vertices + complex.vertices, cells + complex.cells
        table = np.concatenate(tables, axis=1)
        numbers = np.concatenate([complex.numbers[: complex.vertices] for complex in complexes])
        codes = [np.concatenate(layer) for layer in zip(*(block.codes for block in blocks), strict=True)]
        patterns = np.concatenate(codes, axis=1) if codes else np.zeros((cells, 0), np.uint8)
        if self.seams:
            table, numbers = _sewn(table, numbers, np.concatenate(self.directions))
        return Cells(
            points=numbers[:, :FUNCTIONS].copy(),
            outputs=numbers[:, VALUES:].copy(),
            starts=table[START],
            ends=table[END],
            left=table[LEFT],
            right=table[RIGHT],
            makers=table[MAKER],
            patterns=patterns,
            by_layer=self.by_layer,
            resolution=self.epsilon,
        )


def _undecided(complex: Complex, values: Floats) -> Mask:
    """Which functions (vertices, functions) are positive on some cells and not on others."""
    low, high = values.min(0), values.max(0)
    undecided: Mask = (low < 0) & (high > 0)
    touching = np.flatnonzero((low == 0) & (high > 0))
    if len(touching):
        everywhere = np.bitwise_and.reduce(_positive(complex, values[:, touching]), axis=0)
        undecided[touching] = np.unpackbits(~everywhere, count=len(touching))
    return undecided


def _positive(complex: Complex, values: Floats) -> Bits:
    """Which functions (vertices, functions) are positive somewhere on each cell: (cells, bytes)."""
    vertices, begins = complex.corners()
    positive: Bits = np.bitwise_or.reduceat(np.packbits(values > 0, axis=1)[vertices], begins, axis=0)
    return positive


def _halved(centres: Floats, count: int) -> Ints:
    """Numbers of `count` parts, a power of two, of points near each other: halved across their longer extent."""
    parts = np.zeros(len(centres), np.int64)
    if count == 1:
        return parts
    across = int(np.ptp(centres, axis=0).argmax())
    order = np.argsort(centres[:, across], kind="stable")
    for number, half in enumerate(np.array_split(order, 2)):
        parts[half] = number * (count // 2) + _halved(centres[half], count // 2)
    return parts


def _sewn(table: Ints, numbers: Floats, directions: Floats) -> tuple[Ints, Floats]:
    """Every seam closed: its edges and vertices, which are there twice, become one.

    Args:
        table: (6, edges), changed in place.
        numbers: (vertices, n).
        directions: (seams, 2), from the start to the end of each.
    """
    of_seam = np.flatnonzero(table[SEAM] >= 0)
    seams = table[SEAM, of_seam]
    middles = numbers[table[START, of_seam], :FUNCTIONS] + numbers[table[END, of_seam], :FUNCTIONS]
    order = of_seam[np.lexsort((np.einsum("ij,ij->i", middles, directions[seams]), seams))]
    kept, dropped = order[table[LEFT, order] >= 0], order[table[RIGHT, order] >= 0]
    if len(kept) != len(dropped) or (table[SEAM, kept] != table[SEAM, dropped]).any():
        raise Inconsistent
    table[RIGHT, kept] = table[RIGHT, dropped]
    ones, twos = table[: END + 1, kept].ravel(), table[: END + 1, dropped].ravel()
    links = coo_array((np.ones(len(ones), np.int8), (ones, twos)), shape=(len(numbers), len(numbers)))
    _, merged = connected_components(links, directed=False)
    table[: END + 1] = merged[table[: END + 1]]
    return np.delete(table, dropped, axis=1), numbers[np.unique(merged, return_index=True)[1]]
