"""What of the CUDA path can be tested without a GPU: a recorded step is stood in for by the step itself."""

import logging
from collections.abc import Callable

import pytest
import torch

from mlpcli.cuda_graph import EAGER_STEPS, Captured
from mlpcli.explicit import Explicit
from mlpcli.model import build_mlp
from mlpcli.objective import Loss
from mlpcli.optim import make_optimizer

OPTIMIZERS = {
    "sgd": {"lr": 0.1, "momentum": 0.9},
    "nesterov": {"lr": 0.1, "momentum": 0.9, "nesterov": True},
    "adam": {"lr": 0.01},
    "adamw": {"lr": 0.01, "weight_decay": 0.1},
}
BATCH = 8


def make(optimizer: str, dropout: float = 0.0) -> tuple[torch.nn.Sequential, Explicit]:
    model = build_mlp(5, 3, depth=3, width=6, dropout=dropout, seed=1).double()
    name = "sgd" if optimizer == "nesterov" else optimizer
    moves = make_optimizer(model.parameters(), name, **OPTIMIZERS[optimizer])
    return model, Explicit(model, Loss("cross_entropy"), moves, BATCH)


def batches() -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Two epochs of full batches with a smaller last one."""
    generator = torch.Generator().manual_seed(0)
    sizes = ([BATCH] * 5 + [3]) * 2
    return [
        (
            torch.randn(n, 5, generator=generator, dtype=torch.float64),
            torch.randint(0, 3, (n,), generator=generator),
        )
        for n in sizes
    ]


class Recorder:
    """Counts what is recorded and replayed."""

    def __init__(self) -> None:
        self.recorded = self.replayed = 0

    def __call__(self, step: Callable[[], object]) -> Callable[[], None]:
        self.recorded += 1

        def replay() -> None:
            self.replayed += 1
            step()

        return replay


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_replayed_steps_are_the_engines_steps(optimizer: str, dropout: float) -> None:
    """With another learning rate each step, so that a number that was recorded instead of read would show."""
    (model, engine), (other, recorded) = make(optimizer, dropout), make(optimizer, dropout)
    recorder = Recorder()
    captured = Captured(recorded, BATCH, recorder)
    for step, (inputs, targets) in enumerate(batches()):
        lr = 0.125 / (1 + step)
        torch.manual_seed(step)
        expected = engine.step(inputs, targets, lr).clone()
        torch.manual_seed(step)
        torch.testing.assert_close(captured.step(inputs.clone(), targets, lr), expected, rtol=1e-6, atol=1e-8)
    for ours, theirs in zip(other.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-8)  # the learning rate is in float32
    assert recorder.recorded == 1
    assert recorder.replayed == 10 - EAGER_STEPS  # all full batches after those, and no smaller one


def test_what_cannot_be_recorded_is_run_step_by_step_and_said(caplog: pytest.LogCaptureFixture) -> None:
    def refuse(step: Callable[[], object]) -> Callable[[], None]:
        raise RuntimeError("operation not permitted when stream is capturing\nmore of it")

    (model, engine), (other, recorded) = make("sgd"), make("sgd")
    captured = Captured(recorded, BATCH, refuse)
    with caplog.at_level(logging.WARNING, "mlpcli"):
        for inputs, targets in batches():
            engine.step(inputs, targets, 0.125)
            captured.step(inputs, targets, 0.125)
    for ours, theirs in zip(other.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-14)
    assert [record.message for record in caplog.records] == [
        "every step is launched kernel by kernel, as it cannot be captured: "
        "operation not permitted when stream is capturing"
    ]


def test_a_watched_engine_replays_nothing() -> None:
    _, recorded = make("sgd")
    recorder, seen = Recorder(), []
    captured = Captured(recorded, BATCH, recorder)
    captured.watch = lambda name, output: seen.append(name)
    for inputs, targets in batches()[:5]:
        captured.step(inputs, targets, 0.1)
    assert recorder.recorded == 0 and len(seen) == 15
    assert captured.watch is recorded.watch


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_cuda_graph_trains_like_the_engine(optimizer: str, dropout: float) -> None:
    def make_there() -> tuple[torch.nn.Sequential, Explicit]:
        model, _ = make(optimizer, dropout)
        model = model.float().cuda()
        name = "sgd" if optimizer == "nesterov" else optimizer
        moves = make_optimizer(model.parameters(), name, **OPTIMIZERS[optimizer])
        return model, Explicit(model, Loss("cross_entropy"), moves, BATCH)

    (model, engine), (other, recorded) = make_there(), make_there()
    captured = Captured(recorded, BATCH)
    for inputs, targets in batches():
        there = inputs.float().cuda(), targets.cuda()
        engine.step(*there, 0.05)
        captured.step(*there, 0.05)
    for ours, theirs in zip(other.parameters(), model.parameters(), strict=True):
        assert torch.isfinite(ours).all()
        if not dropout:  # a replay draws its own masks
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
