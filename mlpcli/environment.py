"""What a result depends on besides its config: versions, machine, command line, commit."""

import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import torch

from mlpcli import __version__


def versions() -> dict[str, str]:
    """Versions of what a result depends on."""
    packages = ("torchvision", "numpy", "scikit-learn")
    ours = {"mlpcli": __version__, "python": platform.python_version(), "torch": str(torch.__version__)}
    return ours | {name: version(name) for name in packages}


def environment(device: torch.device, seed: int, data_fingerprint: str) -> dict[str, Any]:
    """What environment.json says."""
    return {
        "started": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "command_line": sys.argv,
        "working_directory": os.getcwd(),
        "git_commit": _git_commit(),
        "versions": versions(),
        "platform": platform.platform(),
        "device": str(device),
        "device_name": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine(),
        "threads": torch.get_num_threads(),
        "seed": seed,
        "data_fingerprint": data_fingerprint,
    }


def _git_commit() -> str | None:
    """The commit checked out in the working directory, if it is in a git repository."""
    try:
        done = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
