"""The starter configs that travel inside the package. No torch."""

import difflib
import os
import re
from pathlib import Path

from mlpcli.errors import UsageError

_PACKAGE = Path(__file__).parent

CLOSEST = {
    "wine": "iris",
    "kmnist": "mnist",
    "qmnist": "mnist",
    "usps": "mnist",
    "emnist": "mnist",
    "cifar100": "cifar10",
    "svhn": "cifar10",
    "stl10": "cifar10",
    "fake": "digits",
    "image_folder": "cats_dogs",
    "csv": "table_classification",
    "parquet": "table_classification",
}
"""Data sets without a starter of their own, and whose starter `init` adapts to them."""


WITH_TABLE = ("table_classification", "table_regression")
"""Starters whose data `init` writes too, into a CSV file of their name."""

LACKS = {"fake": ("test",)}
"""Keys of such a starter's data section that the other data set does not have."""


def directory() -> Path:
    """Where the starters are: inside an installed package, or at the top of the source tree."""
    inside = _PACKAGE / "configs"
    return inside if inside.is_dir() else _PACKAGE.parent / "configs"


def names() -> list[str]:
    """Every starter's name."""
    return sorted(path.stem for path in directory().glob("*.yaml"))


def summary(name: str) -> str:
    """The first line of a starter's opening comment."""
    first = (directory() / f"{name}.yaml").read_text(encoding="utf-8").partition("\n")[0]
    return first.lstrip("# ")


def find(config: str) -> Path:
    """The file that CONFIG means: a path, or a starter's name where no such file exists.

    A directory of that name, such as a run's, hides no starter.

    Raises:
        UsageError: it looks like a name, but there is neither such a file nor such a starter.
    """
    path = Path(config)
    exists = os.path.exists(path)  # unlike Path.exists, no error for a name that no file can have
    if config in names() and (os.path.isdir(path) or not exists):
        return directory() / f"{config}.yaml"
    if exists or path.suffix in (".yaml", ".yml") or path.name != config:
        return path
    raise UsageError(f"there is no file and no starter config {config!r}\n    {_suggestion(config, names())}")


def adapted(name: str) -> str:
    """The text of a starter for the data set (or starter) `name`.

    Raises:
        UsageError: no such data set.
    """
    if name in names():
        return (directory() / f"{name}.yaml").read_text(encoding="utf-8")
    if name not in CLOSEST:
        raise UsageError(f"no starter for {name!r}\n    {_suggestion(name, [*names(), *CLOSEST])}")
    other = CLOSEST[name]
    lines = (directory() / f"{other}.yaml").read_text(encoding="utf-8").splitlines()
    left_out = ("#", *(f"  {key}:" for key in LACKS.get(name, ())))
    body = "\n".join(line for line in lines if not line.startswith(left_out)).strip()
    body = body.replace(f"name: {other}", f"name: {name}", 1)
    body = re.sub(r"dataset: \w+", f"dataset: {name}", body, count=1)
    body = body.replace("path: table_classification.csv", f"path: table.{name}", 1)
    return f"# {name}: adapted from the starter {other}, not tuned.\n{body}\n"


def _suggestion(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return (f"did you mean {close[0]}? " if close else "") + f"there are: {', '.join(sorted(known))}"
