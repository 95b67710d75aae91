"""torchvision's image sets, read from the files that it stores: uint8, channels first, flattened.

Importing torchvision takes 1 to 2 s; it is needed to download, and for the MD5 sums of the sets that are not
IDX. Every file is checked before it is parsed, and parsed once: then the cache has it.
"""

import bz2
import io
import pickle
import string
import warnings
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from mlpcli.config.data_schema import EmnistData, FakeData, VisionData
from mlpcli.config.datasets import Facts
from mlpcli.data.cache import cached
from mlpcli.data.dataset import Source, Split
from mlpcli.data.download import download
from mlpcli.data.files import Layout, absolute, damaged, read_checked
from mlpcli.data.idx import INT32, UINT8, read_idx
from mlpcli.errors import DataError

Stored = VisionData | EmnistData
Array = NDArray[Any]
T = TypeVar("T")

TORCHVISION = {
    "mnist": "MNIST",
    "fashion_mnist": "FashionMNIST",
    "kmnist": "KMNIST",
    "qmnist": "QMNIST",
    "emnist": "EMNIST",
    "usps": "USPS",
    "cifar10": "CIFAR10",
    "cifar100": "CIFAR100",
    "svhn": "SVHN",
    "stl10": "STL10",
}
"""The class in torchvision.datasets; for IDX sets also the folder that holds the set."""

FILES: dict[str, tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = {
    "usps": (("usps.bz2",), ("usps.t.bz2",), ()),
    "cifar10": (
        tuple(f"cifar-10-batches-py/data_batch_{number}" for number in range(1, 6)),
        ("cifar-10-batches-py/test_batch",),
        ("cifar-10-batches-py/batches.meta",),
    ),
    "cifar100": (("cifar-100-python/train",), ("cifar-100-python/test",), ("cifar-100-python/meta",)),
    "svhn": (("train_32x32.mat",), ("test_32x32.mat",), ()),
    "stl10": (  # without the 2.6 GB that have no labels
        ("stl10_binary/train_X.bin", "stl10_binary/train_y.bin"),
        ("stl10_binary/test_X.bin", "stl10_binary/test_y.bin"),
        (),
    ),
}
"""Of the sets that are not IDX, relative to `data.root`: training files, test files, and that of the names."""
ARCHIVES = {
    "cifar10": "cifar-10-python.tar.gz",
    "cifar100": "cifar-100-python.tar.gz",
    "stl10": "stl10_binary.tar.gz",
    "emnist": "EMNIST/raw/gzip.zip",
}
"""The archive of all files, where there is one, relative to `data.root`."""

DIGITS = list(string.digits)
UNMERGED = "abdefghnqrt"
"""The lower-case letters that EMNIST's merged splits tell from upper case."""
CLASSES = {
    "mnist": DIGITS,
    "qmnist": DIGITS,
    "fashion_mnist": [
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ],
    "kmnist": ["o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"],
    "usps": DIGITS,
    "svhn": DIGITS,
    "stl10": ["airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck"],
}
EMNIST_CLASSES = {
    "byclass": list(string.digits + string.ascii_uppercase + string.ascii_lowercase),
    "bymerge": list(string.digits + string.ascii_uppercase + UNMERGED),
    "balanced": list(string.digits + string.ascii_uppercase + UNMERGED),
    "letters": list(string.ascii_lowercase),
    "digits": DIGITS,
    "mnist": DIGITS,
}


def read(section: VisionData | EmnistData | FakeData) -> Source:
    """The training and test images of `section`: uint8 (samples, channels * height * width).

    Raises:
        DataError: files are absent and `data.download` is false or the download failed, or one is damaged.
    """
    if isinstance(section, FakeData):
        return fake(section)  # uncached: a second for 70,000 images of MNIST's size, and any size can be asked for
    is_idx = section.dataset not in FILES
    files = idx_files(section) if is_idx else tuple(chain(*FILES[section.dataset]))
    root = _provide(section, files)
    parse = _read_idx_set if is_idx else _read_checked_set
    return cached(section.dataset, lambda: parse(section, root), files=[root / file for file in files])


# --- IDX: MNIST, Fashion-MNIST, KMNIST, QMNIST, EMNIST --------------------------------------------------


def _read_idx_set(section: Stored, root: Path) -> Source:
    files = [root / file for file in idx_files(section)]
    train, test = (_read_idx(section, *pair) for pair in (files[:2], files[2:]))
    names = EMNIST_CLASSES[section.split] if isinstance(section, EmnistData) else CLASSES[section.dataset]
    return Source(train, test, names)


def idx_files(section: Stored) -> tuple[str, ...]:
    """Training images and labels, test images and labels: paths relative to `data.root`."""
    folder = f"{TORCHVISION[section.dataset]}/raw"
    if isinstance(section, EmnistData):
        parts, labels = (f"emnist-{section.split}-train", f"emnist-{section.split}-test"), "labels-idx1-ubyte"
    elif section.dataset == "qmnist":
        parts, labels = ("qmnist-train", "qmnist-test"), "labels-idx2-int"
    else:
        parts, labels = ("train", "t10k"), "labels-idx1-ubyte"
    return tuple(f"{folder}/{part}-{kind}" for part in parts for kind in ("images-idx3-ubyte", labels))


def _read_idx(section: Stored, images_file: Path, labels_file: Path) -> Split:
    images = read_idx(images_file, UINT8, 3)
    if section.dataset == "qmnist":  # the class, then seven columns about the writer
        columns = read_idx(labels_file, INT32, 2)
        if columns.shape[1] < 1:
            raise damaged(labels_file, "it has no columns, expected the class in the first of 8")
        labels = columns[:, 0]
    else:
        labels = read_idx(labels_file, UINT8, 1)
    if isinstance(section, EmnistData):  # stored column by column
        images = images.transpose(0, 2, 1)
    first = int(isinstance(section, EmnistData) and section.split == "letters")
    return _split(images[:, None], labels, first, section.facts, images_file, labels_file)


# --- sets with MD5 sums: USPS, CIFAR, SVHN, STL10 -------------------------------------------------------


def _read_checked_set(section: Stored, root: Path) -> Source:
    md5s = checksums(section)
    train, test, other = ({file: md5s[file] for file in files} for files in FILES[section.dataset])
    if other:
        paths, (content,) = _contents(root, other)
        key = torchvision_class(section).meta["key"]
        names = _parsed(paths, lambda: [str(name) for name in _unpickle(content)[key]])
    else:
        names = CLASSES[section.dataset]
    return Source(_read_checked(section, root, train), _read_checked(section, root, test), names)


def checksums(section: Stored) -> dict[str, str]:
    """The MD5 sums of the files that torchvision lists, by path relative to `data.root`."""
    cls = torchvision_class(section)
    if section.dataset in ("usps", "svhn"):
        return {file: md5 for _, file, md5 in (cls.split_list[split] for split in ("train", "test"))}
    listed = [*cls.train_list, *cls.test_list]
    if section.dataset != "stl10":
        listed.append((cls.meta["filename"], cls.meta["md5"]))
    return {f"{cls.base_folder}/{file}": md5 for file, md5 in listed}


def _read_checked(section: Stored, root: Path, files: dict[str, str]) -> Split:
    paths, contents = _contents(root, files)
    images, labels = _parsed(paths, lambda: PARSERS[section.dataset](contents))
    first = 1 if section.dataset in ("usps", "stl10") else 0
    return _split(images, labels, first, section.facts, paths[0], paths[-1])


def _contents(root: Path, files: dict[str, str]) -> tuple[list[Path], list[bytes]]:
    return [root / file for file in files], [read_checked(root / file, md5) for file, md5 in files.items()]


def _parsed(paths: list[Path], parse: Callable[[], T]) -> T:
    """What `parse` returns; whatever it raises becomes an error that names the files."""
    try:
        return parse()
    except Exception as error:
        files = " and ".join(path.name for path in paths)
        raise damaged(paths[0], f"{files} cannot be parsed ({type(error).__name__}: {error})") from error


def _unpickle(content: bytes) -> Any:
    """The object in a published file of Python 2; its MD5 was checked, so that it is safe to unpickle."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", np.exceptions.VisibleDeprecationWarning)  # numpy 2.4.0 on dtypes
        return pickle.loads(content, encoding="latin1")


def _cifar(contents: list[bytes]) -> tuple[Array, Array]:
    batches = [_unpickle(content) for content in contents]
    key = "labels" if "labels" in batches[0] else "fine_labels"
    images = np.concatenate([batch["data"] for batch in batches])
    return images.reshape(-1, 3, 32, 32), np.concatenate([batch[key] for batch in batches])


def _svhn(contents: list[bytes]) -> tuple[Array, Array]:
    from scipy.io import loadmat

    content = loadmat(io.BytesIO(contents[0]))
    labels = content["y"].reshape(-1)
    return content["X"].transpose(3, 2, 0, 1), np.where(labels == 10, 0, labels)  # 10 stands for the digit 0


def _usps(contents: list[bytes]) -> tuple[Array, Array]:
    """Lines of a label in 1..10 and 256 times `index:value`, the values in [-1, 1]."""
    table = np.loadtxt(io.BytesIO(bz2.decompress(contents[0]).replace(b":", b" ")), dtype=np.float32, ndmin=2)
    images = ((table[:, 2::2] + 1) / 2 * 255).astype(np.uint8)  # truncated, as torchvision does
    return images.reshape(-1, 1, 16, 16), table[:, 0]


def _stl10(contents: list[bytes]) -> tuple[Array, Array]:
    images, labels = (np.frombuffer(content, dtype=np.uint8) for content in contents)
    return images.reshape(-1, 3, 96, 96).transpose(0, 1, 3, 2), labels  # stored column by column


PARSERS: dict[str, Callable[[list[bytes]], tuple[Array, Array]]] = {
    "cifar10": _cifar,
    "cifar100": _cifar,
    "svhn": _svhn,
    "usps": _usps,
    "stl10": _stl10,
}
"""From the contents of the files of one split to images (n, channels, height, width) and labels (n,)."""


# --- what all stored sets share -------------------------------------------------------------------------


def _split(images: Array, labels: Array, first: int, facts: Facts, images_file: Path, labels_file: Path) -> Split:
    """Images (n, channels, height, width) and labels from `first` on, checked, as a split."""
    if images.shape[1:] != facts.input_shape or images.dtype != np.uint8:
        found, expected = (" x ".join(map(str, shape)) for shape in (images.shape[1:], facts.input_shape))
        raise damaged(images_file, f"its images are {found} {images.dtype}, expected {expected} uint8")
    if len(images) != len(labels):
        raise damaged(
            labels_file, f"it has {len(labels)} labels, but there are {len(images)} images in {images_file}"
        )
    targets = labels.astype(np.int64) - first
    wrong = np.flatnonzero((targets < 0) | (targets >= facts.outputs))
    if len(wrong):
        raise damaged(
            labels_file,
            f"label {targets[wrong[0]] + first} of sample {wrong[0]} (counted from 0), "
            f"expected {first} to {first + facts.outputs - 1}",
        )
    flat = np.ascontiguousarray(images).reshape(len(images), facts.features)
    return Split(torch.from_numpy(flat), torch.from_numpy(targets))


def _provide(section: Stored, files: tuple[str, ...]) -> Path:
    """The folder in which all `files` are, downloaded where they are absent and `data.download` is true."""
    layout = Layout(section.dataset, absolute(section.root), files, ARCHIVES.get(section.dataset, ""))
    if layout.absent():
        if not section.download:
            raise layout.absent_error()
        download(layout, lambda folder: _fetch(section, folder), _urls(section))
    return layout.root


def torchvision_class(section: Stored) -> Any:
    """The class of torchvision.datasets that knows this set's files, MD5 sums and addresses."""
    from torchvision import datasets

    return getattr(datasets, TORCHVISION[section.dataset])


def _fetch(section: Stored, folder: Path) -> None:
    """Lets torchvision download the whole set into `folder`."""
    cls = torchvision_class(section)
    if isinstance(section, EmnistData):
        cls(folder, split=section.split, download=True)
    elif section.dataset == "svhn":
        for split in ("train", "test"):
            cls(folder, split=split, download=True)
    elif section.dataset in ("usps", "qmnist"):
        for train in (True, False):
            cls(folder, train=train, download=True)
    else:
        cls(folder, download=True)


def _urls(section: Stored) -> list[str]:
    cls = torchvision_class(section)
    if section.dataset in ("usps", "svhn"):
        return [cls.split_list[split][0] for split in ("train", "test")]
    if section.dataset == "qmnist":
        return [url for split in ("train", "test") for url, _ in cls.resources[split]]
    if section.dataset in ("mnist", "fashion_mnist", "kmnist"):
        return [cls.mirrors[0] + file for file, _ in cls.resources]
    return [cls.url]


# --- fake -----------------------------------------------------------------------------------------------


def fake(section: FakeData) -> Source:
    """The images and labels of torchvision.datasets.FakeData, value for value.

    They are drawn here, because FakeData reseeds the global generators, CUDA's too, for every image. The test
    images follow the training images (`random_offset`), so that no image is in both.
    """
    try:
        train = _draw(section, section.train_size, 0)
        test = _draw(section, section.test_size, section.train_size)
    except MemoryError:
        size = (section.train_size + section.test_size) * section.facts.features
        raise DataError(
            f"fake: the images take {size / 1e9:.1f} GB, more than there is memory for\n"
            "  Lower data.train_size, data.test_size or data.image_size."
        ) from None
    return Source(train, test, [str(label) for label in range(section.classes)])


def _draw(section: FakeData, size: int, offset: int) -> Split:
    images = np.empty((size, section.facts.features), dtype=np.uint8)
    targets = torch.empty(size, dtype=torch.int64)
    generator = torch.Generator()
    for index in range(size):
        generator.manual_seed(index + offset)
        image = torch.randn(section.image_size, generator=generator).flatten()
        targets[index] = torch.randint(section.classes, (1,), generator=generator)[0]
        images[index] = (image.numpy() * 255).astype(np.uint8)
    return Split(torch.from_numpy(images), targets)
