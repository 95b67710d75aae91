"""Extracted features against the packages that define them, the cache of them, and principal components."""

import errno
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from multiprocessing import active_children
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray
from sklearn.decomposition import PCA

from mlpcli.config.data_schema import Daisy, Hog, Pca, Wavelet
from mlpcli.data import features, principal, workers
from mlpcli.data.dataset import Source, Split
from mlpcli.data.features import Extraction, extract, extracted
from mlpcli.data.principal import Projection, fit_pca
from mlpcli.errors import DataError, FailedError, StorageError

pywt = pytest.importorskip("pywt")
feature = pytest.importorskip("skimage.feature")
rgb2gray = pytest.importorskip("skimage.color").rgb2gray

Array = NDArray[Any]
RGB, GRAY = (3, 20, 24), (1, 28, 28)
HOG = Hog(name="hog", orientations=6, cell=5, block=2)
DAISY = Daisy(name="daisy", step=3, radius=6, rings=2, histograms=4, orientations=5)
HAAR = Wavelet(name="wavelet")


def photos(n: int, shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    """Smooth random images: uint8 (n, channels * height * width)."""
    noise = torch.randn(n, *shape, generator=torch.Generator().manual_seed(seed))
    smooth = torch.nn.functional.avg_pool2d(noise, 3, 1, 1)
    return ((smooth - smooth.amin()) / (smooth.amax() - smooth.amin()) * 255).byte().reshape(n, -1)


def split(n: int, shape: tuple[int, ...], seed: int = 0) -> Split:
    return Split(photos(n, shape, seed), torch.arange(n) % 2)


def source(shape: tuple[int, ...], train: int = 150, test: int = 70) -> Source:
    return Source(split(train, shape), split(test, shape, 1), ["cat", "dog"])


def gray(image: Array) -> Array:
    """uint8 (channels, height, width) -> float64 (height, width)."""
    return np.asarray(image[0] / 255 if len(image) == 1 else rgb2gray(image, channel_axis=0))


def hog(image: Array) -> Array:
    return np.asarray(feature.hog(gray(image), orientations=6, pixels_per_cell=(5, 5), cells_per_block=(2, 2)))


def daisy(image: Array) -> Array:
    return np.ravel(feature.daisy(gray(image), step=3, radius=6, rings=2, histograms=4, orientations=5))


def haar(image: Array) -> Array:
    channels = [pywt.wavedec2(channel / 255, "haar", mode="periodization") for channel in image]
    return np.concatenate([pywt.coeffs_to_array(channel)[0].ravel() for channel in channels])


# --- the numbers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [RGB, GRAY])
@pytest.mark.parametrize(("settings", "expected"), [(HOG, hog), (DAISY, daisy), (HAAR, haar)])
def test_features_are_those_of_the_package(
    settings: Hog | Daisy | Wavelet, expected: Callable[[Array], Array], shape: tuple[int, ...]
) -> None:
    pixels = photos(5, shape)
    found = extract(pixels, settings, shape)
    assert found.dtype == torch.float32
    assert_allclose(found, [expected(image) for image in pixels.numpy().reshape(-1, *shape)], atol=2e-5)
    assert Extraction(settings, shape).features == found.shape[1]
    assert_array_equal(Extraction(settings, shape)(pixels), found)


def test_a_wavelet_transform_keeps_lengths_and_takes_a_level() -> None:
    shape = (3, 16, 32)
    pixels = photos(4, shape)
    for level in (1, 2):
        found = extract(pixels, Wavelet(name="wavelet", wavelet="db2", level=level), shape)
        assert found.shape == pixels.shape
        assert_allclose(found.norm(dim=1), (pixels / 255).norm(dim=1), rtol=1e-5)
        means = found.reshape(-1, *shape)[:, :, : 16 >> level, : 32 >> level]
        assert_allclose(means.norm(), (pixels / 255).norm(), rtol=0.1)


# --- what does not fit ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "shape", "message", "fitting"),
    [
        (Hog(name="hog", cell=15), GRAY, "data.features.cell: .* 30 pixels .* up to 14", {"cell": 14}),
        (Hog(name="hog", cell=15), GRAY, "data.features.block of up to 1", {"block": 1}),
        (Hog(name="hog", cell=1, block=29), GRAY, "data.features.block: .* up to 28", {"block": 28}),
        (Hog(name="hog", cell=40, block=2), GRAY, "data.features.cell: .*cell of up to 14[.]", {"cell": 14}),
        (
            Hog(name="hog", cell=40, block=40),
            GRAY,
            "Use a smaller cell and a smaller block",
            {"cell": 4, "block": 7},
        ),
        (Daisy(name="daisy", radius=14), GRAY, "data.features.radius: .* 28 x 28.*up to 13", {"radius": 13}),
        (Daisy(name="daisy", radius=10), RGB, "data.features.radius: .* 20 x 24.*up to 9", {"radius": 9}),
        (Wavelet(name="wavelet", level=5), GRAY, "data.features.level: .* 5 times.*up to 4", {"level": 4}),
        (
            Wavelet(name="wavelet", wavelet="bior4.4", level=1),
            (1, 8, 8),
            "data.features.wavelet: .* 10 pixels long.*shorter",
            {"wavelet": "haar"},
        ),
    ],
)
def test_images_that_are_too_small_are_named_with_what_fits(
    settings: Hog | Daisy | Wavelet, shape: tuple[int, ...], message: str, fitting: dict[str, Any]
) -> None:
    with pytest.raises(DataError, match=f"(?s){message}"):
        extract(photos(1, shape), settings, shape)
    assert len(extract(photos(1, shape), settings.model_copy(update=fitting), shape)) == 1


@pytest.mark.parametrize("settings", [DAISY.model_copy(update={"radius": 1}), HAAR])
def test_nothing_fits_into_a_pixel(settings: Daisy | Wavelet) -> None:
    with pytest.raises(DataError, match="Use larger images"):
        extract(photos(1, (1, 1, 1)), settings, (1, 1, 1))


@pytest.mark.parametrize(("settings", "module"), [(HOG, "skimage"), (DAISY, "skimage"), (HAAR, "pywt")])
def test_a_package_that_is_absent_is_named_with_the_command(
    monkeypatch: pytest.MonkeyPatch, settings: Hog | Daisy | Wavelet, module: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(DataError, match=rf"{settings.name} .*(?s:.)*pip install 'mlpcli\[features\]'"):
        extracted(source(GRAY), settings, GRAY, "here")


# --- a source -------------------------------------------------------------------------------------------


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The splits that were extracted, rather than found in the cache."""
    made: list[str] = []
    real = features._extract_into

    def counted(path: Path, *others: Any) -> None:
        made.append(path.stem)
        real(path, *others)

    monkeypatch.setattr(features, "_extract_into", counted)
    return made


@pytest.fixture(autouse=True)
def _empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLPCLI_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("cores", [1, 3])
@pytest.mark.parametrize("settings", [HOG, DAISY, HAAR])
def test_the_features_of_a_source_are_those_of_its_images(
    monkeypatch: pytest.MonkeyPatch, settings: Hog | Daisy | Wavelet, cores: int
) -> None:
    monkeypatch.setattr(workers, "cores", lambda: cores)
    images = source(RGB)
    images = replace(images, validation=images.train.take(torch.arange(3, 150, 5)))
    found = extracted(images, settings, RGB, "here")
    for of_features, of_pixels in (
        (found.train, images.train),
        (found.validation, images.validation),
        (found.test, images.test),
    ):
        assert of_features is not None and of_pixels is not None
        assert_array_equal(of_features.inputs, extract(of_pixels.inputs, settings, RGB))
        assert_array_equal(of_features.targets, of_pixels.targets)
    assert found.classes == ["cat", "dog"]


def test_features_are_extracted_once(calls: list[str]) -> None:
    images = source(GRAY, 9, 5)
    first = extracted(images, HOG, GRAY, "here")
    assert calls == ["train", "test"]
    renamed = replace(images, classes=["Katze", "Hund"])
    again = extracted(renamed, HOG, GRAY, "here")
    assert calls == ["train", "test"]
    assert_array_equal(again.train.inputs, first.train.inputs)
    assert again.classes == ["Katze", "Hund"]

    extracted(images, HOG.model_copy(update={"cell": 4}), GRAY, "here")
    extracted(images, HOG, (1, 14, 56), "here")
    extracted(Source(split(9, GRAY, 5), None, ["a", "b"]), HOG, GRAY, "there")
    assert len(calls) == 7, "other settings, another shape, another place"
    extracted(images, HOG, GRAY, "here")
    assert len(calls) == 7, "they live side by side"

    changed = images.train.stored.clone()
    changed[8, 100] ^= 1
    altered = replace(images, train=Split(changed, images.train.targets))
    found = extracted(altered, HOG, GRAY, "here").train.inputs
    assert len(calls) == 9
    assert_array_equal(found, extract(changed, HOG, GRAY))


def test_a_full_disk_is_named_with_what_the_features_take(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    images = source(GRAY, 900, 100)
    monkeypatch.setattr(os, "posix_fallocate", full)
    message = "(?s)data.features: daisy gives 1,620 .* 6 MB.*No space left.*MLPCLI_CACHE.*data.features.step"
    with pytest.raises(StorageError, match=message):
        extracted(images, DAISY, GRAY, "here")
    monkeypatch.setattr(np, "save", full)
    with pytest.raises(StorageError, match=r"(?s)data.features: the principal components .*No space left"):
        fit_pca(images.train, 5, False)


def test_a_worker_that_dies_ends_the_others(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "cores", lambda: 2)

    def work(piece: int) -> None:
        if piece == 0:
            signal.pause()  # until it is ended
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(FailedError, match="counting: a worker process died: it ran out of memory"):
        workers.for_each(1000, work, "counting")
    assert not active_children()
    assert capfd.readouterr().err == "", "no bar where there is no terminal"


def test_what_a_worker_raises_is_on_stderr(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "cores", lambda: 2)
    with pytest.raises(FailedError, match="dividing: a worker process died: exit code 1"):
        workers.for_each(3, lambda piece: print(1 // (piece - 2)), "dividing")
    assert "ZeroDivisionError" in capfd.readouterr().err


# --- principal components -------------------------------------------------------------------------------


@pytest.mark.parametrize("whiten", [False, True])
@pytest.mark.parametrize(("n", "shape"), [(200, (1, 6, 7)), (20, (3, 5, 5)), (42, (1, 6, 7))])
def test_pca_is_that_of_scikit_learn(n: int, shape: tuple[int, ...], whiten: bool) -> None:
    train, test = split(n, shape), split(10, shape, 1)
    oracle = PCA(15, whiten=whiten, svd_solver="full").fit(train.inputs.numpy() / 255)
    projection = fit_pca(train, 15, whiten)
    for each in (train, test):
        found, expected = projection(each.inputs), oracle.transform(each.inputs.numpy() / 255)
        assert found.dtype == torch.float32
        assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())
    assert_allclose(projection.mean, oracle.mean_, atol=1e-12)


@pytest.mark.parametrize("n", [70, 20])
def test_pca_in_blocks_is_pca_at_once(monkeypatch: pytest.MonkeyPatch, n: int) -> None:
    whole = principal._principal(split(n, (1, 6, 7)), 12)
    monkeypatch.setattr(principal, "BLOCK", 8)
    for found, expected in zip(principal._principal(split(n, (1, 6, 7)), 12), whole, strict=True):
        assert_allclose(found, expected, atol=1e-10)


def test_pca_sees_the_training_split_alone() -> None:
    both = split(60, (1, 6, 7))
    rows = torch.arange(0, 60, 2)
    alone = Split(both.inputs[rows], both.targets[rows])
    expected = fit_pca(alone, 10, True)
    for others in (0, 255):
        stored = both.stored.clone()
        stored[1::2] = others
        found = fit_pca(Split(stored, both.targets).take(rows), 10, True)
        assert_array_equal(found.mean, expected.mean)
        assert_array_equal(found.components, expected.components)


def test_pca_is_fitted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    train = split(60, (1, 6, 7))
    first = fit_pca(train, 5, False)
    fitted: list[int] = []
    real = principal._principal
    monkeypatch.setattr(principal, "_principal", lambda *args: (fitted.append(1), real(*args))[1])
    assert_array_equal(fit_pca(train, 5, False).components, first.components)
    assert not fitted
    fit_pca(train, 6, False)
    fit_pca(train, 5, True)
    fit_pca(train.take(torch.arange(59)), 5, False)
    assert len(fitted) == 3


@pytest.mark.parametrize(
    ("n", "components", "directions"),
    [(60, 43, 42), (20, 20, 19), (1, 1, 0)],
    ids=["more than values", "more than images", "one image"],
)
def test_more_components_than_directions_are_refused(n: int, components: int, directions: int) -> None:
    train = split(n, (1, 6, 7))
    with pytest.raises(DataError, match=f"data.features.components: {components} is more than the {directions} "):
        fit_pca(train, components, True)
    if directions:
        assert fit_pca(train, directions, True)(train.inputs).isfinite().all()


def test_directions_in_which_nothing_varies_do_not_count() -> None:
    pixels = photos(60, (1, 6, 7))
    pixels[:, 10:] = 7
    pixels[0, 30] = 8  # the smallest variation that there is
    assert fit_pca(Split(pixels, torch.zeros(60)), 11, True)(pixels).std(0).allclose(torch.ones(11), atol=1e-4)
    with pytest.raises(DataError, match="the 11 directions"):
        fit_pca(Split(pixels, torch.zeros(60)), 12, True)


def test_pca_of_too_much_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(principal, "LARGEST", 30)
    with pytest.raises(DataError, match=r"(?s)60 images of 42 values .* side 42, .*data.limit of up to 30"):
        fit_pca(split(60, (1, 6, 7)), 2, False)


# --- what a checkpoint holds ----------------------------------------------------------------------------


def test_an_extraction_comes_back_from_its_state(tmp_path: Path) -> None:
    train, settings = split(70, GRAY), Pca(name="pca", components=9, whiten=True)
    extraction = Extraction(settings, GRAY, fit_pca(train, 9, True))
    torch.save(extraction.state_dict(), tmp_path / "state.pt")
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    again = Extraction.from_state(settings, GRAY, state)
    assert again.features == 9
    found = again.of(train.take(torch.arange(1, 70, 3)))
    assert_array_equal(found.inputs, extraction(train.inputs[1::3]))
    assert_array_equal(found.targets, train.targets[1::3])

    assert Extraction(HOG, GRAY).state_dict() == {}
    assert Extraction.from_state(HOG, GRAY, {}).projection is None


def test_a_projection_takes_pixels_of_any_type() -> None:
    projection = Projection(torch.tensor([0.5, 0.5]).double(), torch.tensor([[1.0], [2.0]]).double())
    for dtype in (torch.uint8, torch.float32, torch.float64):
        pixels = torch.tensor([[0, 255], [255, 255]], dtype=dtype)
        assert_allclose(projection(pixels), [[0.5], [1.5]])
        assert pixels.tolist() == [[0, 255], [255, 255]], "they stay as they are"
