"""The page in a real browser: it asks for nothing, complains of nothing, and shows what it should at any width."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import Browser, browser, needs_browser
from command import succeeds

pytestmark = needs_browser

HOSTILE = [
    '<script>document.title = "changed"; window.changed = 1</script>',
    '"><img src="https://example.org/x.png" onerror="window.changed = 2">',
    "</style></svg></title><svg onload='window.changed = 3'>",
    "{{ 7 * 7 }}{% raw %}",
]

SECTIONS = {
    "classification": ["headline", "learning", "classification", "network", "settings"],
    "regression": ["headline", "learning", "regression", "network", "settings"],
    "interrupted": ["headline", "learning", "classification", "network", "settings"],
    "hostile": ["headline", "learning", "classification", "network", "settings"],
    "many": ["headline", "learning", "classification", "network", "settings"],
}

MEETING = """
[...document.querySelectorAll("svg")].flatMap((svg) => {
  const texts = [...svg.querySelectorAll("text")].filter((text) => text.textContent.trim());
  const boxes = texts.map((text) => text.getBoundingClientRect());
  const frame = svg.getBoundingClientRect();
  const found = [];
  boxes.forEach((a, i) => {
    if (a.left < frame.left - 3 || a.right > frame.right + 3) found.push("sticks out: " + texts[i].textContent);
    boxes.slice(i + 1).forEach((b, j) => {
      const wide = Math.min(a.right, b.right) - Math.max(a.left, b.left);
      const high = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
      if (wide > 0.5 && high > 3) found.push(texts[i].textContent + " | " + texts[i + 1 + j].textContent);
    });
  });
  return found.map((each) => svg.getAttribute("aria-label") + ": " + each);
})
"""
"""Texts of a picture that lie on each other, or leave it."""


def hostile_table(file: Path) -> None:
    rows = ["a,b,class"]
    for index in range(160):
        name = HOSTILE[index % 4].replace('"', '""')
        rows.append(f'{index % 4 + index / 100},{index % 7},"{name}"')
    file.write_text("\n".join(rows), encoding="utf-8")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs with their reports."""
    folder = tmp_path_factory.mktemp("runs")
    table = ["data.dataset=csv", "data.target=class", "report=false", "-q", "model.width=16"]
    small = ["report=false", "-q"]
    succeeds("train", "digits", "training.epochs=8", *small, "-o", folder / "classification")
    succeeds("train", "diabetes", "training.epochs=8", *small, "-o", folder / "regression")
    succeeds("train", "digits", "training.epochs=2", *small, "-o", folder / "interrupted")
    (folder / "interrupted/summary.json").unlink()
    hostile_table(folder / "hostile.csv")
    config = folder / "table.yaml"
    config.write_text("data: {dataset: csv, path: x.csv, target: class}\n", encoding="utf-8")
    path = f"data.path={folder / 'hostile.csv'}"
    succeeds("train", config, path, *table, "training.epochs=2", "-o", folder / "hostile")
    lines = ["a,b,class", *(f"{k + j / 10},{k % 30},kind {k}" for k in range(1000) for j in range(5))]
    (folder / "many.csv").write_text("\n".join(lines), encoding="utf-8")
    path = f"data.path={folder / 'many.csv'}"
    succeeds("train", config, path, *table, "training.epochs=1", "-o", folder / "many")
    for name in SECTIONS:
        succeeds("report", folder / name)
    return folder


@pytest.fixture(scope="module")
def tab() -> Iterator[Browser]:
    with browser() as opened:
        yield opened


@pytest.mark.parametrize("name", SECTIONS)
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (1280, True), (390, False)])
def test_a_page_stands_alone_at_any_width(runs: Path, tab: Browser, name: str, width: int, dark: bool) -> None:
    file = runs / name / "report.html"
    assert file.stat().st_size < 3_000_000
    tab.open(file, width, dark=dark)
    assert tab.complaints() == []
    assert tab.requests() == []
    assert tab.value("[...document.querySelectorAll('main > section')].map((each) => each.id)") == SECTIONS[name]
    assert tab.value("document.documentElement.scrollWidth") <= width
    assert tab.value("document.querySelectorAll('script').length") == 0
    assert tab.value(MEETING) == []
    paper = tab.value("getComputedStyle(document.body).backgroundColor")
    assert (paper == "rgb(255, 255, 255)") != dark


@pytest.mark.parametrize("name", ["classification", "regression"])
def test_a_reader_sees_the_numbers_of_the_summary(runs: Path, tab: Browser, name: str) -> None:
    tab.open(runs / name / "report.html")
    text = " ".join(tab.value("document.body.innerText").split())
    summary = json.loads((runs / name / "summary.json").read_text(encoding="utf-8"))
    assert summary["test"]
    for metric, value in summary["test"].items():
        assert f"{metric} {value:.6f}" in text
    assert f"{summary['parameters']:,}" in text
    assert f"{summary['best']['epoch']} of 8" in text
    assert tab.value("document.querySelectorAll('main svg').length") >= 10


def test_an_interrupted_run_says_so(runs: Path, tab: Browser) -> None:
    tab.open(runs / "interrupted/report.html")
    text = tab.value("document.body.innerText")
    assert "interrupted after 2 finished epochs" in text and "of the best epoch so far" in text


def test_names_with_markup_are_shown_and_never_run(runs: Path, tab: Browser) -> None:
    tab.open(runs / "hostile/report.html")
    assert tab.value("document.title") == "hostile"
    assert tab.value("window.changed") is None
    text = tab.value("document.querySelector('#classification').innerText")
    shown = [name if len(name) <= 60 else name[:59] for name in HOSTILE]
    assert all(name in text for name in shown)
    assert tab.value("[...document.images].every((each) => each.src.startsWith('data:'))")


def test_a_page_is_printed_on_light_paper(runs: Path, tab: Browser, tmp_path: Path) -> None:
    tab.open(runs / "classification/report.html", dark=True)
    tab.print_to(tmp_path / "page.pdf")
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")
    tab.call("Emulation.setEmulatedMedia", media="print", features=[])
    assert tab.value("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert tab.value("getComputedStyle(document.querySelector('nav')).display") == "none"
