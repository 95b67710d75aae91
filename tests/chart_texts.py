"""The texts of a chart, and where they are."""

from itertools import combinations

from mlpcli.report.drawing import LETTER, Chart, Words


def assert_apart(chart: Chart) -> None:
    """No two texts lie on each other, and none sticks out of the picture."""
    places = []
    for shape in chart.shapes:
        if isinstance(shape, Words) and shape.text:
            wide = 0.92 * LETTER[shape.style] * len(shape.text)
            left = shape.x - {"start": 0, "middle": wide / 2, "end": wide}[shape.anchor]
            places.append((left, left + wide, shape.y - 8, shape.y, shape.text))
    for one, two in combinations(places, 2):
        apart = one[1] <= two[0] or two[1] <= one[0] or one[3] <= two[2] or two[3] <= one[2]
        assert apart, (one, two)
    assert all(left > -4 and right < chart.width + 4 for left, right, *_ in places)
