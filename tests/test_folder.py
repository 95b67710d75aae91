"""Folders of images: what is read, in which order, what is refused, and when it is read again."""

import errno
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.datasets import ImageFolder

from mlpcli.config.data_schema import ImageFolderData
from mlpcli.data import cache, folder, images, workers
from mlpcli.data.dataset import Source, Split
from mlpcli.data.streaming import blocks, free_memory, streams
from mlpcli.errors import DataError, FailedError, StorageError

SIZE = 4


@pytest.fixture(autouse=True)
def entries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache."""
    monkeypatch.setenv("MLPCLI_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def paint(path: Path, grey: int, size: int = SIZE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (size, size), (grey,) * 3).save(path, "PNG")


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """train and test with two classes; each image is of a grey of its own."""
    root = tmp_path / "pets"
    grey = 0
    for split, samples in (("train", 3), ("test", 2)):
        for name in ("cat", "dog"):
            for index in range(samples):
                paint(root / split / name / f"{index}.png", grey)
                grey += 1
    return root


def section(root: Path, **keys: Any) -> ImageFolderData:
    return ImageFolderData(**{"dataset": "image_folder", "path": str(root), "image_size": SIZE, **keys})


def greys(split: Split | None) -> list[int]:
    """Of images of one grey each."""
    assert split is not None
    assert (split.stored == split.stored[:, :1]).all()
    return split.stored[:, 0].tolist()


def failure(root: Path, **keys: Any) -> str:
    with pytest.raises(DataError) as caught:
        folder.read(section(root, **keys))
    assert str(caught.value).startswith("data.path: ")
    return str(caught.value)


def refuse(*_: Any) -> Any:
    raise AssertionError("decoded again")


def warm(monkeypatch: pytest.MonkeyPatch, root: Path, **keys: Any) -> Source:
    """What is read, which must come from the cache."""
    with monkeypatch.context() as patch:
        patch.setattr(folder, "_decode", refuse)
        return folder.read(section(root, **keys))


# --- what is read ---------------------------------------------------------------------------------------


def test_splits_and_classes(pets: Path) -> None:
    paint(pets / "validation/dog/a.png", 77)
    source = folder.read(section(pets))
    assert source.classes == ["cat", "dog"] and source.task == "classification"
    assert source.train.stored.dtype == torch.uint8 and source.train.features == 3 * SIZE * SIZE
    assert greys(source.train) == [0, 1, 2, 3, 4, 5] and source.train.targets.tolist() == [0, 0, 0, 1, 1, 1]
    assert greys(source.test) == [6, 7, 8, 9]
    assert greys(source.validation) == [77]
    assert source.validation is not None and source.validation.targets.tolist() == [1]


def test_class_folders_alone(pets: Path) -> None:
    source = folder.read(section(pets / "train"))
    assert greys(source.train) == [0, 1, 2, 3, 4, 5]
    assert source.test is source.validation is None


def test_height_width_and_channels(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "in" / name).mkdir(parents=True)
        pixels = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
        Image.fromarray(pixels).save(tmp_path / "in" / name / "it.png")
    stored = folder.read(section(tmp_path / "in", image_size=[2, 3])).train.stored
    assert torch.equal(stored[0].reshape(3, 2, 3), torch.from_numpy(pixels).permute(2, 0, 1))
    assert folder.read(section(tmp_path / "in", image_size=[2, 3], color="grayscale")).train.features == 6


NAMES = st.lists(st.sampled_from(["a", "b", "a b", "A", "a-b", "10", "9", "é"]), min_size=1, max_size=3)


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sets(NAMES.map("/".join), min_size=1, max_size=8))
def test_the_order_is_that_of_torchvision(tmp_path_factory: pytest.TempPathFactory, paths: set[str]) -> None:
    root = tmp_path_factory.mktemp("root")
    for path in paths:
        paint(root / "one" / f"{path}.png", 0)
        paint(root / "two" / f"{path}.jpg", 0)
    expected = ImageFolder(root)
    listing = folder._list(root)
    assert listing.classes == expected.classes
    assert listing.files == expected.samples


def test_hidden_files_and_junk_are_ignored(pets: Path) -> None:
    for junk in (".hidden", ".DS_Store", "Thumbs.db", "desktop.ini", "__MACOSX/._0.png"):
        for place in ("", "train", "train/cat"):
            path = pets / place / junk
            path.parent.mkdir(exist_ok=True)
            path.write_text("junk")
    (pets / "train/.git").mkdir()
    (pets / "README.md").write_text("")
    (pets / "train/classes.txt").write_text("")
    assert greys(folder.read(section(pets)).train) == [0, 1, 2, 3, 4, 5]


def test_many_files_in_several_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder, "PIECE", 3)
    monkeypatch.setattr(workers, "cores", lambda: 3)
    for name in ("a", "b"):
        for index in range(50):
            paint(tmp_path / "in" / name / f"{index:02}.png", 100 * (name == "b") + index)
    assert greys(folder.read(section(tmp_path / "in")).train) == [*range(50), *range(100, 150)]


def test_links_count_as_what_they_point_to(pets: Path, tmp_path: Path) -> None:
    (pets / "test").rename(tmp_path / "elsewhere")
    (pets / "test").symlink_to(tmp_path / "elsewhere")
    (pets / "train/dog/9.png").symlink_to(pets / "train/cat/0.png")
    source = folder.read(section(pets))
    assert greys(source.train) == [0, 1, 2, 3, 4, 5, 0] and greys(source.test) == [6, 7, 8, 9]


def test_the_home_folder(pets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert len(folder.read(section(Path("~/pets"))).train) == 6


# --- folders that are refused ---------------------------------------------------------------------------


def edit(*steps: Callable[[Path], Any]) -> Callable[[Path], None]:
    def make(root: Path) -> None:
        for step in steps:
            step(root)

    return make


def moved(old: str, new: str) -> Callable[[Path], Any]:
    return lambda root: (root / old).rename(root / new)


def without(name: str) -> Callable[[Path], None]:
    def remove(root: Path) -> None:
        for file in (root / name).iterdir():
            file.unlink()

    return remove


REFUSED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no such folder": (
        lambda root: root.rename(root.parent / "pests"),
        "{root}: no such folder\n  Did you mean pests?",
    ),
    "a file": (
        edit(lambda root: root.rename(root.parent / "old"), lambda root: root.write_text("")),
        "{root} is a file",
    ),
    "no train": (moved("train", "cats"), "{root} has test/, but no train/; expected train/ and perhaps"),
    "another case": (moved("train", "Train"), "{root}/Train: expected train/ and perhaps validation/"),
    "other words": (
        edit(moved("train", "training"), moved("test", "testing")),
        "{root}/training: expected train/",
    ),
    "val": (moved("test", "val"), "{root}/val: expected train/ and perhaps validation/ and test/"),
    "no classes": (
        lambda root: [
            paint(root / "new/0.png", 0),
            (root / "train").rename(root.parent / "x"),
            moved("new", "train")(root),
        ],
        "{root}/train holds no folders, but 1 images lie directly in it",
    ),
    "one class": (moved("train/dog", "../dog"), "{root}/train holds one class folder, cat; expected two or more"),
    "an empty class": (
        without("train/dog"),
        "1 of 2 class folders are empty; fill or remove them:\n  {root}/train/dog",
    ),
    "two cases": (
        lambda root: paint(root / "train/Cat/0.png", 0),
        "{root}/train: the class folders Cat and cat differ",
    ),
    "a class of test alone": (
        lambda root: paint(root / "test/bird/0.png", 0),
        "{root}/test/bird: {root}/train has no class of that name\n  Its classes are cat, dog",
    ),
    "a misspelt class": (
        moved("test/cat", "test/cats"),
        "{root}/test/cats: {root}/train has no class of that name\n  Did you mean cat?",
    ),
    "an empty test": (edit(without("test/cat"), without("test/dog")), "{root}/test holds no images"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_folder_that_is_not_as_it_should_be(name: str, pets: Path) -> None:
    change, expected = REFUSED[name]
    change(pets)
    message = failure(pets, on_bad_file="skip").removeprefix("data.path: ")
    assert message.startswith(expected.format(root=pets))


def test_a_folder_that_cannot_be_read(pets: Path) -> None:
    (pets / "train/cat").chmod(0)
    if not os.access(pets / "train/cat", os.R_OK):  # root reads everything
        with pytest.raises(DataError, match="train/cat: cannot be read: Permission denied"):
            folder.read(section(pets))
    (pets / "train/cat").chmod(0o700)


def test_a_class_that_test_lacks_is_only_mentioned(pets: Path, caplog: pytest.LogCaptureFixture) -> None:
    without("test/cat")(pets)
    for _ in "cold", "warm":
        caplog.clear()
        source = folder.read(section(pets))
        assert source.test is not None and source.test.targets.tolist() == [1, 1]
        assert [record.getMessage() for record in caplog.records] == [f"{pets}/test: no images of cat"]


def test_other_folders_beside_train_are_mentioned(pets: Path, caplog: pytest.LogCaptureFixture) -> None:
    paint(pets / "unlabelled/a.png", 0)
    folder.read(section(pets))
    assert caplog.messages == [f"{pets}: only train, validation and test are read, not unlabelled"]


# --- bad files ------------------------------------------------------------------------------------------


def pipe(path: Path) -> None:
    os.mkfifo(path)


BAD: dict[str, tuple[str, Callable[[Path], Any], str]] = {
    "a text": (
        "train/cat/notes.txt",
        lambda path: path.write_text("notes"),
        "no image by its ending; expected .jpg",
    ),
    "no ending": (
        "train/cat/LICENSE",
        lambda path: path.write_text("notes"),
        "no image by its ending; expected .jpg",
    ),
    "an empty image": ("train/cat/1.png", lambda path: path.write_text(""), "empty"),
    "half an image": ("train/cat/1.png", lambda path: os.truncate(path, 50), "damaged: "),
    "no image": (
        "train/cat/1.png",
        lambda path: path.write_text("text"),
        "no image, or one with a damaged header",
    ),
    "a dangling link": (
        "train/cat/7.png",
        lambda path: path.symlink_to("no/where"),
        "cannot be read: a link to nowhere",
    ),
    "a link to itself": (
        "train/cat/7.png",
        lambda path: path.symlink_to(path),
        "cannot be read: a link to nowhere",
    ),
    "a pipe": ("train/cat/7.png", pipe, "not a file"),
    "a link to above": (
        "train/cat/again",
        lambda path: path.symlink_to(path.parent),
        "a link to a folder that it is in",
    ),
    "one beside": ("train/7.png", lambda path: paint(path, 0), "in no class folder"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file(
    name: str, pets: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, make, reason = BAD[name]
    make(pets / file)
    total = sum(each.is_symlink() or not each.is_dir() for each in pets.rglob("*"))
    message = failure(pets)
    first, second, last = message.split("\n")
    assert first == f"data.path: {pets}: 1 of {total} files cannot be used:"
    assert second.startswith(f"  {pets / file}: {reason}")
    assert last == "  Repair or remove them, or leave them out: data.on_bad_file: skip"
    for read in (folder.read, lambda here: warm(monkeypatch, pets, on_bad_file="skip")):
        caplog.clear()
        source = read(section(pets, on_bad_file="skip"))
        assert greys(source.train) == ([0, 1, 2, 3, 4, 5] if total == 11 else [0, 2, 3, 4, 5])
        assert source.train.targets.tolist() == [0] * (len(source.train) - 3) + [1] * 3
        assert greys(source.test) == [6, 7, 8, 9]
        (said,) = caplog.messages
        assert said == f"{pets}: 1 of {total} files are left out:\n{second}"
    assert failure(pets) == message, "an error again"


def test_many_bad_files_are_counted_and_the_first_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder, "PIECE", 4)
    root = tmp_path / "in"
    for name in ("a", "b"):
        for index in range(20):
            paint(root / name / f"{index:02}.png", 100 * (name == "b") + index)
    bad = [*sorted((root / "a").iterdir())[3:15], root / "b/00.png", root / "b/19.png"]
    for path in bad:
        path.write_bytes(path.read_bytes()[:50])
    lines = failure(root).split("\n")
    assert lines[0] == f"data.path: {root}: 14 of 40 files cannot be used:"
    assert [line.split(":")[0] for line in lines[1:11]] == [f"  {path}" for path in bad[:10]]
    assert lines[11] == "  … and 4 more"
    with caplog.at_level(logging.DEBUG, "mlpcli"):
        source = folder.read(section(root, on_bad_file="skip"))
    assert greys(source.train) == [0, 1, 2, *range(15, 20), *range(101, 119)]
    assert source.train.targets.tolist() == [0] * 8 + [1] * 18
    assert all(str(path) in caplog.text for path in bad)


@pytest.mark.parametrize("place", ["train/cat", "test"])
def test_a_class_or_split_of_bad_files_alone_is_an_error(place: str, pets: Path) -> None:
    for path in (pets / place).rglob("*.png"):
        path.write_text("")
    assert "leave them out: data.on_bad_file: skip" in failure(pets)
    assert "nothing is left of a class" in failure(pets, on_bad_file="skip")


# --- the cache ------------------------------------------------------------------------------------------


def rewrite_in_place(pets: Path) -> None:
    path = pets / "train/cat/0.png"
    before = path.stat()
    paint(path, 99)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


CHANGES: dict[str, tuple[Callable[[Path], Any], list[int]]] = {
    "a changed file": (lambda pets: paint(pets / "train/cat/0.png", 99), [99, 1, 2, 3, 4, 5]),
    "one with its time set back": (rewrite_in_place, [99, 1, 2, 3, 4, 5]),
    "an added file": (lambda pets: paint(pets / "train/cat/00.png", 99), [0, 99, 1, 2, 3, 4, 5]),
    "an added folder": (lambda pets: paint(pets / "train/cat/x/y.png", 99), [0, 1, 2, 99, 3, 4, 5]),
    "a removed file": (lambda pets: (pets / "train/cat/0.png").unlink(), [1, 2, 3, 4, 5]),
    "a renamed file": (moved("train/cat/0.png", "train/cat/9.png"), [1, 2, 0, 3, 4, 5]),
    "a moved file": (moved("train/cat/0.png", "train/dog/9.png"), [1, 2, 3, 4, 5, 0]),
    "a renamed class": (edit(moved("train/cat", "train/x"), moved("test/cat", "test/x")), [3, 4, 5, 0, 1, 2]),
    "an added class": (lambda pets: paint(pets / "train/bird/0.png", 99), [99, 0, 1, 2, 3, 4, 5]),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_seen(name: str, pets: Path, entries: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    change, expected = CHANGES[name]
    cold = folder.read(section(pets))
    assert greys(warm(monkeypatch, pets).train) == greys(cold.train) == [0, 1, 2, 3, 4, 5]
    change(pets)
    with pytest.raises(AssertionError, match="decoded again"):
        warm(monkeypatch, pets)
    assert greys(folder.read(section(pets)).train) == expected
    assert greys(warm(monkeypatch, pets).train) == expected
    assert len(list(entries.iterdir())) == 1, "the outdated entry is replaced"


def test_settings_have_entries_side_by_side(pets: Path, entries: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.read(section(pets))
    folder.read(section(pets, image_size=3))
    folder.read(section(pets, color="grayscale"))
    assert len(list(entries.iterdir())) == 3
    assert warm(monkeypatch, pets).train.features == 48
    assert warm(monkeypatch, pets, image_size=3).train.features == 27
    assert warm(monkeypatch, pets, color="grayscale").train.features == 16


def test_another_pillow_decodes_again(pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.read(section(pets))
    monkeypatch.setattr(folder, "version", lambda name: "99.0")
    with pytest.raises(AssertionError, match="decoded again"):
        warm(monkeypatch, pets)


def test_a_damaged_entry_is_decoded_again(pets: Path, entries: Path) -> None:
    folder.read(section(pets))
    (file,) = entries.glob("*/train-inputs.npy")
    with open(file, "r+b") as opened:
        opened.seek(-1, os.SEEK_END)
        opened.write(b"\xff")
    assert greys(folder.read(section(pets)).train) == [0, 1, 2, 3, 4, 5]


def test_an_array_too_large_to_be_checked_whole_is_checked_in_pieces(
    entries: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "WHOLE", 2**21)
    large = np.arange(3 * 2**20, dtype=np.uint8).reshape(-1, 3)

    def make(new: Path) -> dict[str, Any]:
        np.save(new / "large.npy", large)
        return {"made": True}

    assert cache.stored("x", 1, 2, make).value == {"made": True}
    entry = cache.stored("x", 1, 2, refuse)
    assert np.array_equal(entry.arrays["large"], large)
    (file,) = entries.glob("*/large.npy")
    with open(file, "r+b") as opened:
        opened.seek(-1, os.SEEK_END)
        opened.write(b"\x00" if large[-1, -1] else b"\x01")
    with pytest.raises(AssertionError, match="decoded again"):
        cache.stored("x", 1, 2, refuse)


@pytest.mark.parametrize("where", [os.devnull, "/proc/cache"])
def test_without_a_cache_it_is_read_all_the_same(
    where: str, pets: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    monkeypatch.setenv("MLPCLI_CACHE", where)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    source = folder.read(section(pets))
    assert greys(source.train) == [0, 1, 2, 3, 4, 5] and greys(source.test) == [6, 7, 8, 9]
    (warning,) = [each.getMessage() for each in caplog.records if each.levelno == logging.WARNING]
    assert warning.startswith(f"the decoded images are not kept in the cache ({where}: ")
    assert "decoded again next time\n    name another folder for it: MLPCLI_CACHE=FOLDER" in warning
    assert list(temporary.iterdir()) == []


def test_a_full_disk_is_an_error_that_says_so(pets: Path, entries: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(StorageError, match=r"can be stored neither in the cache \(.*No space left"):
        folder.read(section(pets))
    assert list(entries.iterdir()) == []


# --- worker processes -----------------------------------------------------------------------------------


SLOW = """
import signal, sys, time
from mlpcli.config.data_schema import ImageFolderData
from mlpcli.data import folder, images, workers
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background of a shell
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
folder.PIECE, workers.cores, decode = 1, lambda: 2, images.decode

def slow(*arguments):
    print("decoding", flush=True)
    time.sleep(0.3)
    return decode(*arguments)

images.decode = slow
folder.read(ImageFolderData(dataset="image_folder", path=sys.argv[1]))
"""


def members(group: int) -> set[int]:
    """The processes of a group that are alive."""
    found = set()
    for about in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, its_group = about.read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(its_group) == group and state != "Z":
            found.add(int(about.parent.name))
    return found


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="it looks for processes in /proc")
@pytest.mark.parametrize(("number", "to_all"), [(signal.SIGINT, True), (signal.SIGTERM, False)])
def test_an_interrupt_leaves_no_entry_and_no_worker(
    number: signal.Signals, to_all: bool, pets: Path, entries: Path
) -> None:
    command = [sys.executable, "-c", SLOW, str(pets)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    for _ in range(2):
        process.stdout.readline()
    assert len(members(process.pid)) == 3
    (os.killpg if to_all else os.kill)(process.pid, number)
    _, said = process.communicate(timeout=20)
    assert process.returncode not in (0, -signal.SIGKILL)
    assert said.count("Traceback") <= 1, "workers say nothing"
    assert members(process.pid) == set()
    assert list(entries.iterdir()) == []


def test_a_worker_that_is_killed_is_an_error(pets: Path, entries: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: Any) -> Any:
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(workers, "cores", lambda: 2)
    monkeypatch.setattr(folder, "PIECE", 1)
    monkeypatch.setattr(images, "decode", killed)
    with pytest.raises(FailedError, match="decoding images: a worker process died: it ran out of memory"):
        folder.read(section(pets))
    assert list(entries.iterdir()) == []


# --- streaming ------------------------------------------------------------------------------------------


@pytest.fixture
def stored(tmp_path: Path) -> torch.Tensor:
    """(100, 7) of bytes, mapped from a file."""
    values = np.random.default_rng(0).integers(0, 256, (100, 7), dtype=np.uint8)
    np.save(tmp_path / "it.npy", values)
    return torch.from_numpy(np.load(tmp_path / "it.npy", mmap_mode="c"))


def order(sizes: list[int]) -> Iterator[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return (torch.randint(100, (size,), generator=generator) for size in sizes)


@pytest.mark.parametrize("sizes", [[], [1], [5, 64, 3, 100, 2, 1, 8, 9]])
def test_streamed_blocks_are_those_of_index_select(sizes: list[int], stored: torch.Tensor) -> None:
    expected = [torch.index_select(stored, 0, rows) for rows in order(sizes)]
    found = list(blocks(stored, order(sizes)))
    assert len(found) == len(expected)
    for mine, theirs in zip(found, expected, strict=True):
        assert mine.dtype == torch.uint8 and torch.equal(mine, theirs)
        mine.zero_()  # a copy
    assert stored.any()


def children() -> set[int]:
    return {int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()}


def assert_ended(before: set[int]) -> None:
    deadline = time.monotonic() + 10
    while children() - before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert children() <= before


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="it looks for processes in /proc")
def test_its_processes_end_with_the_iterator(stored: torch.Tensor) -> None:
    before = children()
    abandoned = blocks(stored, order([3] * 50))
    next(abandoned)
    assert children() - before
    abandoned.close()  # type: ignore[attr-defined]
    assert_ended(before)
    with pytest.raises(ZeroDivisionError):
        for _ in blocks(stored, order([3] * 50)):
            raise ZeroDivisionError
    assert_ended(before)
    assert len(list(blocks(stored, order([3] * 50)))) == 50
    assert_ended(before)


def test_a_process_of_it_that_is_killed_is_an_error(stored: torch.Tensor) -> None:
    before = children()
    streamed = blocks(stored, order([3] * 5000))
    next(streamed)
    for child in children() - before:
        os.kill(child, signal.SIGKILL)
    with pytest.raises(FailedError, match="a process that gathers images died"):
        list(streamed)


def test_what_is_streamed() -> None:
    free = free_memory()
    assert free is not None and 2**20 < free < 2**50
    assert [streams(False, 1), streams(True, 2**60), streams("auto", 1), streams("auto", 2**60)] == [
        True,
        False,
        False,
        True,
    ]


# --- the real thing -------------------------------------------------------------------------------------


def test_cats_and_dogs(real_data: Path) -> None:
    root = real_data / "cats-dogs"
    if not root.is_dir():
        pytest.skip("no cats-dogs there")
    source = folder.read(section(root, image_size=32))
    assert source.classes == ["cat", "dog"] and source.test is not None
    assert (len(source.train), len(source.test)) == (10_000, 2_000)
    for name, split in (("train", source.train), ("test", source.test)):
        assert split.targets.bincount().tolist() == [len(split) // 2] * 2
        paths = ImageFolder(root / name).samples
        for index in range(0, len(split), len(split) // 7):
            with Image.open(paths[index][0]) as image:
                pixels = np.asarray(image.convert("RGB")).transpose(2, 0, 1)
            assert np.array_equal(split.stored[index].reshape(3, 32, 32), pixels)
            assert int(split.targets[index]) == paths[index][1]
