"""What a person names on the command line, a run, a checkpoint or a config, as a network and its data."""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mlpcli import data, starters
from mlpcli.config import Config, load_config
from mlpcli.config.rules import settle
from mlpcli.data import Dataset, Split
from mlpcli.errors import DataError
from mlpcli.network import Network, network_for, open_target

log = logging.getLogger("mlpcli")

ARCHIVE = b"PK"
"""How every checkpoint begins: it is a ZIP file."""


@dataclass(frozen=True)
class Opened:
    """A network with its data.

    Attributes:
        of: whose they are, for a person: `runs/x/checkpoints/best.pt`, `digits at its initial weights`.
        config: with what only its data could decide.
        network: trained, or with the initial weights of the config.
        dataset: as it is read; what the network sees are its splits from `split`.
    """

    of: str
    config: Config
    network: Network
    dataset: Dataset

    def split(self, name: str) -> Split:
        """`train`, `validation` or `test`, its classes, columns and categories numbered as the network has them.

        Raises:
            DataError: there is no such split, or it does not fit the network.
        """
        dataset = self.dataset
        found = {"train": dataset.train, "validation": dataset.validation, "test": dataset.test}[name]
        if found is None:
            raise DataError("there is no validation split: data.validation is 0\n    use --split test or train")
        return data.as_trained(found, dataset.description, self.network.description)


def open_any(target: str, overrides: Sequence[str] = (), *, which: str = "best") -> Opened:
    """A run directory, a checkpoint file, or a config whose weights are the initial ones.

    Warns where the data is not that on which the network was trained.

    Args:
        target: RUN, checkpoint or CONFIG; a starter's name before a directory of that name.
        overrides: KEY=VALUE; of a trained network only the keys that do not change it, see `open_target`.
        which: `best` or `last` checkpoint of a run.

    Raises:
        UserError: there is no such thing, it cannot be read, or its data is absent.
    """
    if not is_trained(target):
        config = load_config(starters.find(target), overrides)
        dataset = data.load(config.data, config.seed)
        config = settle(config, dataset.facts)
        return Opened(f"{config.name} at its initial weights", config, network_for(config, dataset), dataset)
    return open_trained(Path(target), overrides, which=which)


def open_trained(target: Path, overrides: Sequence[str] = (), *, which: str = "best") -> Opened:
    """As `open_any`, of a run directory or a checkpoint file alone."""
    config, network, path = open_target(target, which, overrides)
    dataset = data.load(config.data, config.seed, network.extraction)
    if dataset.description.fingerprint != network.description.fingerprint:
        log.warning("the data is not what %s was trained on (another fingerprint)", path)
    return Opened(str(path), config, network, dataset)


def is_trained(target: str) -> bool:
    """Whether that is a run directory or a checkpoint, and not a config."""
    if os.path.isdir(target):
        return target not in starters.names()
    if not os.path.isfile(target):
        return target.endswith(".pt")
    with open(target, "rb") as file:
        return target.endswith(".pt") or file.read(len(ARCHIVE)) == ARCHIVE
