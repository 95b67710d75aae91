"""A trained model as one file that runs without mlpcli: made in memory, compared with the model, then written."""

import json
import logging
import math
from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mlpcli import data
from mlpcli.config import Config
from mlpcli.config.data_schema import ImageSection, NoFeatures, Pca
from mlpcli.data import Preprocessing, TargetScale
from mlpcli.errors import FailedError, UsageError, UserError
from mlpcli.export_formats import OPSET, Answers, answers_of, metadata_of, to_onnx, to_pt2, to_safetensors
from mlpcli.network import Network, open_target
from mlpcli.program import signature, signature_of_model
from mlpcli.runs import write_whole

log = logging.getLogger("mlpcli")

PACKAGES = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "pt2": (), "safetensors": ("safetensors",)}
"""The formats, and what each needs besides torch."""

SAMPLES = 256
"""Rows on which an export is compared with the model."""

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-8}
"""The largest relative difference. ONNX holds constants of layers, such as the slope of leaky_relu, in float32."""


def export(
    target: Path, file: Path, format: str | None, *, which: str = "best", overrides: Sequence[str] = ()
) -> dict[str, Any]:
    """Write a trained model into a file that runs without mlpcli, if its answers are the model's.

    Args:
        target: a run directory or a checkpoint file.
        file: to write; what is there is replaced, whole.
        format: `onnx`, `pt2` or `safetensors`; None for what the ending of `file` says.
        which: `best` or `last`, for a run directory.
        overrides: KEY=VALUE for keys that say where the data is.

    Returns:
        Plain values: format, file, bytes, for ONNX its opset, inputs and outputs (name, dtype, and shape with
        "batch"), and checked: samples, source (`test split` or `random rows`), and difference, the largest one
        relative to the largest answer. Values of regression are compared in standard deviations from the mean.

    Raises:
        UsageError: the ending is another format's, a package is absent, or the format cannot hold the model.
        FailedError: the answers are not the model's; `file` is as before.
        StorageError: it could not be written; `file` is as before.
    """
    format = _format(file, format)
    config, network, path = open_target(target, which, (*overrides, "training.device=cpu"))
    network.model.eval()
    if network.precision == "bfloat16":  # of products in training; the parameters are float32
        network = replace(network, precision="float32")
    if format != "safetensors" and isinstance(config.data, ImageSection):
        _refuse_features(config.data.features.name, format)
    rows, source = _rows(config, network)
    facts = signature(network) if format != "safetensors" else signature_of_model(network)
    metadata = metadata_of(config, network) | {key: json.dumps(value) for key, value in facts.items()}
    if format == "onnx":
        facts = {"opset": OPSET, **facts}
        content, answers = to_onnx(network, metadata)
    elif format == "pt2":
        content, answers = to_pt2(network, metadata)
    else:
        content, answers = to_safetensors(network, metadata)

    difference = _difference(answers, answers_of(network), rows, network.target_scale)
    tolerance = 0.0 if format == "safetensors" else TOLERANCE[network.dtype]
    if math.isnan(difference):
        raise FailedError(
            f"{file} is not written: the answers of {path} to the {source} are not all finite numbers"
        )
    if difference > tolerance:
        remedy = "\n    try --format pt2, whose arithmetic is torch's own" if format == "onnx" else ""
        raise FailedError(
            f"{file} is not written: its answers to the {source} differ from those of {path}\n"
            f"    by {difference:.2g} of the largest one, and at most {tolerance:g} is expected{remedy}"
        )
    write_whole(file, content)
    return {
        "format": format,
        "file": str(file),
        "bytes": len(content),
        **facts,
        "checked": {"samples": len(rows), "source": source, "difference": difference},
    }


def _format(file: Path, format: str | None) -> str:
    """The format, which the ending of the file says too and the packages at hand allow."""
    if format is not None and format not in PACKAGES:
        raise UsageError(f"{format} is no format; expected onnx, pt2 or safetensors")
    ending = file.suffix.lower().removeprefix(".")
    if ending not in PACKAGES or format not in (None, ending):
        expected = f".{format}" if format else ", ".join(f".{name}" for name in PACKAGES)
        raise UsageError(f"{file}: expected a name that ends in {expected}")
    for package in PACKAGES[ending]:
        try:
            import_module(package)
        except ImportError:
            raise UsageError(
                f"{ending} needs the package {package}, which cannot be imported\n    pip install 'mlpcli[export]'"
            ) from None
    return ending


def _refuse_features(name: str, format: str) -> None:
    if name not in ("none", "pca"):
        raise UsageError(
            f"{format} cannot hold this model: its {name} features are computed by Python, not by the network\n"
            "    train with data.features=none or pca, or export the weights alone with --format safetensors"
        )


# --- what it is compared on ---------------------------------------------------------------------------------


def _rows(config: Config, network: Network) -> tuple[Tensor, str]:
    """Rows as they are stored, before pca if any, and what they are: the test split, where its data is at hand."""
    section, about = config.data, network.description
    if isinstance(section, ImageSection) and isinstance(section.features, Pca):
        section = section.model_copy(update={"features": NoFeatures(name="none")})
    try:
        dataset = data.load(section, config.seed)
        if (dataset.description.input_shape, dataset.description.columns) == (about.input_shape, about.columns):
            rows = dataset.test.take(torch.arange(min(SAMPLES, len(dataset.test)))).inputs
            return _with_missing(rows, network), "test split"
        reason = "it has other columns than the model"
    except UserError as error:
        reason = str(error).partition("\n")[0]
    log.warning("the data cannot be used, so the export is compared on random rows: %s", reason)
    return _with_missing(_random_rows(network), network), "random rows"


def _random_rows(network: Network) -> Tensor:
    """Rows as they are stored, over the range of pixels or about the mean of each column."""
    about, generator = network.description, torch.Generator().manual_seed(0)
    preprocessing, extraction = network.preprocessing, network.extraction
    if len(about.input_shape) == 3 and (extraction is None or extraction.projection is not None):
        largest = 16 if about.name == "digits" else 255
        shape = SAMPLES, math.prod(about.input_shape)
        return torch.randint(largest + 1, shape, generator=generator).to(torch.uint8)
    columns = about.features if isinstance(preprocessing, Preprocessing) else preprocessing.columns
    rows = torch.randn(SAMPLES, columns, dtype=torch.float64, generator=generator)
    if isinstance(preprocessing, Preprocessing):
        return rows / preprocessing.scale + preprocessing.shift
    rows[:, preprocessing.number_columns] /= preprocessing.scale
    rows[:, preprocessing.number_columns] += preprocessing.shift
    for place in preprocessing.code_columns.tolist():
        codes = len(about.columns[place].categories or ())
        rows[:, place] = torch.randint(-1, codes, (SAMPLES,), generator=generator)
    return rows


def _with_missing(rows: Tensor, network: Network) -> Tensor:
    """The rows, and one in which every value is missing where a model has an answer to that."""
    if isinstance(network.preprocessing, Preprocessing):
        return rows
    columns = network.description.columns
    missing = [math.nan if column.categories is None else -1.0 for column in columns]
    return torch.cat((rows, torch.tensor([missing], dtype=torch.float64)))


def _difference(answers: Answers, expected: Answers, rows: Tensor, scale: TargetScale | None) -> float:
    """The largest difference, relative to the largest answer; a batch of one row is among those that are asked."""
    parts = [part for part in (rows[:1], rows[1:]) if len(part)]
    ours, theirs = (torch.cat([each(part).double() for part in parts]) for each in (expected, answers))
    if scale is not None:
        ours, theirs = scale.standardize(ours), scale.standardize(theirs)
    largest = (theirs - ours).abs().max()
    return float(largest / ours.abs().max()) if largest else 0.0
