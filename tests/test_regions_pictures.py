"""Pictures of a plane: what colour stands where, what is written, and what a page holds."""

import base64
import json
import re
import xml.etree.ElementTree as ElementTree
import zlib
from dataclasses import replace
from html.parser import HTMLParser
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from exact_regions import network_of, square
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from scipy.stats import spearmanr

from mlpcli.errors import UsageError
from mlpcli.regions import measures, page, picture, picture_png, picture_raster, picture_svg
from mlpcli.regions.colours import cell_colours, hexadecimal, layer_colours
from mlpcli.regions.decision import decide
from mlpcli.regions.picture_layout import Label, layout
from mlpcli.regions.piecewise import PiecewiseAffine
from mlpcli.regions.plane import cut_plane
from mlpcli.regions.view import Mark, View

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = "</script><script>alert(1)</script> {{DATA}} \"'& \x07\ud800 \n é"


def view_of(
    network: PiecewiseAffine,
    half: float = 2.0,
    *,
    classes: bool = True,
    marks: list[Mark] | None = None,
    title: str = "a title",
) -> View:
    """The plane of a network of two inputs, from −half to half."""
    basis = np.eye(2)
    cells = cut_plane(network, np.zeros(2), basis, square(half))
    outline = measures.outlines(cells)
    maps = measures.maps(cells, outline)
    return View(
        title=title,
        x_label="the first axis",
        y_label="the second axis",
        window=(-half, -half, half, half),
        network=network,
        basis=basis,
        cells=cells,
        outline=outline,
        maps=maps,
        regions=measures.affine_regions(network, cells, basis, maps),
        decision=decide(cells) if classes else None,
        outputs=[f"class {index}" for index in range(network.outputs)],
        marks=marks or [],
    )


def random_view(seed: int = 0, *, classes: bool = True, marks: list[Mark] | None = None) -> View:
    return view_of(network_of([2, 8, 8, 3], seed), classes=classes, marks=marks)


def same_map_on_the_right() -> PiecewiseAffine:
    """|x| and a unit that the output does not see: two affine regions of two cells each."""
    weights = [np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]]), np.array([[1.0, 1.0, 0.0]])]
    return PiecewiseAffine(weights, [np.zeros(3), np.zeros(1)], [0.0])


LINEAR = PiecewiseAffine([np.array([[1.0, 2.0], [3.0, -1.0]])], [np.zeros(2)], [])
IDENTITY = PiecewiseAffine([np.eye(2), np.eye(2)], [np.zeros(2), np.zeros(2)], [1.0])
DEAD = PiecewiseAffine([np.eye(2), np.zeros((1, 2))], [np.zeros(2), np.zeros(1)], [0.0])
SMALL = [LINEAR, IDENTITY, DEAD]
"""One cell; one cell behind a layer without a kink; four cells whose gradients are all zero."""


# --- colours ------------------------------------------------------------------------------------------------


def test_an_affine_region_has_one_colour_and_another_map_another_one() -> None:
    view = view_of(same_map_on_the_right(), classes=False)
    colours = cell_colours([view])[0]
    assert len(view.cells) == 4
    right = measures.centroids(view.cells, view.outline)[:, 0] > 0
    assert len(np.unique(colours[right], axis=0)) == len(np.unique(colours[~right], axis=0)) == 1
    assert np.abs(colours[right][0].astype(int) - colours[~right][0]).max() > 40


@pytest.mark.parametrize("seed", range(4))
def test_what_is_nearer_in_gradient_is_nearer_in_colour(seed: int) -> None:
    view = random_view(seed, classes=False)
    colours = cell_colours([view])[0].astype(float)
    gradients = view.maps.gradients.reshape(len(view.cells), -1)
    one, two = np.triu_indices(len(view.cells), 1)
    gradient_apart = np.linalg.norm(gradients[one] - gradients[two], axis=1)
    colour_apart = np.linalg.norm(colours[one] - colours[two], axis=1)
    assert spearmanr(gradient_apart, colour_apart).statistic > 0.5
    assert colours.min() > 70, "dark lines are seen on every colour"


def test_a_map_has_the_same_colour_in_every_view() -> None:
    network = network_of([2, 6, 3], seed=1)
    whole, part = view_of(network, 3.0), view_of(network, 1.0)
    colours_of_whole, colours_of_part = cell_colours([whole, part])
    patterns = {
        bytes(pattern): colour for pattern, colour in zip(whole.cells.patterns, colours_of_whole, strict=True)
    }
    for pattern, colour in zip(part.cells.patterns, colours_of_part, strict=True):
        assert np.abs(patterns[bytes(pattern)].astype(int) - colour).max() <= 1  # rounding of the corners


def test_a_few_extreme_gradients_do_not_grey_out_the_others() -> None:
    view = random_view(3, classes=False)
    smallest = measures.areas(view.cells, view.outline).argsort()[:6]
    gradients = view.maps.gradients.copy()
    gradients[smallest] = 1e6 * np.random.default_rng(0).normal(size=gradients[smallest].shape)
    extreme = replace(view, maps=replace(view.maps, gradients=gradients))
    before, after = (np.delete(cell_colours([each])[0].astype(int), smallest, axis=0) for each in (view, extreme))
    assert np.abs(before - after).mean() < 10


@pytest.mark.parametrize("network", SMALL)
def test_one_map_alone_has_a_colour(network: PiecewiseAffine) -> None:
    colours = cell_colours([view_of(network, classes=False)])[0]
    assert len(np.unique(colours, axis=0)) == 1
    assert colours.min() > 128


@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_colours_do_not_depend_on_the_size_of_the_outputs(scale: float) -> None:
    view = random_view(2, classes=False)
    scaled = replace(view, maps=replace(view.maps, gradients=view.maps.gradients * scale))
    assert np.abs(cell_colours([view])[0].astype(int) - cell_colours([scaled])[0]).max() <= 1


def test_layers_have_colours_of_growing_lightness() -> None:
    for count in (1, 2, 3, 8, 50):
        lightness = layer_colours(count) @ np.array([0.2126, 0.7152, 0.0722])
        assert (np.diff(lightness) > 0).all()
    assert layer_colours(0).shape == (0, 3)


# --- PNG ----------------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), width=st.integers(1, 90), height=st.integers(1, 90))
def test_every_pixel_belongs_to_the_cell_that_the_network_says(seed: int, width: int, height: int) -> None:
    view = random_view(seed, classes=False)
    labels = picture_raster.raster(view, (width, height))
    low_x, low_y, high_x, high_y = view.window
    x = low_x + (np.arange(width) + 0.5) / width * (high_x - low_x)
    y = high_y - (np.arange(height) + 0.5 + picture_raster.ASIDE) / height * (high_y - low_y)
    points = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
    assert labels.shape == (height, width)
    assert labels.min() >= 0
    wrong = (view.cells.patterns[labels.ravel()] != view.network.patterns_at(points)).any(1)
    assert wrong.mean() <= 1e-3  # those within rounding of an edge


@pytest.mark.parametrize("signs", [(1, 1), (1, -1), (-1, 1), (-1, -1)])
def test_a_corner_in_the_middle_of_a_pixel_does_no_harm(signs: tuple[int, int]) -> None:
    diagonals = np.array([[1.0, 1.0], [1.0, -1.0]]) * np.array(signs)[:, None]
    view = view_of(PiecewiseAffine([diagonals, np.eye(2)], [np.zeros(2)] * 2, [0.0]), classes=False)
    labels = picture_raster.raster(view, (41, 41))
    y, x = np.mgrid[20:-21:-1, -20:21]
    off = abs(x) != abs(y)  # of the diagonals, on which no pixel has one cell
    expected = np.stack([sign * (x + way * y) > 0 for sign, way in zip(signs, (1, -1), strict=True)], axis=-1)
    np.testing.assert_array_equal(view.network.unpack(view.cells.patterns, 0)[labels[off]], expected[off])


@pytest.mark.parametrize("seed", range(5))
def test_the_middle_of_a_cell_has_its_colour(seed: int) -> None:
    view = random_view(seed, classes=False)
    image = Image.open(BytesIO(picture.png(view)))
    place = layout(view)
    assert image.size == tuple(round(each) * picture.SCALE for each in place.size)
    assert image.width <= 1900
    colours = cell_colours([view])[0]
    pixel = place.plane[2] * picture.SCALE / 4.0
    roomy = np.flatnonzero(measures.inradii(view.cells, view.outline) * pixel > 25)
    assert len(roomy)
    seen = 0
    for cell in roomy.tolist():
        # the centre of mass may be nearer to a side than the centre of the largest circle
        centre = measures.centroids(view.cells, view.outline)[cell]
        x, y = (place.pixels(centre) * picture.SCALE).astype(int).tolist()
        seen += image.getpixel((x, y)) == tuple(colours[cell].tolist())
    assert seen == len(roomy)


def test_letters_that_the_font_lacks_are_replaced() -> None:
    assert picture_png.plain("é − ×…·\x07日") == "e - x…·??"


# --- SVG ----------------------------------------------------------------------------------------------------


def drawing(view: View) -> ElementTree.Element:
    return ElementTree.fromstring(picture.svg(view))


def test_an_svg_has_a_path_a_colour_and_a_path_a_layer() -> None:
    view = random_view(0)
    root = drawing(view)
    paths = [*root.iter(f"{SVG}path")]
    fills = {each.attrib["style"].partition(";")[0] for each in paths if "fill:#" in each.attrib.get("style", "")}
    colours = {hexadecimal(colour) for colour in cell_colours([view])[0]}
    assert fills == {f"fill:{colour}" for colour in colours}
    classes = [each.attrib.get("class") for each in paths]
    assert [classes.count(name) for name in ("l0", "l1", "casing", "decision")] == [1, 1, 1, 1]


def test_the_polygons_of_an_svg_have_the_areas_of_the_cells() -> None:
    view = random_view(4)
    total = np.zeros(0)
    for path in drawing(view).iter(f"{SVG}path"):
        if "fill:#" not in path.attrib.get("style", ""):
            continue
        for part in path.attrib["d"].split("z")[:-1]:
            numbers = np.array(re.findall(r"-?\d+", part), float).reshape(-1, 2).cumsum(0)
            x, y = numbers.T
            total = np.append(total, abs(x @ np.roll(y, 1) - y @ np.roll(x, 1)) / 2)
    scale = picture_svg.FINE * layout(view).plane[2] / 4.0
    expected = measures.areas(view.cells, view.outline)
    assert len(total) == len(view.cells)
    np.testing.assert_allclose(np.sort(total / scale**2), np.sort(expected), atol=2e-3)


def test_titles_and_names_are_text_and_nothing_else() -> None:
    view = replace(
        random_view(0, marks=[Mark(0.0, 0.0, HOSTILE)]), title=HOSTILE * 9, x_label=HOSTILE, outputs=[HOSTILE] * 3
    )
    text = picture.svg(view)
    assert "<script" not in text
    words = [each.text or "" for each in ElementTree.fromstring(text).iter(f"{SVG}text")]
    assert sum(each.startswith("</script><script>") for each in words) == 3 + len(layout(view).badges)
    assert max(len(each) for each in words) < 120
    picture.png(view)


@pytest.mark.parametrize("network", SMALL)
@pytest.mark.parametrize("classes", [False, True])
def test_the_smallest_planes_are_drawn(network: PiecewiseAffine, classes: bool) -> None:
    view = view_of(network, classes=classes)
    for name in ("a.png", "a.svg", "a.html"):
        picture.draw(view, Path(name))
        assert Path(name).stat().st_size > 1000
    texts = [each.text or "" for each in drawing(view).iter(f"{SVG}text")]
    count = len(view.cells)
    assert any(
        each.startswith(f"{count} activation region{'s' if count > 1 else ''} · 1 affine") for each in texts
    )


def test_fifty_layers_share_the_rows_of_the_legend() -> None:
    view = view_of(network_of([2, *[3] * 50, 2], seed=0))
    rows = [each for each in layout(view).rows if each.kind == "lines"]
    texts = [each.text for each in layout(view).words if each.text.startswith("layer")]
    assert len(rows) == len(texts) == 8
    assert texts[0].startswith("layers 1–")
    assert texts[-1].split(":")[0].endswith("–50")


@pytest.mark.parametrize("window", [(1e-6, 1e-6, 0.3), (1e6, 1e6, 0.0), (100.0, 1.0, 0.0), (1.0, 30.0, 5.0)])
def test_any_window_has_ticks_that_do_not_meet(window: tuple[float, float, float]) -> None:
    wide, high, shift = window
    view = random_view(1)
    factors = np.array([wide, high])
    points = view.cells.points * factors + shift
    low, top = points.min(0), points.max(0)
    moved = replace(
        view, cells=replace(view.cells, points=points), window=(low[0], low[1], top[0], top[1]), decision=None
    )
    place = layout(moved)
    left, plane_top, plane_wide, plane_high = place.plane
    assert min(plane_wide, plane_high) >= 90
    below = [each for each in place.words if each.anchor == "middle" and each.y == plane_top + plane_high + 19]
    beside = [each for each in place.words if each.anchor == "end"]
    assert len(below) >= 2
    assert len(beside) >= 2
    ends = [(each.x - 3 * len(each.text), each.x + 3 * len(each.text)) for each in below]
    assert all(one[1] < two[0] for one, two in pairwise(ends))
    assert all(each.x - 6 * len(each.text) >= 0 for each in beside)
    assert max(each[1] for each in ends) <= place.size[0]
    assert left + plane_wide < place.size[0]
    picture.png(moved)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.floats(-2.5, 2.5), st.floats(-2.5, 2.5)), max_size=25))
def test_labels_of_samples_stay_inside_and_apart(places: list[tuple[float, float]]) -> None:
    view = LINEAR_VIEW
    marks = [Mark(x, y, f"sample {index} with a name") for index, (x, y) in enumerate(places)]
    place = layout(replace(view, marks=marks))
    assert len(place.labels) == sum(abs(x) <= 2 and abs(y) <= 2 for x, y in places)
    boxes = [_box(label) for label in place.labels if label.words]
    left, top, width, height = place.plane
    for index, (x0, y0, x1, y1) in enumerate(boxes):
        assert left < x0 and x1 < left + width and top < y0 and y1 < top + height
        assert all(x1 <= a or c <= x0 or y1 <= b or d <= y0 for a, b, c, d in boxes[:index])
        assert not any(x0 < label.x < x1 and y0 < label.y < y1 for label in place.labels)


def _box(label: Label) -> tuple[float, float, float, float]:
    words = label.words
    assert words is not None
    wide = 6.5 * len(words.text)
    left = words.x - {"start": 0.0, "middle": wide / 2, "end": wide}[words.anchor]
    return left, words.y - 9, left + wide, words.y + 2


LINEAR_VIEW = view_of(LINEAR)


@pytest.mark.parametrize("seed", range(6))
def test_a_class_is_named_where_its_output_is_the_largest(seed: int) -> None:
    view = random_view(seed, marks=[Mark(0.5, 0.5, "a sample"), Mark(-1.0, 1.0, "another")])
    place = layout(view)
    assert view.decision is not None
    assert {badge.output for badge in place.badges} >= set(np.flatnonzero(view.decision.areas > 0.2 * 16).tolist())
    left, top, width, height = place.plane
    for index, badge in enumerate(place.badges):
        x0, y0, x1, y1 = badge.box
        point = np.array([(x0 + x1) / 2 - left, top + height - (y0 + y1) / 2]) / (width, height) * 4 - 2
        assert view.network(point[None]).argmax() == badge.output
        assert badge.words.text == f"class {badge.output}"
        assert left < x0 and x1 < left + width and top < y0 and y1 < top + height
        assert all(
            x1 <= a or c <= x0 or y1 <= b or d <= y0 for a, b, c, d in (b.box for b in place.badges[:index])
        )
        assert not any(x0 < label.x < x1 and y0 < label.y < y1 for label in place.labels)
    assert not layout(replace(view, decision=None)).badges


# --- the page -----------------------------------------------------------------------------------------------


class Elements(HTMLParser):
    """The texts of the scripts of a page, in their order, and its title."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.texts: dict[str, list[str]] = {}
        self._within = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self._within = tag
        self.texts.setdefault(tag, []).append("")

    def handle_endtag(self, tag: str) -> None:
        self._within = ""

    def handle_data(self, data: str) -> None:
        if self._within:
            self.texts[self._within][-1] += data


def held(text: str) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """The facts and the arrays of a page, read as its script reads them."""
    head, data, _ = Elements(text).texts["script"]
    facts = json.loads(head)
    content = zlib.decompress(base64.b64decode(data))
    types = {"f4": "<f4", "u4": "<u4", "i2": "<i2", "u1": "u1"}
    arrays = {
        name: np.frombuffer(content, types[kind], count, at) for name, (kind, at, count) in facts["arrays"].items()
    }
    return facts, arrays


@pytest.mark.parametrize("seed", range(3))
def test_a_page_holds_the_cells_and_their_maps(seed: int) -> None:
    view = random_view(seed)
    facts, arrays = held(page.page(view))
    points = arrays["points"].reshape(-1, 2) * 4.0 - 2.0
    np.testing.assert_allclose(points, view.cells.points, atol=1e-6)
    np.testing.assert_array_equal(arrays["corners"], view.outline.vertices)
    np.testing.assert_array_equal(arrays["begins"], view.outline.begins)
    np.testing.assert_array_equal(arrays["patterns"].reshape(len(view.cells), -1), view.cells.patterns)
    np.testing.assert_array_equal(arrays["regions"], view.regions)
    centres = arrays["centres"].reshape(-1, 2) * 4.0 - 2.0
    maps = arrays["maps"].reshape(len(view.cells), 3, 3)
    np.testing.assert_allclose(maps[:, :, 0], view.network(centres.astype(float)), atol=1e-4)
    np.testing.assert_allclose(maps[:, :, 1:], view.network.jacobians(view.cells.patterns, np.eye(2)), atol=1e-3)
    assert [layer["units"] for layer in facts["layers"]] == [8, 8]


def test_of_many_classes_a_page_holds_the_largest_of_each_cell() -> None:
    view = view_of(network_of([2, 6, 40], seed=0))
    _, arrays = held(page.page(view))
    centres = measures.centroids(view.cells, view.outline)
    expected = np.argsort(-view.network(centres), axis=1)[:, : page.MOST_OUTPUTS]
    np.testing.assert_array_equal(arrays["which"].reshape(len(view.cells), -1), expected)


def test_no_name_ends_a_script_of_a_page() -> None:
    view = replace(
        random_view(0, marks=[Mark(0.0, 0.0, HOSTILE)]),
        title=HOSTILE, x_label=HOSTILE, y_label=HOSTILE, outputs=[HOSTILE] * 3,
    )  # fmt: skip
    picture.draw(view, Path("a.html"))
    text = Path("a.html").read_text()
    assert len(Elements(text).texts["script"]) == 3
    assert "<script>alert" not in text
    facts, _ = held(text)
    assert (facts["title"], facts["axes"], facts["outputs"]) == (HOSTILE, [HOSTILE] * 2, [HOSTILE] * 3)
    assert facts["marks"] == [{"x": 0.0, "y": 0.0, "text": HOSTILE, "fill": "#ffd23f"}]


def test_pages_need_no_network() -> None:
    picture.animate([LINEAR_VIEW], ["one"], Path("b.html"))
    for text in (page.page(LINEAR_VIEW), Path("b.html").read_text()):
        assert "default-src 'none'" in text
        assert not re.search(r"(src|href)=\"(?!data:)", text)
        assert "://" not in re.sub(r"[A-Za-z0-9+/=]{200,}", "", text)


# --- limits and endings -------------------------------------------------------------------------------------


def test_too_many_cells_are_refused_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(picture_svg, "MOST_CELLS", 20)
    monkeypatch.setattr(page, "MOST_CELLS", 20)
    view = random_view(0)
    for name in ("a.svg", "a.html"):
        with pytest.raises(UsageError, match=r"20: choose \.png, or a smaller window"):
            picture.draw(view, Path(name))
        assert not Path(name).exists()
    picture.draw(view, Path("a.png"))


def test_a_page_of_too_long_patterns_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "MOST_BYTES", 100)
    with pytest.raises(UsageError, match=r"choose \.png"):
        page.page(random_view(0))


def test_other_endings_are_refused() -> None:
    for file in ("a.png", "a.SVG", "a.html"):
        picture.check_ending(Path(file))
    for file in ("a.gif", "a.html"):
        picture.check_ending(Path(file), animated=True)
    with pytest.raises(UsageError, match=r"-o a\.gif.*\.png.*\.svg.*\.html"):
        picture.check_ending(Path("a.gif"))
    with pytest.raises(UsageError, match=r"-o a\.png.*\.gif.*\.html"):
        picture.check_ending(Path("a.png"), animated=True)
    with pytest.raises(UsageError):
        picture.draw(LINEAR_VIEW, Path("a.pdf"))


# --- animations ---------------------------------------------------------------------------------------------


def test_a_gif_has_a_frame_a_view_even_where_nothing_changes() -> None:
    views = [random_view(0), random_view(0), random_view(1)]
    picture.animate(views, ["the same", "the same", "another"], Path("a.gif"))
    with Image.open("a.gif") as image:
        assert getattr(image, "n_frames", 1) == 3
        durations = []
        for frame in range(3):
            image.seek(frame)
            durations.append(image.info["duration"])
        assert durations[0] == durations[1] < durations[2]
        assert image.info["loop"] == 0
        assert 600 <= image.width <= 800
        assert image.convert("RGB").getpixel((2, 2)) == (255, 255, 255)


def test_an_animated_page_has_a_picture_and_a_caption_a_view() -> None:
    captions = ["epoch 1", HOSTILE]
    picture.animate([random_view(0), random_view(1)], captions, Path("a.html"))
    text = Path("a.html").read_text()
    head, _ = Elements(text).texts["script"]
    facts = json.loads(head)
    assert facts["captions"] == captions
    images = [Image.open(BytesIO(base64.b64decode(frame))) for frame in facts["frames"]]
    assert len(images) == 2
    assert images[0].size == images[1].size
