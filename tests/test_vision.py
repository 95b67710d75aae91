"""Every stored format, read from files that the tests write, against torchvision's own classes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stored_sets import (
    RNG,
    N,
    idx,
    images,
    labels,
    load,
    section,
    write,
    write_cifar,
    write_idx,
    write_stl10,
    write_svhn,
    write_usps,
)
from torchvision import datasets

from mlpcli import data
from mlpcli.config.data_schema import EmnistData, FakeData
from mlpcli.data import vision
from mlpcli.errors import DataError

# --- each format is read as torchvision reads it --------------------------------------------------------


def flat(pixels: Any) -> torch.Tensor:
    """torchvision's images, of whichever of its shapes, as (n, channels * height * width)."""
    array = np.asarray(pixels)
    if array.ndim == 4 and array.shape[-1] == 3:
        array = array.transpose(0, 3, 1, 2)
    return torch.from_numpy(np.ascontiguousarray(array).reshape(len(array), -1))


def assert_equal(split: data.Split, pixels: Any, classes: Any) -> None:
    assert split.inputs.dtype == torch.uint8 and split.targets.dtype == torch.int64
    assert torch.equal(split.inputs, flat(pixels))
    assert split.targets.tolist() == np.asarray(classes).tolist()


@pytest.mark.parametrize(
    ("name", "cls"),
    [("mnist", datasets.MNIST), ("fashion_mnist", datasets.FashionMNIST), ("kmnist", datasets.KMNIST)],
)
def test_idx_sets(name: str, cls: Any, root: Path) -> None:
    write_idx(root, cls.__name__)
    dataset = load(name, root)
    for split, train in ((dataset.train, True), (dataset.test, False)):
        published = cls(root, train=train)
        assert_equal(split, published.data, published.targets)
    # torchvision writes '0 - zero'; the digit says it
    assert dataset.description.classes == [each.partition(" - ")[0] for each in cls.classes]
    assert dataset.description.input_shape == (1, 28, 28)


def test_qmnist_takes_the_class_from_eight_columns(root: Path) -> None:
    for split in N:
        columns = RNG.integers(0, 70_000, (N[split], 8))
        columns[:, 0] = labels(split, 10)
        write(root / f"QMNIST/raw/qmnist-{split}-images-idx3-ubyte", idx(images(split, 28, 28)))
        write(root / f"QMNIST/raw/qmnist-{split}-labels-idx2-int", idx(columns, kind=12))
    dataset = load("qmnist", root)
    for part, train in ((dataset.train, True), (dataset.test, False)):
        published = datasets.QMNIST(root, train=train)
        assert_equal(part, published.data, published.targets[:, 0])
    assert dataset.description.classes == list("0123456789")


@pytest.mark.parametrize("name", datasets.EMNIST.splits)
def test_emnist_stands_upright_and_its_labels_start_at_0(name: Any, root: Path) -> None:
    here = EmnistData(dataset="emnist", split=name, root=str(root), validation=0.0)
    first = 1 if name == "letters" else 0
    upright = {split: images(split, 28, 28) for split in N}
    for split in N:
        prefix = root / f"EMNIST/raw/emnist-{name}-{split}"
        write(Path(f"{prefix}-images-idx3-ubyte"), idx(upright[split].transpose(0, 2, 1)))
        write(Path(f"{prefix}-labels-idx1-ubyte"), idx(labels(split, here.facts.outputs, first)))
    dataset = data.load(here, seed=0)
    for part, split in ((dataset.train, "train"), (dataset.test, "test")):
        published = datasets.EMNIST(root, split=name, train=split == "train")
        assert_equal(part, published.data.transpose(1, 2), published.targets - first)
        assert torch.equal(part.inputs, flat(upright[split]))
    names = datasets.EMNIST.classes_split_dict[name]
    assert dataset.description.classes == [each for each in names if each != "N/A"]
    assert len(dataset.description.classes) == dataset.description.outputs


@pytest.mark.parametrize(("name", "cls"), [("cifar10", datasets.CIFAR10), ("cifar100", datasets.CIFAR100)])
@pytest.mark.filterwarnings("default::numpy.exceptions.VisibleDeprecationWarning")  # torchvision's, not ours
def test_cifar(name: str, cls: Any, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_cifar(root, monkeypatch, cls)
    dataset = load(name, root)
    for split, train in ((dataset.train, True), (dataset.test, False)):
        published = cls(root, train=train)
        assert_equal(split, published.data, published.targets)
    assert dataset.description.classes == published.classes
    assert dataset.preprocessing.shift.shape == (3072,)


def test_old_pickles_warn_nobody(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_cifar(root, monkeypatch, datasets.CIFAR10)
    load("cifar10", root)  # a warning would be an error here
    content = (root / "cifar-10-batches-py/test_batch").read_bytes()
    assert b"cnumpy.core.multiarray\n_reconstruct" in content  # as in the published files


def test_svhn(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_svhn(root, monkeypatch)
    dataset = load("svhn", root)
    for split, name in ((dataset.train, "train"), (dataset.test, "test")):
        published = datasets.SVHN(root, split=name)
        assert_equal(split, published.data, published.labels)
        assert 0 in split.targets and 10 not in split.targets


def test_usps(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_usps(root, monkeypatch)
    dataset = load("usps", root)
    for split, train in ((dataset.train, True), (dataset.test, False)):
        published = datasets.USPS(root, train=train)
        assert_equal(split, published.data, published.targets)
        assert split.inputs[:, :2].unique(dim=0).tolist() == [[0, 255]]


def test_stl10(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_stl10(root, monkeypatch)
    dataset = load("stl10", root)
    for split, name in ((dataset.train, "train"), (dataset.test, "test")):
        published = datasets.STL10(root, split=name)
        assert_equal(split, published.data, published.labels)
    assert dataset.description.classes[::9] == ["airplane", "truck"]


def test_the_lists_of_files_are_torchvision_s(root: Path) -> None:
    for name in ("mnist", "fashion_mnist", "kmnist"):
        cls = vision.torchvision_class(section(name, root))
        expected = [f"{cls.__name__}/raw/{file.removesuffix('.gz')}" for file, _ in cls.resources]
        assert list(vision.idx_files(section(name, root))) == expected
    for name, (train, test, other) in vision.FILES.items():
        listed = list(vision.checksums(section(name, root)))
        if name == "stl10":  # but for the images without labels
            listed.remove("stl10_binary/unlabeled_X.bin")
        assert listed == [*train, *test, *other]
        assert len(train) == len(test) or name == "cifar10"
    archives = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100, "stl10": datasets.STL10}
    for name, cls in archives.items():
        assert vision.ARCHIVES[name] == cls.filename


@pytest.mark.parametrize("shape", [[1, 28, 28], [3, 5, 7]])
def test_fake_is_torchvision_s_fake_data(shape: list[int]) -> None:
    here = FakeData(dataset="fake", train_size=12, test_size=8, image_size=shape, classes=5, validation=0.0)
    dataset = data.load(here, seed=0)
    channels, height, width = shape
    published = datasets.FakeData(20, (channels, height, width), 5)
    together = torch.cat((dataset.train.inputs, dataset.test.inputs))
    for row, label, (image, expected) in zip(
        together, torch.cat((dataset.train.targets, dataset.test.targets)), published, strict=False
    ):
        array = np.asarray(image).reshape(height, width, channels).transpose(2, 0, 1)
        assert row.tolist() == array.flatten().tolist()
        assert label.item() == expected
    assert len(together.unique(dim=0)) == 20
    assert dataset.description.classes == ["0", "1", "2", "3", "4"]


def test_fake_images_that_fit_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def empty(*_: Any, **__: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(np, "empty", empty)
    with pytest.raises(DataError, match=r"0\.8 GB.*\n.*data\.train_size"):
        data.load(FakeData(dataset="fake", train_size=1_000_000), seed=0)
