"""Every way in which the files of a stored set can be absent or damaged."""

import bz2
import gzip
from collections.abc import Callable
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
    md5,
    snapshot,
    write,
    write_cifar,
    write_idx,
    write_split_list,
    write_stl10,
    write_svhn,
    write_usps,
)
from torchvision import datasets

from mlpcli import data
from mlpcli.config.data_schema import EmnistData
from mlpcli.errors import DataError

# --- absent files ---------------------------------------------------------------------------------------


def test_absent_files_are_named_with_the_folder_and_the_remedy(root: Path) -> None:
    write_idx(root)
    (root / "MNIST/raw/t10k-images-idx3-ubyte").unlink()
    message = failure("mnist", root)
    assert "mnist: 1 of its 4 files are absent" in message
    assert f"  {root}\n" in message
    assert "    absent  MNIST/raw/t10k-images-idx3-ubyte\n" in message
    assert "    found   MNIST/raw/train-images-idx3-ubyte\n" in message
    assert "data.download=true" in message and "put it there" in message
    assert "gunzip" not in message


def test_a_relative_root_is_shown_as_the_absolute_folder(tmp_path: Path) -> None:
    message = failure("mnist", Path("nowhere/at all"))
    assert f"  {tmp_path}/nowhere/at all  (no such folder)" in message
    assert "4 of its 4 files" in message


@pytest.mark.parametrize("name", ["mnist", "usps", "cifar10", "cifar100", "svhn", "stl10", "qmnist"])
def test_every_set_says_what_is_absent(name: str, root: Path) -> None:
    message = failure(name, root)
    assert message.startswith(f"{name}: ") and "data.download=true" in message
    assert len([line for line in message.splitlines() if line.startswith("    absent  ")]) >= 2


def test_a_root_that_is_a_file(root: Path) -> None:
    (root / "file").write_text("")
    assert f"data.root: {root / 'file'} is a file" in failure("mnist", root / "file")


def test_packed_files_come_with_the_command_that_unpacks_them(root: Path) -> None:
    write_idx(root)
    plain = root / "MNIST/raw/train-images-idx3-ubyte"
    Path(f"{plain}.gz").write_bytes(gzip.compress(plain.read_bytes()))
    plain.unlink()
    assert f"    gunzip -k '{plain}.gz'\n" in failure("mnist", root)


def test_packed_archives_come_with_the_command_that_unpacks_them(root: Path) -> None:
    (root / "cifar-10-python.tar.gz").write_bytes(b"")
    assert f"tar -xzf '{root}/cifar-10-python.tar.gz' -C '{root}'" in failure("cifar10", root)
    emnist = EmnistData(dataset="emnist", root=str(root))
    write(root / "EMNIST/raw/gzip.zip", b"")
    with pytest.raises(DataError, match=r"unzip '.*/EMNIST/raw/gzip\.zip' -d '.*/EMNIST/raw'"):
        data.load(emnist, seed=0)
    write(root / "EMNIST/raw/gzip/emnist-balanced-test-labels-idx1-ubyte.gz", b"")
    with pytest.raises(DataError, match=r"gunzip -c '.*/gzip/emnist-b.*\.gz' > '.*/raw/emnist-b.*-ubyte'"):
        data.load(emnist, seed=0)


def test_a_root_that_names_the_set_s_own_folder(root: Path) -> None:
    write_idx(root)
    assert f"set data.root='{root}'" in failure("mnist", root / "MNIST")
    assert f"set data.root='{root}'" in failure("mnist", root / "MNIST/raw")


# --- damaged files --------------------------------------------------------------------------------------

IMAGES, LABELS = "MNIST/raw/train-images-idx3-ubyte", "MNIST/raw/train-labels-idx1-ubyte"


def replaced(content: bytes, at: int, by: bytes) -> bytes:
    return content[:at] + by + content[at + len(by) :]


@pytest.mark.parametrize(
    ("file", "damage", "how"),
    [
        (IMAGES, lambda c: c[:-1], "its header says 30 x 28 x 28, which takes 23536 bytes; it has 23535"),
        (IMAGES, lambda c: c + b"\0", "takes 23536 bytes; it has 23537"),
        (IMAGES, lambda c: b"", "starts with nothing (0 bytes), expected 00 00 08 03"),
        (IMAGES, lambda c: c[:9], "starts with 00 00 08 03 (9 bytes)"),
        (IMAGES, lambda c: replaced(c, 2, b"\x0d"), "starts with 00 00 0d 03"),
        (IMAGES, lambda c: replaced(c, 4, b"\xff" * 12), "takes 79228162458924105385300197391 bytes"),
        (IMAGES, lambda c: idx(images("train", 14, 56)), "1 x 14 x 56 uint8, expected 1 x 28 x 28 uint8"),
        (
            LABELS,
            lambda c: replaced(c, 8 + 17, b"\x0a"),
            "label 10 of sample 17 (counted from 0), expected 0 to 9",
        ),
        (LABELS, lambda c: idx(labels("test", 10)), "it has 20 labels, but there are 30 images in "),
        (LABELS, lambda c: idx(images("train", 28, 28)), "starts with 00 00 08 03"),
        (LABELS, lambda c: b"<html>404</html>", "starts with 3c 68 74 6d"),
    ],
)
def test_a_damaged_idx_file_is_named_with_what_is_wrong(
    file: str, damage: Callable[[bytes], bytes], how: str, root: Path
) -> None:
    write_idx(root)
    (root / file).write_bytes(damage((root / file).read_bytes()))
    before = snapshot(root)
    message = failure("mnist", root, download=True)  # what is there is never downloaded
    assert message.startswith(f"{root / file}: damaged: ")
    assert how in message
    assert "Delete this file and fetch it again" in message
    assert snapshot(root) == before


def test_a_gzip_file_under_the_unpacked_name(root: Path) -> None:
    write_idx(root)
    (root / IMAGES).write_bytes(gzip.compress((root / IMAGES).read_bytes()))
    path = root / IMAGES
    assert f"{path}: still packed (gzip)" in failure("mnist", root)
    assert f"mv '{path}' '{path}.gz' && gunzip '{path}.gz'" in failure("mnist", root)


def test_letters_labels_are_checked_as_they_stand_in_the_file(root: Path) -> None:
    for split in N:
        prefix = root / f"EMNIST/raw/emnist-letters-{split}"
        write(Path(f"{prefix}-images-idx3-ubyte"), idx(images(split, 28, 28)))
        write(Path(f"{prefix}-labels-idx1-ubyte"), idx(labels(split, 26)))
    here = EmnistData(dataset="emnist", split="letters", root=str(root))
    with pytest.raises(DataError, match=r"label 0 of sample 0 \(counted from 0\), expected 1 to 26"):
        data.load(here, seed=0)


def test_a_set_without_images(root: Path) -> None:
    write_idx(root)
    (root / IMAGES).write_bytes(idx(np.zeros((0, 28, 28))))
    (root / LABELS).write_bytes(idx(np.zeros(0)))
    assert failure("mnist", root) == "mnist: the training data has no samples"


def test_qmnist_labels_without_columns(root: Path) -> None:
    for split in N:
        write(root / f"QMNIST/raw/qmnist-{split}-images-idx3-ubyte", idx(images(split, 28, 28)))
        write(root / f"QMNIST/raw/qmnist-{split}-labels-idx2-int", idx(np.zeros((N[split], 0)), kind=12))
    assert "qmnist-train-labels-idx2-int: damaged: it has no columns" in failure("qmnist", root)


Writer = Callable[[Path, pytest.MonkeyPatch], None]
CHECKED: list[tuple[str, Writer, str]] = [
    ("usps", write_usps, "usps.t.bz2"),
    ("svhn", write_svhn, "test_32x32.mat"),
    ("stl10", write_stl10, "stl10_binary/train_X.bin"),
    (
        "cifar10",
        lambda root, patch: write_cifar(root, patch, datasets.CIFAR10),
        "cifar-10-batches-py/data_batch_3",
    ),
    (
        "cifar10",
        lambda root, patch: write_cifar(root, patch, datasets.CIFAR10),
        "cifar-10-batches-py/batches.meta",
    ),
]


@pytest.mark.parametrize(("name", "writer", "file"), CHECKED)
def test_a_changed_bit_is_found_by_the_md5(
    name: str, writer: Writer, file: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer(root, monkeypatch)
    expected, content = md5(root / file), bytearray((root / file).read_bytes())
    content[len(content) // 2] ^= 1
    (root / file).write_bytes(content)
    message = failure(name, root)
    assert message.startswith(f"{root / file}: damaged: its MD5 is {md5(root / file)}")
    assert expected in message and f"({len(content)} bytes)" in message
    assert "Delete this file" in message


@pytest.mark.parametrize(
    ("content", "how"),
    [
        (bz2.compress(b"1 1:0 2:0\n2 1:0\n"), "cannot be parsed (ValueError: "),
        (b"not bz2", "cannot be parsed (OSError: "),
        (
            bz2.compress(("11" + " 1:0" * 256).encode()),
            "label 11 of sample 0 (counted from 0), expected 1 to 10",
        ),
    ],
)
def test_what_cannot_be_parsed_is_an_error_that_names_the_file(
    content: bytes, how: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_split_list(root, monkeypatch, datasets.USPS, {"train": content, "test": content})
    message = failure("usps", root)
    assert message.startswith(f"{root / 'usps.bz2'}: damaged: ")
    assert how in message


@pytest.mark.parametrize(("name", "file"), [("mnist", IMAGES), ("usps", "usps.bz2")])
def test_a_file_that_cannot_be_read(name: str, file: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_idx(root)
    write_usps(root, monkeypatch)
    (root / file).unlink()
    (root / file).mkdir()
    message = failure(name, root)
    assert message.startswith(f"{root / file}: cannot be read: Is a directory")
    assert "permissions" in message


def test_a_folder_that_cannot_be_searched(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, **_: Any) -> Any:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "stat", refuse)
    assert failure("mnist", root).startswith(f"{root}: cannot be read: Permission denied")
