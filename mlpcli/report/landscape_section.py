"""The picture of a loss surface as a part of a page."""

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlpcli.report.blocks import Gallery, Picture, Section

KINDS = {".svg": "image/svg+xml", ".png": "image/png"}


def landscape_section(drawn: Mapping[str, Any]) -> Section:
    """What `landscape.landscape` has drawn, embedded."""
    file, size = Path(drawn["file"]), (drawn["width"], drawn["height"])
    content = base64.b64encode(file.read_bytes()).decode()
    data = f"data:{KINDS[file.suffix.lower()]};base64,{content}"
    picture = Picture(data, size, "The paths of the runs on a plane of the loss surface")
    return Section("landscape", "Paths on the loss surface", [Gallery("", [picture])])
