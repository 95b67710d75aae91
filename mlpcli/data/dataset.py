"""What a data set is once it is loaded: its splits, how they are scaled, and what describes them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Self, cast

import torch
from torch import Tensor

from mlpcli.config.datasets import Facts, Task

if TYPE_CHECKING:
    from mlpcli.data.encoding import TableEncoding
    from mlpcli.data.features import Extraction

CHUNK = 1 << 18
"""Numbers that are looked at together: 1 MiB as int32, which stays in the CPU's cache."""


@dataclass(frozen=True, eq=False)
class Split:
    """Samples and what is to be predicted for them. Splits of one source share the tensor of its inputs.

    Attributes:
        stored: (m, features), as the source has them: uint8 for images, float for tables. It may be mapped from
            a file.
        targets: int64 (samples,) class indices, or float64 (samples, outputs) in their own units.
        rows: int64 (samples,), which rows of `stored` the samples are; None for all of them, in order.
        streamed: whether `stored` is larger than memory, so that only batches of it are.
    """

    stored: Tensor
    targets: Tensor
    rows: Tensor | None = None
    streamed: bool = False

    def __post_init__(self) -> None:
        assert self.stored.ndim == 2
        assert len(self.targets) == len(self.stored if self.rows is None else self.rows)

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def features(self) -> int:
        """Length of a sample as a vector."""
        return self.stored.shape[1]

    @property
    def inputs(self) -> Tensor:
        """(samples, features), copied unless they are all of `stored`."""
        return self._gather(slice(None))

    def chunks(self, size: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Inputs and targets of `size` samples at a time, in order; by default of what the CPU's cache holds."""
        size = size or max(1, CHUNK // self.features)
        for start in range(0, len(self), size):
            part = slice(start, start + size)
            yield self._gather(part), self.targets[part]

    def _gather(self, part: slice) -> Tensor:
        return self.stored[part] if self.rows is None else _select(self.stored, self.rows[part])

    def to(self, device: torch.device | str) -> "Split":
        """The same split on `device`, with a copy of its inputs; `self` where it is there already. Inputs that are
        streamed stay in their file."""
        if self.targets.device == torch.empty(0, device=device).device:
            return self
        if self.streamed:
            return replace(self, targets=self.targets.to(device))
        return Split(self.inputs.to(device), self.targets.to(device))

    def take(self, indices: Tensor) -> "Split":
        """The samples at the distinct, ascending `indices`, int64 (n,), of this split; no inputs are copied."""
        if len(indices) == len(self):
            return self
        rows = indices if self.rows is None else _select(self.rows, indices)
        return replace(self, targets=_select(self.targets, indices), rows=rows)


def _select(tensor: Tensor, rows: Tensor) -> Tensor:
    """A copy of the `rows` of a tensor on the CPU.

    numpy copies on one core, but for that as fast as memory allows: torch's `index_select` waits for all cores,
    even where another process has one, and indexing with a tensor is several times slower on bytes.
    """
    return torch.from_numpy(tensor.numpy()[rows.numpy()])


@dataclass(frozen=True)
class Column:
    """An input column of a table.

    Attributes:
        name: as in the file's header.
        categories: the values of a column of categories, in the order of their codes 0, 1, …; None for numbers.
    """

    name: str
    categories: list[str] | None = None


@dataclass(frozen=True, eq=False)
class Source:
    """What was read, before anything is cut.

    Attributes:
        train: the training data.
        test: the set's own test data, or None where it has none and `data.test` cuts it off `train`.
        classes: the names of the classes, in the order of their indices; empty for regression.
        target_names: the names of the outputs in regression; empty for classification.
        validation: the set's own validation data, or None where `data.validation` cuts it off `train`.
        columns: of a table, in the order of the stored inputs, which are float64: numbers as they are, with NaN
            where they are missing, and codes of categories, with −1 where they are missing; empty for images.
    """

    train: Split
    test: Split | None
    classes: list[str]
    target_names: list[str] = field(default_factory=list)
    validation: Split | None = None
    columns: list[Column] = field(default_factory=list)

    @property
    def task(self) -> Task:
        """What is to be predicted."""
        return "classification" if self.classes else "regression"


@dataclass(frozen=True, eq=False)
class Preprocessing:
    """What a model does to its raw inputs first: x -> (x - shift) * scale.

    Attributes:
        shift, scale: float64 of shape (1,), or (features,) where they differ between features.
    """

    shift: Tensor
    scale: Tensor
    _cast: dict[tuple[torch.dtype, torch.device], tuple[Tensor, Tensor]] = field(
        default_factory=dict, init=False, repr=False
    )

    def __call__(self, inputs: Tensor, dtype: torch.dtype) -> Tensor:
        """A new tensor of `dtype`, on the device of `inputs` (..., features), which stay as they are."""
        return self.into(inputs, torch.empty_like(inputs, dtype=dtype))

    def into(self, inputs: Tensor, out: Tensor) -> Tensor:
        """Likewise, written into `out`, which is returned."""
        key = out.dtype, out.device
        if key not in self._cast:
            self._cast[key] = self.shift.to(out.device, out.dtype), self.scale.to(out.device, out.dtype)
        shift, scale = self._cast[key]
        # converted first: arithmetic on two types at once is several times slower
        return out.copy_(inputs).sub_(shift).mul_(scale)

    def state_dict(self) -> dict[str, Tensor]:
        """Plain tensors, for a checkpoint."""
        return {"shift": self.shift, "scale": self.scale}

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> Self:
        """The inverse of `state_dict`."""
        return cls(state["shift"], state["scale"])


@dataclass(frozen=True, eq=False)
class TargetScale:
    """How regression targets are standardised, so that every output counts alike in the objective.

    Attributes:
        mean, std: float64 (outputs,), in the targets' own units, from the training split.
    """

    mean: Tensor
    std: Tensor

    def standardize(self, targets: Tensor) -> Tensor:
        """`targets` (..., outputs) in their own units -> float64, mean 0 and standard deviation 1."""
        return (targets.to(torch.float64) - self.mean.to(targets.device)) / self.std.to(targets.device)

    def restore(self, outputs: Tensor) -> Tensor:
        """Standardised `outputs` (..., outputs) -> float64 in the targets' own units."""
        return outputs.to(torch.float64) * self.std.to(outputs.device) + self.mean.to(outputs.device)

    def state_dict(self) -> dict[str, Tensor]:
        """Plain tensors, for a checkpoint."""
        return {"mean": self.mean, "std": self.std}

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> Self:
        """The inverse of `state_dict`."""
        return cls(state["mean"], state["std"])


@dataclass(frozen=True)
class Description:
    """What describes a data set, apart from its samples.

    Attributes:
        name: `data.dataset` of the config.
        task: `classification` or `regression`.
        input_shape: (channels, height, width) of an image, or (columns,).
        features: length of the vector that the model sees of a sample.
        outputs: number of classes, or of targets in regression.
        classes: the names of the classes, in the order of their indices; empty for regression.
        target_names: the names of the outputs in regression; empty for classification.
        columns: the input columns of a table; empty for images.
        fingerprint: 32 hexadecimal digits that change with any byte of any split, and of data that a user brings
            with the name of any class, column or category.
    """

    name: str
    task: Task
    input_shape: tuple[int, ...]
    features: int
    outputs: int
    classes: list[str]
    target_names: list[str]
    columns: list[Column]
    fingerprint: str

    def to_plain(self) -> dict[str, Any]:
        """Plain types only, for JSON and checkpoints."""
        return {
            **vars(self),
            "input_shape": list(self.input_shape),
            "classes": list(self.classes),
            "target_names": list(self.target_names),
            "columns": [asdict(column) for column in self.columns],
        }

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Self:
        """The inverse of `to_plain`."""
        columns = [Column(**column) for column in plain["columns"]]
        return cls(**{**plain, "input_shape": tuple(plain["input_shape"]), "columns": columns})


@dataclass(frozen=True, eq=False)
class Dataset:
    """A loaded data set: splits in raw units, and how they are scaled.

    Attributes:
        train, validation, test: the splits; `validation` is None where `data.validation` is 0.
        extraction: what made the splits' inputs of pixels; None where they are the pixels, or a table.
        preprocessing: of the inputs, from the training split alone.
        target_scale: of regression targets, from the training split alone; None for classification.
        description: everything else that is known.
    """

    train: Split
    validation: Split | None
    test: Split
    extraction: "Extraction | None"
    preprocessing: "Preprocessing | TableEncoding"
    target_scale: TargetScale | None
    description: Description

    @property
    def facts(self) -> Facts:
        """What reading the data has told."""
        about = self.description
        return Facts(about.task, about.input_shape, about.outputs, len(self.train), len(self.test))


def fingerprint(splits: Iterable[Split | None], names: Sequence[str] = ()) -> str:
    """The first 32 hexadecimal digits of a SHA-256 over `names`, and type, shape and bytes of each split."""
    digest = sha256("".join(f"{name}\0" for name in names).encode())
    for split in splits:
        if split is None:
            digest.update(b"none;")
            continue
        digest.update(f"{split.stored.dtype}{(len(split), split.features)};".encode())
        for inputs, _ in split.chunks():
            digest.update(_buffer(inputs))
        digest.update(f"{split.targets.dtype}{tuple(split.targets.shape)};".encode())
        digest.update(_buffer(split.targets))
    return digest.hexdigest()[:32]


def _buffer(tensor: Tensor) -> bytes:
    """The numbers of `tensor`, uncopied: any buffer will do where the stubs ask for bytes."""
    return cast(bytes, tensor.contiguous().reshape(-1).numpy())
