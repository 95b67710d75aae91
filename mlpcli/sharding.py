"""A network of which every process has but a part: parameters, gradients and the optimizer's state are shards.

The layers are wrapped by torch's `fully_shard` (FSDP2, after Rajbhandari et al. 2020, ZeRO stage 3): a layer is
put together when it is computed, and its gradient is summed where its shards are. Each process writes its own into
a checkpoint, by torch.distributed.checkpoint; here they are read into whole tensors, by any number of processes.
"""

import pickle
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


def shard(model: nn.Sequential, group: dist.ProcessGroup, device: torch.device) -> None:
    """Let the parameters of each affine layer, and what else there is, be shards of this process."""
    from torch.distributed.device_mesh import DeviceMesh
    from torch.distributed.fsdp import fully_shard

    mesh = DeviceMesh.from_group(group, device.type)
    for layer in model:
        if isinstance(layer, nn.Linear):
            fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)


def is_sharded(model: nn.Module) -> bool:
    """Whether its parameters are shards."""
    return any(map(is_shard, model.parameters()))


def is_shard(tensor: Tensor) -> bool:
    """Whether a tensor is spread over processes."""
    return hasattr(tensor, "to_local")


def local(tensor: Tensor) -> Tensor:
    """This process's own numbers of a tensor."""
    return tensor.to_local() if is_shard(tensor) else tensor  # type: ignore[attr-defined]  # of a DTensor


def load_weights(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Load a state dict of whole tensors, which every process has, into a model that may be sharded."""
    if is_sharded(model):
        weights = {name: _shard_of(weights[name], like) for name, like in model.state_dict().items()}
    model.load_state_dict(weights)


def load_optimizer(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Likewise for the state of its optimizer."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    if any(map(is_shard, parameters)):
        shards = {
            number: {
                name: _shard_of(value, parameters[number])
                if isinstance(value, Tensor) and value.shape == parameters[number].shape
                else value
                for name, value in values.items()
            }
            for number, values in state["state"].items()
        }
        state = {**state, "state": shards}
    optimizer.load_state_dict(dict(state))


def _shard_of(whole: Tensor, like: Any) -> Tensor:
    """What this process has of a tensor that is laid out like another."""
    if not is_shard(like):
        return whole
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(whole.to(like.device, like.dtype), like.device_mesh, like.placements)


def apart(state: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A state with its shards taken out, and the shards by their place in it: `model/0.weight`."""
    rest: dict[str, Any] = {}
    shards: dict[str, Tensor] = {}
    for key, value in state.items():
        if isinstance(value, Mapping):
            rest[key], inner = apart(value)
            shards |= {f"{key}/{place}": tensor for place, tensor in inner.items()}
        elif isinstance(value, Tensor) and is_shard(value):
            shards[str(key)] = value
        else:
            rest[key] = value
    return rest, shards


def together(rest: dict[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """The inverse, in place, with whole tensors."""
    for place, tensor in tensors.items():
        *path, name = place.split("/")
        inside: Any = rest
        for key in path:
            inside = inside.setdefault(int(key) if key.isdecimal() else key, {})
        inside[name] = tensor


def write(shards: Mapping[str, Tensor], folder: Path, group: dist.ProcessGroup) -> None:
    """Write shards to a new folder; all processes call this.

    Raises:
        OSError: the files cannot be written.
    """
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.state_dict_saver import save

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            save(dict(shards), checkpoint_id=folder, process_group=group)
        except CheckpointException as error:  # which is no Exception
            raise _cause(error) from error


def _cause(error: BaseException) -> Exception:
    """Why torch.distributed.checkpoint failed: an error of the system where there is one."""
    failures = [failure[0] for failure in getattr(error, "failures", {}).values()]
    for failure in failures:
        seen: BaseException | None = failure
        while seen is not None:
            if isinstance(seen, OSError):
                return OSError(seen.errno, seen.strerror)
            seen = seen.__cause__ or seen.__context__
    return RuntimeError(str(failures[0] if failures else error).partition("\n")[0])


def read(folder: Path, places: Sequence[str]) -> dict[str, Tensor]:
    """The tensors whose shards are in a folder, whole and on the CPU, without any other process.

    Args:
        folder: as `write` made it.
        places: which tensors, in the order in which they are returned.

    Raises:
        OSError, ValueError, RuntimeError, KeyError: files are absent or damaged.
        pickle.UnpicklingError: they hold more than tensors; nothing of it is run.
    """
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner
    from torch.distributed.checkpoint.filesystem import FileSystemReader
    from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata
    from torch.distributed.checkpoint.state_dict_loader import load

    with (folder / ".metadata").open("rb") as file:
        metadata: Metadata = _Unpickler(file).load()

    class Reader(FileSystemReader):
        """torch's own, but for the list of shards, as a pickle of which any code could be run."""

        def read_metadata(self, *_: Any, **__: Any) -> Metadata:
            return metadata

    class Planner(DefaultLoadPlanner):
        """torch's own, but for what is no tensor, which it would unpickle."""

        def load_bytes(self, *_: Any) -> None:
            raise pickle.UnpicklingError("GLOBAL of something that is no tensor")

    tensors = {}
    for place in places:
        about = metadata.state_dict_metadata[place]
        if not isinstance(about, TensorStorageMetadata):
            raise pickle.UnpicklingError(f"GLOBAL: {place} is no tensor")
        tensors[place] = torch.empty(about.size, dtype=about.properties.dtype)
    planner = Planner(flatten_state_dict=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there is a single process
        try:
            load(tensors, storage_reader=Reader(folder), planner=planner, no_dist=True)
        except CheckpointException as error:
            raise _cause(error) from error
    return tensors


class _Unpickler(pickle.Unpickler):
    """Reads a list of shards and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        # a name with a dot would lead on to the attributes of what is allowed
        is_dtype = module == "torch" and "." not in name and isinstance(getattr(torch, name, None), torch.dtype)
        if is_dtype or (module, name) in LISTED:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"GLOBAL {module}.{name} is not a part of a list of shards")


LISTED = {
    ("torch", "Size"),
    ("torch.serialization", "_get_layout"),
    ("pathlib", "PosixPath"),
    ("collections", "OrderedDict"),
    ("torch.distributed.checkpoint.filesystem", "_StorageInfo"),
} | {
    ("torch.distributed.checkpoint.metadata", name)
    for name in (
        "ChunkStorageMetadata",
        "Metadata",
        "MetadataIndex",
        "StorageMeta",
        "TensorProperties",
        "TensorStorageMetadata",
        "_MEM_FORMAT_ENCODING",
    )
}
"""What such a list consists of."""
