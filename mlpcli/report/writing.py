"""The report of a run: report.html, plots/ and README.md in its directory."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlpcli import checkpoints
from mlpcli.config import Config
from mlpcli.data import Dataset
from mlpcli.network import Network
from mlpcli.report import card
from mlpcli.report.blocks import Section
from mlpcli.report.drawing import png
from mlpcli.report.gathering import Gathered, gather
from mlpcli.report.landscape_section import landscape_section
from mlpcli.report.page import charts_of, page
from mlpcli.report.sections import classification, headline, learning, network, regression, settings
from mlpcli.runs import BEST, storage, write_whole
from mlpcli.targets import Opened

REPORT, PLOTS = "report.html", "plots"
REFRESH_SECONDS = 5
"""After which the page of a run that goes on loads itself again."""


def write_report(
    path: Path,
    overrides: Sequence[str] = (),
    trained: Opened | None = None,
    *,
    live: bool = False,
    landscape: bool = False,
) -> Path:
    """Write the report of a run; what is missing of the run is said in it.

    Args:
        path: of the run directory.
        overrides: KEY=VALUE that say where the data is now.
        trained: the best checkpoint's network with its data, where that is in memory already.
        live: whether the page of a run that goes on loads itself again; plots/ and README.md wait for its end.
        landscape: whether the path of its kept checkpoints on the loss surface is drawn too.

    Returns:
        The page's path.

    Raises:
        RunError: it is no run directory.
        UsageError: it kept too few checkpoints for a path.
        StorageError: a file could not be written.
    """
    run = gather(path, overrides, trained)
    sections = sections_of(run)
    if landscape:
        sections.insert(2, landscape_section(_landscape(path, overrides)))
    running = live and run.status == "running"
    text = page(*_titles(run), sections, _footer(run), REFRESH_SECONDS if running else None)
    file = path / REPORT
    write_whole(file, text.encode(errors="replace"))
    if not running:
        _write_plots(path / PLOTS, sections)
        card.write_card(run)
    return file


def report_of_training(path: Path, config: Config, network: Network, dataset: Dataset) -> Path:
    """The report of a run that has just ended, with what is in memory; the network becomes that of the best epoch.

    Raises:
        CheckpointError, StorageError: best.pt cannot be read, or a file not be written.
    """
    best = path / BEST
    network.model.load_state_dict(checkpoints.load(best)["model"])
    return write_report(path, trained=Opened(str(best), config, network, dataset))


def sections_of(run: Gathered) -> list[Section]:
    """What the page shows, from top to bottom."""
    sections = [headline.section(run), learning.section(run)]
    if run.test is not None:
        sections.append(classification.section(run) if run.test.classifies else regression.section(run))
    return [*sections, network.section(run), settings.section(run)]


def _landscape(path: Path, overrides: Sequence[str]) -> dict[str, Any]:
    from mlpcli.report.landscape import landscape

    file = path / PLOTS / "landscape.svg"
    with storage(file):
        file.parent.mkdir(exist_ok=True)
    return landscape([path], file, overrides)


def _titles(run: Gathered) -> tuple[str, str]:
    about = "" if run.network is None else f"{run.network.description.name}, {headline.architecture(run)}; "
    return run.name, f"{about}{headline.STATUS.get(run.status, run.status)}"


def _footer(run: Gathered) -> str:
    return f"Made by mlpcli from {run.path}. Every chart is also a PNG file in {PLOTS}/."


def _write_plots(folder: Path, sections: Sequence[Section]) -> None:
    """Each picture as a PNG file."""
    with storage(folder):
        folder.mkdir(exist_ok=True)
    for chart in charts_of(sections):
        write_whole(folder / f"{chart.name}.png", png(chart))
