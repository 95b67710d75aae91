"""Data sets: from a config's data section to tensors, how they are scaled, and what describes them."""

from dataclasses import replace

import torch
from torch import Tensor

from mlpcli.config.data_schema import (
    Data,
    DigitsData,
    ImageFolderData,
    ImageSection,
    NoFeatures,
    Pca,
    TableData,
    TableFileSection,
)
from mlpcli.data.dataset import (
    Column,
    Dataset,
    Description,
    Preprocessing,
    Source,
    Split,
    TargetScale,
    fingerprint,
)
from mlpcli.data.encoding import TableEncoding
from mlpcli.data.features import Extraction
from mlpcli.data.files import absolute
from mlpcli.data.matching import as_trained
from mlpcli.data.principal import fit_pca
from mlpcli.data.splits import stratified_cut, stratified_limit
from mlpcli.data.statistics import fit, fit_targets
from mlpcli.errors import DataError
from mlpcli.seeds import stream_seed

__all__ = [
    "Column",
    "Dataset",
    "Description",
    "Extraction",
    "Preprocessing",
    "Split",
    "TableEncoding",
    "TargetScale",
    "as_trained",
    "load",
]


def load(section: Data, seed: int, extraction: Extraction | None = None) -> Dataset:
    """Reads, cuts and describes the data set of `section`.

    The test split is cut first where the set has none of its own, then `data.limit` is applied, then the
    validation split is cut off the training data, again where the set has none of its own. Each draw has a
    generator of its own, derived from the stream 'split' of `seed`: changing `data.validation` leaves the test
    split alone.

    Args:
        section: what to read.
        seed: of the splits.
        extraction: a trained model's, of the same `data.features`; None to fit it to the training split.

    Raises:
        DataError: files are absent, unreadable or damaged, or a split would be empty.
    """
    source = _read(section)
    seed = stream_seed(seed, "split")
    train, validation, test = _streamed(section, source)
    _check(section, "training", train)
    if test is None:
        assert isinstance(section, DigitsData | TableData | ImageFolderData | TableFileSection)
        train, test = _cut(train, "test", section.test, section, seed, source)
    _check(section, "test", test)
    if section.limit is not None:
        train = train.take(_limited(train.targets, "limit", section, seed, source))
        test = test.take(_limited(test.targets, "limit test", section, seed, source))
    if section.validation == 0:
        validation = None
    elif validation is not None:
        _check(section, "validation", validation)
    else:
        train, validation = _cut(train, "validation", section.validation, section, seed, source)
    # before pca, whose features round by the number of threads
    content = fingerprint((train, validation, test), _names(source) if section.facts is None else ())
    if isinstance(section, ImageSection) and not isinstance(section.features, NoFeatures):
        extraction = extraction or _extraction(section, train)
        if extraction.projection is not None:
            train, test = extraction.of(train), extraction.of(test)
            validation = None if validation is None else extraction.of(validation)
    preprocessing = _preprocessing(section, train, source)
    features = preprocessing.features if isinstance(preprocessing, TableEncoding) else train.features
    return Dataset(
        train,
        validation,
        test,
        extraction=extraction,
        preprocessing=preprocessing,
        target_scale=fit_targets(train.targets) if source.task == "regression" else None,
        description=Description(
            name=section.dataset,
            task=source.task,
            input_shape=section.input_shape if isinstance(section, ImageSection) else (train.features,),
            features=features,
            outputs=len(source.classes) or train.targets.shape[1],
            classes=source.classes,
            target_names=source.target_names,
            columns=source.columns,
            fingerprint=content,
        ),
    )


def _names(source: Source) -> list[str]:
    """What the numbers of data that a user brings stand for."""
    columns = [name for column in source.columns for name in (column.name, *(column.categories or ()))]
    return [*source.classes, *source.target_names, *columns]


def _preprocessing(section: Data, train: Split, source: Source) -> Preprocessing | TableEncoding:
    if isinstance(section, TableFileSection):
        return TableEncoding.fit(train, source.columns, section.standardize, section.categorical)
    shape: tuple[int, ...] = (train.features,)
    if isinstance(section, ImageSection) and isinstance(section.features, NoFeatures):
        shape = section.input_shape
    elif isinstance(section, ImageSection) and isinstance(section.features, Pca):
        # they share a scale, as pixels do: what tells them apart is how much they vary
        shape = (1, 1, train.features)
    return fit(train, shape, section.standardize)


def _read(section: Data) -> Source:
    """Everything that the set holds; only the module that it needs is imported."""
    if isinstance(section, DigitsData | TableData):
        from mlpcli.data import embedded

        source = embedded.read(section.dataset)
    elif isinstance(section, ImageFolderData):
        from mlpcli.data import folder

        source = folder.read(section)
    elif isinstance(section, TableFileSection):
        from mlpcli.data import table

        return table.read(section)
    else:
        from mlpcli.data import vision

        source = vision.read(section)
    if isinstance(section, ImageSection) and not isinstance(section.features, NoFeatures | Pca):
        from mlpcli.data import features

        return features.extracted(source, section.features, section.input_shape, _named(section))
    return source


def _named(section: ImageSection) -> str:
    """Which images those are: the set, its part, and the folder that it is in."""
    parts = [str(getattr(section, key)) for key in ("dataset", "split") if hasattr(section, key)]
    parts += [str(absolute(getattr(section, key))) for key in ("path", "root") if hasattr(section, key)]
    return " ".join(parts)


def _streamed(section: Data, source: Source) -> tuple[Split, Split | None, Split | None]:
    """The splits of `source`, streamed from their files where `data.in_memory` says so."""
    splits = source.train, source.validation, source.test
    if not isinstance(section, ImageFolderData):
        return splits
    from mlpcli.data.streaming import streams

    size = sum(split.stored.nbytes for split in splits if split is not None)
    if not streams(section.in_memory, size):
        return splits
    train, validation, test = (None if split is None else replace(split, streamed=True) for split in splits)
    assert train is not None
    return train, validation, test


def _extraction(section: ImageSection, train: Split) -> Extraction:
    """What makes features of pixels, fitted to the training split."""
    assert not isinstance(section.features, NoFeatures)
    projection = None
    if isinstance(section.features, Pca):
        projection = fit_pca(train, section.features.components, section.features.whiten)
    return Extraction(section.features, section.input_shape, projection)


def _check(section: Data, which: str, split: Split) -> None:
    name = f"{section.dataset}: the {which} data"
    if len(split) == 0:
        raise DataError(f"{name} has no samples")
    if split.stored.dtype == torch.uint8 or isinstance(section, TableFileSection):  # where NaN is a missing value
        return
    start = 0
    for inputs, targets in split.chunks():
        for what, values in (("input", inputs), ("target", targets)):
            if values.is_floating_point() and not bool((finite := torch.isfinite(values)).all()):
                sample, column = (~finite).nonzero()[0].tolist()
                raise DataError(
                    f"{name}: {what} {column} of sample {start + sample} (both counted from 0) is "
                    f"{values[sample, column].item()}; expected finite numbers only"
                )
        start += len(targets)


def _cut(split: Split, key: str, fraction: float, section: Data, seed: int, source: Source) -> tuple[Split, Split]:
    """What is kept of `split`, and the non-empty part that `data.<key>` cuts off it."""
    kept, cut = stratified_cut(split.targets, fraction, stream_seed(seed, key), source.task)
    if len(cut) == 0:
        enough = f"; set it to at least {1 / len(split):.2g}" if len(split) > 1 else ""
        why = f"rounds to no sample{enough}"
        if round(fraction * len(split)):
            why = "leaves none to cut, as every class keeps one training sample; use more samples"
        if key == "validation":
            limit = "raise data.limit, or " if section.limit is not None else ""
            why += f"\n  Or {limit}set data.validation: 0 to train without a validation split."
        raise DataError(f"data.{key}: {fraction} of {len(split)} samples {why}")
    return split.take(kept), split.take(cut)


def _limited(targets: Tensor, key: str, section: Data, seed: int, source: Source) -> Tensor:
    assert section.limit is not None
    return stratified_limit(targets, section.limit, stream_seed(seed, key), source.task)
