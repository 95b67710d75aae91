"""Principal components of images, from the training split alone."""

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor

from mlpcli.arithmetic import one_thread
from mlpcli.data import cache
from mlpcli.data.dataset import Split, fingerprint
from mlpcli.data.statistics import moments
from mlpcli.errors import DataError, StorageError

BLOCK = 2048
"""Images, or values of all images, that are taken together as float64."""
LARGEST = 12_288
"""Side of the largest matrix whose eigenvectors are computed: 1.2 GB and about 5 minutes on one core."""


@dataclass(frozen=True, eq=False)
class Projection:
    """Coordinates of images on components: x -> (x / 255 - mean) components.

    Attributes:
        mean: float64 (features,), of pixels scaled to [0, 1].
        components: float64 (features, k); divided by the standard deviations of the coordinates if whitened.
    """

    mean: Tensor
    components: Tensor
    _cast: dict[torch.device, tuple[Tensor, Tensor]] = field(default_factory=dict, init=False, repr=False)

    def __call__(self, pixels: Tensor) -> Tensor:
        """Pixels (n, features), from 0 to 255, of any type -> float32 (n, k), on their device."""
        if pixels.device not in self._cast:
            self._cast[pixels.device] = (
                self.mean.to(pixels.device, torch.float32),
                self.components.to(pixels.device, torch.float32),
            )
        mean, components = self._cast[pixels.device]
        return (pixels.to(torch.float32) / 255).sub_(mean) @ components

    def state_dict(self) -> dict[str, Tensor]:
        """Plain tensors, for a checkpoint."""
        return {"mean": self.mean, "components": self.components}

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> Self:
        """The inverse of `state_dict`."""
        return cls(state["mean"], state["components"])


def fit_pca(train: Split, components: int, whiten: bool) -> Projection:
    """The first principal components of the images of `train`, as scikit-learn's PCA has them.

    The largest entry of each is positive. They are cached by the content of `train`.

    Args:
        train: uint8 images, at least one.
        components: how many.
        whiten: divide each coordinate by its sample standard deviation.

    Raises:
        DataError: the images vary in fewer directions, or there are too many pixels and images.
        StorageError: there is room for the components neither in the cache nor in the temporary folder.
    """

    def make(folder: Path) -> None:
        mean, vectors, variances = _principal(train, components)
        np.save(folder / "mean.npy", mean.numpy())
        np.save(folder / "components.npy", (vectors / variances.sqrt() if whiten else vectors).numpy())

    settings = [components, whiten]
    try:
        entry = cache.stored("pca", [settings, train.features], [fingerprint([train]), torch.__version__], make)
    except OSError as error:
        raise StorageError(
            "data.features: the principal components can be stored neither in the cache "
            f"({cache.folder()}) nor in {tempfile.gettempdir()}: {error.strerror or error}\n"
            "  Name a folder that has room: MLPCLI_CACHE=FOLDER"
        ) from error
    return Projection(*(torch.from_numpy(entry.arrays[name]) for name in ("mean", "components")))


def _principal(train: Split, components: int) -> tuple[Tensor, Tensor, Tensor]:
    """Mean (features,), the first eigenvectors of the covariance (features, k), and their variances (k,)."""
    n, features = len(train), train.features
    if min(n, features) > LARGEST:
        raise DataError(
            f"data.features: pca of {n:,} images of {features:,} values takes the eigenvectors of a matrix of "
            f"side {min(n, features):,}, more than the {LARGEST:,} that this program computes\n"
            f"  Use smaller images, or a data.limit of up to {LARGEST:,}."
        )
    mean = moments(train, features)[0] / 255
    eigenvalues, vectors = _of_covariance(train, mean) if features < n else _of_products(train, mean)
    eigenvalues, vectors = eigenvalues.flip(0), vectors.flip(1)
    smallest = eigenvalues[0] * max(n, features) * torch.finfo(torch.float64).eps
    directions = int((eigenvalues > smallest).sum())
    if components > directions:
        fits = f"at most {directions}" if directions else "other features"
        raise DataError(
            f"data.features.components: {components} is more than the {directions} directions in which the "
            f"{n:,} training images of {features:,} values vary\n  Use {fits}."
        )
    eigenvalues, vectors = eigenvalues[:components], vectors[:, :components]
    if n <= features:
        vectors = torch.cat([block.T @ vectors for block in _columns(train, mean)]) / eigenvalues.sqrt()
    largest = vectors.gather(0, vectors.abs().argmax(0, keepdim=True))
    return mean, vectors * largest.sign(), eigenvalues / (n - 1)


def _of_covariance(train: Split, mean: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues, ascending, and eigenvectors of X'X, for centred images X (n, features)."""
    products = torch.zeros(len(mean), len(mean), dtype=torch.float64)
    for pixels, _ in train.chunks(BLOCK):
        block = pixels.to(torch.float64).div_(255).sub_(mean)
        products.addmm_(block.T, block)
    return _eigen(products)


def _of_products(train: Split, mean: Tensor) -> tuple[Tensor, Tensor]:
    """Likewise of XX', which has the same eigenvalues; where there are fewer images than values."""
    products = torch.zeros(len(train), len(train), dtype=torch.float64)
    for block in _columns(train, mean):
        products.addmm_(block, block.T)
    return _eigen(products)


def _eigen(products: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues and eigenvectors, on one thread: where another process has a core, several wait for each other,
    and take ten times as long."""
    with one_thread():
        values, vectors = torch.linalg.eigh(products)
    return values, vectors


def _columns(train: Split, mean: Tensor) -> Iterator[Tensor]:
    """Some values of all centred images at a time: float64 (n, values)."""
    pixels = train.inputs
    for columns, means in zip(pixels.split(BLOCK, 1), mean.split(BLOCK), strict=True):
        yield columns.to(torch.float64).div_(255).sub_(means)
