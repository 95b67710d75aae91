"""From a run, a checkpoint or a config to its objective: a network in float64 and a batch of training samples."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from mlpcli.errors import UsageError
from mlpcli.objective import Loss
from mlpcli.seeds import stream_seed
from mlpcli.targets import open_any


@dataclass(frozen=True)
class Objective:
    """The mean loss over a few training samples, without anything random in it.

    Attributes:
        of: whose it is, for a person.
        model: in float64, see `deterministic`.
        loss: what is minimised.
        inputs, targets: of the samples, as the model sees them.
        seed: of what else is drawn.
        notes: what differs from a step of the training.
    """

    of: str
    model: nn.Sequential
    loss: Loss
    inputs: Tensor
    targets: Tensor
    seed: int
    notes: list[str]


def open_objective(
    target: str,
    overrides: Sequence[str] = (),
    *,
    which: str = "best",
    samples: int = 64,
    sample: int | None = None,
) -> Objective:
    """The objective of a run directory, a checkpoint file, or a config whose weights are the initial ones.

    Args:
        target: RUN, checkpoint or CONFIG; a starter's name before a directory of that name.
        overrides: KEY=VALUE. It is computed by one thread of the CPU unless they say otherwise.
        which: `best` or `last` checkpoint of a run.
        samples: of the training split, drawn by the config's seed; all of them where it has fewer.
        sample: the number of one sample of the training split, counted from 0, in place of those.

    Raises:
        UserError: there is no such thing, or it has no such sample.
    """
    # thousands of small products: threads would wait for each other
    overrides = ["training.device=cpu", "training.threads=1", *overrides]
    opened = open_any(target, overrides, which=which)
    train, network, of = opened.split("train"), opened.network, opened.of
    seed = stream_seed(opened.config.seed, "autodiff")
    if sample is None:
        generator = torch.Generator().manual_seed(seed)
        chosen = torch.randperm(len(train), generator=generator)[:samples].sort().values
        of += f", {len(chosen)} of {len(train):,} training samples"
    elif 0 <= sample < len(train):
        chosen = torch.tensor([sample])
        of += f", training sample {sample}"
    else:
        raise UsageError(f"there is no training sample {sample}: they are counted from 0 to {len(train) - 1}")
    statistics = len(chosen) > 1
    notes = _notes(network.model, statistics)
    network = replace(network, model=deterministic(network.model, statistics), precision="float64")
    inputs, targets = next(network.batches(train.take(chosen), len(chosen)).epoch(0))
    return Objective(of, network.model, network.loss, inputs, targets, seed, notes)


def deterministic(model: nn.Sequential, batch_statistics: bool = True) -> nn.Sequential:
    """A copy in float64 and evaluation mode, without dropout.

    Args:
        model: stays as it is.
        batch_statistics: whether batch normalization uses those of the batch, as in training, or the running ones.
    """
    model = copy.deepcopy(model).double().eval()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if isinstance(module, nn.BatchNorm1d) and batch_statistics:
            module.track_running_stats = False
            module.running_mean = module.running_var = None
    return model


def _notes(model: nn.Sequential, statistics: bool) -> list[str]:
    notes = ["float64, without weight decay and augmentation"]
    if any(isinstance(module, nn.Dropout) for module in model):
        notes.append("dropout off")
    if any(isinstance(module, nn.BatchNorm1d) for module in model):
        of = "of these samples, as in training" if statistics else "running, because one sample has none"
        notes.append(f"statistics of batch normalization: {of}")
    return notes
