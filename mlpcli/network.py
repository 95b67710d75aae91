"""A model with all that is needed to use it: its data's description and scaling, its loss and its device."""

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mlpcli import checkpoints
from mlpcli.augmentation import Augment
from mlpcli.batches import Batches
from mlpcli.config import Config, changed_keys, config_from_plain
from mlpcli.config.data_schema import ImageSection, NoFeatures, TableFileSection
from mlpcli.config.schema import TOP5_CLASSES, CrossEntropy, Periodic, PiecewiseLinear
from mlpcli.data import Dataset, Description, Extraction, Preprocessing, Split, TableEncoding, TargetScale
from mlpcli.data.streaming import blocks
from mlpcli.embedding import InputEmbedding, components_of, quantile_edges
from mlpcli.errors import CheckpointError, DeviceError, UsageError
from mlpcli.evaluation import Evaluation, Shared, chunk_rows, evaluate
from mlpcli.layers import Front
from mlpcli.model import build_mlp
from mlpcli.objective import Loss, Metrics
from mlpcli.ranks import Ranks
from mlpcli.runs import BEST, LAST, require_run
from mlpcli.seeds import stream_seed

log = logging.getLogger("mlpcli")

PLACES = (
    "training.device",
    "training.threads",
    "data.root",
    "data.download",
    "data.path",
    "data.in_memory",
    "data.delimiter",
    "data.on_bad_file",
)
"""Keys that say where things are: a trained model is the same with other values."""

DTYPES = {
    "float32": torch.float32,
    "tf32": torch.float32,
    "bfloat16": torch.float32,
    "float64": torch.float64,
}
"""Type of the parameters and inputs for each `training.precision`."""


def pick_device(name: str) -> torch.device:
    """`auto`, `cpu`, `cuda` or `cuda:N` as a device of this machine.

    Raises:
        DeviceError: the device is absent.
    """
    count = torch.cuda.device_count()
    if name == "auto":
        if not count:
            return torch.device("cpu")
        try:
            torch.zeros(1, device="cuda")
        except RuntimeError as error:  # an old driver, a GPU that this build of torch cannot use
            log.warning("training on the CPU, as the GPU cannot be used: %s", str(error).partition("\n")[0])
            return torch.device("cpu")
        return torch.device("cuda")
    if not name.startswith("cuda"):
        return torch.device("cpu")
    index = int(name.partition(":")[2] or 0)
    if index >= count:
        found = ", ".join(f"cuda:{i} ({torch.cuda.get_device_name(i)})" for i in range(count)) or "none"
        raise DeviceError(
            f"training.device: {name} is not on this machine; CUDA devices here: {found}\n"
            "    use training.device=auto or training.device=cpu"
        )
    return torch.device("cuda", index)


def augmentation(config: Config, description: Description) -> Augment | None:
    """What changes the training images of a config at random; None where nothing does."""
    if not isinstance(config.data, ImageSection) or config.data.augmentation is None:
        return None
    section = config.data.augmentation
    return Augment(
        config.data.input_shape,
        stream_seed(config.seed, "augmentation"),
        description.outputs,
        elastic=None if section.elastic is None else (section.elastic.alpha, section.elastic.sigma),
        **section.model_dump(exclude={"elastic"}),
    )


def front_for(config: Config, dataset: Dataset) -> tuple[Front | None, list[Tensor] | None]:
    """What stands before the first affine layer, for a data set that is loaded, and edges for `piecewise_linear`.

    None for a network that sees its inputs as they are.
    """
    encoding, numeric = dataset.preprocessing, config.model.numeric_embedding
    numbers = encoding.numbers if isinstance(encoding, TableEncoding) else dataset.description.features
    cardinalities = encoding.cardinalities if isinstance(encoding, TableEncoding) else []
    categories = tuple(count - 1 for count in cardinalities)
    front = Front(dataset.description.features, numbers, numeric.name, categories=categories)
    if isinstance(numeric, Periodic):
        front = replace(front, frequencies=numeric.frequencies, size=numeric.size)
    edges = None
    if isinstance(numeric, PiecewiseLinear) and numbers:
        prepared = (encoding(rows, torch.float64)[:, :numbers].float() for rows, _ in dataset.train.chunks())
        edges = quantile_edges(torch.cat(list(prepared)), numeric.bins)
        front = replace(front, components=components_of(edges))
    return (front, edges) if front.parts else (None, None)


@dataclass(frozen=True)
class Network:
    """A model with all that is needed to measure it: what a checkpoint holds besides the training's state."""

    model: nn.Sequential
    loss: Loss
    front: Front | None
    extraction: Extraction | None
    preprocessing: Preprocessing | TableEncoding
    target_scale: TargetScale | None
    description: Description
    device: torch.device
    precision: str

    @property
    def dtype(self) -> torch.dtype:
        """Type of inputs and parameters."""
        return DTYPES[self.precision]

    def targets(self, split: Split) -> Tensor:
        """Class indices, or standardised real numbers, on the device."""
        if self.target_scale is None:
            return split.targets.to(self.device)
        return self.target_scale.standardize(split.targets).to(self.device, self.dtype)

    def metrics(self, split: Split, *, top5: bool, confusion: bool = False) -> Metrics:
        """Fresh sums for that split."""
        if self.target_scale is None:
            classes = self.description.outputs
            return Metrics(
                self.loss,
                regression=False,
                device=self.device,
                top5=top5 and classes >= TOP5_CLASSES,
                confusion=classes if confusion else 0,
            )
        standard = self.target_scale.standardize(split.targets)
        deviation = (standard - standard.mean(0)).square().sum(0)
        return Metrics(
            self.loss, regression=True, device=self.device, scale=self.target_scale.std, deviation=deviation
        )

    def batches(
        self,
        split: Split,
        batch_size: int,
        shuffle_seed: int | None = None,
        augment: Augment | None = None,
        ranks: Ranks | None = None,
    ) -> Batches:
        """The samples of a split on the device, as the model sees them; with `ranks` their part of each batch."""
        there = split.to(self.device)
        return Batches(
            there.stored,
            self.targets(split),
            self.preprocessing.into,
            batch_size,
            shuffle_seed,
            rows=there.rows,
            features=self.description.features,
            dtype=self.dtype,
            gather=blocks if split.streamed else None,
            augment=augment,
            rank=0 if ranks is None else ranks.rank,
            ranks=1 if ranks is None else ranks.size,
        )

    def measure(self, split: Split, *, confusion: bool = False, ranks: Ranks | None = None) -> Evaluation:
        """Every metric of the model on a split, which `ranks` measure together."""
        return self.measurer(split, confusion=confusion, ranks=ranks)()

    def measurer(
        self, split: Split, *, confusion: bool = False, ranks: Ranks | None = None
    ) -> Callable[[], Evaluation]:
        """What measures the model, as it then is, on a split that is made ready once."""
        chunk = min(len(split), chunk_rows(self.model))
        shared, mine = None, split
        if ranks is not None and ranks.several:
            shared = Shared(ranks, self.targets(split))
            mine = split.take(Shared.rows(len(split), chunk, ranks))
        batches = self.batches(mine, chunk)
        return lambda: evaluate(
            self.model,
            batches,
            self.metrics(split, top5=True, confusion=confusion),
            bfloat16=self.precision == "bfloat16",
            shared=shared,
        )


def class_weights(config: Config, targets: Tensor, classes: int) -> Tensor | None:
    """What a sample of each class counts in the objective, float64 (classes,); None where all count alike.

    Args:
        config: its loss says which weights.
        targets: class indices of the training split, for `balanced`: samples/(classes · samples of the class), and
            0 for a class without samples.
    """
    if not isinstance(config.loss, CrossEntropy) or config.loss.class_weights == "none":
        return None
    if config.loss.class_weights == "balanced":
        counts = targets.bincount(minlength=classes).double()
        return torch.where(counts > 0, len(targets) / (len(counts) * counts.clamp(min=1)), 0.0)
    return torch.tensor(config.loss.class_weights, dtype=torch.float64)


def network_for(config: Config, dataset: Dataset, device: str | None = None) -> Network:
    """The untrained network of a config for a data set that is loaded; `device` goes before the config's."""
    weights = class_weights(config, dataset.train.targets, dataset.description.outputs)
    front, edges = front_for(config, dataset)
    return build_network(
        config,
        dataset.extraction,
        dataset.preprocessing,
        dataset.target_scale,
        dataset.description,
        weights,
        front,
        edges,
        device,
    )


def build_network(
    config: Config,
    extraction: Extraction | None,
    preprocessing: Preprocessing | TableEncoding,
    target_scale: TargetScale | None,
    description: Description,
    weights: Tensor | None,
    front: Front | None,
    edges: Sequence[Tensor] | None = None,
    device_name: str | None = None,
) -> Network:
    """The untrained network of a config on its device, with weights from the `init` stream.

    Args:
        weights: of the classes, see `class_weights`.
        front, edges: see `front_for`; without edges where a state dict is loaded next.
        device_name: goes before the config's.
    """
    device = pick_device(device_name or config.training.device)
    threads = torch.get_num_threads() if config.training.threads == "auto" else config.training.threads
    if threads > (os.cpu_count() or threads):
        log.warning(
            "training.threads is %d, but this machine has %d cores; training.threads=auto fits it, and rounds "
            "differently",
            threads,
            os.cpu_count(),
        )
    if device.type == "cuda":
        torch.cuda.set_device(device)  # streams and graphs are made on the present one
        torch.backends.cuda.matmul.allow_tf32 = config.training.precision == "tf32"
    log.debug(
        "%s: %d threads, %s, data %s",
        device,
        threads,
        config.training.precision,
        description.fingerprint,
    )
    section = config.model
    sigma = section.numeric_embedding.sigma if isinstance(section.numeric_embedding, Periodic) else 1.0
    torch.set_num_threads(1)  # a QR decomposition rounds by their number, and the weights depend on the seed alone
    model = build_mlp(
        description.features,
        description.outputs,
        depth=section.depth or len(section.widths) + 1,
        width=section.widths,
        activation=section.activation,
        dropout=section.dropout,
        normalization=section.normalization,
        bias=section.bias,
        init=section.init,
        seed=stream_seed(config.seed, "init"),
        front=None if front is None else lambda: InputEmbedding(front, sigma=sigma, edges=edges),
    )
    torch.set_num_threads(threads)
    assert config.loss is not None, "a resolved config has a loss"
    model = model.to(device, DTYPES[config.training.precision])
    options = config.loss.model_dump(exclude={"class_weights"})
    if weights is not None:
        weights = weights.to(device)
    return Network(
        model=model,
        loss=Loss(**options, class_weights=weights),
        front=front,
        extraction=extraction,
        preprocessing=preprocessing,
        target_scale=target_scale,
        description=description,
        device=device,
        precision=config.training.precision,
    )


def extraction_in(state: Mapping[str, Any], config: Config) -> Extraction | None:
    """What makes features of pixels, from the state in a checkpoint of a config; None where nothing does."""
    section = config.data
    if not isinstance(section, ImageSection) or isinstance(section.features, NoFeatures):
        return None
    return Extraction.from_state(section.features, section.input_shape, state["data"]["extraction"])


def open_target(target: Path, which: str, overrides: Sequence[str] = ()) -> tuple[Config, Network, Path]:
    """The trained network of a run directory or a checkpoint file.

    Args:
        target: a run directory or a checkpoint file.
        which: `best` or `last`, for a run directory.
        overrides: KEY=VALUE for keys that do not change the network: the device, and where the data is.

    Raises:
        RunError, CheckpointError: it is neither, or cannot be read.
    """
    path = target
    if os.path.isdir(target):
        require_run(target)
        path = target / (BEST if which == "best" else LAST)
        if which == "best" and not path.exists() and (target / LAST).exists():
            raise CheckpointError(f"no epoch of {target} is finished, so it has no best checkpoint yet")
    elif not os.path.exists(target):
        require_run(target)
    state = checkpoints.load(path)
    before = config_from_plain(state["config"])
    config = config_from_plain(state["config"], overrides)
    refused = [
        key for key in changed_keys(before, config) if key not in PLACES and not key.startswith("data.path.")
    ]
    if refused:
        raise UsageError(f"{', '.join(refused)} cannot change here: the checkpoint was trained with another value")
    with checkpoints.content_of(path):
        scale = state["data"]["target_scale"]
        extraction = extraction_in(state, config)
        columns = isinstance(config.data, TableFileSection)
        preprocessing = (TableEncoding if columns else Preprocessing).from_state(state["data"]["preprocessing"])
        target_scale = None if scale is None else TargetScale.from_state(scale)
        description = Description.from_plain(state["data"]["description"])
        weights = state["data"]["class_weights"]
        front = state["data"]["front"]
        front = None if front is None else Front(**front)
    network = build_network(config, extraction, preprocessing, target_scale, description, weights, front)
    with checkpoints.content_of(path):
        network.model.load_state_dict(state["model"])
    return config, network, path
