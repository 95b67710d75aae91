import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# How long an example takes says how busy the machine is.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

# One thread a process: tests run side by side, and sums must not depend on how many cores are free.
os.environ["OMP_NUM_THREADS"] = "1"


@pytest.fixture(scope="session", autouse=True)
def _a_cache_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> None:
    os.environ["MLPCLI_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True)
def _torch_as_it_was() -> Iterator[None]:
    """Training leaves denormals off, which hypothesis needs, and a number of threads: with more than one, a
    process that is forked later may wait for ever for threads that a fork loses."""
    yield
    if "torch" in sys.modules:
        sys.modules["torch"].set_flush_denormal(False)
        sys.modules["torch"].set_num_threads(1)


@pytest.fixture
def reports() -> None:
    """Asks for the report at the end of a training, which other tests go without."""


@pytest.fixture(autouse=True)
def _no_report_at_the_end(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hundreds of tests train, and a report takes longer than most of them: only those that ask for it have it."""
    if "reports" not in request.fixturenames:
        monkeypatch.setattr("mlpcli.verbs.train.write_report_at_the_end", lambda _training: None)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An empty folder for `data.root`."""
    folder = tmp_path / "the data"
    folder.mkdir()
    return folder


@pytest.fixture
def real_data() -> Path:
    """The folder with the real MNIST and Fashion-MNIST."""
    folder = os.environ.get("MLPCLI_TEST_DATA")
    if not folder:
        pytest.skip("MLPCLI_TEST_DATA is not set, so there is no real MNIST here")
    return Path(folder)
