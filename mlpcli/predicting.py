"""A trained model on files: predictions in order, a chunk at a time, whatever the size of the input."""

import glob
import logging
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mlpcli.config import Config
from mlpcli.config.data_schema import CsvData, DigitsData, ImageFolderData, ImageSection, TableFileSection
from mlpcli.data import images
from mlpcli.data.folder import images_below
from mlpcli.data.table_stream import stream
from mlpcli.errors import DataError, UsageError
from mlpcli.network import Network
from mlpcli.predictor import Predictor

log = logging.getLogger("mlpcli")

ROWS = 2**16
"""Rows of a table that are read at once, at most."""
IMAGES = 256
"""Images that are decoded at once, at most."""
NUMBERS = 2**22
"""Fewer are, where those had more numbers or answers than this together: 32 MiB of float64."""
TABLES = (".csv", ".tsv", ".parquet")
"""Endings of tables; every other file is taken for an image."""


@dataclass(frozen=True)
class Chunk:
    """Predictions for consecutive inputs.

    Attributes:
        inputs: a path for each of them, or that of the table whose rows they are.
        rows: the numbers of a table's rows, counted from 1; None for images.
        answers: (n, outputs) as `Predictor` gives them.
    """

    inputs: list[str] | str
    rows: NDArray[np.int64] | None
    answers: Tensor


def predict(
    network: Network, config: Config, inputs: Sequence[str], *, skip: bool, output: Path | None = None
) -> Iterator[Chunk]:
    """Predictions for files, folders and globs, in order.

    Args:
        network: the trained model.
        config: that it was trained with.
        inputs: image files, folders of them, or tables; a glob is expanded.
        skip: whether a file or a row that cannot be read, or does not fit the model, is left out with a warning.
        output: a file that will be written, and so must not be read.

    Yields:
        First a chunk of nothing, which has the types of the others.

    Raises:
        UsageError: an input that is not there, or of the other kind, or is the output.
        DataError: one that cannot be read, or does not fit the model.
    """
    section = config.data
    files = [file for given in inputs for file in _expanded(given, isinstance(section, ImageSection))]
    if output is not None and output.exists():
        for file in files:
            if file.name == output.name and file.exists() and file.samefile(output):
                raise UsageError(f"{output} is an input too, which the predictions would replace")
    predictor = Predictor(network)
    nothing = torch.empty((0, network.description.outputs), dtype=predictor.dtype)
    if isinstance(section, ImageSection):
        why = f"is a table, but the model was trained on images ({section.dataset})"
        yield Chunk([], None, nothing)
        yield from _of_images(predictor, section, _fitting(files, False, why, skip), skip)
        return
    why = f"is no table (.csv, .tsv or .parquet), but the model was trained on one ({section.dataset})"
    yield Chunk("", np.empty(0, dtype=np.int64), nothing)
    for file in _fitting(files, True, why, skip):
        try:
            yield from _of_table(predictor, config, file, skip)
        except DataError as error:
            if not skip:
                raise
            log.warning("left out: %s", error)


def _expanded(given: str, images: bool) -> list[Path]:
    """The files that an INPUT means: itself, the images in a folder and those below it, or what a glob matches."""
    if os.path.isdir(given):
        if not images:
            raise UsageError(f"{given} is a folder\n    name the tables in it: '{given.rstrip('/')}/*.csv'")
        found = images_below(Path(given))
        if not found:
            raise DataError(f"{given}: no images in this folder")
        return found
    if os.path.lexists(given):
        return [Path(given)]
    if not glob.has_magic(given):
        raise UsageError(f"there is no file or folder {given}")
    matches = sorted(glob.glob(given, recursive=True))
    if "**" in given:  # which matches the files in a folder beside the folder itself
        matches = [match for match in matches if not os.path.isdir(match)]
    if not matches:
        raise UsageError(f"nothing matches {given}")
    return [file for match in matches for file in _expanded(match, images)]


def _fitting(files: Sequence[Path], tables: bool, why: str, skip: bool) -> list[Path]:
    """The files that are tables, or those that are none; `why` says what is wrong with the others."""
    fitting = []
    for file in files:
        if (file.suffix.lower() in TABLES) == tables:
            fitting.append(file)
        elif skip:
            log.warning("left out: %s %s", file, why)
        else:
            raise UsageError(f"{file} {why}")
    return fitting


def _at_once(most: int, numbers: int) -> int:
    """Samples with so many numbers each that are in memory together."""
    return max(1, min(most, NUMBERS // numbers))


# --- images -------------------------------------------------------------------------------------------------


def _of_images(predictor: Predictor, section: ImageSection, files: Sequence[Path], skip: bool) -> Iterator[Chunk]:
    read = _reader(section)
    extraction = predictor.network.extraction
    size = _at_once(IMAGES, max(math.prod(section.input_shape), predictor.network.description.outputs))
    chunks = [files[start : start + size] for start in range(0, len(files), size)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:

        def begin(chunk: Sequence[Path]) -> list[Future[NDArray[np.uint8]]]:
            return [pool.submit(read, file) for file in chunk]

        try:
            for chunk, decoding in _one_ahead(chunks, begin):
                kept, rows = [], []
                for file, future in zip(chunk, decoding, strict=True):
                    try:
                        rows.append(future.result().reshape(-1))
                        kept.append(_shown(file))
                    except DataError as error:
                        if not skip:
                            raise
                        log.warning("left out: %s", error)
                if rows:
                    pixels = torch.from_numpy(np.stack(rows))
                    yield Chunk(kept, None, predictor(pixels if extraction is None else extraction(pixels)))
        finally:
            pool.shutdown(cancel_futures=True)


def _one_ahead(chunks: Iterable[Any], begin: Callable[[Any], Any]) -> Iterator[tuple[Any, Any]]:
    """Each chunk with what `begin` returns for it, called when the chunk before is taken."""
    before = None
    for chunk in chunks:
        begun = chunk, begin(chunk)
        if before is not None:
            yield before
        before = begun
    if before is not None:
        yield before


def _reader(section: ImageSection) -> Callable[[Path], NDArray[np.uint8]]:
    """What reads an image as the training data was read: scaled to the model's size for folders of images, and of
    exactly that size for sets that have one."""
    shape = section.input_shape
    if isinstance(section, ImageFolderData):
        return lambda path: images.decode(path, shape)

    def read(path: Path) -> NDArray[np.uint8]:
        images.check_size(path, shape)
        pixels = images.decode(path, shape)
        if isinstance(section, DigitsData):  # whose pixels are 0 to 16
            pixels = np.rint(pixels * (16 / 255)).astype(np.uint8)
        return pixels

    return read


def _shown(file: Path) -> str:
    """A path as text, with bytes that are no UTF-8 as \\xff: no format of the predictions could hold them."""
    return os.fsencode(file).decode(errors="backslashreplace")


# --- tables -------------------------------------------------------------------------------------------------


def _of_table(predictor: Predictor, config: Config, file: Path, skip: bool) -> Iterator[Chunk]:
    about = predictor.network.description
    given = config.data if isinstance(config.data, TableFileSection) else None
    missing = TableFileSection.model_fields["missing"].default if given is None else given.missing
    delimiter = given.delimiter if isinstance(given, CsvData) else ","
    size = _at_once(ROWS, max(len(about.columns), about.outputs))
    skipped: list[str] | None = [] if skip else None
    for rows, values in stream(str(file), about.columns, missing, delimiter, size, skipped):
        _warn(skipped)
        if given is None:  # embedded sets miss nothing, so that their models have no answer to a missing value
            gaps = values.isnan()
            for place in gaps.any(1).nonzero().flatten().tolist():
                column = about.columns[int(gaps[place].nonzero()[0])].name
                message = f"{file}: row {rows[place]} has no value in the column {column}"
                if not skip:
                    raise DataError(
                        f"{message}, but {about.name}, which the model was trained on, misses none\n"
                        "    fill it in, or leave the row out: --on-bad-file skip"
                    )
                log.warning("left out: %s", message)
            rows, values = rows[~gaps.any(1)], values[~gaps.any(1)]
        if len(rows):
            yield Chunk(_shown(file), rows.numpy(), predictor(values))
    _warn(skipped)


def _warn(skipped: list[str] | None) -> None:
    for each in skipped or []:
        log.warning("left out: %s", each)
    if skipped:
        skipped.clear()
