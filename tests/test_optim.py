import warnings

import pytest
import torch
from torch.optim import lr_scheduler

from mlpcli.optim import lr_factor, make_optimizer


def factors(name, steps_per_epoch=7, epochs=9, **options):
    total = steps_per_epoch * epochs
    return [
        lr_factor(name, step, steps_per_epoch=steps_per_epoch, epochs=epochs, **options) for step in range(total)
    ]


def torchs(make, steps=63):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = make(optimizer)
    values = []
    for _ in range(steps):
        values.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            scheduler.step()
    return values


def test_schedules_are_torchs():
    assert factors("constant") == [1.0] * 63
    assert factors("cosine", end_factor=0.1) == pytest.approx(
        torchs(lambda o: lr_scheduler.CosineAnnealingLR(o, 63, eta_min=0.1))
    )
    assert factors("linear", end_factor=0.2) == pytest.approx(
        torchs(lambda o: lr_scheduler.LinearLR(o, 1.0, 0.2, 63))
    )
    assert factors("step", step_size=2, gamma=0.3) == pytest.approx(
        torchs(lambda o: lr_scheduler.StepLR(o, 14, 0.3))
    )
    assert factors("one_cycle", pct_start=0.3, div_factor=25, final_div_factor=1e4) == pytest.approx(
        torchs(lambda o: lr_scheduler.OneCycleLR(o, 1.0, 63, cycle_momentum=False))
    )


def test_warmup_rises_linearly_and_the_schedule_spans_the_rest():
    got = factors("cosine", warmup=1, end_factor=0.0)
    assert got[:7] == pytest.approx([k / 8 for k in range(1, 8)])
    assert got[7:] == pytest.approx(torchs(lambda o: lr_scheduler.CosineAnnealingLR(o, 56), steps=56))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("constant", {}),
        ("cosine", {"end_factor": 0.0}),
        ("linear", {"end_factor": 0.0}),
        ("one_cycle", {"pct_start": 0.3, "div_factor": 25, "final_div_factor": 1e4}),
        ("step", {"step_size": 1, "gamma": 0.5}),
    ],
)
@pytest.mark.parametrize(("steps_per_epoch", "epochs"), [(1, 1), (1, 2), (3, 1), (2, 5)])
@pytest.mark.parametrize("warmup", [0.0, 0.5, 1.0, 10.0])
def test_schedules_stay_between_0_and_1_however_short(name, options, steps_per_epoch, epochs, warmup):
    got = factors(name, steps_per_epoch, epochs, warmup=warmup, **options)
    assert all(0 <= value <= 1 for value in got)
    assert got[0] > 0


def test_names():
    parameters = [torch.zeros(2, requires_grad=True)]
    assert isinstance(make_optimizer(parameters, "gd", lr=0.1), torch.optim.SGD)
    for name, kind in {
        "sgd": torch.optim.SGD,
        "adam": torch.optim.Adam,
        "adamw": torch.optim.AdamW,
        "rmsprop": torch.optim.RMSprop,
        "adagrad": torch.optim.Adagrad,
    }.items():
        assert isinstance(make_optimizer(parameters, name, lr=0.1, weight_decay=0.2), kind)
    lbfgs = make_optimizer(parameters, "lbfgs", line_search="strong_wolfe", max_iter=3)
    assert lbfgs.param_groups[0]["line_search_fn"] == "strong_wolfe"
    assert make_optimizer(parameters, "lbfgs", line_search="none").param_groups[0]["line_search_fn"] is None
    with pytest.raises(ValueError, match="no optimizer"):
        make_optimizer(parameters, "newton")
    with pytest.raises(ValueError, match="no scheduler"):
        lr_factor("cos", 0, steps_per_epoch=1, epochs=1)
