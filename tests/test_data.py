"""Loading, cutting, scaling and describing a data set, against scikit-learn's and numpy's numbers."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn import datasets
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from mlpcli import data
from mlpcli.config.data_schema import DigitsData, FakeData, TableData, VisionData
from mlpcli.data import Description, Preprocessing, Split, TargetScale
from mlpcli.data.dataset import CHUNK, Source, fingerprint
from mlpcli.data.statistics import fit, fit_targets
from mlpcli.errors import DataError


def digits(**keys: Any) -> data.Dataset:
    return data.load(DigitsData(dataset="digits", **keys), seed=0)


def rows(values: torch.Tensor) -> list[tuple[float, ...]]:
    return sorted(map(tuple, values.tolist()))


# --- what is read ---------------------------------------------------------------------------------------

LOADERS = {
    "digits": datasets.load_digits,
    "iris": datasets.load_iris,
    "wine": datasets.load_wine,
    "breast_cancer": datasets.load_breast_cancer,
    "diabetes": lambda: datasets.load_diabetes(scaled=False),
}


@pytest.mark.parametrize("name", LOADERS)
def test_an_embedded_set_is_scikit_learn_s_cut_in_three(name: str) -> None:
    table = LOADERS[name]()
    section: Any = DigitsData(dataset="digits") if name == "digits" else TableData(dataset=name)  # type: ignore[arg-type]
    dataset = data.load(section, seed=3)
    assert dataset.validation is not None
    splits = (dataset.train, dataset.validation, dataset.test)
    n = len(table.target)
    test = round(0.2 * n)
    assert [len(split) for split in splits] == [
        n - test - round(0.1 * (n - test)),
        round(0.1 * (n - test)),
        test,
    ]
    together = [
        torch.cat((split.inputs.double(), split.targets.reshape(len(split), -1).double()), 1) for split in splits
    ]
    expected = np.column_stack((table.data, table.target))
    assert rows(torch.cat(together)) == sorted(map(tuple, expected.tolist()))
    assert dataset.train.inputs.dtype == (torch.uint8 if name == "digits" else torch.float64)
    assert dataset.description.input_shape == section.facts.input_shape
    assert dataset.description.features == table.data.shape[1]
    if name == "diabetes":
        assert dataset.train.targets.shape[1:] == (1,) and dataset.train.targets.dtype == torch.float64
        assert dataset.description.classes == [] and len(dataset.description.target_names) == 1
    else:
        assert dataset.train.targets.ndim == 1 and dataset.train.targets.dtype == torch.int64
        assert dataset.description.classes == [str(each) for each in table.target_names]
        assert len(dataset.description.classes) == dataset.description.outputs


def test_cuts_keep_the_original_order_and_every_class_s_share() -> None:
    dataset, table = digits(validation=0), datasets.load_digits()
    assert dataset.validation is None
    position = {tuple(row): index for index, row in enumerate(table.data.tolist())}
    for split in (dataset.train, dataset.test):
        positions = [position[tuple(row)] for row in split.inputs.double().tolist()]
        assert positions == sorted(positions)
        share = np.bincount(table.target) * len(split) / len(table.target)
        assert np.abs(np.bincount(split.targets.numpy()) - share).max() < 1


def test_the_test_split_depends_on_neither_validation_nor_limit() -> None:
    reference = digits(validation=0).test
    for keys in ({"validation": 0.1}, {"validation": 0.5}, {"limit": 1797}):
        test = digits(**keys).test
        assert torch.equal(test.inputs, reference.inputs) and torch.equal(test.targets, reference.targets)


def test_seeds_give_other_splits_and_the_same_seed_the_same() -> None:
    section = DigitsData(dataset="digits")
    prints = [data.load(section, seed).description.fingerprint for seed in (0, 0, 1)]
    assert prints[0] == prints[1] != prints[2]


def test_loading_draws_nothing_from_the_global_generators() -> None:
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].tolist()  # type: ignore[index]
    digits()
    data.load(FakeData(dataset="fake", train_size=20, test_size=5), seed=0)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.random.get_state()[1].tolist() == numpy_state  # type: ignore[index]


def test_limit_bounds_training_and_test_data_before_the_validation_cut() -> None:
    dataset = digits(limit=100, validation=0.25)
    assert dataset.validation is not None
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (75, 25, 100)
    together = torch.cat((dataset.train.targets, dataset.validation.targets))
    assert np.abs(np.bincount(together.numpy()) - 10).max() <= 1


def test_statistics_are_those_of_the_training_split_alone() -> None:
    for keys in ({"validation": 0.3}, {"limit": 50, "validation": 0.3}):
        dataset = digits(standardize="pixel", **keys)
        values = dataset.train.inputs.numpy().astype(np.float64)
        assert dataset.preprocessing.shift.item() == values.mean()
        assert 1 / dataset.preprocessing.scale.item() == pytest.approx(values.std(), rel=1e-15)


@pytest.mark.parametrize(
    ("keys", "culprit"),
    [
        (
            {"validation": 0.0001},
            "data.validation: 0.0001 of 1438 samples rounds to no sample; set it to at least 0.0007",
        ),
        ({"limit": 10}, "data.validation: 0.1 of 10 samples leaves none"),  # one sample a class, which stays
        ({"test": 0.0001}, "data.test: 0.0001 of 1797 samples"),
    ],
)
def test_an_empty_cut_names_the_key(keys: dict[str, Any], culprit: str) -> None:
    with pytest.raises(DataError) as caught:
        digits(**keys)
    assert culprit in str(caught.value)
    assert ("data.limit" in str(caught.value)) == ("limit" in keys)
    assert ("data.validation: 0 to train" in str(caught.value)) == ("test" not in keys)


def test_a_value_that_is_not_finite_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = torch.zeros(150, 4, dtype=torch.float64)
    inputs[17, 2] = torch.nan
    source = Source(Split(inputs, torch.arange(150) % 3), None, ["a", "b", "c"])
    monkeypatch.setattr(data, "_read", lambda section: source)
    with pytest.raises(DataError, match=r"iris: the training data: input 2 of sample 17 .* is nan"):
        data.load(TableData(dataset="iris"), seed=0)


# --- scaling --------------------------------------------------------------------------------------------


def random_images(n: int, features: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (n, features), generator=generator, dtype=torch.uint8)


def unlabelled(values: torch.Tensor) -> Split:
    return Split(values, torch.zeros(len(values), dtype=torch.int64))


@pytest.mark.parametrize("values", [random_images(70_000, 12), random_images(9, 12).double() / 7])
def test_feature_is_scikit_learn_s_standard_scaler(values: torch.Tensor) -> None:
    values[:, 5] = values[0, 5]  # a constant
    preprocessing = fit(unlabelled(values), (3, 2, 2), "feature")
    expected = StandardScaler().fit(values.double().numpy())
    np.testing.assert_allclose(preprocessing.shift, expected.mean_, rtol=1e-14)
    np.testing.assert_allclose(preprocessing.scale, 1 / expected.scale_, rtol=1e-13)
    result = preprocessing(values, torch.float64)
    np.testing.assert_allclose(result, expected.transform(values.double().numpy()), atol=1e-12)
    assert result[:, 5].abs().max() == 0


def test_the_mean_of_a_constant_is_that_constant_whatever_the_rounding() -> None:
    values = torch.full((1001, 2), 0.1, dtype=torch.float64)
    preprocessing = fit(unlabelled(values), (2,), "feature")
    assert preprocessing.scale.tolist() == [1, 1]
    assert preprocessing(values, torch.float64).abs().max() == 0


@pytest.mark.parametrize("channels", [1, 3])
def test_pixel_is_one_mean_and_deviation_a_channel(channels: int) -> None:
    values = random_images(500, channels * 20)
    preprocessing = fit(unlabelled(values), (channels, 4, 5), "pixel")
    images = values.numpy().reshape(500, channels, 20).astype(np.float64)
    mean, std = images.mean((0, 2)), images.std((0, 2))
    assert preprocessing.shift.shape == (1,) if channels == 1 else (60,)
    np.testing.assert_allclose(preprocessing.shift.expand(channels * 20), mean.repeat(20), rtol=1e-14)
    np.testing.assert_allclose(preprocessing.scale.expand(channels * 20), 1 / std.repeat(20), rtol=1e-13)


def test_integer_moments_are_exact_where_float64_is_not() -> None:
    values = torch.full((100_000, 30), 255, dtype=torch.uint8)
    values[0, 0] = 254
    n = values.numel()
    preprocessing = fit(unlabelled(values), (1, 5, 6), "pixel")
    assert preprocessing.shift.item() == (255 * n - 1) / n
    assert preprocessing.scale.item() == pytest.approx(n / (n - 1) ** 0.5, rel=1e-15)


def test_scale_maps_the_range_to_0_and_1() -> None:
    table = random_images(50, 6).double()
    table[:, 2] = 3
    expected = MinMaxScaler().fit_transform(table.numpy())
    np.testing.assert_allclose(fit(unlabelled(table), (6,), "scale")(table, torch.float64), expected, atol=1e-15)
    images = random_images(50, 6).clamp(3, 16)
    preprocessing = fit(unlabelled(images), (1, 2, 3), "scale")
    assert (preprocessing.shift.tolist(), preprocessing.scale.tolist()) == ([3], [1 / 13])
    scaled = digits(standardize="scale").preprocessing
    assert (scaled.shift.tolist(), scaled.scale.tolist()) == ([0], [1 / 16])


def test_none_leaves_raw_values() -> None:
    dataset = digits(standardize="none")
    assert torch.equal(dataset.preprocessing(dataset.train.inputs, torch.float32), dataset.train.inputs.float())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_preprocessing_leaves_its_input_alone(dtype: torch.dtype) -> None:
    preprocessing = Preprocessing(torch.tensor([2.0]).double(), torch.tensor([3.0]).double())
    for inputs in (random_images(4, 3), torch.rand(4, 3), torch.rand(4, 3, dtype=torch.float64)):
        before = inputs.clone()
        for _ in range(2):  # the second call uses the cached casts
            result = preprocessing(inputs, dtype)
            assert result.dtype == dtype and torch.equal(inputs, before)
            assert torch.equal(result, (inputs.to(dtype) - 2) * 3)


def test_preprocessing_and_target_scale_travel_in_a_checkpoint(tmp_path: Path) -> None:
    dataset = data.load(TableData(dataset="diabetes"), seed=0)
    assert dataset.target_scale is not None
    state = [dataset.preprocessing.state_dict(), dataset.target_scale.state_dict()]
    torch.save(state, tmp_path / "state.pt")
    first, second = torch.load(tmp_path / "state.pt", weights_only=True)
    inputs, targets = dataset.test.inputs, dataset.test.targets
    preprocessing, scale = Preprocessing.from_state(first), TargetScale.from_state(second)
    expected = dataset.preprocessing(inputs, torch.float32)
    assert torch.equal(preprocessing(inputs, torch.float32), expected)
    assert torch.equal(scale.standardize(targets), dataset.target_scale.standardize(targets))


def test_target_scale_is_the_standard_scaler_of_the_training_targets() -> None:
    dataset = data.load(TableData(dataset="diabetes"), seed=0)
    assert dataset.target_scale is not None
    expected = StandardScaler().fit(dataset.train.targets.numpy())
    standard = dataset.target_scale.standardize(dataset.test.targets)
    np.testing.assert_allclose(standard, expected.transform(dataset.test.targets.numpy()), rtol=1e-12)
    restored = dataset.target_scale.restore(standard.float())
    np.testing.assert_allclose(restored, dataset.test.targets, rtol=1e-5)
    assert restored.dtype == torch.float64
    assert digits().target_scale is None
    assert fit_targets(torch.ones(5, 2).double()).std.tolist() == [1, 1]


# --- what describes it ----------------------------------------------------------------------------------


def test_a_description_survives_json() -> None:
    description = data.load(TableData(dataset="iris"), seed=0).description
    assert Description.from_plain(json.loads(json.dumps(description.to_plain()))) == description


def test_the_fingerprint_sees_every_byte_type_and_shape_but_no_preprocessing() -> None:
    inputs, targets = random_images(6, 4), torch.arange(6)
    changed = inputs.clone()
    changed[3, 1] += 1
    others: list[list[Split | None]] = [
        [Split(changed, targets), None],
        [Split(inputs, targets.flip(0)), None],
        [Split(inputs.to(torch.int16), targets), None],
        [Split(inputs.reshape(6, 2, 2).flatten(1)[:, [1, 0, 2, 3]], targets), None],
        [None, Split(inputs, targets)],
        [Split(inputs[:3], targets[:3]), Split(inputs[3:], targets[3:])],
    ]
    prints = [fingerprint(splits) for splits in ([Split(inputs, targets), None], *others)]
    assert len(set(prints)) == len(prints)
    assert all(len(each) == 32 for each in prints)
    assert fingerprint([Split(inputs.clone(), targets), None]) == prints[0]
    pixel, none = (digits(standardize=each).description.fingerprint for each in ("pixel", "none"))
    assert pixel == none


def test_the_fingerprint_is_of_the_bytes_in_their_order() -> None:
    dataset = digits()
    digest = hashlib.sha256()
    for split in (dataset.train, None, dataset.test):
        for tensor in (split.inputs, split.targets) if split else ():
            digest.update(f"{tensor.dtype}{tuple(tensor.shape)};".encode() + tensor.numpy().tobytes())
        digest.update(b"" if split else b"none;")
    assert fingerprint([dataset.train, None, dataset.test]) == digest.hexdigest()[:32]
    assert dataset.description.fingerprint == "06def9be021629953cd1891cbdbc4d58"  # of every version so far


# --- splits that share a tensor -------------------------------------------------------------------------


@st.composite
def taken_splits(draw: st.DrawFn) -> tuple[Split, torch.Tensor, torch.Tensor]:
    """A split with what its inputs and targets are, after some takes of takes."""
    inputs, targets = random_images(draw(st.integers(1, 40)), 3), torch.arange(40)
    split = whole = Split(inputs, targets[: len(inputs)])
    expected = torch.arange(len(whole))
    for _ in range(draw(st.integers(0, 3))):
        kept = torch.tensor(sorted(draw(st.sets(st.integers(0, len(split) - 1), min_size=1))))
        split, expected = split.take(kept), expected[kept]
    return split, whole.inputs[expected], whole.targets[expected]


@given(taken_splits(), st.integers(1, 50))
def test_taking_composes_and_chunks_add_up(taken: tuple[Split, torch.Tensor, torch.Tensor], size: int) -> None:
    split, inputs, targets = taken
    assert torch.equal(split.inputs, inputs) and torch.equal(split.targets, targets)
    chunks = list(split.chunks(size))
    assert [len(chunk) for chunk, _ in chunks[:-1]] == [size] * (len(chunks) - 1)
    for index, expected in enumerate((inputs, targets)):
        assert torch.equal(torch.cat([chunk[index] for chunk in chunks]), expected)
    assert torch.equal(torch.cat([chunk for chunk, _ in split.chunks()]), inputs)
    for standardize in ("pixel", "feature", "scale"):
        shared, copied = (fit(each, (3, 1, 1), standardize) for each in (split, Split(inputs, targets)))
        assert torch.equal(shared.shift, copied.shift) and torch.equal(shared.scale, copied.scale)


def test_no_split_copies_the_inputs_of_its_source() -> None:
    inputs = random_images(50, 4)
    source = Split(inputs, torch.arange(50) % 5)
    part = source.take(torch.arange(0, 50, 2))
    assert part.take(torch.arange(3)).stored.data_ptr() == part.stored.data_ptr() == inputs.data_ptr()
    assert source.take(torch.arange(50)) is source
    assert source.inputs.data_ptr() == next(source.chunks(7))[0].data_ptr() == inputs.data_ptr()
    dataset = digits(limit=500)
    assert dataset.validation is not None
    assert dataset.train.stored is dataset.validation.stored is dataset.test.stored


def test_statistics_of_shared_floats_are_those_of_a_copy_to_the_bit() -> None:
    generator = torch.Generator().manual_seed(0)
    whole = unlabelled(torch.randn(5000, 130, generator=generator, dtype=torch.float64))  # several chunks
    part = whole.take(torch.arange(0, 5000, 2))
    copied = unlabelled(part.inputs)
    for standardize in ("feature", "scale"):
        first, second = (fit(each, (130,), standardize) for each in (part, copied))
        assert torch.equal(first.shift, second.shift) and torch.equal(first.scale, second.scale)


def test_a_value_that_is_not_finite_is_found_in_a_later_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    targets = torch.zeros(CHUNK // 10 + 99, 1, dtype=torch.float64)
    targets[-3, 0] = torch.inf
    source = Source(Split(torch.zeros(len(targets), 10), targets), None, [], ["progression"])
    monkeypatch.setattr(data, "_read", lambda section: source)
    with pytest.raises(DataError, match=f"target 0 of sample {len(targets) - 3} .* is inf"):
        data.load(TableData(dataset="diabetes"), seed=0)


def test_a_split_moves_between_devices() -> None:
    split = Split(random_images(3, 2), torch.arange(3))
    assert split.to("cpu") is split
    for each in (split, split.take(torch.tensor([0, 2]))):
        moved = each.to("meta")
        assert moved.inputs.device.type == moved.targets.device.type == "meta"
        assert moved.inputs.shape == each.inputs.shape and moved.rows is None


def test_loading_imports_only_what_the_set_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLPCLI_CACHE", str(tmp_path / "cache"))
    code = (
        "import sys; from mlpcli.data import load; from mlpcli.config.data_schema import DigitsData, FakeData;"
        "load(FakeData(dataset='fake', train_size=20, test_size=5), 0);"
        "load(DigitsData(dataset='digits'), 0);"
        "assert 'sklearn' in sys.modules and 'torchvision' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# --- the real MNIST and Fashion-MNIST -------------------------------------------------------------------


def test_mnist_has_its_published_facts(real_data: Path) -> None:
    dataset = data.load(VisionData(dataset="mnist", root=str(real_data), validation=0.0), seed=0)
    assert (len(dataset.train), len(dataset.test)) == (60_000, 10_000)
    counts = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert torch.bincount(dataset.train.targets).tolist() == counts
    assert dataset.preprocessing.shift.item() == pytest.approx(33.318, abs=1e-3)
    assert 1 / dataset.preprocessing.scale.item() == pytest.approx(78.567, abs=1e-3)
    assert dataset.train.targets[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    scaled = data.load(VisionData(dataset="mnist", root=str(real_data), standardize="scale"), seed=0)
    assert (scaled.preprocessing.shift.tolist(), scaled.preprocessing.scale.tolist()) == ([0], [1 / 255])
    assert scaled.validation is not None and len(scaled.validation) == 6000


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_real_files_are_read_as_torchvision_reads_them(name: str, real_data: Path) -> None:
    from torchvision import datasets as published

    dataset = data.load(VisionData(dataset=name, root=str(real_data), validation=0.0), seed=0)  # type: ignore[arg-type]
    cls = {"mnist": published.MNIST, "fashion_mnist": published.FashionMNIST}[name]
    for split, train in ((dataset.train, True), (dataset.test, False)):
        expected = cls(real_data, train=train)
        assert torch.equal(split.inputs, expected.data.flatten(1))
        assert torch.equal(split.targets, expected.targets)
