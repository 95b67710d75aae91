"""A network of which every process has but a part: parameters, gradients and the optimizer's state are shards.

The layers are wrapped by torch's `fully_shard` (FSDP2, after Rajbhandari et al. 2020, ZeRO stage 3): a layer is
put together when it is computed, and its gradient is summed where its shards are. Each process writes its own into
a checkpoint, by torch.distributed.checkpoint; here they are read into whole tensors, by any number of processes.
"""

import pickle
import warnings
from collections.abc import Mapping
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


def write(state: Mapping[str, Any], folder: Path, group: dist.ProcessGroup) -> None:
    """Write the shards of `state` to a new folder; all processes call this."""
    from torch.distributed.checkpoint.state_dict_saver import save

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        save(dict(state), checkpoint_id=folder, process_group=group)


def read(folder: Path) -> dict[str, Any]:
    """The state whose shards are in a folder, in whole tensors on the CPU, without any other process.

    Raises:
        OSError, ValueError, RuntimeError, KeyError: files are absent or damaged.
        pickle.UnpicklingError: they hold what a list of shards does not; nothing of it is run.
    """
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.default_planner import _EmptyStateDictLoadPlanner
    from torch.distributed.checkpoint.filesystem import FileSystemReader
    from torch.distributed.checkpoint.metadata import Metadata
    from torch.distributed.checkpoint.state_dict_loader import _load_state_dict

    with (folder / ".metadata").open("rb") as file:
        metadata: Metadata = _Unpickler(file).load()

    class Reader(FileSystemReader):
        """torch's own, but for the list of shards, as a pickle of which any code could be run."""

        def read_metadata(self, *_: Any, **__: Any) -> Metadata:
            return metadata

    state: dict[str, Any] = {}
    try:
        # as torch's `dcp_to_torch_save` does: no public name reads tensors whose shapes are not known
        _load_state_dict(state, storage_reader=Reader(folder), planner=_EmptyStateDictLoadPlanner(), no_dist=True)
    except CheckpointException as error:  # which is no Exception
        raise RuntimeError(str(next(iter(error.failures.values()))[0])) from error
    numbered = {int(number): values for number, values in state["optimizer"].get("state", {}).items()}
    state["optimizer"]["state"] = numbered  # whose keys came back as text
    return state


class _Unpickler(pickle.Unpickler):
    """Reads a list of shards and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if (
            (module.startswith("torch.distributed.checkpoint.") and name.lstrip("_")[:1].isupper())
            or (module == "torch" and isinstance(getattr(torch, name, None), torch.dtype))
            or (module, name) in ALLOWED
        ):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"GLOBAL {module}.{name} is not a part of a list of shards")


ALLOWED = {
    ("torch", "Size"),
    ("torch.serialization", "_get_layout"),
    ("pathlib", "PosixPath"),
    ("collections", "OrderedDict"),
}
