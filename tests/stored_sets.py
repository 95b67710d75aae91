"""Writes small sets in every format that torchvision stores, and loads them, for the tests."""

import bz2
import hashlib
import io
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat
from torchvision import datasets

from mlpcli import data
from mlpcli.config.data_schema import VisionData
from mlpcli.errors import DataError

RNG = np.random.default_rng(0)
N = {"train": 30, "test": 20}


def section(name: str, root: Path, **keys: Any) -> VisionData:
    return VisionData(dataset=name, root=str(root), **{"validation": 0.0, **keys})  # type: ignore[arg-type]


def load(name: str, root: Path, **keys: Any) -> data.Dataset:
    return data.load(section(name, root, **keys), seed=0)


def failure(name: str, root: Path, **keys: Any) -> str:
    with pytest.raises(DataError) as caught:
        load(name, root, **keys)
    return str(caught.value)


def images(split: str, *shape: int) -> Any:
    return RNG.integers(0, 256, (N[split], *shape), dtype=np.uint8)


def labels(split: str, classes: int, first: int = 0) -> Any:
    return np.arange(N[split]) % classes + first


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def snapshot(root: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(root)): path.read_bytes() if path.is_file() else None
        for path in sorted(root.rglob("*"))
    }


# --- writers of each format -----------------------------------------------------------------------------


def idx(array: Any, kind: int = 8) -> bytes:
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, kind, array.ndim, *array.shape)
    return header + array.astype(">i4" if kind == 12 else np.uint8).tobytes()


def write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def write_idx(root: Path, folder: str = "MNIST") -> None:
    for split, part in (("train", "train"), ("test", "t10k")):
        write(root / folder / f"raw/{part}-images-idx3-ubyte", idx(images(split, 28, 28)))
        write(root / folder / f"raw/{part}-labels-idx1-ubyte", idx(labels(split, 10)))


class OldNumpyPickler(pickle._Pickler):  # as numpy 1 on Python 2 pickled arrays
    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, np.ndarray):
            state = (1, value.shape, value.dtype, False, value.tobytes().decode("latin1"))
            return np._core.multiarray._reconstruct, (np.ndarray, (0,), "b"), state  # type: ignore[attr-defined]
        if isinstance(value, np.dtype):
            return np.dtype, ("u1", 0, 1), (3, "|", None, None, None, -1, -1, 0)
        return NotImplemented


def old_pickle(value: Any) -> bytes:
    file = io.BytesIO()
    OldNumpyPickler(file, protocol=2).dump(value)
    return file.getvalue().replace(b"numpy._core.", b"numpy.core.")


def write_cifar(root: Path, monkeypatch: pytest.MonkeyPatch, cls: Any) -> None:
    many = cls is datasets.CIFAR100
    classes = 100 if many else 10
    batches = {"train": [name for name, _ in cls.train_list], "test": [name for name, _ in cls.test_list]}
    folder = root / cls.base_folder
    for split, names in batches.items():
        for name in names:
            batch: dict[str, Any] = {"data": images(split, 3072)}
            batch["fine_labels" if many else "labels"] = labels(split, classes).tolist()
            if many:
                batch["coarse_labels"] = labels(split, 20).tolist()
            write(folder / name, old_pickle(batch))
        listed = [[name, md5(folder / name)] for name in names]
        monkeypatch.setattr(cls, f"{split}_list", listed)
    meta = dict(cls.meta)
    write(folder / meta["filename"], old_pickle({meta["key"]: [f"class {each}" for each in range(classes)]}))
    monkeypatch.setattr(cls, "meta", {**meta, "md5": md5(folder / meta["filename"])})


def write_split_list(root: Path, monkeypatch: pytest.MonkeyPatch, cls: Any, files: dict[str, bytes]) -> None:
    listed = {}
    for split, content in files.items():
        url, name, _ = cls.split_list[split]
        write(root / name, content)
        listed[split] = [url, name, md5(root / name)]
    monkeypatch.setattr(cls, "split_list", listed)


def write_svhn(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {}
    for split in N:
        file = io.BytesIO()
        pixels = images(split, 32, 32, 3).transpose(1, 2, 3, 0)
        savemat(file, {"X": pixels, "y": labels(split, 10, 1).astype(np.uint8).reshape(-1, 1)})
        files[split] = file.getvalue()
    write_split_list(root, monkeypatch, datasets.SVHN, files)


def write_usps(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {}
    for split in N:
        values = RNG.uniform(-1, 1, (N[split], 256)).round(6)
        values[:, 0], values[:, 1] = -1, 1
        lines = [
            f"{label} " + " ".join(f"{index}:{value:g}" for index, value in enumerate(row, 1))
            for label, row in zip(labels(split, 10, 1), values, strict=True)
        ]
        files[split] = bz2.compress("\n".join([*lines, ""]).encode())
    write_split_list(root, monkeypatch, datasets.USPS, files)


def write_stl10(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for split in N:
        pixels, classes = f"{split}_X.bin", f"{split}_y.bin"
        folder = root / datasets.STL10.base_folder
        write(folder / pixels, images(split, 3, 96, 96).tobytes())
        write(folder / classes, labels(split, 10, 1).astype(np.uint8).tobytes())
        listed = [[name, md5(folder / name)] for name in (pixels, classes)]
        monkeypatch.setattr(datasets.STL10, f"{split}_list", listed)


def write_folder(root: Path) -> None:
    """Folders of 100 training and 20 test photographs of noise."""
    random = np.random.default_rng(0)
    for split, size in (("train", 50), ("test", 10)):
        for name in ("cat", "dog"):
            folder = root / split / name
            folder.mkdir(parents=True)
            for index in range(size):
                pixels = random.integers(0, 256, (40, 36, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{index}.png")
