"""scikit-learn's embedded data sets: no download, no test split of their own."""

from importlib.metadata import version
from typing import Literal

import numpy as np
import torch

from mlpcli.data.cache import cached
from mlpcli.data.dataset import Column, Source, Split

Embedded = Literal["digits", "iris", "wine", "breast_cancer", "diabetes"]


def read(dataset: Embedded) -> Source:
    """All samples of `dataset`, raw and uncut: digits uint8 0..16, tables float64 in their own units."""
    return cached(dataset, lambda: _read(dataset), version=f"scikit-learn {version('scikit-learn')}")


def _read(dataset: Embedded) -> Source:
    from sklearn import datasets  # takes 0.8 s

    if dataset == "diabetes":
        table = datasets.load_diabetes(scaled=False)
        targets = torch.from_numpy(table.target).to(torch.float64).reshape(-1, 1)
        columns = [Column(name) for name in table.feature_names]
        return Source(Split(torch.from_numpy(table.data), targets), None, [], ["progression"], columns=columns)
    columns = []
    if dataset == "digits":
        table = datasets.load_digits()
        inputs = torch.from_numpy(table.data.astype(np.uint8))
    else:
        loaders = {
            "iris": datasets.load_iris,
            "wine": datasets.load_wine,
            "breast_cancer": datasets.load_breast_cancer,
        }
        table = loaders[dataset]()
        inputs = torch.from_numpy(table.data)
        columns = [Column(str(name)) for name in table.feature_names]
    targets = torch.from_numpy(table.target.astype(np.int64))
    return Source(Split(inputs, targets), None, [str(name) for name in table.target_names], columns=columns)
