"""Where the boxes and arrows of a graph stand: nothing overlaps, and parents are above their children."""

import math
from collections import Counter
from itertools import combinations, pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from mlpcli.autodiff.drawing import diagram
from mlpcli.autodiff.graph import run
from mlpcli.autodiff.layout import Point, curve, layers_of, place, separated
from mlpcli.autodiff.parsing import parse
from mlpcli.autodiff.scene import Block, Curve, Scene, scene

Graphs = list[list[int]]
"""For each node its parents."""


def lecture() -> Scene:
    program = "z1 = x * y\nz2 = x ** 2\nz3 = exp(z1)\nz4 = 2 * z2\nz5 = z3 + z4\nout = sin(z5)\n"
    return scene(diagram(run(parse(program, "program"), {"x": 1.0, "y": 2.0})))


@st.composite
def graphs(draw: st.DrawFn) -> Graphs:
    """Directed acyclic graphs, several edges between the same nodes included."""
    size = draw(st.integers(1, 16))
    return [draw(st.lists(st.integers(0, node - 1), max_size=3)) if node else [] for node in range(size)]


def longest_path(parents: Graphs, node: int) -> int:
    return max((longest_path(parents, parent) + 1 for parent in parents[node]), default=0)


@settings(deadline=None, max_examples=60)
@given(graphs())
def test_parents_stand_in_earlier_layers(parents: Graphs) -> None:
    found = layers_of(len(parents), [(parent, child) for child, each in enumerate(parents) for parent in each])
    for child, each in enumerate(parents):
        assert all(found[parent] < found[child] for parent in each)
        if each:
            assert found[child] == longest_path(parents, child)
        else:
            below = [found[other] for other, those in enumerate(parents) if child in those]
            assert found[child] == (min(below) - 1 if below else 0)


@settings(deadline=None, max_examples=40)
@given(graphs(), st.data())
def test_nothing_overlaps(parents: Graphs, data: st.DataObject) -> None:
    links = [(parent, child) for child, each in enumerate(parents) for parent in each]
    widths = data.draw(st.lists(st.integers(20, 240), min_size=len(parents), max_size=len(parents)))
    letters = data.draw(st.lists(st.integers(8, 90), min_size=len(links), max_size=len(links)))
    heights = data.draw(st.lists(st.integers(20, 80), min_size=len(parents), max_size=len(parents)))
    sizes = [(float(width), float(height)) for width, height in zip(widths, heights, strict=True)]
    layout = place(sizes, links, [(float(each), 18.0) for each in letters])
    for one, other in combinations([*layout.boxes, *layout.labels], 2):
        beside = one.right < other.left + 1e-6 or other.right < one.left + 1e-6
        assert beside or one.bottom < other.top + 1e-6 or other.bottom < one.top + 1e-6
    for each in (*layout.boxes, *layout.labels):
        assert each.left > -1e-6 and each.top > -1e-6
        assert each.right < layout.width + 1e-6 and each.bottom < layout.height + 1e-6
    assert [(box.width, box.height) for box in layout.boxes] == sizes
    for (parent, child), label, line in zip(links, layout.labels, layout.lines, strict=True):
        above, below = layout.boxes[parent], layout.boxes[child]
        assert layout.layers[parent] < layout.layers[child] and above.bottom < label.top < label.bottom < below.top
        assert line[0][1] == above.bottom and above.left < line[0][0] < above.right
        assert line[-1][1] == below.top and below.left < line[-1][0] < below.right
        assert (label.x, label.y) in line
        assert all(upper + 1e-4 < lower for (_, upper), (_, lower) in pairwise(line)), "downwards only"
        assert [end for _, _, end in curve(line)] == line[1:]
    assert len({tuple(line) for line in layout.lines}) == len(links)


@settings(deadline=None, max_examples=40)
@given(graphs())
def test_lines_go_around_boxes(parents: Graphs) -> None:
    links = [(parent, child) for child, each in enumerate(parents) for parent in each]
    layout = place([(80.0, 40.0)] * len(parents), links, [(30.0, 18.0)] * len(links))
    for link, line in zip(links, layout.lines, strict=True):
        points = [line[0], *((x, y) for x, y in bezier_points(line))]
        for index, box in enumerate(layout.boxes):
            if index not in link:
                assert not any(box.left < x < box.right and box.top < y < box.bottom for x, y in points)


def bezier_points(line: list[Point]) -> list[Point]:
    points = []
    for start, (one, two, end) in zip(line, curve(line), strict=False):
        for t in (0.25, 0.5, 0.75, 1.0):
            weights = ((1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t * t * (1 - t), t**3)
            x, y = (
                sum(weight * point[axis] for weight, point in zip(weights, (start, one, two, end), strict=True))
                for axis in (0, 1)
            )
            points.append((x, y))
    return points


@given(st.lists(st.tuples(st.floats(-50, 50), st.floats(0.1, 10), st.floats(0, 30)), min_size=1, max_size=8))
def test_separated_is_the_least_squares_solution(rows: list[tuple[float, float, float]]) -> None:
    wanted, weights = [row[0] for row in rows], [row[1] for row in rows]
    gaps = [row[2] for row in rows[1:]]
    found = separated(wanted, weights, gaps)
    slack = [right - left - gap for left, right, gap in zip(found, found[1:], gaps, strict=False)]
    assert all(each > -1e-9 for each in slack)
    # Karush, Kuhn, Tucker: the multiplier of each gap is not negative, and 0 where there is slack.
    pull = 0.0
    for at, want, weight, free in zip(found, wanted, weights, [*slack, math.inf], strict=True):
        pull += 2 * weight * (at - want)
        assert pull < 1e-6
        assert abs(pull) < 1e-6 or free < 1e-6


def test_the_lecture_graph_is_drawn_without_crossings() -> None:
    placed = lecture()
    lines = [
        [shape.start, *(end for _, _, end in shape.pieces)]
        for group in placed.groups
        for shape in group.shapes
        if group.kind == "edge" and isinstance(shape, Curve)
    ]
    assert len(lines) == 10 and not any(crosses(one, other) for one, other in combinations(lines, 2))


def crosses(one: list[Point], other: list[Point]) -> bool:
    """Whether two polylines that go downwards change sides where both are."""
    top, bottom = max(one[0][1], other[0][1]), min(one[-1][1], other[-1][1])
    if top >= bottom:
        return False
    sides = {at(one, y) > at(other, y) for y in (top + (bottom - top) * step / 50 for step in range(51))}
    return len(sides) == 2


def at(line: list[Point], y: float) -> float:
    for (x0, y0), (x1, y1) in pairwise(line):
        if y <= y1:
            return x0 + (x1 - x0) * (y - y0) / (y1 - y0)
    return line[-1][0]


def test_kinds_of_nodes_look_different() -> None:
    placed = lecture()
    looks = Counter(
        (shape.style, round(shape.corner))
        for group in placed.groups
        if group.kind == "node"
        for shape in group.shapes
        if isinstance(shape, Block)
    )
    assert {style for style, _ in looks} == {"box input", "box constant", "box inner", "box leaf"}
    assert looks["box leaf", 5] == 1 and sum(n for (style, _), n in looks.items() if style == "box input") == 2
