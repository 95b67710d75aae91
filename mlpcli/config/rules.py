"""What spans the sections of a config: defaults that depend on another key, and keys that do not go together."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from mlpcli.config.data_schema import ImageSection, TableData, TableFileSection
from mlpcli.config.datasets import Facts
from mlpcli.config.schema import (
    EXPLICIT,
    FULL_BATCH,
    TASK_METRICS,
    TOP5_CLASSES,
    Config,
    CrossEntropy,
    MeanSquaredError,
)
from mlpcli.errors import ConfigError, Problem


def resolve(config: Config, facts: Facts | None = None) -> Config:
    """The same config with every default that depends on another key filled in.

    Args:
        config: valid by itself.
        facts: of the data, where it is read; else what is known before. What depends on more stays open.
    """
    data, model, training = config.data, config.model, config.training
    facts = facts or data.facts
    monitor = training.monitor or ("validation.loss" if data.validation else "train.loss")
    stopping = training.early_stopping
    if stopping is not None:
        stopping = stopping.model_copy(update={"monitor": stopping.monitor or monitor})
    batch_size = training.batch_size
    if batch_size is None and config.optimizer.name not in FULL_BATCH:
        batch_size = 64
    loss = config.loss
    if loss is None and facts is not None:
        classes = facts.task == "classification"
        loss = CrossEntropy(name="cross_entropy") if classes else MeanSquaredError(name="mse")
    if facts is not None and isinstance(data, TableFileSection):
        data = data.model_copy(update={"task": facts.task})
    return config.model_copy(
        update={
            "name": config.name or data.dataset,
            "data": data,
            "loss": loss,
            "model": model.model_copy(update={"depth": len(model.widths) + 1}),
            "training": training.model_copy(
                update={"monitor": monitor, "early_stopping": stopping, "batch_size": batch_size}
            ),
        }
    )


def settle(config: Config, facts: Facts) -> Config:
    """The resolved config with what only its data could decide.

    Raises:
        ConfigError: a key does not go together with the data.
    """
    found = [Problem(".".join(each.path), each.message, hint=each.hint) for each in conflicts(config, facts)]
    if found:
        raise ConfigError(found)
    return resolve(config, facts)


def engine(config: Config) -> Literal["explicit", "autograd"]:
    """What computes the gradient."""
    if config.training.engine == "auto":
        return "autograd" if not_explicit(config) else "explicit"
    return config.training.engine


def not_explicit(config: Config) -> str | None:
    """Why the explicit engine does not cover the config; None where it does."""
    if config.model.normalization != "none":
        return f"model.normalization: {config.model.normalization} is left to torch.autograd"
    if config.model.numeric_embedding.name == "periodic":
        return "model.numeric_embedding: periodic is left to torch.autograd"
    if isinstance(config.data, TableFileSection) and config.data.categorical == "embedding":
        return "data.categorical: embedding is left to torch.autograd"
    if config.optimizer.name not in EXPLICIT:
        return f"{config.optimizer.name} is left to torch.optim; the explicit engine has {', '.join(EXPLICIT)}"
    if config.training.parallel == "fsdp":
        return "training.parallel: fsdp is left to torch.autograd"
    if config.training.compile:
        return "torch.compile works on what torch.autograd records"
    return None


@dataclass(frozen=True)
class Conflict:
    """Two keys, each valid by itself, that do not go together.

    Attributes:
        path: the key at which it is reported.
        involves: the sections that it was read from.
        message, hint: what is wrong, and what to do.
    """

    path: tuple[str, ...]
    involves: tuple[str, ...]
    message: str
    hint: str


def conflicts(config: Config, facts: Facts | None = None) -> Iterator[Conflict]:
    """The rules that span sections; each problem once.

    Args:
        config: valid section by section.
        facts: of the data, where it is read; else what is known before, or that is asked of it.
    """
    training, optimizer = config.training, config.optimizer
    facts = facts or config.data.facts
    task = None if facts is None else facts.task
    if isinstance(config.data, TableFileSection) and task is None and config.data.task != "auto":
        task = config.data.task
    if config.loss is not None and config.loss.name == "cross_entropy" and task == "regression":
        yield Conflict(
            ("loss",),
            ("data", "loss"),
            f"cross_entropy needs classes, but {config.data.dataset} is a regression task",
            "use mse, mae or huber",
        )
    if config.model.numeric_embedding.name != "none" and not isinstance(config.data, TableData | TableFileSection):
        yield Conflict(
            ("model", "numeric_embedding"),
            ("data", "model"),
            f"{config.model.numeric_embedding.name} is for tables, but {config.data.dataset} has images",
            "leave model.numeric_embedding out",
        )
    if optimizer.name in FULL_BATCH and isinstance(config.data, ImageSection) and config.data.augmentation:
        yield Conflict(
            ("data", "augmentation"),
            ("data", "optimizer"),
            f"{optimizer.name} steps by the exact gradient of one objective, but augmentation draws others",
            "leave data.augmentation out, or use another optimizer",
        )
    monitors: list[tuple[tuple[str, ...], str | None]] = [(("training", "monitor"), training.monitor)]
    if training.early_stopping is not None:
        monitors.append((("training", "early_stopping", "monitor"), training.early_stopping.monitor))
    for path, monitor in monitors:
        if monitor is None:
            continue
        split, metric = monitor.split(".")
        if split == "validation" and config.data.validation == 0:
            yield Conflict(
                path,
                ("data", "training"),
                f"{monitor} needs a validation split, but data.validation is 0",
                f"set data.validation: 0.1, or monitor train.{'loss' if metric == 'top5_accuracy' else metric}",
            )
        if task is not None and metric not in TASK_METRICS[task]:
            yield Conflict(
                path,
                ("data", "training"),
                f"{metric} is not measured for {task}",
                f"{task} has {', '.join(TASK_METRICS[task])}",
            )
        elif metric == "top5_accuracy" and facts is not None and facts.outputs < TOP5_CLASSES:
            yield Conflict(
                path,
                ("data", "training"),
                f"top5_accuracy says nothing with {facts.outputs} classes",
                "monitor accuracy",
            )
    if optimizer.name in FULL_BATCH and config.model.normalization == "batch" and training.batch_size is not None:
        yield Conflict(
            ("training", "batch_size"),
            ("model", "optimizer", "training"),
            "batch normalization depends on the other samples of a chunk, so chunks of "
            f"{training.batch_size} would not give {optimizer.name} the exact gradient",
            "leave training.batch_size out, or use normalization: layer",
        )
    if optimizer.name == "lbfgs" and config.model.dropout > 0:
        yield Conflict(
            ("model", "dropout"),
            ("model", "optimizer"),
            "lbfgs compares values of one objective, but dropout changes it with every evaluation",
            "set model.dropout: 0, or use another optimizer",
        )
    if optimizer.name == "lbfgs" and training.clip_grad_norm is not None:
        yield Conflict(
            ("training", "clip_grad_norm"),
            ("optimizer", "training"),
            "lbfgs learns the curvature from exact gradients, and a clipped gradient would mislead it",
            "leave training.clip_grad_norm out, or use another optimizer",
        )
    if training.parallel == "fsdp" and optimizer.name == "lbfgs":
        yield Conflict(
            ("training", "parallel"),
            ("optimizer", "training"),
            "lbfgs needs the whole gradient in one place, of which with fsdp each process has a part",
            "use training.parallel: ddp, or another optimizer",
        )
    if training.parallel == "fsdp" and training.compile:
        yield Conflict(
            ("training", "compile"),
            ("training",),
            "torch.compile makes kernels for a whole network, of which with fsdp each process has a part",
            "leave training.compile out, or use training.parallel: ddp",
        )
    reason = not_explicit(config)
    if training.engine == "explicit" and reason is not None:
        yield Conflict(
            ("training", "engine"),
            ("model", "optimizer", "training"),
            f"the explicit engine does not cover this: {reason}",
            "set training.engine: auto",
        )
    if isinstance(config.loss, CrossEntropy) and isinstance(config.loss.class_weights, list):
        given = len(config.loss.class_weights)
        if not any(config.loss.class_weights):
            yield Conflict(
                ("loss", "class_weights"),
                ("loss",),
                "all class weights are 0, so that nothing is minimised",
                "give a class that counts a positive number",
            )
        if facts is not None and task == "classification" and given != facts.outputs:
            yield Conflict(
                ("loss", "class_weights"),
                ("data", "loss"),
                f"{given} class weights, but {config.data.dataset} has {facts.outputs} classes",
                "give one number for each class, or balanced",
            )
    if config.scheduler.warmup >= training.epochs:
        yield Conflict(
            ("scheduler", "warmup"),
            ("scheduler", "training"),
            f"a warmup of {config.scheduler.warmup:g} epochs leaves nothing of {training.epochs} for the schedule",
            "set a shorter scheduler.warmup, or more training.epochs",
        )
    if training.batch_size == 1 and config.model.normalization == "batch":
        yield Conflict(
            ("training", "batch_size"),
            ("model", "training"),
            "batch normalization needs at least 2 samples in a batch",
            "use a larger training.batch_size, or normalization: layer",
        )
