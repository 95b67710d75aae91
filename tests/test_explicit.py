"""The explicit engine against torch.autograd and torch.optim, central differences, and what it promises."""

import io
import itertools
import json
import math
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from command import mlpcli, succeeds
from torch import nn
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile

from mlpcli.autograd import Autograd
from mlpcli.batches import Batches
from mlpcli.explicit import Explicit
from mlpcli.model import ACTIVATIONS, build_mlp, flat_views, flatten
from mlpcli.objective import PENDING_BATCHES, Loss, Metrics
from mlpcli.optim import make_optimizer
from mlpcli.progress import Progress
from mlpcli.runs import read_metrics
from mlpcli.training import Trainer

N, FEATURES, CLASSES, BATCH = 7, 3, 4, 4
GENERATOR = torch.Generator().manual_seed(5)
X = torch.randn(N, FEATURES, generator=GENERATOR, dtype=torch.float64)
INDEX = torch.tensor([0, 3, 1, 1, 2, 0, 3])
REAL = torch.randn(N, CLASSES, generator=GENERATOR, dtype=torch.float64)
WEIGHTS = torch.tensor([0.5, 2.0, 0.0, 1.5], dtype=torch.float64)


def dense(targets):
    return F.one_hot(targets, CLASSES).double() if targets.dtype == torch.int64 else targets


# name -> our loss, its targets, and the same written with what torch has
LOSSES = {
    "cross_entropy": (Loss("cross_entropy"), INDEX, F.cross_entropy),
    "smoothed": (Loss("cross_entropy", 0.1), INDEX, partial(F.cross_entropy, label_smoothing=0.1)),
    "weighted": (
        Loss("cross_entropy", class_weights=WEIGHTS),
        INDEX,
        lambda o, y: F.cross_entropy(o, y, WEIGHTS.to(o), reduction="sum") / len(o),
    ),
    "weighted, smoothed": (
        Loss("cross_entropy", 0.1, class_weights=WEIGHTS),
        INDEX,
        lambda o, y: F.cross_entropy(o, y, WEIGHTS.to(o), reduction="sum", label_smoothing=0.1) / len(o),
    ),
}
for kind, values in (("classes", INDEX), ("real", REAL)):
    LOSSES |= {
        f"mse, {kind}": (Loss("mse"), values, lambda o, y: (o - dense(y)).square().sum(1).mean()),
        f"mae, {kind}": (Loss("mae"), values, lambda o, y: (o - dense(y)).abs().sum(1).mean()),
        f"huber, {kind}": (
            Loss("huber", delta=0.6),
            values,
            lambda o, y: F.huber_loss(o, dense(y), reduction="sum", delta=0.6) / len(o),
        ),
    }

OPTIMIZERS = {
    "gd": ("gd", {"lr": 0.1}),
    "gd, momentum": ("gd", {"lr": 0.1, "momentum": 0.8}),
    "sgd": ("sgd", {"lr": 0.1}),
    "momentum": ("sgd", {"lr": 0.1, "momentum": 0.8}),
    "nesterov": ("sgd", {"lr": 0.1, "momentum": 0.8, "nesterov": True}),
    "decay": ("sgd", {"lr": 0.1, "weight_decay": 0.1}),
    "momentum, decay": ("sgd", {"lr": 0.1, "momentum": 0.8, "weight_decay": 0.1}),
    "nesterov, decay": ("sgd", {"lr": 0.1, "momentum": 0.8, "weight_decay": 0.1, "nesterov": True}),
    "adam": ("adam", {"lr": 0.01, "betas": (0.8, 0.95)}),
    "adam, decay": ("adam", {"lr": 0.01, "weight_decay": 0.1}),
    "adamw": ("adamw", {"lr": 0.01, "weight_decay": 0.1}),
}


TORCHS = {"gd": torch.optim.SGD, "sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}


def steps_of(name):
    """What each step of two epochs sees: slices of the samples; gd accumulates them into one step an epoch."""
    parts = [slice(0, BATCH), slice(BATCH, N)]  # the last one is ragged
    return [parts] * 2 if name.startswith("gd") else [[part] for part in parts * 2]


def explicit_run(model, loss, targets, name, clip=None, seed=3):
    """The parameters, moved by the explicit engine."""
    kind, options = OPTIMIZERS[name]
    optimizer = make_optimizer(model.parameters(), kind, **options)
    engine = Explicit(model, loss, optimizer, BATCH, clip)
    inputs = X.to(next(model.parameters()).dtype)
    torch.manual_seed(seed)
    for parts in steps_of(name):
        total = sum(part.stop - part.start for part in parts)
        for i, part in enumerate(parts):
            share = (part.stop - part.start) / total
            engine.gradient(inputs[part], targets[part], share, first=i == 0)
        engine.update(options["lr"])
    return [p.detach() for p in model.parameters()]


def torch_run(model, loss, targets, name, clip=None, seed=3):
    """The parameters, moved by torch.autograd and torch.optim."""
    kind, options = OPTIMIZERS[name]
    optimizer = TORCHS[kind](model.parameters(), **options)
    inputs = X.to(next(model.parameters()).dtype)
    torch.manual_seed(seed)
    for parts in steps_of(name):
        total = sum(part.stop - part.start for part in parts)
        optimizer.zero_grad()
        for part in parts:
            share = (part.stop - part.start) / total
            (loss(model(inputs[part]), targets[part]) * share).backward()
        if clip is not None:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
    return [p.detach() for p in model.parameters()]


def flat_of(tensors):
    return torch.cat([t.reshape(-1) for t in tensors])


def differs(ours, reference, tolerance):
    """Whether any parameter is further off than `tolerance` of the largest."""
    ours, reference = flat_of(ours), flat_of(reference)
    return not (ours - reference).abs().max().item() <= tolerance * reference.abs().max().item()


def networks(activation, depth, dropout, bias, dtype=torch.float64):
    """Two equal networks."""
    options = {"depth": depth, "width": 5, "activation": activation, "dropout": dropout, "bias": bias}
    return tuple(build_mlp(FEATURES, CLASSES, **options, seed=1).to(dtype) for _ in range(2))


def put(model, values):
    with torch.no_grad():
        for parameter, value in zip(model.parameters(), values, strict=True):
            parameter.copy_(value)
            parameter.grad = None


SHAPES = [("identity", 1), *itertools.product(ACTIVATIONS, (2, 3, 4, 5))]
"""Depth 1 has neither an activation nor dropout."""


def variants(depth):
    """Dropout and bias of a network of that depth."""
    return itertools.product((0.0, 0.3) if depth > 1 else (0.0,), (True, False))


@pytest.mark.parametrize(("activation", "depth"), SHAPES)
def test_two_epochs_are_those_of_autograd_whatever_is_combined(activation, depth):
    # every optimizer at depths 1 and 2, elsewhere one in turn: which it is does not depend on the layers
    turns = itertools.cycle(OPTIMIZERS)
    wrong, moved = [], []
    for dropout, bias in variants(depth):
        ours, plain = networks(activation, depth, dropout, bias)
        start = [p.detach().clone() for p in plain.parameters()]
        for loss, (mine, targets, oracle) in LOSSES.items():
            for name in OPTIMIZERS if depth <= 2 else (next(turns),):
                put(ours, start), put(plain, start)
                got, expected = explicit_run(ours, mine, targets, name), torch_run(plain, oracle, targets, name)
                if differs(got, expected, 1e-12):
                    wrong.append((loss, name, dropout, bias))
                moved.append(differs(start, expected, 1e-6))
    assert wrong == []
    assert all(moved)


@pytest.mark.parametrize(("activation", "depth"), SHAPES)
def test_every_gradient_is_autograds(activation, depth):
    wrong = []
    for dropout, bias in variants(depth):
        ours, plain = networks(activation, depth, dropout, bias)
        for turn, (loss, (mine, targets, oracle)) in enumerate(LOSSES.items()):
            nesterov = (turn + bias) % 2 == 1  # with it, the gradient has a buffer of its own
            optimizer = torch.optim.SGD(ours.parameters(), lr=0.0, momentum=0.5, nesterov=nesterov)
            engine = Explicit(ours, mine, optimizer, N)
            torch.manual_seed(3)
            outputs = engine.gradient(X, targets)
            engine.update(0.0)
            torch.manual_seed(3)
            expected_outputs = plain(X)
            expected = torch.autograd.grad(oracle(expected_outputs, targets), list(plain.parameters()))
            got = [optimizer.state[p]["momentum_buffer"] for p in ours.parameters()]  # a first velocity
            pairs = [(outputs, expected_outputs.detach()), *zip(got, expected, strict=True)]
            if any(differs([one], [other], 1e-12) for one, other in pairs):
                wrong.append((loss, nesterov, dropout, bias))
    assert wrong == []


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_float32_agrees_to_rounding(activation):
    for dropout, name in itertools.product((0.0, 0.3), OPTIMIZERS):
        ours, plain = networks(activation, 3, dropout, True, torch.float32)
        mine, targets, oracle = LOSSES["smoothed"]
        got, expected = explicit_run(ours, mine, targets, name), torch_run(plain, oracle, targets, name)
        assert got[0].dtype == torch.float32
        for one, other in zip(got, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("clip", [1e-3, 0.3, 1e3])  # shorter than every gradient, than some, than none
def test_the_gradient_is_clipped_as_torch_clips_it(name, clip):
    for dropout, bias in variants(3):
        mine, targets, oracle = LOSSES["mse, real"]
        ours, plain = networks("tanh", 3, dropout, bias)
        got, expected = (
            explicit_run(ours, mine, targets, name, clip),
            torch_run(plain, oracle, targets, name, clip),
        )
        assert not differs(got, expected, 1e-12)
        (unclipped,) = networks("tanh", 3, dropout, bias)[:1]
        without = explicit_run(unclipped, mine, targets, name)
        if name in ("gd", "sgd", "momentum"):  # adam does not see the scale
            assert differs(got, without, 1e-12) == (clip < 1e3)


CHUNKED = [name for name in OPTIMIZERS if not name.startswith("gd")]


@pytest.mark.parametrize("name", CHUNKED)
@pytest.mark.parametrize("clip", [None, 0.1])
def test_chunks_of_any_size_accumulate_to_one(name, clip):
    def trained(chunk):
        model = networks("gelu", 3, 0.0, True)[0]
        kind, options = OPTIMIZERS[name]
        optimizer = make_optimizer(model.parameters(), kind, **options)
        engine = Explicit(model, Loss("cross_entropy", 0.1), optimizer, chunk, clip)
        for _ in range(4):
            for start in range(0, N, chunk):
                part = slice(start, start + chunk)
                engine.gradient(X[part], INDEX[part], len(X[part]) / N, first=start == 0)
            engine.update(options["lr"])
        return list(model.parameters())

    whole = trained(N)
    for chunk in range(1, N):
        assert not differs(trained(chunk), whole, 1e-12), chunk


@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "gelu", "silu"])
@pytest.mark.parametrize("loss", ["weighted, smoothed", "mse, real"])
def test_the_gradient_is_that_of_central_differences(activation, loss):
    mine, targets, _ = LOSSES[loss]
    model = networks(activation, 3, 0.0, True)[0]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0, momentum=0.5)
    Explicit(model, mine, optimizer, N).gradient(X, targets)
    h, oracle = 1e-5, by_numpy(activation, loss)
    for index, parameter in enumerate(model.parameters()):
        theta = [p.detach().numpy().copy() for p in model.parameters()]
        expected = np.empty(parameter.shape)
        for place in np.ndindex(*parameter.shape):
            there = theta[index][place]
            theta[index][place] = there + h
            above = oracle(theta)
            theta[index][place] = there - h
            expected[place] = (above - oracle(theta)) / (2 * h)
            theta[index][place] = there
        got = optimizer.state[parameter]["momentum_buffer"]
        np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-9)


def by_numpy(activation, loss):
    """The objective as a function of the parameters, without torch's network, activations or losses."""
    x, y, w = X.numpy(), np.eye(CLASSES)[INDEX.numpy()], WEIGHTS.numpy()
    erf = np.vectorize(math.erf)
    sigma = {
        "tanh": np.tanh,
        "sigmoid": lambda z: 1 / (1 + np.exp(-z)),
        "gelu": lambda z: z * (1 + erf(z / math.sqrt(2))) / 2,
        "silu": lambda z: z / (1 + np.exp(-z)),
    }[activation]

    def objective(theta):
        h = x
        for layer in (0, 2):
            h = sigma(h @ theta[layer].T + theta[layer + 1])
        o = h @ theta[4].T + theta[5]
        if loss == "mse, real":
            return ((o - REAL.numpy()) ** 2).sum(1).mean()
        log_p = o - np.log(np.exp(o).sum(1, keepdims=True))
        return -(w * (0.9 * y + 0.1 / CLASSES) * log_p).sum(1).mean()

    return objective


def test_a_batch_larger_than_announced_and_a_smaller_one_are_right():
    mine, targets, oracle = LOSSES["cross_entropy"]
    ours, plain = networks("gelu", 3, 0.0, True)
    optimizer = torch.optim.SGD(ours.parameters(), lr=0.1)
    theirs = torch.optim.SGD(plain.parameters(), lr=0.1)
    engine = Explicit(ours, mine, optimizer, 2)
    for n in (1, N, 2, 5, N, 1):
        engine.gradient(X[:n], targets[:n])
        engine.update(0.1)
        theirs.zero_grad()
        oracle(plain(X[:n]), targets[:n]).backward()
        theirs.step()
    assert not differs([p.detach() for p in ours.parameters()], [p.detach() for p in plain.parameters()], 1e-12)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_step_is_the_gradient_and_the_update_and_its_rate_may_be_a_tensor(name):
    kind, options = OPTIMIZERS[name]
    mine, targets, _ = LOSSES["cross_entropy"]
    engines = []
    for model in (*networks("silu", 3, 0.3, True), *networks("silu", 3, 0.3, True)[:1]):
        optimizer = make_optimizer(model.parameters(), kind, **options)
        engines.append((model, Explicit(model, mine, optimizer, N, 0.3 if name == "sgd" else None)))
    rate = torch.tensor(options["lr"], dtype=torch.float64)
    for step in range(3):
        outputs = []
        for (_, engine), lr in zip(engines, (None, options["lr"], rate), strict=True):
            torch.manual_seed(step)
            if lr is None:
                outputs.append(engine.gradient(X, targets).clone())
                engine.update(options["lr"])
            else:
                outputs.append(engine.step(X, targets, lr).clone())
        assert torch.equal(outputs[0], outputs[1])
        torch.testing.assert_close(outputs[0], outputs[2], rtol=1e-12, atol=1e-14)
    by_parts, at_once, by_tensor = ([p.detach() for p in model.parameters()] for model, _ in engines)
    assert all(torch.equal(one, other) for one, other in zip(by_parts, at_once, strict=True))
    assert not differs(by_tensor, by_parts, 1e-12)


# --- one buffer ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("normalization", ["none", "batch"])
def test_flatten_keeps_names_shapes_and_values(bias, normalization):
    options = {"depth": 4, "width": [9, 8, 7], "bias": bias, "normalization": normalization}
    model, plain = (build_mlp(6, 5, **options, seed=1) for _ in range(2))
    identity = [id(p) for p in model.parameters()]
    flat = flatten(model)
    assert [id(p) for p in model.parameters()] == identity
    before, after = plain.state_dict(), model.state_dict()
    assert list(after) == list(before)
    for name, value in before.items():
        assert after[name].shape == value.shape and torch.equal(after[name], value)
    assert all(p.requires_grad for p in model.parameters()) and not flat.requires_grad
    places = zip(model.parameters(), flat_views(model, flat), strict=True)
    assert all(p.data_ptr() == view.data_ptr() and p.stride() == view.stride() for p, view in places)
    assert all(inside(p, flat) and p.data_ptr() % 64 == flat.data_ptr() % 64 for p in model.parameters())
    flat.fill_(2.0)
    assert all((p == 2).all() for p in model.parameters())
    model.load_state_dict(before)
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())
    assert all(inside(p, flat) for p in model.parameters())
    numbers = sum(p.numel() for p in model.parameters())
    assert numbers <= flat.numel() <= numbers + 64 * len(identity)


def inside(tensor, flat):
    """Whether a tensor lies in a buffer."""
    first, last = flat.data_ptr(), flat.data_ptr() + flat.numel() * flat.element_size()
    return first <= tensor.data_ptr() and tensor.data_ptr() + tensor.numel() * tensor.element_size() <= last


def trainer_of(engine, name, *, dropout=0.0, clip=None, epochs=3, seed=1):
    """15 samples in batches of 4, or in chunks of 4 for gd."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(15, FEATURES, generator=generator, dtype=torch.float64)
    targets = torch.randint(0, CLASSES, (15,), generator=generator)
    model = build_mlp(FEATURES, CLASSES, depth=3, width=5, activation="silu", dropout=dropout, seed=seed).double()
    loss = Loss("cross_entropy", 0.1)
    kind, options = OPTIMIZERS[name]
    optimizer = make_optimizer(model.parameters(), kind, **options)
    full_batch = kind == "gd"
    torch.manual_seed(2)
    return Trainer(
        model=model,
        loss=loss,
        optimizer=optimizer,
        engine=Explicit(model, loss, optimizer, 4, clip)
        if engine == "explicit"
        else Autograd(model, loss, optimizer, clip_grad_norm=clip),
        batches=Batches(
            inputs, targets, lambda x, out: out.copy_(x), 4, None if full_batch else 1, dtype=torch.float64
        ),
        metrics=Metrics(loss, regression=False),
        lr=options["lr"],
        lr_factor=lambda step: 0.9**step,
        epochs=epochs,
        full_batch=full_batch,
        monitor="train.loss",
        best=Progress(True),
    )


def through_a_file(state):
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


def stopped_after(trainer, steps):
    """The trainer, `steps` steps further; in the middle of an epoch where that is where they end."""
    for record in trainer.run():
        if record is None and trainer.step == steps:
            break
    return trainer


def trained(trainer):
    for _ in trainer.run():
        pass
    return [p.detach() for p in trainer.model.parameters()]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_loading_a_state_leaves_everything_in_the_buffers(name):
    expected = trained(trainer_of("explicit", name))
    earlier = stopped_after(trainer_of("explicit", name), 2)
    trainer = stopped_after(trainer_of("explicit", name, seed=9), 1)  # the state replaces another one
    places = [p.data_ptr() for p in trainer.model.parameters()]
    owner = trainer.model[0].weight.untyped_storage().data_ptr()
    states = [v.data_ptr() for p in trainer.model.parameters() for v in trainer.optimizer.state[p].values()]
    trainer.load_state_dict(through_a_file(earlier.state_dict()))
    assert [p.data_ptr() for p in trainer.model.parameters()] == places
    assert {p.untyped_storage().data_ptr() for p in trainer.model.parameters()} == {owner}
    after = [v.data_ptr() for p in trainer.model.parameters() for v in trainer.optimizer.state[p].values()]
    assert after == states
    got = trained(trainer)
    assert all(torch.equal(one, other) for one, other in zip(got, expected, strict=True))


def test_weights_loaded_into_the_model_are_those_that_train():
    mine, targets, oracle = LOSSES["cross_entropy"]
    ours, plain = networks("relu", 3, 0.0, True)
    engine = Explicit(ours, mine, torch.optim.SGD(ours.parameters(), lr=0.1), N)
    other = build_mlp(FEATURES, CLASSES, depth=3, width=5, seed=8).double()
    places = [p.data_ptr() for p in ours.parameters()]
    ours.load_state_dict(other.state_dict()), plain.load_state_dict(other.state_dict())
    assert [p.data_ptr() for p in ours.parameters()] == places
    outputs = engine.gradient(X, targets)
    torch.testing.assert_close(outputs, plain(X).detach(), rtol=1e-12, atol=1e-14)
    engine.update(0.1)
    loss = oracle(plain(X), targets)
    gradients = torch.autograd.grad(loss, list(plain.parameters()))
    expected = [p.detach() - 0.1 * g for p, g in zip(plain.parameters(), gradients, strict=True)]
    assert not differs([p.detach() for p in ours.parameters()], expected, 1e-12)


def test_a_state_dict_goes_round():
    trainer = stopped_after(trainer_of("explicit", "adam", dropout=0.3), 6)
    state = through_a_file(trainer.state_dict())
    fresh = trainer_of("explicit", "adam", dropout=0.3, seed=9)
    fresh.load_state_dict(state)
    again = fresh.state_dict()
    assert {name: value.tolist() for name, value in again["model"].items()} == {
        name: value.tolist() for name, value in state["model"].items()
    }
    assert str(again["optimizer"]) == str(state["optimizer"]) and str(again["metrics"]) == str(state["metrics"])
    assert again["position"] == state["position"]
    assert {float(v["step"]) for v in state["optimizer"]["state"].values()} == {6.0}


@pytest.mark.parametrize(("first", "second"), [("explicit", "autograd"), ("autograd", "explicit")])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_one_engine_goes_on_where_the_other_stopped(name, first, second):
    for dropout, clip, steps in ((0.0, None, 2), (0.3, None, 6), (0.0, 0.1, 0)):
        options = {"dropout": dropout, "clip": clip}
        expected = trained(trainer_of("autograd", name, **options))
        earlier = trainer_of(first, name, **options)
        if steps:
            stopped_after(earlier, min(steps, 2) if name.startswith("gd") else steps)
        state = through_a_file(earlier.state_dict())  # with the generator's, which the next line seeds anew
        later = trainer_of(second, name, **options, seed=9)
        later.load_state_dict(state)
        assert not differs(trained(later), expected, 1e-12), (dropout, clip, steps)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_optimizers_state_is_one_that_torch_goes_on_with(name):
    mine, targets, oracle = LOSSES["cross_entropy"]
    ours, plain = networks("tanh", 3, 0.0, True)
    explicit_run(ours, mine, targets, name)
    torch_run(plain, oracle, targets, name)
    kind, options = OPTIMIZERS[name]
    adopted = make_optimizer(ours.parameters(), kind, **options)
    engine = Explicit(ours, mine, adopted, N)
    engine.gradient(X, targets), engine.update(options["lr"])
    state = through_a_file({"model": ours.state_dict(), "optimizer": adopted.state_dict()})
    continued = networks("tanh", 3, 0.0, True)[0]
    continued.load_state_dict(state["model"])
    optimizer = TORCHS[kind](continued.parameters(), **options)
    optimizer.load_state_dict(state["optimizer"])
    reference = TORCHS[kind](plain.parameters(), **options)
    for step in range(4):
        for model, moves in ((plain, reference), (continued, optimizer)):
            if step == 0 and model is continued:
                continue  # the engine has taken that step already
            moves.zero_grad()
            oracle(model(X), targets).backward()
            moves.step()
    assert not differs(
        [p.detach() for p in continued.parameters()], [p.detach() for p in plain.parameters()], 1e-12
    )


# --- nothing is allocated -----------------------------------------------------------------------------------


def allocations(function):
    """The sizes in bytes of what is allocated while it runs."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        function()
    events = profiler.profiler.kineto_results.events()
    return [e.nbytes() for e in events if e.name() == "[memory]" and e.nbytes() > 0]


STEADY = {
    "sgd": {"lr": 0.1},
    "sgd, momentum": {"lr": 0.1, "momentum": 0.9},
    "sgd, nesterov, decay": {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01},
    "adam": {"lr": 0.01},
    "adamw": {"lr": 0.01, "weight_decay": 0.1},
}


def of_a_steady_step(name, activation="relu", loss="cross_entropy", dropout=0.0, smoothing=0.0, clip=None):
    """What is allocated by four steps, after those that make the buffers."""
    model = build_mlp(30, 10, depth=3, width=40, activation=activation, dropout=dropout, seed=1)
    optimizer = make_optimizer(model.parameters(), name.partition(",")[0], **STEADY[name])
    minimised = Loss(loss, smoothing)
    engine = Explicit(model, minimised, optimizer, 32, clip)
    metrics = Metrics(minimised, regression=False)
    inputs, targets = torch.rand(32, 30), torch.randint(0, 10, (32,))

    def steps(count):
        for _ in range(count):
            metrics.add(engine.gradient(inputs, targets), targets)
            engine.update(0.01)

    steps(2)
    assert PENDING_BATCHES > 6  # so that nothing is counted meanwhile
    return allocations(lambda: steps(4))


def test_an_allocation_would_be_seen():
    assert allocations(lambda: torch.empty(100)) == [400]


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("loss", ["cross_entropy", "mae"])
def test_a_steady_step_allocates_nothing(activation, loss):
    for name in ("sgd", "sgd, momentum", "sgd, nesterov, decay"):
        assert of_a_steady_step(name, activation, loss) == []


@pytest.mark.parametrize("name", STEADY)
@pytest.mark.parametrize(
    "more", [{}, {"dropout": 0.3}, {"smoothing": 0.1}, {"clip": 1.0}, {"loss": "mse"}, {"loss": "huber"}]
)
def test_a_steady_step_allocates_single_numbers_at_most(name, more):
    # torch wraps what Python passes to mul_, div_, sub_ or bernoulli_, and Adam's 1, in a tensor of one number
    assert [size for size in of_a_steady_step(name, **more) if size > 8] == []


def test_a_steady_epoch_allocates_its_order_alone():
    stored, targets = torch.rand(640, 30), torch.randint(0, 10, (640,))
    batches = Batches(stored, targets, lambda x, out: out.copy_(x), 32, 1)
    served = batches.epoch(0)
    next(served)
    assert [size for size in allocations(lambda: [next(served) for _ in range(19)]) if size > 8] == []

    def epoch():
        for _ in batches.epoch(1):
            pass

    assert sum(size for size in allocations(epoch) if size > 8) <= 8 * 3 * 640  # twice the order, and its shuffle


# --- what it refuses, and what it tells ---------------------------------------------------------------------


@pytest.mark.parametrize("normalization", ["batch", "layer"])
def test_normalization_is_refused(normalization):
    model = build_mlp(4, 3, depth=2, width=5, normalization=normalization)
    with pytest.raises(TypeError, match=r"no explicit derivative for (BatchNorm1d|LayerNorm)"):
        Explicit(model, Loss("mse"), torch.optim.SGD(model.parameters(), lr=0.1), 4)


@pytest.mark.parametrize("name", ["rmsprop", "adagrad", "lbfgs"])
def test_other_optimizers_are_refused(name):
    model = build_mlp(4, 3, depth=2, width=5)
    before = [p.data_ptr() for p in model.parameters()]
    optimizer = make_optimizer(model.parameters(), name, lr=0.1)
    with pytest.raises(TypeError, match=f"(?i)no explicit update for {name}"):
        Explicit(model, Loss("mse"), optimizer, 4)
    assert [p.data_ptr() for p in model.parameters()] == before


@pytest.mark.parametrize("engine", ["explicit", "autograd"])
def test_the_watch_sees_each_affine_layers_output_under_its_name(engine):
    trainer = trainer_of(engine, "sgd")
    seen = []
    trainer.engine.watch = lambda name, output: seen.append((name, output.detach().clone()))
    trainer.engine.gradient(trainer.batches.stored, trainer.batches.targets)
    value, expected = trainer.batches.stored, []
    for index, layer in enumerate(trainer.model):
        value = layer(value)
        if isinstance(layer, nn.Linear):
            expected.append((f"layer {index} ({layer})", value.detach()))
    affine = [(name, output) for name, output in seen if "Linear" in name]
    assert (
        [name for name, _ in affine]
        == [name for name, _ in expected]
        == [
            "layer 0 (Linear(in_features=3, out_features=5, bias=True))",
            "layer 2 (Linear(in_features=5, out_features=5, bias=True))",
            "layer 4 (Linear(in_features=5, out_features=4, bias=True))",
        ]
    )
    for (_, got), (_, wanted) in zip(affine, expected, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("layer", [0, 2, 4])
@pytest.mark.parametrize("engine", ["explicit", "autograd"])
def test_the_first_layer_that_overflows_is_located(engine, layer):
    trainer = trainer_of(engine, "sgd")
    with torch.no_grad():
        trainer.model[layer].bias[1] = math.inf
    found = trainer.locate_non_finite(1)
    assert str(found) == f"the output of layer {layer} ({trainer.model[layer]})"
    assert (found.epoch, found.step) == (1, 1)


# --- the command line ---------------------------------------------------------------------------------------

SMALL = ("data.limit=200", "model.width=16", "training.epochs=3", "optimizer.lr=0.05", "-q")


def test_an_engine_that_does_not_cover_the_config_is_a_config_error():
    done = mlpcli("train", "digits", "training.engine=explicit", "optimizer={name: adagrad, lr: 0.1}")
    assert (done.code, done.out) == (2, "")
    assert "training.engine: the explicit engine does not cover this: adagrad is left to torch.optim" in done.err
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("override", "engine", "because"),
    [
        ("seed=0", "explicit", None),
        ("optimizer={name: adagrad, lr: 0.1}", "autograd", "adagrad is left to torch.optim"),
        ("model.normalization=batch", "autograd", "model.normalization: batch is left to torch.autograd"),
        ("training.precision=bfloat16", "explicit", None),
    ],
)
def test_check_says_which_engine_and_why(override, engine, because):
    said = succeeds("check", "digits", override, "--json").json["engine"]
    assert said["name"] == engine
    assert said["because"] is None if because is None else because in said["because"]
    text = succeeds("check", "digits", override).out
    assert engine in text and (because is None or because in text)


def evaluated(run, *more):
    return succeeds("eval", run, "--json", *more).json["metrics"]


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("engine", ["explicit", "autograd"])
def test_evaluating_a_run_gives_what_training_wrote_to_the_last_digit(engine, precision):
    # at this width, the layouts of the two engines round differently in float64
    options = (f"training.engine={engine}", f"training.precision={precision}", "model.width=200")
    succeeds("train", "digits", *SMALL, "-o", "run", *options)
    summary = json.loads(Path("run/summary.json").read_text())
    assert yaml.safe_load(Path("run/config.yaml").read_text())["training"]["engine"] == engine
    assert evaluated("run") == summary["test"]
    measured = evaluated("run", "--split", "validation")
    assert measured.items() >= summary["best"]["validation"].items()


@pytest.mark.parametrize("optimizer", ["{name: sgd, lr: 0.05, momentum: 0.9}", "{name: adam, lr: 0.003}"])
@pytest.mark.parametrize(("first", "second"), [("explicit", "autograd"), ("autograd", "explicit")])
def test_a_run_is_resumed_by_the_other_engine(first, second, optimizer):
    options = (*SMALL, f"optimizer={optimizer}", "scheduler=constant", "training.precision=float64")
    succeeds("train", "digits", *options, "-o", "run", f"training.engine={first}", "training.epochs=2")
    succeeds("train", "--resume", "run", f"training.engine={second}", "training.epochs=4", "-q")
    succeeds("train", "digits", *options, "-o", "whole", f"training.engine={first}", "training.epochs=4")
    assert yaml.safe_load(Path("run/config.yaml").read_text())["training"]["engine"] == second
    lines, expected = (read_metrics(Path(run)) for run in ("run", "whole"))
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4]
    for line, other in zip(lines, expected, strict=True):
        assert line["train"] == pytest.approx(other["train"], rel=1e-9)
        assert line["validation"] == pytest.approx(other["validation"], rel=1e-9)
    assert evaluated("run", "--checkpoint", "last") == pytest.approx(
        evaluated("whole", "--checkpoint", "last"), rel=1e-9
    )


@pytest.mark.parametrize(("first", "second"), [("explicit", "autograd"), ("autograd", "explicit")])
def test_a_best_epoch_of_the_other_engine_evaluates_to_the_summarys_last_digit(first, second):
    # from the fifth epoch on nothing moves, and the best one stays; at this width the layouts round differently
    schedule = ("scheduler={name: step, step_size: 4, gamma: 1e-30}", "training.monitor=validation.accuracy")
    wide = ("loss=mae", "model.width=200", "training.precision=float64", "-q")
    succeeds("train", "digits", *wide, *schedule, "-o", "run", f"training.engine={first}", "training.epochs=4")
    succeeds("train", "--resume", "run", f"training.engine={second}", "training.epochs=5", "-q")
    summary = json.loads(Path("run/summary.json").read_text())
    assert summary["best"]["epoch"] <= 4 and summary["epochs"] == 5
    assert evaluated("run") == summary["test"]


def test_a_compiler_that_is_absent_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class Failed(RuntimeError):
        __module__ = "torch._inductor.exc"

    def broken(*_arguments: object) -> torch.Tensor:
        raise Failed("InvalidCxxCompiler: No working C++ compiler found\nand a long story")

    monkeypatch.setattr(torch, "compile", lambda function: broken)
    done = mlpcli("train", "iris", "training.compile=true")
    assert done.code == 2
    assert "training.compile: torch.compile cannot make kernels here: InvalidCxxCompiler" in done.err
    assert "long story" not in done.err and "training.compile: false" in done.err


@pytest.mark.parametrize("engine", ["explicit", "autograd"])
def test_balanced_class_weights_are_scikit_learns(engine: str) -> None:
    from sklearn.utils.class_weight import compute_class_weight

    from mlpcli import data
    from mlpcli.config import load_config

    loss = "loss={name: cross_entropy, class_weights: balanced}"
    succeeds("train", "breast_cancer", "training.epochs=2", loss, f"training.engine={engine}", "-o", "run")
    config = load_config(Path("run/config.yaml"))
    targets = data.load(config.data, config.seed).train.targets.numpy()
    expected = compute_class_weight("balanced", classes=np.unique(targets), y=targets)
    state = torch.load("run/checkpoints/best.pt", weights_only=True)
    assert state["data"]["class_weights"].tolist() == pytest.approx(expected.tolist(), rel=1e-12)
    evaluated = json.loads(succeeds("eval", "run", "--json").out)["metrics"]
    assert evaluated == json.loads(Path("run/summary.json").read_text())["test"]


def test_class_weights_must_be_one_a_class() -> None:
    done = mlpcli("check", "iris", "loss={name: cross_entropy, class_weights: [1, 2]}")
    assert done.code == 2 and "2 class weights, but iris has 3 classes" in done.err


# --- mixed precision ------------------------------------------------------------------------------------------


def mixed(optimizer: str, depth: int = 3, dropout: float = 0.0, **more: object):
    """An explicit engine in mixed precision over a float32 network, and its model."""
    model = build_mlp(20, CLASSES, depth=depth, width=32, dropout=dropout, activation="tanh", seed=1)
    moves = make_optimizer(model.parameters(), optimizer, **more)
    return Explicit(model, Loss("cross_entropy"), moves, 16, bfloat16=True), model


def samples(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(n, 20, generator=generator), torch.randint(0, CLASSES, (n,), generator=generator)


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_a_mixed_gradient_is_the_exact_one_to_bfloat16s_precision(depth):
    engine, model = mixed("sgd", depth, lr=0.1)
    inputs, targets = samples(16)
    exact = build_mlp(20, CLASSES, depth=depth, width=32, activation="tanh", seed=1).double()
    expected = torch.autograd.grad(F.cross_entropy(exact(inputs.double()), targets), list(exact.parameters()))
    engine.gradient(inputs, targets)
    for view, gradient in zip(flat_views(model, engine._into), expected, strict=True):
        error = (view.double() - gradient).norm() / gradient.norm()
        assert error < 0.02  # 8 bits of mantissa, 2⁻⁸ = 0.004 a factor
        assert error > 1e-5  # or nothing was rounded


def test_mixed_gradients_of_chunks_add_up():
    inputs, targets = samples(16)
    whole, model = mixed("sgd", lr=0.1)
    whole.gradient(inputs, targets)
    parts, other = mixed("sgd", lr=0.1)
    for start in (0, 4, 8, 12):
        part = slice(start, start + 4)
        parts.gradient(inputs[part], targets[part], 0.25, first=start == 0)
    for a, b in zip(flat_views(other, parts._into), flat_views(model, whole._into), strict=True):
        assert (a - b).norm() < 0.02 * b.norm()


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_mixed_precision_keeps_small_updates(optimizer):
    """θ is in float32: steps far below bfloat16's spacing add up instead of being rounded away."""
    engine, _ = mixed(optimizer, lr=1.0)
    inputs, targets = samples(16)
    before = engine._theta.clone()
    for _ in range(50):
        engine.step(inputs, targets, 1e-5)
    moved = (engine._theta - before).norm()
    assert engine._theta.dtype == torch.float32 and 0 < moved < 0.05
    engine.gradient(inputs, targets)
    if optimizer == "sgd":
        # the gradient hardly changes on such a short way
        assert moved.item() == pytest.approx(50 * 1e-5 * engine._into.norm().item(), rel=0.05)


def test_mixed_precision_trains_and_resumes_to_the_bit():
    base = ["iris", "training.precision=bfloat16", "model.dropout=0.1", "training.batch_size=7"]
    succeeds("train", *base, "training.epochs=6", "-o", "whole")
    succeeds("train", *base, "training.epochs=3", "-o", "parts")
    succeeds("train", "--resume", "parts", "training.epochs=6")
    whole, parts = (torch.load(f"{run}/checkpoints/last.pt", weights_only=True) for run in ("whole", "parts"))
    assert all(torch.equal(whole["model"][name], parts["model"][name]) for name in whole["model"])
    assert "explicit engine" in Path("whole/train.log").read_text()
    losses = [line["train"]["loss"] for line in read_metrics(Path("whole"))]
    assert losses[-1] < 0.7 * losses[0]
    evaluated = json.loads(succeeds("eval", "whole", "--json").out)["metrics"]
    assert evaluated == json.loads(Path("whole/summary.json").read_text())["test"]


def test_a_state_that_is_loaded_reaches_the_mixed_factors():
    engine, model = mixed("sgd", lr=0.1)
    inputs, targets = samples(16)
    state = {name: 2 * value for name, value in model.state_dict().items()}
    model.load_state_dict(state)
    engine.adopt_state()
    expected = model(inputs).detach()
    assert (engine.gradient(inputs, targets) - expected).norm() < 0.02 * expected.norm()


def test_class_weights_that_are_all_zero_are_refused() -> None:
    done = mlpcli("check", "iris", "loss={name: cross_entropy, class_weights: [0, 0, 0]}")
    assert done.code == 2 and "all class weights are 0" in done.err


def test_a_wrong_number_of_threads_is_not_told_to_be_quoted() -> None:
    done = mlpcli("check", "iris", "training.threads=0")
    assert done.code == 2 and "auto" in done.err and "quote" not in done.err
    assert "did you mean auto" in mlpcli("check", "iris", "training.threads=atuo").err


def test_more_threads_than_cores_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    assert (
        "training.threads is 2, but this machine has 1 cores"
        in succeeds("train", "iris", "training.epochs=1", "training.threads=2").err
    )


def test_compiled_kernels_are_not_made_for_several_numbers_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def compiled(function):
        def call(*arguments):
            seen.append(torch.get_num_threads())
            return function(*arguments)

        return call

    monkeypatch.setattr(torch, "compile", compiled)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    succeeds("train", "iris", "training.compile=true", "training.epochs=1", "-o", "run")
    assert seen and yaml.safe_load(Path("run/config.yaml").read_text())["training"]["threads"] == 3
