"""What a trained network answers on a split, sample by sample."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mlpcli.config import Config
from mlpcli.data import Description, Split
from mlpcli.network import Network
from mlpcli.predictor import Predictor
from mlpcli.targets import Opened, open_any

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Answers:
    """A network's answers on a split.

    Attributes:
        of: which network, for a person.
        config: of the network.
        network: itself.
        split: the samples, as stored.
        outputs: float64, probabilities (samples, classes) or values (samples, targets) in their own units.
        targets: int64 (samples,) class indices, or float64 (samples, targets).
        fingerprint: of the data: of the same fingerprint, seed and split are the same samples.
    """

    of: str
    config: Config
    network: Network
    split: Split
    outputs: Floats
    targets: NDArray[np.int64] | Floats
    fingerprint: str

    @property
    def about(self) -> Description:
        """What describes the data: classes, columns, shapes."""
        return self.network.description

    @property
    def classifies(self) -> bool:
        """Whether the outputs are probabilities of classes."""
        return bool(self.about.classes)

    @property
    def predicted(self) -> NDArray[np.int64]:
        """int64 (samples,), the most probable class."""
        predicted: NDArray[np.int64] = self.outputs.argmax(1)
        return predicted


def answers(target: Path, split: str = "test", which: str = "best", overrides: Sequence[str] = ()) -> Answers:
    """The answers of a run's or a checkpoint's network on a split of its data.

    Raises:
        UserError: the run, its checkpoint, its data or that split is absent or damaged.
    """
    return answered(open_any(str(target), overrides, which=which), split)


def answered(opened: Opened, split: str) -> Answers:
    """The answers of a network that is open, likewise."""
    chosen = opened.split(split)
    return Answers(
        of=opened.of,
        config=opened.config,
        network=opened.network,
        split=chosen,
        outputs=Predictor(opened.network).of(chosen).double().numpy(),
        targets=chosen.targets.numpy(),
        fingerprint=opened.dataset.description.fingerprint,
    )
