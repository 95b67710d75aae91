"""Optimizers by name, and learning-rate schedules as functions of the step."""

import inspect
import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn


def _without_dynamo(cls: type[torch.optim.Optimizer]) -> type[torch.optim.Optimizer]:
    """`cls` without the wrappers that import torch's compiler on first use, which takes as long as torch."""
    names = ("add_param_group", "zero_grad", "state_dict", "load_state_dict")
    methods: dict[str, Any] = {name: inspect.unwrap(getattr(cls, name)) for name in names}
    methods["step"] = torch.no_grad()(inspect.unwrap(cls.step))
    return type(cls.__name__, (cls,), methods)


OPTIMIZERS = {
    name: _without_dynamo(cls)
    for name, cls in {
        "gd": torch.optim.SGD,
        "sgd": torch.optim.SGD,
        "adam": torch.optim.Adam,
        "adamw": torch.optim.AdamW,
        "rmsprop": torch.optim.RMSprop,
        "adagrad": torch.optim.Adagrad,
        "lbfgs": torch.optim.LBFGS,
    }.items()
}


def make_optimizer(parameters: Iterable[nn.Parameter], name: str, **options: Any) -> torch.optim.Optimizer:
    """The optimizer of torch.optim with that name; `gd` is SGD, fed with the exact gradient.

    Raises:
        ValueError: an unknown name.
        TypeError: an option that the optimizer lacks.
    """
    if name not in OPTIMIZERS:
        raise ValueError(f"no optimizer is called {name!r}")
    if name == "lbfgs":
        search = options.pop("line_search", "none")
        # torch's own tolerances stop it at four digits; the number of epochs is the user's to choose
        tolerances = {"tolerance_grad": 1e-12, "tolerance_change": 1e-16}
        options |= tolerances | {"line_search_fn": None if search == "none" else search}
    return OPTIMIZERS[name](parameters, **options)


def lr_factor(
    name: str, step: int, *, steps_per_epoch: int, epochs: int, warmup: float = 0.0, **options: float
) -> float:
    """The share of the learning rate that step `step` (from 0) uses.

    A function of the step alone, so that a resumed run needs no state and a longer one can be asked for.
    With `warmup` the factor first rises linearly over that many epochs, and the schedule spans the steps that
    are left. `plateau` has a state of its own and is constant here.

    Args:
        name: `constant`, `step`, `cosine`, `linear`, `one_cycle` or `plateau`.
        step: steps done so far.
        steps_per_epoch, epochs: their product is the length of the training.
        warmup: epochs, fractions too.
        options: of the schedule, named as in the config.

    Raises:
        ValueError: an unknown name.
    """
    warmup_steps = round(warmup * steps_per_epoch)
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    step -= warmup_steps
    total = max(1, steps_per_epoch * epochs - warmup_steps)
    progress = min(1.0, step / total)
    if name in ("constant", "plateau"):
        return 1.0
    if name == "step":
        return float(options["gamma"] ** (step // (int(options["step_size"]) * steps_per_epoch)))
    if name == "cosine":
        return _half_cosine(1.0, options["end_factor"], progress)
    if name == "linear":
        return 1.0 + (options["end_factor"] - 1.0) * progress
    if name == "one_cycle":
        first = 1 / options["div_factor"]
        peak = max(0.0, options["pct_start"] * total - 1)
        if step < peak:
            return _half_cosine(first, 1.0, step / peak)
        fall = (step - peak) / max(1.0, total - 1 - peak)
        return _half_cosine(1.0, first / options["final_div_factor"], min(1.0, fall))
    raise ValueError(f"no scheduler is called {name!r}")


def _half_cosine(start: float, end: float, progress: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2
