"""Data sets: from a config's data section to tensors, how they are scaled, and what describes them."""

from torch import Tensor, isfinite

from mlpcli.config.data_schema import Data, DigitsData, TableData
from mlpcli.data.dataset import (
    Dataset,
    Description,
    Preprocessing,
    Source,
    Split,
    TargetScale,
    fingerprint,
)
from mlpcli.data.splits import stratified_cut, stratified_limit
from mlpcli.data.statistics import fit, fit_targets
from mlpcli.errors import DataError
from mlpcli.seeds import stream_seed

__all__ = ["Dataset", "Description", "Preprocessing", "Split", "TargetScale", "load"]


def load(section: Data, seed: int) -> Dataset:
    """Reads, cuts and describes the data set of `section`.

    The test split is cut first where the set has none of its own, then `data.limit` is applied, then the
    validation split is cut off the training data. Each draw has a generator of its own, derived from the
    stream 'split' of `seed`: changing `data.validation` leaves the test split alone.

    Raises:
        DataError: files are absent, unreadable or damaged, or a split would be empty.
    """
    source, facts = _read(section), section.facts
    seed = stream_seed(seed, "split")
    train, test = source.train, source.test
    _check(f"{section.dataset}: the training data", train)
    if test is None:
        assert isinstance(section, DigitsData | TableData)
        train, test = _cut(train, "test", section.test, section, seed)
    _check(f"{section.dataset}: the test data", test)
    if section.limit is not None:
        train = train.take(_limited(train.targets, "limit", section, seed))
        test = test.take(_limited(test.targets, "limit test", section, seed))
    validation = None
    if section.validation:
        train, validation = _cut(train, "validation", section.validation, section, seed)
    return Dataset(
        train,
        validation,
        test,
        preprocessing=fit(train, facts.input_shape, section.standardize),
        target_scale=fit_targets(train.targets) if facts.task == "regression" else None,
        description=Description(
            name=section.dataset,
            task=facts.task,
            input_shape=facts.input_shape,
            features=facts.features,
            outputs=facts.outputs,
            classes=source.classes,
            target_names=source.target_names,
            fingerprint=fingerprint((train, validation, test)),
        ),
    )


def _read(section: Data) -> Source:
    """Everything that the set holds; only the module that it needs is imported."""
    if isinstance(section, DigitsData | TableData):
        from mlpcli.data import embedded

        return embedded.read(section.dataset)
    from mlpcli.data import vision

    return vision.read(section)


def _check(name: str, split: Split) -> None:
    if len(split) == 0:
        raise DataError(f"{name} has no samples")
    start = 0
    for inputs, targets in split.chunks():
        for what, values in (("input", inputs), ("target", targets)):
            if values.is_floating_point() and not bool((finite := isfinite(values)).all()):
                sample, column = (~finite).nonzero()[0].tolist()
                raise DataError(
                    f"{name}: {what} {column} of sample {start + sample} (both counted from 0) is "
                    f"{values[sample, column].item()}; expected finite numbers only"
                )
        start += len(targets)


def _cut(split: Split, key: str, fraction: float, section: Data, seed: int) -> tuple[Split, Split]:
    """What is kept of `split`, and the non-empty part that `data.<key>` cuts off it."""
    kept, cut = stratified_cut(split.targets, fraction, stream_seed(seed, key), section.facts.task)
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


def _limited(targets: Tensor, key: str, section: Data, seed: int) -> Tensor:
    assert section.limit is not None
    return stratified_limit(targets, section.limit, stream_seed(seed, key), section.facts.task)
