"""The cache gives what the files give, and nothing that happens to it can do harm."""

import errno
import json
import logging
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stored_sets import (
    N,
    failure,
    idx,
    images,
    labels,
    section,
    write,
    write_cifar,
    write_idx,
    write_stl10,
    write_svhn,
    write_usps,
)
from torchvision import datasets

from mlpcli import checking, data
from mlpcli.config.data_schema import Data, DigitsData, EmnistData, FakeData, TableData
from mlpcli.data import cache, embedded, vision
from mlpcli.data.dataset import Source, Split


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache."""
    monkeypatch.setenv("MLPCLI_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def copied(split: Split) -> Split:
    return Split(split.stored.clone(), split.targets.clone())


def load(section: Data) -> tuple[Source, str]:
    """A copy of what was read, as some tests damage the files that it is mapped from; and its fingerprint."""
    source = data._read(section)
    test = None if source.test is None else copied(source.test)
    copy = Source(copied(source.train), test, source.classes, source.target_names)
    return copy, data.load(section, seed=0).description.fingerprint


def assert_same(first: tuple[Source, str], second: tuple[Source, str]) -> None:
    (a, fingerprint), (b, other) = first, second
    assert fingerprint == other
    assert (a.classes, a.target_names) == (b.classes, b.target_names)
    for x, y in ((a.train, b.train), (a.test, b.test)):
        if x is None or y is None:
            assert x is y is None
            continue
        for mine, theirs in ((x.inputs, y.inputs), (x.targets, y.targets)):
            assert mine.dtype == theirs.dtype and mine.stride() == theirs.stride()
            assert torch.equal(mine, theirs)


def refuse(*_: Any, **__: Any) -> Any:
    raise AssertionError("read again")


def assert_warm(section: Data, monkeypatch: pytest.MonkeyPatch) -> tuple[Source, str]:
    """What `section` gives, which must come from the cache."""
    with monkeypatch.context() as patch:
        for module in (vision, embedded):
            patch.setattr(module, "cached", lambda name, read, **keys: cache.cached(name, refuse, **keys))
        return load(section)


def entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


# --- what it gives --------------------------------------------------------------------------------------


def write_qmnist(root: Path) -> None:
    for split in N:
        columns = np.column_stack((labels(split, 10), np.arange(7 * N[split]).reshape(-1, 7)))
        write(root / f"QMNIST/raw/qmnist-{split}-images-idx3-ubyte", idx(images(split, 28, 28)))
        write(root / f"QMNIST/raw/qmnist-{split}-labels-idx2-int", idx(columns, kind=12))


def write_letters(root: Path) -> None:
    for split in N:
        prefix = f"EMNIST/raw/emnist-letters-{split}"
        write(root / f"{prefix}-images-idx3-ubyte", idx(images(split, 28, 28)))
        write(root / f"{prefix}-labels-idx1-ubyte", idx(labels(split, 26, 1)))


STORED: dict[str, Callable[[Path, pytest.MonkeyPatch], None]] = {
    "mnist": lambda root, _: write_idx(root),
    "fashion_mnist": lambda root, _: write_idx(root, "FashionMNIST"),
    "kmnist": lambda root, _: write_idx(root, "KMNIST"),
    "qmnist": lambda root, _: write_qmnist(root),
    "emnist": lambda root, _: write_letters(root),
    "usps": write_usps,
    "svhn": write_svhn,
    "stl10": write_stl10,
    "cifar10": lambda root, patch: write_cifar(root, patch, datasets.CIFAR10),
    "cifar100": lambda root, patch: write_cifar(root, patch, datasets.CIFAR100),
}
TABLES = ("iris", "wine", "breast_cancer", "diabetes")


def section_of(name: str, root: Path) -> Any:
    if name == "digits":
        return DigitsData(dataset="digits")
    if name in TABLES:
        return TableData(dataset=name)  # type: ignore[arg-type]
    if name == "emnist":
        return EmnistData(dataset="emnist", split="letters", root=str(root), validation=0.0)
    return section(name, root)


@pytest.mark.parametrize("name", [*STORED, "digits", *TABLES])
def test_the_cache_gives_what_the_files_give_to_the_bit(
    name: str, root: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name in STORED:
        STORED[name](root, monkeypatch)
    here = section_of(name, root)
    with monkeypatch.context() as patch:
        patch.setenv("MLPCLI_CACHE", os.devnull)
        uncached = load(here)
    first = load(here)
    second = assert_warm(here, monkeypatch)
    assert_same(uncached, first)
    assert_same(uncached, second)
    (entry,) = entries(folder)
    assert entry.name.startswith(f"{name}-")
    mapped = data._read(here)
    assert str(entry) in Path("/proc/self/maps").read_text()
    assert torch.equal(mapped.train.inputs, uncached[0].train.inputs)
    assert checking.machine()["cache"] == str(folder)
    assert checking.machine()["cache_bytes"] == sum(file.stat().st_size for file in entry.iterdir())


NEEDS_NOTHING = """
import sys
from pydantic import TypeAdapter
from mlpcli.config.data_schema import Data
from mlpcli.data import load
for section in sys.argv[1:]:
    load(TypeAdapter(Data).validate_json(section), 0)
print({"sklearn", "scipy", "torchvision", "PIL"} & sys.modules.keys())
"""


def test_what_is_cached_needs_no_package_that_reads_it(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sections = []
    for name in ("mnist", "usps", "svhn", "cifar100", "digits", "diabetes"):
        if name in STORED:
            STORED[name](root, monkeypatch)
        sections.append(section_of(name, root))
        load(sections[-1])
    # MD5 sums would fail there: the published ones are not those of these files
    command = [sys.executable, "-c", NEEDS_NOTHING, *(each.model_dump_json() for each in sections)]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == "set()\n"


def test_sets_and_folders_have_entries_of_their_own(root: Path, folder: Path) -> None:
    write_idx(root)
    write_idx(root, "KMNIST")
    write_idx(root / "elsewhere")
    together = [
        load(section(*each)) for each in (("mnist", root), ("kmnist", root), ("mnist", root / "elsewhere"))
    ]
    assert len(entries(folder)) == len({fingerprint for _, fingerprint in together}) == 3


def test_fake_images_are_drawn_each_time(folder: Path) -> None:
    load(FakeData(dataset="fake", train_size=20, test_size=5))
    assert not folder.exists()


def test_writing_to_a_cached_tensor_changes_no_file(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_idx(root)
    before = load(section("mnist", root))
    written = data._read(section("mnist", root))
    written.train.stored.fill_(7)
    written.train.targets.zero_()
    assert int(written.train.inputs.amin()) == 7
    assert_same(before, assert_warm(section("mnist", root), monkeypatch))


# --- when it does not apply -----------------------------------------------------------------------------


def change_a_pixel(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-1] ^= 255
    file.write_bytes(content)


def change_a_pixel_and_set_the_time_back(file: Path) -> None:
    stat = file.stat()
    change_a_pixel(file)
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def change_its_time(file: Path) -> None:
    os.utime(file, ns=(1, 1))


@pytest.mark.parametrize("change", [change_a_pixel, change_a_pixel_and_set_the_time_back, change_its_time])
def test_a_file_that_changed_is_read_again(change: Callable[[Path], None], root: Path, folder: Path) -> None:
    write_idx(root)
    here, file = section("mnist", root), root / "MNIST/raw/t10k-images-idx3-ubyte"
    (before, _), time_before = load(here), file.stat().st_mtime_ns
    change(file)
    (after, _) = load(here)
    assert before.test is not None and after.test is not None
    pixels = np.frombuffer(file.read_bytes()[16:], dtype=np.uint8).reshape(N["test"], 784)
    assert after.test.inputs.tolist() == pixels.tolist()
    assert torch.equal(before.test.inputs, after.test.inputs) == (change is change_its_time)
    assert (file.stat().st_mtime_ns == time_before) == (change is change_a_pixel_and_set_the_time_back)
    assert len(entries(folder)) == 1, "the outdated entry is replaced"


def test_a_file_that_changes_while_it_is_read_is_read_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_idx(root)
    here, file, split = section("mnist", root), root / "MNIST/raw/t10k-images-idx3-ubyte", vision._split

    def slow(*arguments: Any) -> Split:
        time.sleep(0.02)
        change_a_pixel(file)
        return split(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(vision, "_split", slow)
        data._read(here)
    (after, _) = load(here)
    assert after.test is not None and int(after.test.inputs[-1, -1]) == file.read_bytes()[-1]


def test_files_that_went_are_absent_and_those_that_changed_are_checked_again(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_usps(root, monkeypatch)
    load(section("usps", root))
    content = (root / "usps.bz2").read_bytes()
    (root / "usps.bz2").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert "damaged: its MD5 is" in failure("usps", root)
    (root / "usps.bz2").unlink()
    assert "usps: 1 of its 2 files are absent" in failure("usps", root)


def test_another_version_of_scikit_learn_is_asked_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = TableData(dataset="iris")
    load(here)
    monkeypatch.setattr(embedded, "version", lambda name: "99.0")
    with monkeypatch.context() as patch:
        patch.setattr(embedded, "_read", refuse)
        with pytest.raises(AssertionError, match="read again"):
            load(here)
    load(here)
    assert_warm(here, monkeypatch)
    assert len(entries(folder)) == 1


# --- damage ---------------------------------------------------------------------------------------------


def swap_the_shape(entry: Path) -> None:
    path = entry / "train-inputs.npy"
    np.save(path, np.load(path).reshape(784, N["train"]))


def replace_by_a_file(entry: Path) -> None:
    shutil.rmtree(entry)
    entry.write_text("")


def empty_it(entry: Path) -> None:
    for file in entry.iterdir():
        file.unlink()


def swap_the_splits(entry: Path) -> None:
    (entry / "train-targets.npy").rename(entry / "kept")
    (entry / "test-targets.npy").rename(entry / "train-targets.npy")
    (entry / "kept").rename(entry / "test-targets.npy")


def name_another_class(entry: Path) -> None:
    about = entry / "about.json"
    about.write_text(about.read_text().replace('"7"', '"8"'))


DAMAGES: dict[str, Callable[[Path], Any]] = {
    "a truncated array": lambda entry: os.truncate(entry / "train-inputs.npy", 1000),
    "half a header": lambda entry: os.truncate(entry / "train-inputs.npy", 20),
    "an empty array": lambda entry: os.truncate(entry / "test-targets.npy", 0),
    "no array": lambda entry: (entry / "test-inputs.npy").unlink(),
    "a swapped shape": swap_the_shape,
    "swapped splits": swap_the_splits,
    "another type": lambda entry: np.save(entry / "test-targets.npy", np.arange(N["test"], dtype=np.int32)),
    "objects": lambda entry: np.save(entry / "test-targets.npy", np.array([print]), allow_pickle=True),
    "another pixel": lambda entry: change_a_pixel(entry / "train-inputs.npy"),
    "no JSON": lambda entry: (entry / "about.json").unlink(),
    "half a JSON": lambda entry: os.truncate(entry / "about.json", 100),
    "an empty JSON": lambda entry: (entry / "about.json").write_text(""),
    "garbage": lambda entry: (entry / "about.json").write_bytes(b"\xff\x00"),
    "a list": lambda entry: (entry / "about.json").write_text("[]"),
    "deep JSON": lambda entry: (entry / "about.json").write_text("[" * 100_000),
    "another name": name_another_class,
    "an empty folder": empty_it,
    "a file": replace_by_a_file,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_entry_is_made_anew(
    damage: str, root: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_idx(root)
    here = section("mnist", root)
    before = load(here)
    (entry,) = entries(folder)
    DAMAGES[damage](entry)
    assert_same(before, load(here))
    assert_same(before, assert_warm(here, monkeypatch))
    assert entries(folder) == [entry]


@pytest.fixture(scope="module")
def iris(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, bytes], tuple[Source, str]]:
    """An entry, its files, and what it holds."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLPCLI_CACHE", str(folder))
        expected = load(TableData(dataset="iris"))
    (entry,) = entries(folder)
    return entry, {file.name: file.read_bytes() for file in entry.iterdir()}, expected


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_no_damage_changes_what_is_trained_on(
    iris: tuple[Path, dict[str, bytes], tuple[Source, str]], draw: st.DataObject
) -> None:
    entry, files, expected = iris
    for name, content in files.items():
        (entry / name).write_bytes(content)
    name = draw.draw(st.sampled_from(sorted(files)))
    content = files[name]
    at = draw.draw(st.integers(0, len(content) - 1))
    by = draw.draw(st.binary(max_size=20))
    end = draw.draw(st.integers(at, min(len(content), at + 20)))
    (entry / name).write_bytes(content[:at] + by + content[end:])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLPCLI_CACHE", str(entry.parent))
        assert_same(expected, load(TableData(dataset="iris")))


# --- where it cannot be written -------------------------------------------------------------------------


def no_space(*_: Any, **__: Any) -> Any:
    raise OSError(errno.ENOSPC, "No space left on device")


def interrupt(*_: Any, **__: Any) -> Any:
    raise KeyboardInterrupt


@pytest.mark.parametrize("where", [os.devnull, "a file/cache", "/proc/cache", "x" * 300])
def test_a_folder_that_cannot_be_made(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    expected = load(DigitsData(dataset="digits"))
    (tmp_path / "a file").write_text("")
    monkeypatch.setenv("MLPCLI_CACHE", where)
    with caplog.at_level(logging.DEBUG, "mlpcli"):
        assert_same(expected, load(DigitsData(dataset="digits")))
    assert "digits is not cached: " in caplog.text
    assert {record.levelname for record in caplog.records} == {"DEBUG"}
    assert checking.machine()["cache_bytes"] == 0


def test_without_a_home_nothing_is_cached(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    expected = load(DigitsData(dataset="digits"))
    for name in ("MLPCLI_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    with caplog.at_level(logging.DEBUG, "mlpcli"):
        assert_same(expected, load(DigitsData(dataset="digits")))
    assert "digits is not cached: there is no home folder" in caplog.text
    assert not (tmp_path / "~").exists()
    assert (checking.machine()["cache"], checking.machine()["cache_bytes"]) == ("None", 0)


@pytest.mark.parametrize("call", ["save", "rename", "mkdir"])
def test_a_full_disk_leaves_a_right_result_and_nothing_behind(
    call: str, root: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write_idx(root)
    here = section("mnist", root)
    with monkeypatch.context() as patch:
        patch.setenv("MLPCLI_CACHE", os.devnull)
        expected = load(here)
    folder.mkdir()
    with monkeypatch.context() as patch, caplog.at_level(logging.DEBUG, "mlpcli"):
        patch.setattr(np if call == "save" else Path, call, no_space)
        assert_same(expected, load(here))
    assert "No space left on device" in caplog.text
    assert entries(folder) == []


def test_an_interrupt_leaves_nothing_behind(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(np, "save", interrupt)
    with pytest.raises(KeyboardInterrupt):
        load(DigitsData(dataset="digits"))
    assert entries(folder) == []


FULL = """
import resource
from mlpcli.config.data_schema import DigitsData
from mlpcli.data import load
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))  # less than the images take
print(load(DigitsData(dataset="digits"), 0).description.fingerprint)
"""


def test_a_write_that_the_system_cuts_short(folder: Path) -> None:
    _, expected = load(DigitsData(dataset="digits"))
    shutil.rmtree(folder)
    done = subprocess.run([sys.executable, "-c", FULL], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == expected
    assert entries(folder) == []


def test_what_a_killed_process_left_is_removed_and_what_another_writes_is_not(folder: Path) -> None:
    dead, alive, foreign = (folder / name for name in (f"{cache.WRITING}a", f"{cache.WRITING}b", ".mine"))
    for path in (dead, alive, foreign):
        write(path / "new/train-inputs.npy", b"")
    os.utime(alive, (time.time() - 2 * cache.ABANDONED,) * 2)  # but a file in it was written to since
    for path in (dead, foreign):
        for each in (path / "new/train-inputs.npy", path / "new", path):
            os.utime(each, (time.time() - 2 * cache.ABANDONED,) * 2)
    load(DigitsData(dataset="digits"))
    assert not dead.exists() and alive.exists() and foreign.exists()


RACE = """
import shutil, sys
from pathlib import Path
from mlpcli.config.data_schema import VisionData
from mlpcli.data import load
from mlpcli.data.cache import folder
here = VisionData(dataset="mnist", root=sys.argv[1], validation=0.0)
fingerprints = set()
for turn in range(20):
    fingerprints.add(load(here, 0).description.fingerprint)
    if turn % 3 == int(sys.argv[2]):
        for entry in folder().glob("mnist-*"):
            shutil.rmtree(entry, ignore_errors=True)
print(*fingerprints)
"""


def test_processes_that_race_all_get_it_right(root: Path, folder: Path) -> None:
    write_idx(root)
    _, expected = load(section("mnist", root))
    arguments = [[sys.executable, "-c", RACE, str(root), str(number)] for number in range(3)]
    processes = [subprocess.Popen(each, stdout=subprocess.PIPE, text=True) for each in arguments]
    assert [process.communicate()[0].strip() for process in processes] == [expected] * 3
    assert [process.returncode for process in processes] == [0] * 3
    load(section("mnist", root))
    assert len(entries(folder)) == 1


# --- where it is ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"MLPCLI_CACHE": "/fast/cache", "XDG_CACHE_HOME": "/xdg"}, "/fast/cache"),
        ({"MLPCLI_CACHE": "~/fast"}, "/me/fast"),
        ({"MLPCLI_CACHE": "", "XDG_CACHE_HOME": "/xdg"}, "/xdg/mlpcli"),
        ({"XDG_CACHE_HOME": "relative"}, "/me/.cache/mlpcli"),
        ({"XDG_CACHE_HOME": ""}, "/me/.cache/mlpcli"),
        ({}, "/me/.cache/mlpcli"),
    ],
)
def test_the_folder(environment: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLPCLI_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"HOME": "/me", **environment}.items():
        monkeypatch.setenv(name, value)
    assert str(cache.folder()) == expected


def test_a_relative_folder_is_below_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLPCLI_CACHE", "here")
    assert cache.folder() == tmp_path / "here"


def test_only_its_own_files_are_counted(folder: Path) -> None:
    write(folder / "other/large", b"x" * 1000)
    assert cache.size() == 0
    load(DigitsData(dataset="digits"))
    (about,) = folder.glob("*/about.json")
    assert cache.size() == sum(file.stat().st_size for file in about.parent.iterdir())
    assert json.loads(about.read_text())["about"]["state"]["format"] == cache.FORMAT
