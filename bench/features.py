"""Extracted features of a folder of images: how long they take, cold and from the cache, how many they are, and
the test accuracy of scikit-learn's logistic regression on them, standardised, at three strengths of its penalty.

python bench/features.py FOLDER [KEY=VALUE ... as in data.features, values after a comma are tried in turn]
python bench/features.py data/cats-dogs
python bench/features.py data/cats-dogs name=hog cell=4,8 orientations=9,12
"""

import itertools
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
from pydantic import TypeAdapter
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from mlpcli.config.data_schema import Features, ImageFolderData, NoFeatures, Pca
from mlpcli.data import folder
from mlpcli.data.dataset import Source
from mlpcli.data.features import Extraction, extracted
from mlpcli.data.principal import fit_pca

DEFAULTS = [{"name": name} for name in ("none", "hog", "daisy", "wavelet", "pca")]
PENALTIES = (1e-3, 1e-2, 1e-1)


def tried(arguments: list[str]) -> Iterator[dict[str, str]]:
    """Every combination of the values of all keys."""
    pairs = [argument.split("=") for argument in arguments]
    for values in itertools.product(*(value.split(",") for _, value in pairs)):
        yield dict(zip((key for key, _ in pairs), values, strict=True))


def features_of(source: Source, settings: Any, shape: tuple[int, ...]) -> list[np.ndarray[Any, Any]]:
    """Of the training and test images."""
    assert source.test is not None
    splits = [source.train, source.test]
    if isinstance(settings, Pca):
        extraction = Extraction(settings, shape, fit_pca(source.train, settings.components, settings.whiten))
        splits = [extraction.of(split) for split in splits]
    elif not isinstance(settings, NoFeatures):
        source = extracted(source, settings, shape, "bench")
        assert source.test is not None
        splits = [source.train, source.test]
    return [split.inputs.numpy() for split in splits]


def accuracies(source: Source, rows: list[np.ndarray[Any, Any]]) -> list[float]:
    """On the test images, one for each of PENALTIES."""
    assert source.test is not None
    mean, std = rows[0].mean(0, dtype=np.float64), rows[0].std(0, dtype=np.float64)
    train, test = (
        (each - mean).astype(np.float32) / np.where(std < 1e-7, 1, std).astype(np.float32) for each in rows
    )
    model = LogisticRegression(max_iter=500, warm_start=True, tol=1e-3)
    found = []
    for penalty in PENALTIES:
        model.set_params(C=penalty).fit(train, source.train.targets.numpy())
        found.append(model.score(test, source.test.targets.numpy()))
    return found


def main() -> None:
    path, *arguments = sys.argv[1:]
    warnings.simplefilter("ignore", ConvergenceWarning)
    with tempfile.TemporaryDirectory() as cache:
        os.environ["MLPCLI_CACHE"] = cache
        section = ImageFolderData(dataset="image_folder", path=path)
        source = folder.read(section)
        print(f"{'features':<60} {'number':>6} {'cold s':>7} {'warm s':>7}  accuracy at C = {PENALTIES}")
        for values in tried(arguments) if arguments else DEFAULTS:
            settings: Any = TypeAdapter(Features).validate_python(values)
            seconds = []
            for _ in range(2):
                started = time.perf_counter()
                rows = features_of(source, settings, section.input_shape)
                seconds.append(time.perf_counter() - started)
            shown = " ".join(f"{key}={value}" for key, value in settings.model_dump().items())
            found = " ".join(f"{100 * accuracy:.2f}" for accuracy in accuracies(source, rows))
            print(f"{shown:<60} {rows[0].shape[1]:>6} {seconds[0]:>7.2f} {seconds[1]:>7.2f}  {found}", flush=True)


if __name__ == "__main__":
    main()
