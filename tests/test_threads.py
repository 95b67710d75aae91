"""How many threads a run gets: the choice, that it leaves no trace, and that the run remembers it."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from command import succeeds

from mlpcli import threads
from mlpcli.autograd import Autograd
from mlpcli.batches import Batches
from mlpcli.explicit import Explicit
from mlpcli.model import build_mlp
from mlpcli.objective import Loss, Metrics
from mlpcli.optim import make_optimizer
from mlpcli.progress import Progress
from mlpcli.runs import read_metrics
from mlpcli.threads import ROWS, fastest_threads
from mlpcli.training import Trainer

OPTIMIZERS: dict[str, dict[str, Any]] = {
    "gd": {"lr": 0.1, "momentum": 0.9},
    "sgd": {"lr": 0.1, "momentum": 0.9},
    "adam": {"lr": 0.01},
    "adamw": {"lr": 0.01},
    "rmsprop": {"lr": 0.01},
    "adagrad": {"lr": 0.1},
    "lbfgs": {"lr": 1.0, "max_iter": 3, "history_size": 3},
}


class Machine:
    """Threads that exist on paper: the tests set them without any being started."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self.asked: list[int] = []

    def set(self, threads: int) -> None:
        self.threads = threads
        self.asked.append(threads)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine(2)
    monkeypatch.setattr(torch, "get_num_threads", lambda: made.threads)
    monkeypatch.setattr(torch, "set_num_threads", made.set)
    monkeypatch.setattr(threads, "SECONDS", 0.0)
    return made


def make_trainer(
    engine: str = "explicit",
    optimizer: str = "sgd",
    *,
    normalization: str = "none",
    dropout: float = 0.3,
    samples: int = 30,
    batch_size: int = 8,
) -> Trainer:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(samples, 5, generator=generator)
    targets = torch.randint(0, 3, (samples,), generator=generator)
    model = build_mlp(5, 3, depth=3, width=6, dropout=dropout, normalization=normalization, seed=1)
    loss = Loss("cross_entropy")
    options = OPTIMIZERS[optimizer]
    moves = make_optimizer(model.parameters(), optimizer, **options)
    full_batch = optimizer in ("gd", "lbfgs")
    torch.manual_seed(7)
    return Trainer(
        model=model,
        loss=loss,
        optimizer=moves,
        engine=Explicit(model, loss, moves, batch_size) if engine == "explicit" else Autograd(model, loss, moves),
        batches=Batches(inputs, targets, lambda x, out: out.copy_(x), batch_size, None if full_batch else 2),
        metrics=Metrics(loss, regression=False),
        lr=options["lr"],
        lr_factor=lambda step: 1.0,
        epochs=2,
        full_batch=full_batch,
        monitor="train.loss",
        best=Progress(True),
    )


def trained(trainer: Trainer) -> tuple[list[dict[str, Any]], str]:
    """The records, and everything that is left at the end."""
    records = [record.to_plain() | {"seconds": 0} for record in trainer.run() if record is not None]
    return records, bits(trainer.state_dict())


def bits(value: Any) -> str:
    """Every number to its last digit."""
    if isinstance(value, torch.Tensor):
        return f"{value.dtype} {value.tolist()}"
    if isinstance(value, dict):
        return str({str(key): bits(item) for key, item in value.items()})
    if isinstance(value, list | tuple):
        return str([bits(item) for item in value])
    return repr(value)


# --- no trace -----------------------------------------------------------------------------------------------

CASES = [
    *(("explicit", optimizer, "none") for optimizer in ("gd", "sgd", "adam", "adamw")),
    *(("autograd", optimizer, n) for optimizer in OPTIMIZERS for n in ("none", "batch", "layer")),
]


@pytest.mark.parametrize(("engine", "optimizer", "normalization"), CASES)
def test_timing_leaves_no_trace(engine: str, optimizer: str, normalization: str, machine: Machine) -> None:
    trainer, untimed = (make_trainer(engine, optimizer, normalization=normalization) for _ in range(2))
    before = bits(trainer.state_dict())
    assert before == bits(untimed.state_dict())
    places = [p.data_ptr() for p in trainer.model.parameters()]
    assert fastest_threads(trainer, torch.get_num_threads()) in (1, 2)
    assert [p.data_ptr() for p in trainer.model.parameters()] == places
    assert bits(trainer.state_dict()) == before
    assert all(p.grad is None for p in trainer.model.parameters())
    assert trainer.metrics.samples == 0
    machine.threads = 1
    torch.manual_seed(7)
    got = trained(trainer)
    torch.manual_seed(7)
    assert got == trained(untimed)


def test_timing_draws_dropout_and_moves_running_statistics(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    # without which the test above would say nothing
    trainer = make_trainer("autograd", normalization="batch")
    seen = []
    seconds = threads._seconds

    def look(*arguments: Any) -> float:
        taken = seconds(*arguments)
        seen.append((bits(torch.get_rng_state()), bits(trainer.model.state_dict())))
        return taken

    monkeypatch.setattr(threads, "_seconds", look)
    before = (bits(torch.get_rng_state()), bits(trainer.model.state_dict()))
    fastest_threads(trainer, torch.get_num_threads())
    assert len(seen) == 2 and all(one != before[0] and two != before[1] for one, two in seen)


# --- the choice ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("most", "seconds", "expected"),
    [
        (1, {1: 1.0}, 1),
        (2, {1: 1.0, 2: 0.5}, 2),
        (2, {1: 1.0, 2: 0.91}, 1),  # not worth a core
        (2, {1: 1.0, 2: 0.89}, 2),
        (2, {1: 1.0, 2: 3.0}, 1),
        (4, {1: 1.0, 2: 0.95, 4: 0.89}, 4),  # against the best so far, which is 1
        (4, {1: 1.0, 2: 0.6, 4: 0.55}, 2),
        (4, {1: 1.0, 2: 2.0, 4: 0.5}, 4),
        (6, {1: 1.0, 2: 0.6, 4: 0.4, 6: 0.3}, 6),  # torch's own choice need not be a power of two
        (6, {1: 1.0, 2: 0.6, 4: 0.4, 6: 0.39}, 4),
        (8, {1: 1.0, 2: 0.6, 4: 0.4, 8: 0.9}, 4),
    ],
)
def test_fewer_threads_unless_more_take_nine_tenths_of_the_time(
    most: int, seconds: dict[int, float], expected: int, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.threads = most
    timed = []

    def taken(*_: Any) -> float:
        timed.append(machine.threads)
        return seconds[machine.threads]

    monkeypatch.setattr(threads, "_seconds", taken)
    assert fastest_threads(make_trainer(), torch.get_num_threads()) == expected
    assert sorted(timed) == (sorted(seconds) if most > 1 else [])  # one leaves no choice
    assert machine.threads == expected


@pytest.mark.parametrize("engine", ["explicit", "autograd"])
@pytest.mark.parametrize(("batch_size", "timed"), [(8, 8), (64, 30)])
def test_a_batch_of_the_training_is_timed(
    engine: str, batch_size: int, timed: int, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make_trainer(engine, "sgd", batch_size=batch_size)
    sizes = []
    gradient = trainer.engine.gradient

    def look(inputs: torch.Tensor, targets: torch.Tensor, last: bool) -> torch.Tensor:
        sizes.append((len(inputs), len(targets), trainer.model.training))
        return gradient(inputs, targets, last=last)

    monkeypatch.setattr(trainer.engine, "gradient", look)
    trainer.model.eval()
    fastest_threads(trainer, torch.get_num_threads())
    assert set(sizes) == {(timed, timed, True)}
    assert len(sizes) >= 2 * 2  # one warms up, for each number of threads
    assert set(machine.asked) == {1, 2}


def test_of_a_whole_split_only_the_first_rows_are_timed(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make_trainer("explicit", "gd", samples=ROWS + 10, batch_size=ROWS + 10)
    sizes = []
    monkeypatch.setattr(threads, "_seconds", lambda _, x, y: sizes.append((len(x), len(y))) or 1.0)
    assert fastest_threads(trainer, torch.get_num_threads()) == 1
    assert sizes == [(ROWS, ROWS)] * 2


# --- what a run remembers -----------------------------------------------------------------------------------


@pytest.fixture
def untouched_threads() -> Any:
    """torch's own number of threads is what it was for the tests that follow."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def kept(run: str) -> Any:
    return yaml.safe_load(Path(run, "config.yaml").read_text())["training"]["threads"]


def pick(number: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Lets `auto` come out as `number`; how often it was asked."""
    asked: list[int] = []
    monkeypatch.setattr("mlpcli.experiment.fastest_threads", lambda trainer, most: asked.append(number) or number)
    return asked


def test_auto_becomes_a_number_in_the_runs_config(monkeypatch: pytest.MonkeyPatch) -> None:
    most = torch.get_num_threads()
    done = succeeds("train", "iris", "training.epochs=1", "-o", "timed")
    assert kept("timed") in range(1, most + 1)
    assert f"cpu, {kept('timed')} thread" in done.err
    asked = pick(3, monkeypatch)
    done = succeeds("train", "iris", "training.epochs=1", "-o", "run")
    assert (kept("run"), asked) == (3, [3])
    assert "cpu, 3 threads" in done.err


def test_a_number_is_respected(monkeypatch: pytest.MonkeyPatch, untouched_threads: None) -> None:
    asked = pick(3, monkeypatch)
    done = succeeds("train", "iris", "training.epochs=1", "-o", "run", "training.threads=1")
    assert (kept("run"), asked, torch.get_num_threads()) == (1, [], 1)
    assert "cpu, 1 thread," in done.err


def test_resume_uses_the_remembered_number(monkeypatch: pytest.MonkeyPatch, untouched_threads: None) -> None:
    asked = pick(2, monkeypatch)
    succeeds("train", "iris", "training.epochs=1", "-o", "run", "-q")
    asked.clear()
    used = []
    set_threads = torch.set_num_threads
    monkeypatch.setattr(torch, "set_num_threads", lambda n: used.append(n) or set_threads(n))
    done = succeeds("train", "--resume", "run", "training.epochs=2")
    assert (kept("run"), asked, used) == (2, [], [1, 2])  # one while the weights are drawn
    assert "cpu, 2 threads" in done.err
    succeeds("train", "--resume", "run", "training.epochs=3", "training.threads=1", "-q")
    assert (kept("run"), asked, used[-1]) == (1, [], 1)
    assert [line["epoch"] for line in read_metrics(Path("run"))] == [1, 2, 3]


def test_resume_with_auto_goes_on_with_some_number(untouched_threads: None) -> None:
    succeeds("train", "iris", "training.epochs=1", "-o", "run", "-q")
    done = succeeds("train", "--resume", "run", "training.epochs=2", "training.threads=auto")
    assert json.loads(Path("run/summary.json").read_text())["epochs"] == 2
    assert isinstance(kept("run"), int)
    assert f"cpu, {kept('run')} thread" in done.err


@pytest.mark.parametrize(
    "more",
    [(), ("optimizer={name: adagrad, lr: 0.1}",), ("model.normalization=batch",), ("optimizer={name: gd}",)],
)
def test_timing_changes_no_digit_of_a_run(more: tuple[str, ...], machine: Machine) -> None:
    options = ("training.epochs=3", "model.dropout=0.3", *more, "-q")
    succeeds("train", "iris", "-o", "timed", *options)
    # one while the weights are drawn, then what there was; both are tried, and one is taken
    assert machine.asked[:4] == [1, 2, 1, 2] and len(machine.asked) == 5
    succeeds("train", "iris", "-o", "given", *options, "training.threads=1")
    timed, given = ([line | {"seconds": 0} for line in read_metrics(Path(run))] for run in ("timed", "given"))
    assert timed == given
    summaries = [json.loads(Path(run, "summary.json").read_text()) for run in ("timed", "given")]
    assert summaries[0]["test"] == summaries[1]["test"]
