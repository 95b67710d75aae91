import io
import math
from functools import partial

import pytest
import torch

from mlpcli.autograd import Autograd
from mlpcli.batches import Batches
from mlpcli.explicit import Explicit
from mlpcli.model import build_mlp
from mlpcli.objective import Loss, Metrics
from mlpcli.optim import lr_factor, make_optimizer
from mlpcli.progress import Plateau, Progress
from mlpcli.training import CHECK_EVERY, NonFinite, Trainer

OPTIMIZERS = {
    "gd": {"lr": 0.1},
    "sgd": {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01},
    "adam": {"lr": 0.01},
    "adamw": {"lr": 0.01, "weight_decay": 0.1},
    "rmsprop": {"lr": 0.01, "momentum": 0.5},
    "adagrad": {"lr": 0.1},
    "lbfgs": {"lr": 1.0, "max_iter": 4, "history_size": 3, "line_search": "strong_wolfe"},
}
SCHEDULES = {
    "constant": {},
    "step": {"step_size": 1, "gamma": 0.5},
    "cosine": {"end_factor": 0.0, "warmup": 1.0},
    "linear": {"end_factor": 0.1},
    "one_cycle": {"pct_start": 0.3, "div_factor": 25.0, "final_div_factor": 1e4},
    "plateau": {},
}


ENGINES = ["explicit", "autograd"]


def make_trainer(
    optimizer="sgd",
    options=None,
    *,
    schedule="constant",
    schedule_options=None,
    n=50,
    batch_size=8,
    epochs=4,
    depth=3,
    dropout=0.0,
    normalization="none",
    dtype=torch.float64,
    loss="cross_entropy",
    seed=3,
    engine="autograd",
    clip_grad_norm=None,
    **more,
):
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(n, 5, generator=generator, dtype=dtype)
    targets = torch.randint(0, 3, (n,), generator=generator)
    full_batch = optimizer in ("gd", "lbfgs")
    batches = Batches(inputs, targets, copy, batch_size, None if full_batch else seed, dtype=dtype)
    model = build_mlp(5, 3, depth=depth, width=6, dropout=dropout, normalization=normalization, seed=seed)
    model = model.to(dtype)
    options = OPTIMIZERS[optimizer] if options is None else options
    loss = Loss(loss)
    moves = make_optimizer(model.parameters(), optimizer, **options)
    torch.manual_seed(11)

    def validate():
        model.eval()
        with torch.no_grad():
            return {"loss": float(loss(model(inputs[:20]), targets[:20]))}

    plateau = Plateau(Progress(True), 0.5, 0, 0.01) if schedule == "plateau" else None
    return Trainer(
        model=model,
        loss=loss,
        optimizer=moves,
        engine=Explicit(model, loss, moves, batch_size, clip_grad_norm)
        if engine == "explicit"
        else Autograd(model, loss, moves, clip_grad_norm=clip_grad_norm),
        batches=batches,
        metrics=Metrics(loss, regression=False),
        lr=options["lr"],
        lr_factor=partial(
            lr_factor,
            schedule,
            steps_per_epoch=1 if full_batch else batches.steps,
            epochs=epochs,
            **(SCHEDULES[schedule] if schedule_options is None else schedule_options),
        ),
        epochs=epochs,
        full_batch=full_batch,
        monitor="validation.loss",
        best=Progress(True),
        validate=validate,
        plateau=plateau,
        **more,
    )


def copy(stored, out):
    out.copy_(stored)


def parameters(trainer):
    return torch.cat([p.detach().reshape(-1) for p in trainer.model.parameters()])


def served_by(batches, epoch, skip=0):
    """The batches of an epoch, each copied before the next is taken."""
    return [(x.clone(), y.clone()) for x, y in batches.epoch(epoch, skip)]


def records(trainer):
    return [r.to_plain() | {"seconds": 0} for r in trainer.run() if r is not None]


# --- GD, SGD and the closed form ------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ENGINES)
def test_gd_is_sgd_with_one_full_batch_is_the_closed_form_step(engine):
    gd = make_trainer("gd", {"lr": 0.3}, depth=1, epochs=1, batch_size=50, engine=engine)
    sgd = make_trainer("sgd", {"lr": 0.3}, depth=1, epochs=1, batch_size=50, engine=engine)
    weight, bias = (p.detach().clone() for p in gd.model.parameters())
    x, y = gd.batches.stored, gd.batches.targets
    list(gd.run()), list(sgd.run())
    # ∇W of the mean cross-entropy of a linear model is (softmax(XWᵀ + b) − Y)ᵀ X / n
    delta = (torch.softmax(x @ weight.T + bias, 1) - torch.eye(3, dtype=x.dtype)[y]) / len(x)
    expected = torch.cat([(weight - 0.3 * delta.T @ x).reshape(-1), bias - 0.3 * delta.sum(0)])
    torch.testing.assert_close(parameters(gd), expected, rtol=1e-13, atol=1e-14)
    torch.testing.assert_close(parameters(sgd), expected, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("engine", ENGINES)
def test_linear_regression_by_gd_follows_the_closed_form_iteration(engine):
    gd = make_trainer("gd", {"lr": 0.05}, depth=1, epochs=10, batch_size=7, loss="mse", engine=engine)
    weight, bias = (p.detach().clone() for p in gd.model.parameters())
    x, y = gd.batches.stored, torch.eye(3, dtype=torch.float64)[gd.batches.targets]
    for _ in range(10):
        residual = x @ weight.T + bias - y
        weight, bias = weight - 0.05 * 2 * residual.T @ x / 50, bias - 0.05 * 2 * residual.mean(0)
    list(gd.run())
    expected = torch.cat([weight.reshape(-1), bias])
    torch.testing.assert_close(parameters(gd), expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("chunk", [1, 7, 16, 49, 50])
def test_accumulation_in_chunks_of_any_size_gives_the_same_gradient(chunk, engine):
    whole = make_trainer("gd", batch_size=50)
    inputs, targets = whole.batches.stored, whole.batches.targets
    loss = Loss("cross_entropy")(whole.model(inputs), targets)
    expected = torch.autograd.grad(loss, list(whole.model.parameters()))
    trainer = make_trainer("gd", {"lr": 1.0}, batch_size=chunk, engine=engine)
    for _ in range(2):  # the second forgets the first
        objective = trainer.objective_gradient()
    before = [p.detach().clone() for p in trainer.model.parameters()]
    trainer.engine.update(1.0)
    for parameter, earlier, gradient in zip(trainer.model.parameters(), before, expected, strict=True):
        torch.testing.assert_close(earlier - parameter.detach(), gradient, rtol=1e-12, atol=1e-15)
        if engine == "autograd":
            torch.testing.assert_close(parameter.grad, gradient, rtol=1e-12, atol=1e-15)
    torch.testing.assert_close(objective, loss.detach(), rtol=1e-12, atol=1e-15)
    assert trainer.metrics.samples == 100


@pytest.mark.parametrize("engine", ENGINES)
def test_the_objective_alone_is_not_measured(engine):
    trainer = make_trainer("gd", batch_size=7, engine=engine)
    trainer.objective_gradient(measure=False)
    assert trainer.metrics.samples == 0
    trainer.objective_gradient()
    assert trainer.metrics.samples == 50


@pytest.mark.parametrize("engine", ENGINES)
def test_sgd_with_momentum_nesterov_and_decay_is_the_formula(engine):
    options = {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}
    trainer = make_trainer("sgd", options, depth=1, epochs=2, batch_size=16, engine=engine)
    theta = [p.detach().clone().requires_grad_() for p in trainer.model.parameters()]
    velocity = [torch.zeros_like(p) for p in theta]
    for epoch in range(2):
        for x, y in trainer.batches.epoch(epoch):
            loss = Loss("cross_entropy")(x @ theta[0].T + theta[1], y)
            gradients = torch.autograd.grad(loss, theta)
            for i, gradient in enumerate(gradients):
                g = gradient + 0.01 * theta[i].detach()
                velocity[i] = g if epoch == 0 and not velocity[i].any() else 0.9 * velocity[i] + g
                theta[i] = (theta[i].detach() - 0.1 * (g + 0.9 * velocity[i])).requires_grad_()
    list(trainer.run())
    expected = torch.cat([p.detach().reshape(-1) for p in theta])
    torch.testing.assert_close(parameters(trainer), expected, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("engine", ENGINES)
def test_clipping_bounds_the_step(engine):
    trainer = make_trainer("sgd", {"lr": 1.0}, epochs=1, batch_size=50, clip_grad_norm=1e-3, engine=engine)
    before = parameters(trainer)
    list(trainer.run())
    assert (parameters(trainer) - before).norm().item() == pytest.approx(1e-3, rel=1e-3)


# --- the data path --------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 3, 8, 50, 64])
def test_an_epoch_serves_each_sample_once_in_an_order_of_its_own(batch_size, monkeypatch):
    monkeypatch.setattr("mlpcli.batches.BLOCK_BYTES", 200)  # several blocks an epoch
    inputs = torch.arange(50.0)[:, None]
    batches = Batches(inputs, torch.arange(50), copy, batch_size, shuffle_seed=1)
    orders = []
    for epoch in (0, 1):
        served = served_by(batches, epoch)
        assert [len(x) for x, _ in served[:-1]] == [min(batch_size, 50)] * (len(served) - 1)
        assert len(served) == batches.steps
        order = torch.cat([y for _, y in served])
        assert torch.equal(torch.cat([x for x, _ in served])[:, 0], order.float())
        assert sorted(order.tolist()) == list(range(50))
        orders.append(order.tolist())
        for skip in range(len(served) + 1):
            rest = [y.tolist() for _, y in served_by(batches, epoch, skip)]
            assert rest == [y.tolist() for _, y in served[skip:]]
    assert orders[0] != orders[1] != sorted(orders[1])
    assert orders[0] == torch.cat([y for _, y in served_by(batches, 0)]).tolist()


@pytest.mark.parametrize("block_bytes", [1, 200, 2**20])
@pytest.mark.parametrize("shuffle_seed", [None, 1])
def test_rows_choose_samples_of_what_is_stored_and_each_is_prepared(shuffle_seed, block_bytes, monkeypatch):
    monkeypatch.setattr("mlpcli.batches.BLOCK_BYTES", block_bytes)
    stored = torch.randint(0, 256, (90, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    rows, targets = torch.arange(80, 20, -2), torch.randn(30, 2)

    def prepare(images, out):
        assert images.dtype == torch.uint8 and len(images) == len(out)
        out.copy_(images).div_(255)

    batches = Batches(stored, targets, prepare, 7, shuffle_seed, rows=rows, dtype=torch.float64)
    assert (len(batches), batches.steps) == (30, 5)
    x, y = (torch.cat(parts) for parts in zip(*served_by(batches, 0), strict=True))
    assert x.dtype == torch.float64
    expected = stored[rows].double() / 255
    if shuffle_seed is None:
        assert torch.equal(x, expected) and torch.equal(y, targets)
    else:
        places = [int((targets == each).all(1).nonzero()) for each in y]
        assert sorted(places) == list(range(30)) != places
        assert torch.equal(x, expected[places])


# --- records, monitoring, schedules ------------------------------------------------------------------


@pytest.mark.parametrize("engine", ENGINES)
def test_a_record_says_what_the_epoch_came_to(engine):
    trainer = make_trainer("sgd", {"lr": 0.0}, epochs=2, batch_size=8, engine=engine)
    first, second = (r for r in trainer.run() if r is not None)
    x, y = trainer.batches.stored, trainer.batches.targets
    outputs = trainer.model(x)
    assert (first.epoch, first.step, second.epoch, second.step) == (1, 7, 2, 14)
    assert first.train["loss"] == pytest.approx(Loss("cross_entropy")(outputs, y).item())
    assert first.train["accuracy"] == (outputs.argmax(1) == y).double().mean().item()
    assert first.seconds > 0
    assert (first.is_best, second.is_best) == (True, False)


@pytest.mark.parametrize("engine", ENGINES)
def test_the_last_learning_rate_of_the_epoch_is_recorded(engine):
    linear = {"schedule": "linear", "schedule_options": {"end_factor": 0.0}}
    trainer = make_trainer("sgd", {"lr": 0.1}, engine=engine, **linear)
    assert [r.lr for r in trainer.run() if r is not None] == pytest.approx(
        [0.1 * (1 - (7 * epoch - 1) / 28) for epoch in (1, 2, 3, 4)]
    )


VALUES = [1.0, 0.9, 0.95, 0.91, 0.9, 0.8, 0.81, 0.82, 0.83, 0.84, 0.85, 0.1]


@pytest.mark.parametrize("patience", [0, 1, 3])
@pytest.mark.parametrize("less", [True, False])
def test_plateau_is_torchs(patience, less):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    torchs = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, "min" if less else "max", factor=0.5, patience=patience, threshold=0.0, min_lr=0.2
    )
    ours = Plateau(Progress(less), factor=0.5, patience=patience, min_factor=0.2)
    for epoch, value in enumerate(VALUES, 1):
        torchs.step(value)
        ours.update(value, epoch)
        assert ours.scale == pytest.approx(optimizer.param_groups[0]["lr"])


@pytest.mark.parametrize("engine", ENGINES)
def test_early_stopping_counts_epochs_without_improvement(engine):
    progress = Progress(less=True, min_delta=0.05)
    trainer = make_trainer("sgd", {"lr": 0.0}, epochs=50, engine=engine)
    trainer.early_stopping = ("train.loss", progress, 3)
    assert len(records(trainer)) == 4
    assert trainer.stopped_early and progress.epoch == 1


def test_min_delta_asks_for_more_than_a_hair():
    progress = Progress(less=False, min_delta=0.1)
    assert [progress.update(v, e) for e, v in enumerate([0.5, 0.55, 0.59, 0.65], 1)] == [
        True,
        False,
        False,
        True,
    ]
    assert (progress.best, progress.epoch, progress.stale) == (0.65, 4, 0)


# --- resume ----------------------------------------------------------------------------------------------


def through_a_file(state):
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


def compare_resumed(stop_after, **options):
    whole = make_trainer(**options)
    expected = records(whole)
    first = make_trainer(**options)
    got = []
    for count, record in enumerate(first.run(), 1):
        if record is not None:
            got.append(record.to_plain() | {"seconds": 0})
        if count == stop_after:
            break
    state = through_a_file(first.state_dict())
    torch.manual_seed(999)  # whatever the generators did in between must not matter
    second = make_trainer(**options)
    second.load_state_dict(state)
    got += records(second)
    assert got == expected
    assert torch.equal(parameters(second), parameters(whole))
    state, reference = second.state_dict(), whole.state_dict()
    assert str(state["optimizer"]) == str(reference["optimizer"])
    assert torch.equal(state["generators"]["cpu"], reference["generators"]["cpu"])


BY_EXPLICIT = ("gd", "sgd", "adam", "adamw")


def combined(optimizers):
    """Each optimizer with each schedule by autograd, and by the explicit engine, which sees only their numbers,
    with two of them."""
    return [
        *((o, "autograd", schedule) for o in optimizers for schedule in SCHEDULES),
        *((o, "explicit", schedule) for o in optimizers if o in BY_EXPLICIT for schedule in ("cosine", "plateau")),
    ]


@pytest.mark.parametrize("stop_after", [1, 3])
@pytest.mark.parametrize(("optimizer", "engine", "schedule"), combined(["gd", "lbfgs"]))
def test_resumed_is_uninterrupted_full_batch(optimizer, engine, schedule, stop_after):
    compare_resumed(stop_after, optimizer=optimizer, engine=engine, schedule=schedule, dtype=torch.float32)


@pytest.mark.parametrize("stop_after", [3, 7, 8, 19])  # in an epoch, after its last step, at its record, later
@pytest.mark.parametrize(
    ("optimizer", "engine", "schedule"), combined(["sgd", "adam", "adamw", "rmsprop", "adagrad"])
)
def test_resumed_is_uninterrupted_mini_batches(optimizer, engine, schedule, stop_after):
    compare_resumed(
        stop_after,
        optimizer=optimizer,
        engine=engine,
        schedule=schedule,
        dtype=torch.float32,
        dropout=0.3,
        normalization="none" if engine == "explicit" else "batch",
    )


@pytest.mark.parametrize("optimizer", ["gd", "sgd"])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_resumed_is_uninterrupted_with_clipping_and_chunks(optimizer, momentum):
    compare_resumed(
        2,
        optimizer=optimizer,
        options={"lr": 0.1, "momentum": momentum},
        engine="explicit",
        dtype=torch.float32,
        dropout=0.3,
        clip_grad_norm=0.1,
    )


# --- non-finite values -----------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ENGINES)
def test_a_non_finite_layer_is_named_with_its_epoch_and_step(engine):
    trainer = make_trainer("sgd", {"lr": 1e200}, epochs=50, engine=engine)
    start = through_a_file(trainer.state_dict())
    with pytest.raises(NonFinite) as seen:
        list(trainer.run())
    fresh = make_trainer("sgd", {"lr": 1e200}, epochs=50, engine=engine)
    fresh.load_state_dict(start)
    found = fresh.locate_non_finite(seen.value.step)
    assert found is not None and found.step <= seen.value.step <= found.step + CHECK_EVERY
    # the oracle: step by hand and look at every layer
    model, n = make_trainer("sgd", {"lr": 1e200}).model, 0
    batches = trainer.batches
    for epoch in range(50):
        for x, y in batches.epoch(epoch):
            n += 1
            value = x
            for index, layer in enumerate(model):
                value = layer(value)
                if not torch.isfinite(value).all():
                    assert (found.epoch, found.step) == (epoch + 1, n)
                    assert str(found) == f"the output of layer {index} ({layer})"
                    return
            model.zero_grad()
            Loss("cross_entropy")(value, y).backward()
            with torch.no_grad():
                for p in model.parameters():
                    p -= 1e200 * p.grad
    raise AssertionError("the oracle stayed finite")


@pytest.mark.parametrize("engine", ENGINES)
def test_a_non_finite_loss_of_finite_outputs_is_named(engine):
    trainer = make_trainer("sgd", {"lr": 1.0}, loss="mse", depth=1, engine=engine)
    with torch.no_grad():
        trainer.model[0].bias.fill_(1e200)
    found = trainer.locate_non_finite(1)
    assert found is not None and (str(found), found.epoch, found.step) == ("the loss", 1, 1)


@pytest.mark.parametrize("engine", ENGINES)
def test_finite_weights_are_required_at_the_end_of_an_epoch(engine):
    trainer = make_trainer("sgd", {"lr": math.inf}, epochs=1, batch_size=50, engine=engine)
    with pytest.raises(NonFinite, match=r"parameter 0.weight"):
        list(trainer.run())
