"""The formats of an export: a network -> the bytes of a file, and what they answer once they are loaded again."""

import copy
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor

from mlpcli import __version__
from mlpcli.config import Config, to_plain
from mlpcli.errors import UsageError
from mlpcli.network import Network
from mlpcli.predictor import Predictor
from mlpcli.program import program

OPSET = 18
"""Of ONNX: what torch's exporter writes without a conversion."""

LARGEST_ONNX = 2**31 - 2**24
"""Bytes of tensors that an ONNX file, at most 2 GiB with all else in it, has room for."""

PARTS = ("extraction", "preprocessing", "target_scale")
"""Of a network, besides its model."""

Answers = Callable[[Tensor], Tensor]
"""Rows as they are stored, before pca if any, (n, features) -> answers (n, outputs)."""


def answers_of(network: Network) -> Answers:
    """What mlpcli itself answers to rows as they are stored before pca, if any."""
    predict, extraction = Predictor(network), network.extraction
    if extraction is None or extraction.projection is None:
        return predict
    return lambda rows: predict(extraction(rows))


def metadata_of(config: Config, network: Network) -> dict[str, str]:
    """What a reader needs besides the numbers; every value but the first two is JSON."""
    about = network.description
    values = {
        "config": to_plain(config),
        "classes": about.classes,
        "targets": about.target_names,
        "columns": [asdict(column) for column in about.columns],
    }
    texts = {key: json.dumps(value) for key, value in values.items()}
    return {"mlpcli": __version__, "task": about.task, **texts}


def to_onnx(network: Network, metadata: Mapping[str, str]) -> tuple[bytes, Answers]:
    """The program as an ONNX model, by torch's exporter, and ONNX Runtime's answers.

    Args:
        network: see `program`.
        metadata: with the names of input and output.

    Raises:
        UsageError: the model is too large, or ONNX Runtime lacks an operation in its type.
    """
    whole = program(network)
    if sum(tensor.nbytes for tensor in whole.state_dict().values()) > LARGEST_ONNX:
        raise UsageError(
            "an ONNX file holds at most 2 GiB, and this model is larger\n    export it with --format pt2"
        )
    given, answer = (json.loads(metadata[key])[0]["name"] for key in ("inputs", "outputs"))
    with _quiet():
        import onnx
        import onnxruntime

        made = torch.onnx.export(
            whole,
            (_example(network),),
            dynamo=True,
            input_names=[given],
            output_names=[answer],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            opset_version=OPSET,
            verbose=False,
        )
        assert made is not None
        model = made.model_proto
        for part in (*model.graph.node, *model.graph.input, *model.graph.output, *model.graph.value_info):
            del part.metadata_props[:]  # where in mlpcli it comes from, with this machine's paths
        onnx.helper.set_model_props(model, dict(metadata))
        content = model.SerializeToString()
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = torch.get_num_threads()
        try:
            session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except onnxruntime.capi.onnxruntime_pybind11_state.NotImplemented as error:
            raise UsageError(
                f"onnxruntime cannot run this model in {str(network.dtype).removeprefix('torch.')}: {error}\n"
                "    export it with --format pt2, or train with training.precision=float32"
            ) from None

    def answers(part: Tensor) -> Tensor:
        (found,) = session.run([answer], {given: _shaped(network, part).numpy()})
        return torch.from_numpy(found)

    return content, answers


def to_pt2(network: Network, metadata: Mapping[str, str]) -> tuple[bytes, Answers]:
    """The program as torch.export writes it, and what it answers; arguments as `to_onnx`."""
    with _quiet():
        made = torch.export.export(
            program(network), (_example(network),), dynamic_shapes=({0: torch.export.Dim("batch")},)
        )
        for node in made.graph.nodes:
            node.meta.pop("stack_trace", None)  # this machine's paths
        file = io.BytesIO()
        torch.export.save(made, file, extra_files=dict(metadata))
        file.seek(0)
        loaded = torch.export.load(file).module()
    return file.getvalue(), torch.no_grad()(lambda part: loaded(_shaped(network, part)))


def _example(network: Network) -> Tensor:
    """Two rows, for of one torch would take the batch size for a constant; of no sample, as pt2 keeps them."""
    shape = network.description.input_shape
    return torch.zeros((2, *shape), dtype=torch.uint8 if len(shape) == 3 else torch.float64)


def _shaped(network: Network, rows: Tensor) -> Tensor:
    return rows.reshape(-1, *network.description.input_shape)


@contextmanager
def _quiet() -> Iterator[None]:
    """Nothing of what torch's exporters warn of, log and print: it is about their own insides."""
    disabled = logging.root.manager.disable
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        logging.disable(logging.CRITICAL)
        try:
            yield
        finally:
            logging.disable(disabled)


def to_safetensors(network: Network, metadata: Mapping[str, str]) -> tuple[bytes, Answers]:
    """The state dict of the model under its own names, and those of `PARTS` under names such as
    `preprocessing.shift`; and the answers of a network that has its tensors from there alone."""
    from safetensors.torch import load, save

    layers = json.dumps([repr(layer) for layer in network.model])
    content = save(_tensors(network), {**metadata, "layers": layers})
    return content, answers_of(_reloaded(network, load(content)))


def _tensors(network: Network) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = dict(network.model.state_dict())
    for part in PARTS:
        for name, value in _state(network, part).items():
            if isinstance(value, Tensor):
                tensors[f"{part}.{name}"] = value
            elif isinstance(value, list):
                tensors |= {f"{part}.{name}.{index}": each for index, each in enumerate(value)}
    return {name: each.contiguous() for name, each in tensors.items()}


def _state(network: Network, part: str) -> dict[str, Any]:
    owner = getattr(network, part)
    return {} if owner is None else owner.state_dict()


def _reloaded(network: Network, tensors: Mapping[str, Tensor]) -> Network:
    """A network of the same config, with the tensors of a file and none of its own."""
    model = copy.deepcopy(network.model)
    for each in model.state_dict().values():
        each.zero_()
    model.load_state_dict({name: each for name, each in tensors.items() if name.partition(".")[0] not in PARTS})
    states = {}
    for part in PARTS:
        states[part] = _state(network, part)
        for name, value in states[part].items():
            if isinstance(value, Tensor):
                states[part][name] = tensors[f"{part}.{name}"]
            elif isinstance(value, list):
                states[part][name] = [tensors[f"{part}.{name}.{index}"] for index in range(len(value))]
    extraction, scale = network.extraction, network.target_scale
    return replace(
        network,
        model=model,
        extraction=extraction
        and type(extraction).from_state(extraction.settings, extraction.shape, states["extraction"]),
        preprocessing=type(network.preprocessing).from_state(states["preprocessing"]),
        target_scale=scale and type(scale).from_state(states["target_scale"]),
    )
