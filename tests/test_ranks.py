"""Several processes that train one run do what one would: the same numbers, the same files, from rank 0 alone."""

import json
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from command import Done, mlpcli, succeeds
from hypothesis import given
from hypothesis import strategies as st
from ranks_pool import Pool, pool

from mlpcli import checkpoints
from mlpcli.batches import Batches
from mlpcli.config import load_config
from mlpcli.data import Preprocessing
from mlpcli.evaluation import Shared
from mlpcli.experiment import prepare
from mlpcli.model import Dropout, DropoutMask
from mlpcli.objective import Loss, Metrics
from mlpcli.parts import part_of
from mlpcli.ranks import Ranks, join
from mlpcli.starters import find
from mlpcli.training import Trainer

pytestmark = pytest.mark.xdist_group("ranks")  # one pool of processes for all of them


@pytest.fixture(scope="module")
def ranks() -> Iterator[Pool]:
    with pool() as made:
        yield made


# --- parts --------------------------------------------------------------------------------------------------


@given(st.integers(0, 50), st.integers(1, 9))
def test_parts_cover_a_batch_in_order_and_differ_by_one_at_most(samples: int, size: int) -> None:
    parts = [part_of(samples, rank, size) for rank in range(size)]
    places = [place for part in parts for place in range(part.start, part.start + part.count)]
    assert places == list(range(samples))
    assert max(part.count for part in parts) - min(part.count for part in parts) <= 1
    more = [part_of(samples + 1, rank, size).count for rank in range(size)]
    assert all(there >= here.count for there, here in zip(more, parts, strict=True))


def batches(rank: int, size: int, batch_size: int, samples: int, shuffled: bool) -> Batches:
    stored = torch.arange(samples, dtype=torch.float32)[:, None] * torch.ones(3)
    plain = Preprocessing(torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64))
    seed = 7 if shuffled else None
    return Batches(stored, torch.arange(samples), plain.into, batch_size, seed, rank=rank, ranks=size)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 4), st.booleans(), st.integers(0, 3))
def test_the_ranks_batches_together_are_those_of_one(
    samples: int, batch_size: int, size: int, shuffled: bool, skip: int
) -> None:
    batch_size = max(size, batch_size)
    one = batches(0, 1, batch_size, samples, shuffled)
    skip = min(skip, one.steps)
    expected = [(x.clone(), y.clone()) for x, y in one.epoch(3, skip)]
    parts = [
        [(x.clone(), y.clone()) for x, y in batches(rank, size, batch_size, samples, shuffled).epoch(3, skip)]
        for rank in range(size)
    ]
    assert [len(part) for part in parts] == [len(expected)] * size
    for step, (inputs, targets) in enumerate(expected):
        assert torch.equal(torch.cat([part[step][0] for part in parts]), inputs)
        assert torch.equal(torch.cat([part[step][1] for part in parts]), targets)
        for rank, part in enumerate(parts):
            told = batches(rank, size, batch_size, samples, shuffled).part(skip + step)
            assert told is None if size == 1 else (told.count, told.of) == (len(part[step][1]), len(targets))


@pytest.mark.parametrize("size", [1, 2, 3])
def test_the_ranks_dropout_masks_are_rows_of_one(size: int) -> None:
    torch.manual_seed(3)
    whole = DropoutMask(torch.empty(11, 7), 0.4).draw().clone()
    after = torch.get_rng_state()
    rows = []
    for rank in range(size):
        torch.manual_seed(3)
        part = part_of(11, rank, size)
        rows.append(DropoutMask(torch.empty(part.count, 7), 0.4, part).draw().clone())
        assert torch.equal(torch.get_rng_state(), after)
    assert torch.equal(torch.cat(rows), whole)
    layer = Dropout(0.4)
    layer.part = part_of(11, size - 1, size)
    torch.manual_seed(3)
    assert torch.equal(layer(torch.ones(layer.part.count, 7)), rows[-1])


@given(st.integers(1, 30), st.integers(1, 12), st.integers(1, 5))
def test_chunks_go_to_the_ranks_in_turn(samples: int, chunk: int, size: int) -> None:
    chunks = list(torch.arange(samples).split(chunk))
    for rank in range(size):
        mine = Shared.rows(samples, chunk, Ranks(rank, size))
        expected = chunks[rank::size] or chunks[-1:]
        assert torch.equal(mine, torch.cat(expected))


def test_what_others_counted_is_added_to_the_metrics() -> None:
    torch.manual_seed(0)
    outputs, targets = torch.randn(30, 4), torch.randint(4, (30,))
    whole, ours, theirs = (Metrics(Loss("cross_entropy"), regression=False) for _ in range(3))
    whole.add(outputs, targets)
    ours.add(outputs[:11], targets[:11])
    theirs.add(outputs[11:20], targets[11:20])
    theirs.add(outputs[20:], targets[20:])
    ours.absorb(theirs.state_dict())
    assert ours.result() == pytest.approx(whole.result(), rel=1e-6)
    assert ours.samples == 30


# --- the same training --------------------------------------------------------------------------------------

QUICK = ["training.epochs=3", "training.threads=1", "training.precision=float64", "report=false", "-q"]

# 1294 samples: batches of 431 leave a last one of a single sample, which all ranks but one go without
TRAININGS: dict[str, tuple[int, list[str]]] = {
    "sgd": (2, ["training.batch_size=50"]),
    "sgd and a last batch of one": (3, ["training.batch_size=431"]),
    "nesterov": (3, ["optimizer={name: sgd, lr: 0.05, momentum: 0.9, nesterov: true, weight_decay: 0.001}"]),
    "adam": (2, ["optimizer={name: adam, lr: 0.001}"]),
    "adamw, clipped": (3, ["optimizer={name: adamw, lr: 0.001}", "training.clip_grad_norm=0.1"]),
    "gd": (2, ["optimizer={name: gd, lr: 0.1, momentum: 0.5}"]),
    "gd in chunks": (3, ["optimizer={name: gd, lr: 0.1}", "training.batch_size=300"]),
    "autograd": (2, ["training.engine=autograd", "training.batch_size=431"]),
    "rmsprop": (3, ["optimizer={name: rmsprop, lr: 0.001}", "model.activation=gelu"]),
    "lbfgs": (2, ["optimizer={name: lbfgs}", "model={depth: 2, width: 20}"]),
    "layer normalization": (2, ["model.normalization=layer", "scheduler=plateau"]),
    "batch normalization": (2, ["model.normalization=batch", "training.batch_size=50"]),
    "batch normalization and a rank without samples": (
        3,
        ["model.normalization=batch", "training.batch_size=323", "training.clip_grad_norm=1"],
    ),
    "gd with batch normalization": (
        2,
        ["model.normalization=batch", "optimizer={name: gd, lr: 0.1}", "training.batch_size=null"],
    ),
    "fsdp with batch normalization": (2, ["model.normalization=batch", "training.parallel=fsdp"]),
    "mixup": (3, ["data.augmentation={shift: 1, rotate: 5, mixup: 0.3}", "training.batch_size=100"]),
    "fsdp": (2, ["training.parallel=fsdp", "training.batch_size=431"]),
    "fsdp with adam, clipped": (
        3,
        ["training.parallel=fsdp", "optimizer={name: adam, lr: 0.001}", "training.clip_grad_norm=0.1"],
    ),
    "fsdp with gd": (2, ["training.parallel=fsdp", "optimizer={name: gd, lr: 0.1}", "training.batch_size=500"]),
}


def train(*arguments: str) -> Done:
    return mlpcli("train", *arguments)


def train_through_sockets(*arguments: str) -> Done:
    """Without memory that the processes share, as on several hosts."""
    with patch("mlpcli.ranks.new_folder", lambda: None):
        return mlpcli("train", *arguments)


def lines_of(run: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "seconds"} for line in lines]


def assert_same_training(one: Path, several: Path, tolerance: float = 1e-12) -> None:
    mine, theirs = lines_of(one), lines_of(several)
    assert len(mine) == len(theirs) == 3
    for expected, line in zip(mine, theirs, strict=True):
        assert line.keys() == expected.keys() and line["step"] == expected["step"]
        for split in ("train", "validation"):
            assert line[split] == pytest.approx(expected[split], rel=tolerance, abs=tolerance)
    for name in ("last", "best"):
        a, b = (checkpoints.load(run / f"checkpoints/{name}.pt") for run in (one, several))
        assert a["position"]["step"] == b["position"]["step"]
        for key, weight in a["model"].items():
            torch.testing.assert_close(b["model"][key], weight, rtol=tolerance, atol=max(1e-11, tolerance))
        assert torch.equal(a["generators"]["cpu"], b["generators"]["cpu"])


@pytest.mark.parametrize("name", TRAININGS)
def test_several_processes_train_as_one(name: str, ranks: Pool, tmp_path: Path) -> None:
    size, changes = TRAININGS[name]
    succeeds("train", "digits", "-o", "one", *QUICK, *changes)
    done = ranks.run(size, tmp_path, train, "digits", "-o", "several", *QUICK, *changes)
    assert [each.code for each in done] == [0] * size
    # the line search of L-BFGS compares values, and blows up rounding
    assert_same_training(Path("one"), Path("several"), 1e-8 if name == "lbfgs" else 1e-12)
    assert sorted(path.name for path in Path("several/checkpoints").iterdir()) == ["best.pt", "last.pt"]


def train_with_threads(*arguments: str) -> Done:
    """As on a machine that has two cores for each rank."""
    with patch("mlpcli.experiment.cores", lambda: 6):
        torch.set_num_threads(2)
        done = mlpcli("train", *arguments)
    torch.set_num_threads(1)
    return done


@pytest.mark.parametrize(
    "changes",
    [["training.engine=autograd"], ["model.normalization=batch"], ["training.parallel=fsdp"], []],
    ids=["autograd", "batch normalization", "fsdp", "explicit"],
)
def test_timing_the_threads_leaves_no_trace(changes: list[str], ranks: Pool, tmp_path: Path) -> None:
    quick = [each for each in QUICK if "threads" not in each]
    succeeds("train", "digits", "-o", "one", *QUICK, *changes)
    done = ranks.run(3, tmp_path, train_with_threads, "digits", "-o", "several", *quick, *changes)
    assert [each.code for each in done] == [0, 0, 0], done
    assert_same_training(Path("one"), Path("several"))


def test_batch_normalization_in_bfloat16(ranks: Pool, tmp_path: Path) -> None:
    changes = [
        "model.normalization=batch",
        "training.precision=bfloat16",
        "training.epochs=3",
        "report=false",
        "-q",
    ]
    succeeds("train", "digits", "-o", "one", "training.threads=1", *changes)
    ranks.run(2, tmp_path, train, "digits", "-o", "several", "training.threads=1", *changes)
    mine, theirs = (lines_of(Path(run))[-1]["train"]["loss"] for run in ("one", "several"))
    assert theirs == pytest.approx(mine, rel=0.05)


def test_sums_through_sockets_are_the_same(ranks: Pool, tmp_path: Path) -> None:
    changes = ["model.width=[512,300]", "training.batch_size=200"]
    succeeds("train", "digits", "-o", "one", *QUICK, *changes)
    ranks.run(3, tmp_path, train_through_sockets, "digits", "-o", "several", *QUICK, *changes)
    assert_same_training(Path("one"), Path("several"))


def test_a_regression_is_shared_too(ranks: Pool, tmp_path: Path) -> None:
    changes = ["loss=huber", "training.batch_size=37"]
    succeeds("train", "diabetes", "-o", "one", *QUICK, *changes)
    ranks.run(2, tmp_path, train, "diabetes", "-o", "several", *QUICK, *changes)
    assert_same_training(Path("one"), Path("several"))


def test_rank_0_alone_speaks_and_the_test_metrics_are_those_of_eval_to_the_last_digit(
    ranks: Pool, tmp_path: Path
) -> None:
    # wide enough that the validation split is several chunks, one of them shorter
    changes = [
        "training.epochs=2",
        "training.threads=1",
        "model.width=4096",
        "data.validation=0.3",
        "report=false",
    ]
    done = ranks.run(2, tmp_path, train, "digits", *changes)
    first, second = done
    assert first.out.startswith("runs/digits\n") and "2 processes on cpu" in first.err
    assert (second.out, second.err) == ("", "")
    assert [path.name for path in Path("runs").iterdir()] == ["digits"]
    summary = json.loads(Path("runs/digits/summary.json").read_text())
    for split in ("test", "validation"):
        measured = succeeds("eval", "runs/digits", "--split", split, "--json").json["metrics"]
        assert measured == (summary["test"] if split == "test" else summary["best"]["validation"])
    environment = json.loads(Path("runs/digits/environment.json").read_text())
    assert environment["processes"] == 2


# --- going on with another number of processes --------------------------------------------------------------


def trainer_of(changes: list[str]) -> tuple[Ranks, Trainer]:
    ranks = join()
    ranks.settle(60)
    config = load_config(find("digits"), [*changes, "training.threads=1", "training.precision=float64"])
    return ranks, prepare(config, ranks)[3]


def some_steps(changes: list[str], state: dict[str, Any] | None, steps: int) -> dict[str, Any]:
    ranks, trainer = trainer_of(changes)
    if state is not None:
        trainer.load_state_dict(state)
    for _, _ in zip(range(steps), trainer.run(), strict=False):
        pass
    after = trainer.state_dict()
    ranks.leave()
    return after


@pytest.mark.parametrize(
    "changes", [["training.batch_size=100"], ["optimizer={name: adam, lr: 0.001}", "training.batch_size=100"]]
)
def test_a_training_goes_on_in_the_middle_of_an_epoch_with_another_number(
    changes: list[str], ranks: Pool, tmp_path: Path
) -> None:
    """13 steps and a record make an epoch: 2 processes stop in the first, 1 in the second, 3 in the third."""
    changes = [*changes, "model.dropout=0.2"]
    state = ranks.run(2, tmp_path, some_steps, changes, None, 5)[0]
    assert state["position"]["step_in_epoch"] == 5 and len(state["metrics"]["parts"]) == 2
    state = some_steps(changes, state, 20)
    assert "parts" not in state["metrics"]
    after = ranks.run(3, tmp_path, some_steps, changes, state, 10)
    expected = some_steps(changes, None, 35)
    counted, sums = (
        Metrics(Loss("cross_entropy"), regression=False),
        Metrics(Loss("cross_entropy"), regression=False),
    )
    counted.load_state_dict(expected["metrics"])
    for part in after[0]["metrics"]["parts"]:
        sums.absorb(part)
    assert sums.samples == counted.samples == 700
    assert sums._counted()["correct"] == counted._counted()["correct"]
    torch.testing.assert_close(sums._counted()["loss"], counted._counted()["loss"], rtol=1e-12, atol=0)
    for state in after:
        assert state["position"] | {"seconds": 0} == expected["position"] | {"seconds": 0}
        assert torch.equal(state["generators"]["cpu"], expected["generators"]["cpu"])
        for name, weight in expected["model"].items():
            torch.testing.assert_close(state["model"][name], weight, rtol=1e-11, atol=1e-12)
        for name in expected["model"]:
            assert torch.equal(state["model"][name], after[0]["model"][name])


def test_a_rank_may_go_on_with_a_batch_that_has_nothing_for_it(ranks: Pool, tmp_path: Path) -> None:
    changes = ["training.batch_size=431"]  # which leaves a last batch of 1
    state = some_steps(changes, None, 3)
    after = ranks.run(3, tmp_path, some_steps, changes, state, 3)[0]
    expected = some_steps(changes, None, 6)
    for name, weight in expected["model"].items():
        torch.testing.assert_close(after["model"][name], weight, rtol=1e-11, atol=1e-12)


def test_the_same_number_goes_on_bit_for_bit(ranks: Pool, tmp_path: Path) -> None:
    changes = ["training.batch_size=100"]
    state = ranks.run(2, tmp_path, some_steps, changes, None, 7)[0]
    halves = ranks.run(2, tmp_path, some_steps, changes, state, 10)[0]
    whole = ranks.run(2, tmp_path, some_steps, changes, None, 17)[0]
    for run in (halves, whole):
        run["position"]["seconds"] = 0
    checkpoints.save({**halves, "config": {}}, tmp_path / "halves.pt")
    checkpoints.save({**whole, "config": {}}, tmp_path / "whole.pt")
    assert (tmp_path / "halves.pt").read_bytes() == (tmp_path / "whole.pt").read_bytes()


def test_a_finished_run_goes_on_with_more_and_fewer(ranks: Pool, tmp_path: Path) -> None:
    succeeds("train", "digits", "-o", "one", *QUICK)
    ranks.run(2, tmp_path, train, "digits", "-o", "several", *QUICK, "training.epochs=1", "scheduler=constant")
    succeeds("train", "--resume", "several", "training.epochs=2", "-q")
    done = ranks.run(
        3, tmp_path, train, "--resume", "several", "training.epochs=3", "training.parallel=fsdp", "-q"
    )
    assert [each.code for each in done] == [0, 0, 0]
    assert len(lines_of(Path("several"))) == 3
    resumed = json.loads(Path("several/environment.json").read_text())["resumed"]
    assert [each.get("processes") for each in resumed] == [None, 3]


# --- sums ---------------------------------------------------------------------------------------------------


def sums_of(dtype: torch.dtype, shared: bool) -> list[torch.Tensor]:
    ranks = join()
    ranks.settle(60)
    with nullcontext() if shared else patch("mlpcli.ranks.new_folder", lambda: None):
        sums = ranks.sums(torch.empty(1000, dtype=dtype))
    assert sums.piecewise is not shared
    results = []
    for seed in range(5):
        generator = torch.Generator().manual_seed(10 * seed + ranks.rank)
        sums.flat.copy_(torch.randn(1000, generator=generator, dtype=dtype))
        sums.begin(10, 977)()
        results.append(sums.flat.clone())
    ranks.leave()
    return results


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sums_are_of_all_ranks_and_equal_on_each(
    dtype: torch.dtype, shared: bool, ranks: Pool, tmp_path: Path
) -> None:
    results = ranks.run(3, tmp_path, sums_of, dtype, shared)
    for seed in range(5):
        parts = [
            torch.randn(1000, generator=torch.Generator().manual_seed(10 * seed + rank), dtype=dtype)
            for rank in range(3)
        ]
        expected = torch.stack(parts).double().sum(0)
        for rank in range(3):
            mine = results[rank][seed]
            torch.testing.assert_close(mine[10:977].double(), expected[10:977], rtol=1e-5, atol=1e-6)
            assert torch.equal(mine[10:977], results[0][seed][10:977])
            assert torch.equal(mine[:10], parts[rank][:10]) and torch.equal(mine[977:], parts[rank][977:])
