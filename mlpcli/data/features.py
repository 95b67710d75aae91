"""Extracted features of images: f(X) in the linear model ⟨θ, f(X)⟩. Each image of a source is seen once."""

import math
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mlpcli.arithmetic import one_thread
from mlpcli.config.data_schema import Daisy, Hog, Pca, Wavelet
from mlpcli.data import cache
from mlpcli.data.dataset import Source, Split, fingerprint
from mlpcli.data.principal import Projection
from mlpcli.data.workers import for_each
from mlpcli.errors import DataError, StorageError

Shape = tuple[int, ...]
Array = NDArray[Any]

LUMINANCE = (0.2125, 0.7154, 0.0721)
"""Of red, green and blue, as scikit-image has it."""
TOGETHER = 2048
"""Images that are projected together."""
PIECE = 64
"""Images that a worker process takes at a time, for some 50 ms."""

FEWER = {
    "hog": "raise data.features.cell",
    "daisy": "raise data.features.step",
    "wavelet": "lower the size of the images",
}
"""What to do for fewer features."""


@dataclass(frozen=True, eq=False)
class Extraction:
    """What a model does to its images before anything else.

    Attributes:
        settings: `data.features`.
        shape: (channels, height, width) of an image.
        projection: on the principal components, for `pca`; None for the others.
    """

    settings: Hog | Daisy | Wavelet | Pca
    shape: Shape
    projection: Projection | None = None

    def __call__(self, pixels: Tensor) -> Tensor:
        """The features of `pixels`, uint8 (n, channels * height * width): float32 (n, features).

        Raises:
            DataError: as `extract`.
        """
        if isinstance(self.settings, Pca):
            assert self.projection is not None
            return self.projection(pixels)
        return extract(pixels, self.settings, self.shape)

    def of(self, split: Split) -> Split:
        """The features of the samples of `split`, in memory, in place of their pixels."""
        with one_thread():  # a run goes on with the same features wherever it is resumed
            return Split(torch.cat([self(pixels) for pixels, _ in split.chunks(TOGETHER)]), split.targets)

    @property
    def features(self) -> int:
        """How many an image has."""
        return self(torch.zeros(1, math.prod(self.shape), dtype=torch.uint8)).shape[1]

    def state_dict(self) -> dict[str, Tensor]:
        """Plain tensors, for a checkpoint; none but for `pca`."""
        return {} if self.projection is None else self.projection.state_dict()

    @classmethod
    def from_state(cls, settings: Hog | Daisy | Wavelet | Pca, shape: Shape, state: Mapping[str, Tensor]) -> Self:
        """The inverse of `state_dict`."""
        return cls(settings, shape, Projection.from_state(state) if isinstance(settings, Pca) else None)


def extract(pixels: Tensor, settings: Hog | Daisy | Wavelet, shape: Shape) -> Tensor:
    """The features of a few images, one after the other in this process.

    Args:
        pixels: uint8 (n, channels * height * width), at least one.
        settings: `data.features`.
        shape: (channels, height, width), with 1 or 3 channels.

    Returns:
        float32 (n, features).

    Raises:
        DataError: the images are too small for `settings`, or the package that extracts them is not installed.
    """
    function, _ = _extractor(settings, shape)
    return torch.from_numpy(np.stack([function(image) for image in pixels.numpy().reshape(-1, *shape)]))


def extracted(source: Source, settings: Hog | Daisy | Wavelet, shape: Shape, of: str) -> Source:
    """`source` with the features of its images in place of their pixels, memory-mapped from the cache.

    They are computed by a process for each core, unless the cache has them of the same images, settings and
    version of the package.

    Args:
        source: with uint8 images (n, channels * height * width).
        settings: `data.features`.
        shape: (channels, height, width), with 1 or 3 channels.
        of: what the images are, such as the path of their folder. The cache has one entry for each `of`, `shape`
            and `settings`, which changed images replace.

    Raises:
        DataError: as `extract`.
        FailedError: a worker process died.
        StorageError: there is room for the features neither in the cache nor in the temporary folder.
    """
    function, version = _extractor(settings, shape)
    splits = {"train": source.train, "validation": source.validation, "test": source.test}
    there = {name: split for name, split in splits.items() if split is not None}
    features = len(function(np.zeros(shape, dtype=np.uint8)))

    def make(folder: Path) -> None:
        for name, split in there.items():
            _extract_into(folder / f"{name}.npy", split, function, features, shape, settings.name)

    try:
        entry = cache.stored(
            settings.name,
            [of, list(shape), settings.model_dump()],
            [fingerprint(splits.values()), version],
            make,
        )
    except OSError as error:
        size = 4 * features * sum(map(len, there.values()))
        raise StorageError(
            f"data.features: {settings.name} gives {features:,} features an image, and those of all images take "
            f"{size / 1e6:,.0f} MB, which can be stored neither in the cache ({cache.folder()}) nor in "
            f"{tempfile.gettempdir()}: {error.strerror or error}\n"
            f"  Name a folder that has room, MLPCLI_CACHE=FOLDER, or {FEWER[settings.name]}."
        ) from error
    of_features: dict[str, Any] = {
        name: Split(torch.from_numpy(entry.arrays[name]), split.targets) for name, split in there.items()
    }
    return replace(source, **of_features)


def _extract_into(
    path: Path, split: Split, function: Callable[[Array], Array], features: int, shape: Shape, name: str
) -> None:
    """Writes the features of all images of `split` as a float32 array."""
    rows = cache.reserve(path, np.float32, (len(split), features))

    def extract_piece(piece: int) -> None:
        part = torch.arange(piece * PIECE, min((piece + 1) * PIECE, len(split)))
        for row, image in zip(part.tolist(), split.take(part).inputs.numpy(), strict=True):
            rows[row] = function(image.reshape(shape))

    for_each(math.ceil(len(split) / PIECE), extract_piece, f"extracting {name} features")


# --- from one uint8 image (channels, height, width) to its float32 features ------------------------------


def _extractor(settings: Hog | Daisy | Wavelet, shape: Shape) -> tuple[Callable[[Array], Array], str]:
    """What extracts, and the version of the package that it uses. Raises DataError as `extract` does."""
    if isinstance(settings, Hog):
        return _hog(settings, shape)
    if isinstance(settings, Daisy):
        return _daisy(settings, shape)
    return _wavelet(settings, shape)


def _hog(settings: Hog, shape: Shape) -> tuple[Callable[[Array], Array], str]:
    skimage = _package("skimage", "scikit-image", settings.name)
    side, cell, block = min(shape[1:]), settings.cell, settings.block
    if cell * block > side:
        fits = {key: side // other for key, other in (("cell", block), ("block", cell)) if other <= side}
        advice = " or ".join(f"a data.features.{key} of up to {largest}" for key, largest in fits.items())
        raise DataError(
            f"data.features.{next(iter(fits), 'cell')}: a block of {block} x {block} cells of {cell} pixels is "
            f"{cell * block} pixels wide, but the images are {_size(shape)}\n"
            f"  Use {advice or 'a smaller cell and a smaller block'}."
        )

    def function(image: Array) -> Array:
        cells, blocks = (cell, cell), (block, block)
        features: Array = skimage.feature.hog(_gray(image), settings.orientations, cells, blocks)
        return features

    return function, f"scikit-image {skimage.__version__}"


def _daisy(settings: Daisy, shape: Shape) -> tuple[Callable[[Array], Array], str]:
    skimage = _package("skimage", "scikit-image", settings.name)
    largest = (min(shape[1:]) - 1) // 2
    if settings.radius > largest:
        fits = f"Use a radius of up to {largest}" if largest else "Use larger images"
        raise DataError(
            f"data.features.radius: a descriptor of radius {settings.radius} is {2 * settings.radius + 1} pixels "
            f"wide, but the images are {_size(shape)}\n  {fits}."
        )

    def function(image: Array) -> Array:
        rings = settings.rings, settings.histograms, settings.orientations
        features: Array = skimage.feature.daisy(_gray(image), settings.step, settings.radius, *rings)
        return features.reshape(-1)

    return function, f"scikit-image {skimage.__version__}"


def _wavelet(settings: Wavelet, shape: Shape) -> tuple[Callable[[Array], Array], str]:
    """The transform is periodic, so that an image whose sides can be halved has as many coefficients as pixels."""
    pywt = _package("pywt", "PyWavelets", settings.name)
    name = settings.wavelet
    largest = pywt.dwtn_max_level(shape[1:], name)
    level = largest if settings.level is None else settings.level
    if level > largest or level == 0:
        key, fits = "level", f"Use a level of up to {largest}, or leave it out"
        if largest == 0:
            key, fits = "wavelet", "Use a shorter one, such as haar" if min(shape[1:]) > 1 else "Use larger images"
        raise DataError(
            f"data.features.{key}: {name}, which is {pywt.Wavelet(name).dec_len} pixels long, cannot halve images "
            f"of {_size(shape)}{f' {level} times' if largest else ''}\n  {fits}."
        )

    def function(image: Array) -> Array:
        pixels = image.astype(np.float32) / 255
        tree = pywt.wavedec2(pixels, name, mode="periodization", level=level, axes=(1, 2))
        features: Array = pywt.coeffs_to_array(tree, axes=(1, 2))[0]
        return features.reshape(-1)

    return function, f"PyWavelets {pywt.__version__}"


def _gray(image: Array) -> Array:
    """The luminance of a uint8 image (channels, height, width), in [0, 1].

    Added up number by number: a matrix product could round otherwise for another number of images or threads.
    """
    scaled = image.astype(np.float32) / np.float32(255)
    if len(scaled) == 1:
        return np.asarray(scaled[0])
    red, green, blue = (np.float32(share) * channel for share, channel in zip(LUMINANCE, scaled, strict=True))
    return np.asarray(red + green + blue)


def _size(shape: Shape) -> str:
    return " x ".join(map(str, shape[1:]))


def _package(module: str, package: str, name: str) -> Any:
    """The module that extracts the features of that name."""
    try:
        return import_module(module)
    except ImportError as error:
        raise DataError(
            f"data.features: {name} is computed by {package}, which cannot be imported: {error}\n"
            "  Install it: pip install 'mlpcli[features]'"
        ) from error
