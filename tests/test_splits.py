"""Cuts and limits keep every class's share, are seeded, and lose nothing."""

import hashlib
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mlpcli.data.splits import stratified_cut, stratified_limit
from mlpcli.seeds import stream_seed

LABELS = st.lists(st.integers(0, 6), min_size=1, max_size=120).map(torch.tensor)
FRACTIONS = st.floats(0, 1, exclude_max=True)
SEEDS = st.integers(0, 2**63 - 1)


def counts(targets: torch.Tensor) -> torch.Tensor:
    return torch.bincount(targets, minlength=7)


@given(LABELS, FRACTIONS, SEEDS)
def test_a_cut_is_a_partition_in_the_original_order(labels: torch.Tensor, fraction: float, seed: int) -> None:
    kept, cut = stratified_cut(labels, fraction, seed, "classification")
    assert kept.dtype == cut.dtype == torch.int64
    assert sorted([*kept.tolist(), *cut.tolist()]) == list(range(len(labels)))
    assert kept.tolist() == sorted(kept.tolist())
    assert cut.tolist() == sorted(cut.tolist())


@given(LABELS, FRACTIONS, SEEDS)
def test_a_cut_has_the_asked_size_and_empties_no_class(labels: torch.Tensor, fraction: float, seed: int) -> None:
    kept, cut = stratified_cut(labels, fraction, seed, "classification")
    classes = len(labels.unique())
    assert len(cut) == min(round(fraction * len(labels)), len(labels) - classes)
    assert labels[kept].unique().tolist() == labels.unique().tolist()


@given(LABELS, FRACTIONS, SEEDS)
def test_each_class_gives_its_share(labels: torch.Tensor, fraction: float, seed: int) -> None:
    total = round(fraction * len(labels))
    shares = [count * total / len(labels) for count in counts(labels).tolist()]
    _, cut = stratified_cut(labels, fraction, seed, "classification")
    if all(math.ceil(share) < max(1, count) for share, count in zip(shares, counts(labels), strict=True)):
        for share, given_ in zip(shares, counts(labels[cut]).tolist(), strict=True):
            assert math.floor(share) <= given_ <= math.ceil(share)


@given(LABELS, st.integers(1, 200), SEEDS)
def test_a_limit_takes_each_class_s_share(labels: torch.Tensor, limit: int, seed: int) -> None:
    taken = stratified_limit(labels, limit, seed, "classification")
    assert len(taken) == min(limit, len(labels))
    assert taken.tolist() == sorted(set(taken.tolist()))
    for count, given_ in zip(counts(labels).tolist(), counts(labels[taken]).tolist(), strict=True):
        share = count * len(taken) / len(labels)
        assert math.floor(share) <= given_ <= math.ceil(share)


@given(st.integers(1, 100), FRACTIONS, SEEDS)
def test_regression_is_cut_regardless_of_the_targets(n: int, fraction: float, seed: int) -> None:
    targets = torch.arange(n, dtype=torch.float64).reshape(-1, 1)
    kept, cut = stratified_cut(targets, fraction, seed, "regression")
    assert len(cut) == min(round(fraction * n), n - 1)
    again = stratified_cut(torch.zeros(n, 3, dtype=torch.float64), fraction, seed, "regression")
    assert torch.equal(kept, again[0]) and torch.equal(cut, again[1])
    assert len(stratified_limit(targets, 7, seed, "regression")) == min(7, n)


def test_a_class_with_one_sample_stays() -> None:
    labels = torch.tensor([0] * 20 + [1])
    for seed in range(20):
        kept, cut = stratified_cut(labels, 0.5, seed, "classification")
        assert 20 in kept and len(cut) == 10


def test_a_seed_gives_one_cut_and_another_seed_another() -> None:
    labels = torch.arange(1000) % 10
    first, again, other = (stratified_cut(labels, 0.1, seed, "classification")[1] for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert counts_of(labels[first]) == [10] * 10


def counts_of(labels: torch.Tensor) -> list[int]:
    return torch.bincount(labels).tolist()


def test_every_sample_is_cut_equally_often() -> None:
    labels = torch.tensor([0] * 6 + [1] * 14)
    times = np.zeros(20)
    for seed in range(3000):
        times[stratified_cut(labels, 0.5, seed, "classification")[1].numpy()] += 1
    # 3 of 6 and 7 of 14 each time: a binomial with p = 1/2, whose 5 sigma is 137.
    assert np.abs(times - 1500).max() < 137


def test_the_draw_does_not_depend_on_torch_s_global_generator() -> None:
    state = torch.get_rng_state()
    stratified_cut(torch.zeros(50, dtype=torch.int64), 0.5, 0, "classification")
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("stream", ["split", "init", "shuffle", "dropout"])
def test_a_stream_s_seed_is_63_bits_of_a_sha256(stream: str) -> None:
    digest = hashlib.sha256(f"17/{stream}".encode()).hexdigest()
    assert stream_seed(17, stream) == int(digest[:16], 16) // 2
    assert stream_seed(17, stream) < 2**63


def test_streams_and_seeds_differ() -> None:
    seeds = {stream_seed(seed, stream) for seed in range(50) for stream in ("split", "init", "shuffle", "dropout")}
    assert len(seeds) == 200
