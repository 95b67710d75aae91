"""The IDX format of MNIST and its relatives: a big-endian header (type, sizes), then the values."""

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlpcli.data.files import damaged, quoted, unreadable
from mlpcli.errors import DataError

UINT8, INT32 = 0x08, 0x0C
_DTYPES: dict[int, np.dtype[Any]] = {UINT8: np.dtype(np.uint8), INT32: np.dtype(">i4")}


def read_idx(path: Path, kind: int, dimensions: int) -> NDArray[Any]:
    """The array in the IDX file at `path`.

    Args:
        path: of the unpacked file.
        kind: the type that the file must have, `UINT8` or `INT32`.
        dimensions: the number of dimensions that it must have.

    Raises:
        DataError: the file cannot be read, is of another kind, or is shorter or longer than its header says.
    """
    try:
        content = np.fromfile(path, dtype=np.uint8)
    except OSError as error:
        raise unreadable(path, error) from error
    magic = bytes((0, 0, kind, dimensions))
    if content[:2].tobytes() == b"\x1f\x8b":
        packed = quoted(Path(f"{path}.gz"))
        raise DataError(
            f"{path}: still packed (gzip), though its name does not end in .gz\n"
            f"  To unpack: mv {quoted(path)} {packed} && gunzip {packed}"
        )
    header = 4 + 4 * dimensions
    if len(content) < header or content[:4].tobytes() != magic:
        found = content[:4].tobytes().hex(" ") or "nothing"
        raise damaged(path, f"it starts with {found} ({len(content)} bytes), expected {magic.hex(' ')}")
    shape = tuple(int(size) for size in content[4:header].view(">u4"))
    dtype = _DTYPES[kind]
    expected = header + dtype.itemsize * math.prod(shape)
    if len(content) != expected:
        sizes = " x ".join(map(str, shape))
        raise damaged(path, f"its header says {sizes}, which takes {expected} bytes; it has {len(content)}")
    return content[header:].view(dtype).reshape(shape)
