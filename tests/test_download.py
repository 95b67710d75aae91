"""Downloading fetches what is absent, and changes nothing else whatever goes wrong."""

import gzip
import hashlib
import io
import socket
import sys
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stored_sets import (
    N,
    failure,
    idx,
    images,
    labels,
    load,
    section,
    snapshot,
    write,
    write_idx,
)
from torchvision import datasets

from mlpcli import data
from mlpcli.config.data_schema import EmnistData
from mlpcli.data import download, vision

IMAGES, LABELS = "MNIST/raw/train-images-idx3-ubyte", "MNIST/raw/train-labels-idx1-ubyte"


class Response(io.BytesIO):
    def __init__(self, url: str, content: bytes) -> None:
        super().__init__(content)
        self.url, self.length = url, len(content)


class Server:
    """What urlopen answers: the contents by the last part of the address, or an error."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        self.asked: list[str] = []
        self.timeouts: set[float | None] = set()

    def open(self, request: Any, *_: Any, **__: Any) -> Response:
        self.timeouts.add(socket.getdefaulttimeout())
        name = request.full_url.rsplit("/", 1)[-1]
        self.asked.append(name)
        if name not in self.files:
            raise urllib.error.URLError("Name or service not known")
        return Response(request.full_url, self.files[name])


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Server]:
    """A server with a synthetic MNIST, and torchvision's MD5 sums set to match."""
    source = tmp_path / "server"
    write_idx(source)
    files = {f"{path.name}.gz": gzip.compress(path.read_bytes()) for path in (source / "MNIST/raw").iterdir()}
    resources = [(name, hashlib.md5(files[name]).hexdigest()) for name, _ in datasets.MNIST.resources]
    monkeypatch.setattr(datasets.MNIST, "resources", resources)
    answers = Server(files)
    monkeypatch.setattr(urllib.request, "urlopen", answers.open)
    before = socket.getdefaulttimeout()
    yield answers
    assert socket.getdefaulttimeout() == before


def test_only_absent_files_are_downloaded_into_place(
    server: Server, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = idx(labels("train", 10)[::-1])
    write(root / LABELS, mine)
    dataset = load("mnist", root, download=True)
    assert (root / LABELS).read_bytes() == mine
    assert dataset.train.targets.tolist() == (np.arange(30)[::-1] % 10).tolist()
    assert sorted(snapshot(root)) == sorted(["MNIST", "MNIST/raw", *vision.idx_files(section("mnist", root))])
    published = gzip.decompress(server.files["train-images-idx3-ubyte.gz"])
    assert (root / IMAGES).read_bytes() == published
    assert server.timeouts == {30.0}
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err == ""


def test_a_root_that_does_not_exist_is_made(server: Server, root: Path) -> None:
    load("mnist", root / "a/b", download=True)
    assert len(list((root / "a/b/MNIST/raw").iterdir())) == 4


def test_nothing_is_downloaded_where_nothing_is_absent(server: Server, root: Path) -> None:
    write_idx(root)
    load("mnist", root, download=True)
    assert server.asked == []


def test_nothing_is_downloaded_unless_asked(server: Server, root: Path) -> None:
    failure("mnist", root)
    assert server.asked == [] and snapshot(root) == {}


@pytest.mark.parametrize("kept", [0, 3])
def test_a_network_failure_leaves_the_root_unchanged(server: Server, root: Path, kept: int) -> None:
    write(root / LABELS, idx(labels("train", 10)))
    write(root / f"{IMAGES}.gz", b"never unpacked by itself")
    for name in list(server.files)[kept:]:
        del server.files[name]
    before = snapshot(root)
    message = failure("mnist", root, download=True)
    assert snapshot(root) == before
    assert f"gunzip -k '{root / IMAGES}.gz'" in message
    assert "mnist: the download failed" in message and "Name or service not known" in message
    assert "by hand" in message and f"{datasets.MNIST.mirrors[0]}train-images-idx3-ubyte.gz" in message
    assert f"put into {root}:" in message and IMAGES in message
    assert f"    {LABELS}" not in message


def test_a_failed_download_leaves_no_new_folders(server: Server, root: Path) -> None:
    server.files.clear()
    failure("mnist", root / "a/b", download=True)
    assert snapshot(root) == {}


def test_a_server_that_sends_something_else(server: Server, root: Path) -> None:
    server.files["train-images-idx3-ubyte.gz"] = b"<html>log in to use this network</html>"
    message = failure("mnist", root, download=True)
    assert "corrupted" in message and "by hand" in message
    assert snapshot(root) == {}


def test_an_interrupted_download_leaves_nothing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any, **__: Any) -> Any:
        assert list(root.glob(".download-*"))
        raise KeyboardInterrupt

    monkeypatch.setattr(urllib.request, "urlopen", interrupt)
    with pytest.raises(KeyboardInterrupt):
        load("mnist", root, download=True)
    assert snapshot(root) == {}


def test_a_download_that_lacks_a_file(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vision, "_fetch", lambda section, folder: write_idx(folder, "Elsewhere"))
    message = failure("mnist", root, download=True)
    assert "the download does not contain MNIST/raw/train-images-idx3-ubyte" in message
    assert snapshot(root) == {}


def test_what_torchvision_prints_never_reaches_stdout(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def chatty(section: Any, folder: Path) -> None:
        print("Downloading ...")
        print("  5%", file=sys.stderr)
        write_idx(folder)

    monkeypatch.setattr(vision, "_fetch", chatty)
    load("mnist", root, download=True)
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err == ""


def test_every_set_is_asked_of_torchvision_in_full(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[dict[str, Any]] = []
    names = {"svhn": 2, "usps": 2, "qmnist": 2, "cifar10": 1, "cifar100": 1, "stl10": 1, "kmnist": 1}
    for name, times in names.items():
        cls = vision.torchvision_class(section(name, root))
        monkeypatch.setattr(cls, "__init__", lambda self, root, **keys: calls.append(keys))
        calls.clear()
        message = failure(name, root, download=True)
        assert len(calls) == times and all(keys["download"] for keys in calls)
        assert "the download does not contain" in message and "http" in message
    assert snapshot(root) == {}


def test_emnist_is_unpacked_from_its_archive(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive, contents = io.BytesIO(), {}
    with zipfile.ZipFile(archive, "w") as packed:
        for split in N:
            prefix = f"emnist-digits-{split}"
            contents[f"{prefix}-images-idx3-ubyte"] = idx(images(split, 28, 28))
            contents[f"{prefix}-labels-idx1-ubyte"] = idx(labels(split, 10))
        for name, content in contents.items():
            packed.writestr(f"gzip/{name}.gz", gzip.compress(content))
    monkeypatch.setattr(urllib.request, "urlopen", Server({"gzip.zip": archive.getvalue()}).open)
    monkeypatch.setattr(datasets.EMNIST, "md5", hashlib.md5(archive.getvalue()).hexdigest())
    data.load(EmnistData(dataset="emnist", split="digits", root=str(root), download=True), seed=0)
    assert {path.name: path.read_bytes() for path in (root / "EMNIST/raw").iterdir()} == contents


def test_a_folder_that_cannot_be_written(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise PermissionError(13, "Permission denied", str(root))

    monkeypatch.setattr(download, "TemporaryDirectory", refuse)
    assert "Permission denied" in failure("mnist", root, download=True)


def test_a_file_that_appears_meanwhile_is_kept(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def another_run_is_faster(section: Any, folder: Path) -> None:
        write_idx(folder)
        write_idx(root)
        theirs.update(snapshot(root / "MNIST"))

    theirs: dict[str, bytes | None] = {}
    monkeypatch.setattr(vision, "_fetch", another_run_is_faster)
    load("mnist", root, download=True)
    assert snapshot(root / "MNIST") == theirs
