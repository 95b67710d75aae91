"""Pictures of computation graphs: every format holds every node and edge, and nothing overlaps."""

import io
import json
import math
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from PIL import Image

from mlpcli.autodiff.diagram import Box, Diagram, Link, number
from mlpcli.autodiff.drawing import ENDINGS, described, diagram, draw, formula
from mlpcli.autodiff.formats import MOST_BOXES, draw_diagram
from mlpcli.autodiff.graph import Graph, Node, Run, run
from mlpcli.autodiff.painting import inline_svg, png, svg
from mlpcli.autodiff.parsing import parse
from mlpcli.autodiff.scene import Block, Text, scene, shortened
from mlpcli.autodiff.stepping import steps
from mlpcli.errors import StorageError, UsageError

LECTURE = "z1 = x * y\nz2 = x ** 2\nz3 = exp(z1)\nz4 = 2 * z2\nz5 = z3 + z4\nout = sin(z5)\n"
PROGRAMS = {
    "lecture": (LECTURE, {"x": 1.0, "y": 2.0}, None),
    "tangents": (LECTURE, {"x": 1.0, "y": 2.0}, {"x": 1.0}),
    "parallel": ("x * x", {"x": 3.0}, None),
    "one node": ("x", {"x": 3.0}, None),
    "kinks": ("a = relu(x)\nout = max(a, 0 * x) * abs(y) - (-2) ** 2 * x", {"x": 0.0, "y": -1.0}, None),
    "no derivative by the exponent": ("(x - 3) ** 2", {"x": 1.0}, None),
    "other alphabets": ("θ * é + 変数", {"θ": 1e-7, "é": -3.3e12, "変数": 2.0}, None),
}
SVG = "{http://www.w3.org/2000/svg}"


def computed(name: str) -> Run:
    text, at, direction = PROGRAMS[name]
    return run(parse(text, "program"), at, direction)


def edges(of: Run) -> list[tuple[int, int, float]]:
    return [
        (parent, child, local)
        for child, node in enumerate(of.graph.nodes)
        for parent, local in zip(node.parents, of.local[child], strict=True)
    ]


def numbers(of: Run, index: int) -> list[str]:
    tangents = [] if of.tangents is None else [of.tangents[index]]
    return [number(each) for each in (of.values[index], *tangents, of.adjoints[index])]


@pytest.fixture(params=PROGRAMS)
def drawn(request: pytest.FixtureRequest) -> Run:
    return computed(request.param)


# --- what is in the files -----------------------------------------------------------------------------------


def assert_shows_everything(picture: ET.Element, of: Run, prefix: str) -> None:
    groups = [group for group in picture.iter(f"{prefix}g") if group.get("class") in ("node", "edge")]
    assert len({group.get("id") for group in groups}) == len(groups)
    found = {group.get("id"): group for group in groups}
    expected = edges(of)
    assert found.keys() == {
        *(f"node-{index}" for index in range(len(of.graph.nodes))),
        *(f"edge-{index}" for index in range(len(expected))),
    }
    for index in range(len(of.graph.nodes)):
        texts = [each.text for each in found[f"node-{index}"].iter(f"{prefix}text")]
        assert texts[0] == shortened(formula(of, index))
        assert texts[2::2] == numbers(of, index)
        title = found[f"node-{index}"].findtext(f"{prefix}title")
        assert title is not None and repr(of.values[index]) in title and repr(of.adjoints[index]) in title
    for index, (parent, child, local) in enumerate(expected):
        group = found[f"edge-{index}"]
        assert (group.get("data-parent"), group.get("data-child")) == (str(parent), str(child))
        assert [each.text for each in group.iter(f"{prefix}text")] == [number(local)]
        assert len(list(group.iter(f"{prefix}path"))) == 1
    paths = [
        path.get("d") for group in groups for path in group.iter(f"{prefix}path") if path.get("class") == "line"
    ]
    assert len(set(paths)) == len(expected), "each edge is a line of its own"


def test_svg(drawn: Run) -> None:
    draw(drawn, Path("graph.svg"))
    picture = ET.parse("graph.svg").getroot()
    assert picture.tag == f"{SVG}svg"
    assert_shows_everything(picture, drawn, SVG)
    texts = {text.text for text in picture.iter(f"{SVG}text")}
    assert texts >= set(drawn.notes)
    style = picture.findtext(f"{SVG}style")
    assert style is not None and "prefers-color-scheme: dark" in style


def test_html_picture(drawn: Run) -> None:
    draw(drawn, Path("graph.html"))
    text = Path("graph.html").read_text(encoding="utf-8")
    assert_shows_everything(ET.fromstring(text[text.index("<svg") : text.index("</svg>") + 6]), drawn, "")


def test_html_needs_no_network(drawn: Run) -> None:
    draw(drawn, Path("graph.html"))
    text = Path("graph.html").read_text(encoding="utf-8")
    assert not re.search(r"https?://|\bsrc\s*=|@import|url\(|<link\b|\bfetch\(|XMLHttpRequest", text)
    assert "default-src 'none'" in text
    assert "{{" not in text and "}}" not in re.sub(r"<(style|script).*?</\1>", "", text, flags=re.DOTALL)


def test_html_steps_sum_to_the_adjoints(drawn: Run) -> None:
    draw(drawn, Path("graph.html"))
    text = Path("graph.html").read_text(encoding="utf-8")
    data = re.search(r'<script type="application/json" id="steps">(.*?)</script>', text)
    assert data is not None
    listed = json.loads(data[1])
    assert len(re.findall(r'<li id="step-\d+"', text)) == len(listed)

    forward = [step for step in listed if step["stage"] == "forward"]
    assert [step["node"] for step in forward] == list(range(len(drawn.graph.nodes)))
    assert [step["value"] for step in forward] == drawn.values

    backward = listed[len(forward) :]
    assert backward[0]["node"] == drawn.graph.leaf and backward[0]["value"] == 1 and backward[0]["edge"] is None
    assert sorted(step["edge"] for step in backward[1:]) == list(range(len(edges(drawn))))
    terms: dict[int, list[float]] = {}
    ends = edges(drawn)
    for step in backward:
        if step["edge"] is not None:
            parent, child, _ = ends[step["edge"]]
            assert parent == step["node"]
            last = [each for each in backward if each["node"] == child][-1]
            assert backward.index(last) < backward.index(step), "an adjoint is complete before it is passed on"
        terms.setdefault(step["node"], []).append(math.nan if step["value"] is None else step["value"])
        assert step["total"] == pytest.approx(sum(terms[step["node"]])) or step["total"] is None
    for index, adjoint in enumerate(drawn.adjoints):
        assert sum(terms[index]) == pytest.approx(adjoint, nan_ok=True)
        complete = [step["complete"] for step in backward if step["node"] == index]
        assert complete == [*[False] * (len(complete) - 1), True]


def test_steps_put_the_numbers_in() -> None:
    plain = [[re.sub("<[^>]*>", "", line) for line in step.lines] for step in steps(computed("tangents"))]
    assert ["z3 = exp(z1)", "= exp(2) = 7.389", "ẏ(z3) = ∂z3/∂z1 · ẏ(z1)", "= 7.389 · 2 = 14.78"] in plain
    assert [
        "z̄(z1) += z̄(z3) · ∂z3/∂z1",
        "= 0 + (−0.9994) · 7.389 = −7.384",
        "term 1 of 1: the adjoint is complete",
    ] in plain
    assert plain[-1][0].startswith("z̄(y) += ") or plain[-1][0].startswith("z̄(x) += ")
    (x_first, x_second) = [lines for lines in plain if lines[0].startswith("z̄(x) += ")]
    assert x_first[2] == "term 1 of 2: a running sum" and x_second[2] == "term 2 of 2: the adjoint is complete"


@pytest.mark.parametrize(
    ("program", "at", "expected"),
    [
        ("x - y", {"x": -1.0, "y": -2.0}, "= −1 − (−2) = 1"),
        ("x ** 2", {"x": -2.0}, "= (−2) ** 2 = 4"),
        ("-x", {"x": -2.0}, "= −(−2) = 2"),
        ("min(x, y)", {"x": -2.0, "y": 3.0}, "= min(−2, 3) = −2"),
    ],
)
def test_steps_with_negative_numbers(program: str, at: dict[str, float], expected: str) -> None:
    found = run(parse(program, "program"), at)
    (lines,) = [step.lines for step in steps(found) if step.stage == "forward" and step.node == found.graph.leaf]
    assert re.sub("<[^>]*>", "", lines[1]) == expected


def test_json(drawn: Run) -> None:
    draw(drawn, Path("graph.json"))
    read = json.loads(Path("graph.json").read_text(encoding="utf-8"), parse_constant=pytest.fail)
    assert read == described(drawn)
    names = [node.name for node in drawn.graph.nodes]
    assert [node["name"] for node in read["nodes"]] == names
    assert [node["value"] for node in read["nodes"]] == drawn.values
    assert [math.nan if node["adjoint"] is None else node["adjoint"] for node in read["nodes"]] == pytest.approx(
        drawn.adjoints, rel=0, abs=0, nan_ok=True
    )
    assert [node.get("tangent") for node in read["nodes"]] == (
        [None] * len(names) if drawn.tangents is None else drawn.tangents
    )
    assert [(edge["parent"], edge["child"]) for edge in read["edges"]] == [
        (names[parent], names[child]) for parent, child, _ in edges(drawn)
    ]
    assert read["leaf"] == names[drawn.graph.leaf] and read["at"] == drawn.at and read["notes"] == drawn.notes


DOT_NODE = re.compile(r"  n(\d+) \[label=<<b>(.*?)</b>(.*?)> style=\S+( penwidth=2.5)? fillcolor=\S+ color=\S+\]")
DOT_EDGE = re.compile(r'  n(\d+) -> n(\d+) \[label=" (.*)"\]')


def test_dot(drawn: Run) -> None:
    draw(drawn, Path("graph.dot"))
    opening, *lines, closing = Path("graph.dot").read_text(encoding="utf-8").splitlines()
    assert opening == "digraph computation {" and closing == "}"
    found_nodes, found_edges = [], []
    for line in lines:
        node, edge = DOT_NODE.fullmatch(line), DOT_EDGE.fullmatch(line)
        if node:
            shown = ET.fromstring(f"<label>{node[3]}</label>")
            found_nodes.append((int(node[1]), [font.text for font in shown.iter("font")]))
            assert ET.fromstring(f"<b>{node[2]}</b>").text == formula(drawn, int(node[1]))
        elif edge:
            found_edges.append((int(edge[1]), int(edge[2]), edge[3]))
        else:
            assert re.fullmatch(r'  (graph|node|edge) \[(\w+=("[^"]*"|\w+) ?)+\]', line), line
    assert found_nodes == [(index, numbers(drawn, index)) for index in range(len(drawn.graph.nodes))]
    assert found_edges == [(parent, child, number(local)) for parent, child, local in edges(drawn)]


MERMAID_NODE = re.compile(
    r'  n(\d+)(?:\(\[|\[\[|\[)"<b>(.*?)</b>(.*)"(?:\]\)|\]\]|\]):::(input|constant|inner|leaf)'
)
MERMAID_EDGE = re.compile(r'  n(\d+) -- "(.*)" --> n(\d+)')


def test_mermaid(drawn: Run) -> None:
    draw(drawn, Path("graph.mmd"))
    opening, *lines = Path("graph.mmd").read_text(encoding="utf-8").splitlines()
    assert opening == "flowchart TB"
    found_nodes, found_edges = [], []
    for line in lines:
        node, edge = MERMAID_NODE.fullmatch(line), MERMAID_EDGE.fullmatch(line)
        if node:
            found_nodes.append((int(node[1]), [row.split()[-1] for row in node[3].split("<br>")[1:]]))
            assert re.sub(r"#(\d+);", lambda code: chr(int(code[1])), node[2]) == formula(drawn, int(node[1]))
        elif edge:
            found_edges.append((int(edge[1]), int(edge[3]), edge[2]))
        else:
            assert line.startswith("  classDef "), line
    assert found_nodes == [(index, numbers(drawn, index)) for index in range(len(drawn.graph.nodes))]
    assert found_edges == [(parent, child, number(local)) for parent, child, local in edges(drawn)]


def test_png_has_the_scene_twice_as_large(drawn: Run) -> None:
    draw(drawn, Path("graph.png"))
    placed = scene(diagram(drawn))
    with Image.open("graph.png") as picture:
        assert picture.format == "PNG" and picture.mode == "RGB"
        assert picture.size == (math.ceil(2 * placed.width), math.ceil(2 * placed.height))
        for group in placed.groups:
            for shape in group.shapes:
                if isinstance(shape, Block) and shape.style == "box input":
                    at = (round(2 * (shape.place.left + 4)), round(2 * shape.place.y))
                    assert picture.getpixel(at) == (0xE8, 0xF1, 0xFC)
                if isinstance(shape, Text) and shape.text:
                    start = shape.x - {"start": 0, "middle": 4, "end": 8}[shape.anchor]
                    left, right = round(2 * (start - 8)), round(2 * (start + 16))
                    around = picture.crop((left, round(2 * (shape.y - 12)), right, round(2 * (shape.y + 4))))
                    assert len(around.getcolors(10_000) or ()) > 2, f"no letters of {shape.text!r}"


def test_two_pictures_are_the_same_bytes() -> None:
    for ending in ENDINGS:
        draw(computed("kinks"), Path(f"one{ending}"))
        draw(computed("kinks"), Path(f"two{ending}"))
        assert Path(f"one{ending}").read_bytes() == Path(f"two{ending}").read_bytes()


# --- what they must not do ----------------------------------------------------------------------------------


def hostile(text: str) -> Diagram:
    boxes = (
        Box("input", text, text, (), text),
        Box("leaf", text, f"{text} = {text}", (), text),
    )
    return Diagram(text, boxes, (Link(0, 1, text, text), Link(0, 1, text, text)), (("local", text),), (text,))


@pytest.mark.parametrize(
    "text",
    ['"]<script>alert(1)</script>&amp;', '\\"; n0 -> n9 [', "--> `x`; #quot; %%", "</title></svg>", "{{STEPS}}"],
)
def test_hostile_texts_stay_texts(text: str) -> None:
    drawn = hostile(text)
    for content in (svg(scene(drawn), text), inline_svg(scene(drawn), text)):
        picture = ET.fromstring(content)
        assert picture.get("aria-label") == text
        assert [title.text for title in picture.iter() if title.tag.endswith("title")] == [text] * 4
        assert not any(each.tag.endswith("script") for each in picture.iter())
    draw_diagram(drawn, Path("graph.dot"))
    dot = Path("graph.dot").read_text(encoding="utf-8")
    strings = re.findall(r'"(?:[^"\\]|\\.)*"', dot)
    assert sum(string[1:-1].strip().replace('\\"', '"').replace("\\\\", "\\") == text for string in strings) == 3
    assert len(dot.splitlines()) == 9 and dot.count("<b>") == 2
    draw_diagram(drawn, Path("graph.mmd"))
    for line in Path("graph.mmd").read_text(encoding="utf-8").splitlines()[1:5]:
        assert line.count('"') == 2 and "<script" not in line and "`" not in line
    draw_diagram(drawn, Path("graph.png"))


def test_html_keeps_hostile_notes_out_of_its_markup() -> None:
    text = "</script><script>alert(1)</script>{{STEPS}}"
    graph = Graph([Node("x", "input"), Node("out", "exp", (0,))], 1, [text])
    draw(run(graph, {"x": 0.0}), Path("graph.html"))
    page = Path("graph.html").read_text(encoding="utf-8")
    assert "<script>alert" not in page and page.count("</script>") == 2
    assert page.count("{{STEPS}}") == 1, "what the user wrote is not filled in"


def test_other_endings_are_refused() -> None:
    with pytest.raises(UsageError, match=r"-o graph\.gif: .*\.svg, \.png, \.dot, \.mmd, \.html, \.json"):
        draw(computed("lecture"), Path("graph.gif"))
    with pytest.raises(UsageError, match="the ending says the format"):
        draw_diagram(diagram(computed("lecture")), Path("graph.json"))
    assert list(Path().iterdir()) == []
    draw(computed("lecture"), Path("GRAPH.SVG"))


def chain(length: int) -> Run:
    return run(parse("x = 0.5 * sin(x)\n" * length + "out = x\n", "program"), {"x": 1.0})


def test_large_graphs_are_text_only() -> None:
    large = chain(2000)
    for ending in (".svg", ".png", ".html"):
        with pytest.raises(UsageError, match=r"nodes cannot be read .*\.dot .*\.json"):
            draw(large, Path(f"graph{ending}"))
        assert not Path(f"graph{ending}").exists()
    for ending in (".dot", ".mmd"):
        draw(large, Path(f"graph{ending}"))
        text = Path(f"graph{ending}").read_text(encoding="utf-8")
        assert text.count("->" if ending == ".dot" else "-->") == len(edges(large))
    draw(large, Path("graph.json"))
    assert len(json.loads(Path("graph.json").read_bytes())["nodes"]) == len(large.graph.nodes)


def test_a_png_stays_readable() -> None:
    longest = run(parse("x = sin(x)\n" * (MOST_BOXES - 2) + "out = -x\n", "program"), {"x": 1.0})
    assert len(longest.graph.nodes) == MOST_BOXES
    with Image.open(io.BytesIO(png(scene(diagram(longest))))) as picture:
        assert picture.width * picture.height < 12_100_000
    wide = run(parse("a = x\n" + "a = a * x\na = sin(a)\n" * 60, "program"), {"x": 0.9})
    with pytest.raises(UsageError, match=r"takes [\d,]+ × [\d,]+ pixels; choose \.svg or \.dot"):
        draw(wide, Path("graph.png"))
    draw(wide, Path("graph.svg"))


def test_files_are_whole_or_absent() -> None:
    Path("graph.svg").write_text("before")
    Path("taken").write_text("a file")
    with pytest.raises(StorageError, match=r"cannot write taken/graph\.svg"):
        draw(computed("lecture"), Path("taken/graph.svg"))
    draw(computed("lecture"), Path("graph.svg"))
    assert sorted(path.name for path in Path().iterdir()) == ["graph.svg", "taken"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (-0.0, "0"),
        (-0.28366, "−0.2837"),
        (1e-7, "1e−7"),
        (123456.0, "1.235e5"),
        (math.inf, "∞"),
        (-math.inf, "−∞"),
        (math.nan, "none"),
    ],
)
def test_numbers(value: float, text: str) -> None:
    assert number(value) == text
