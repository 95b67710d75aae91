"""The Makefile's targets, in a copy of the project that uses the environment of the tests."""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from command import project_files

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent

pytestmark = pytest.mark.skipif(
    shutil.which("make") is None or not (BIN / "mlpcli").is_file(),
    reason="needs make, and the command mlpcli beside this Python",
)


@dataclass(frozen=True)
class Copy:
    """A copy of the project's files, and a folder that stands for its environment.

    `make` finds the environment finished and newer than pyproject.toml, so that it installs nothing.
    """

    project: Path
    environment: Path

    def make(self, *arguments: str) -> str:
        """What `make VENV=… ARGUMENTS` prints to stdout; it must succeed."""
        own = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
        done = subprocess.run(
            ["make", f"VENV={self.environment}", *arguments],
            cwd=self.project,
            env=own,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done
        return done.stdout


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    project = tmp_path_factory.mktemp("project")
    for name in project_files(ROOT):
        if (ROOT / name).is_file():
            (project / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, project / name)
    environment = tmp_path_factory.mktemp("environment")
    (environment / "bin").symlink_to(BIN)
    (environment / ".installed").touch()
    return Copy(project, environment)


def test_demo_trains_evaluates_and_shows_the_results(copy: Copy) -> None:
    out = copy.make("demo")
    assert "install" not in out
    assert re.search(r"^test loss \d\.\d+ accuracy 0\.9\d+$", out, re.MULTILINE)
    assert re.search(r"^accuracy +0\.9\d+$", out, re.MULTILINE)
    place, _, files = out.partition("The results are in ")[2].partition(":\n")
    assert place == "runs/digits"
    assert set(files.split()) == {path.name for path in (copy.project / place).iterdir()}
    assert {"config.yaml", "metrics.jsonl", "summary.json", "checkpoints"} <= set(files.split())


def test_gd_vs_sgd_compares_and_draws(copy: Copy) -> None:
    out = copy.make("gd-vs-sgd", "PAIRED=training.epochs=6 training.keep_checkpoints=3 --quiet")
    assert "after 7,764 gradient evaluations" in out and "McNemar" in out
    assert "The runs are in runs/gd and runs/sgd." in out
    for name in re.findall(r"gd-vs-sgd\.\w+", out.splitlines()[-1]):
        assert (copy.project / name).stat().st_size > 5000
    assert "<svg" in (copy.project / "gd-vs-sgd.svg").read_text(encoding="utf-8")
    assert "runs/gd-2" in copy.make("gd-vs-sgd", "PAIRED=training.epochs=2 training.keep_checkpoints=3 --quiet")


def test_train_and_eval_take_a_config_and_a_run(copy: Copy) -> None:
    assert "runs/iris\n" in copy.make("train", "CONFIG=iris")
    out = copy.make("eval", "RUN=runs/iris")
    assert "runs/iris/checkpoints/best.pt on test (30 samples)" in out


def test_help_lists_every_target(copy: Copy) -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    (phony,) = re.findall(r"^\.PHONY: (.*)$", text, re.MULTILINE)
    listed = [line.split()[1] for line in copy.make("help").splitlines()]
    assert sorted(listed) == sorted(phony.split())
    assert copy.make() == copy.make("help")


def test_setup_passes_on_what_pip_is_to_be_told(copy: Copy, tmp_path: Path) -> None:
    commands = Copy(copy.project, tmp_path / "new").make(
        "--dry-run", "setup", "PYTHON=python3.12", "PIP_ARGS=--extra-index-url ADDRESS"
    )
    assert f"python3.12 -m venv {tmp_path}/new\n" in commands
    assert "pip install --extra-index-url ADDRESS --editable '.[dev]'" in commands


def test_test_and_check_run_all_tests(copy: Copy) -> None:
    for target in ("test", "check"):
        last = copy.make("--dry-run", target).splitlines()[-1]
        assert (
            last.removeprefix(str(copy.environment))
            == "/bin/python -m pytest --numprocesses auto --dist loadgroup"
        )


def test_clean_keeps_runs_and_data(copy: Copy, tmp_path: Path) -> None:
    for name in (
        "runs/digits/config.yaml",
        "data/MNIST/raw/images",
        "mlpcli/__pycache__/cli.pyc",
        "environment/x",
    ):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    shutil.copyfile(copy.project / "Makefile", tmp_path / "Makefile")
    Copy(tmp_path, tmp_path / "environment").make("clean")
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {"Makefile", "runs/digits/config.yaml", "data/MNIST/raw/images"}
