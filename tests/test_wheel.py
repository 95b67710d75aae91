"""What an installed mlpcli brings along."""

import subprocess
import sys
import zipfile
from pathlib import Path

from mlpcli import starters

ROOT = Path(__file__).parent.parent


def test_the_starters_travel_inside_the_wheel(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
    done = subprocess.run(
        [sys.executable, "-m", "mlpcli", "init", "--list"],
        env={"PYTHONPATH": str(tmp_path / "installed")},
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
    )
    assert [line.split()[0] for line in done.stdout.splitlines()] == starters.names()
    packaged = tmp_path / "installed" / "mlpcli" / "configs"
    for name in starters.names():
        original = (ROOT / "configs" / f"{name}.yaml").read_text(encoding="utf-8")
        assert (packaged / f"{name}.yaml").read_text(encoding="utf-8") == original
