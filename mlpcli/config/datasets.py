"""What is known of each data set before a byte of it is read: the task, shapes and sizes."""

from dataclasses import dataclass
from math import prod
from typing import Literal

Task = Literal["classification", "regression"]


@dataclass(frozen=True)
class Facts:
    """The published facts of a data set.

    Attributes:
        task: `classification` or `regression`.
        input_shape: shape of one sample: (channels, height, width) for images, (features,) for tables.
        outputs: number of classes, or of target coordinates in regression.
        train: samples outside the set's own test split.
        test: samples in the set's own test split; 0 where it has none and `data.test` cuts one.
    """

    task: Task
    input_shape: tuple[int, ...]
    outputs: int
    train: int
    test: int = 0

    @property
    def features(self) -> int:
        """Length of one sample as a vector."""
        return prod(self.input_shape)

    @property
    def is_image(self) -> bool:
        """Whether samples are images, which have pixels that share one scale."""
        return len(self.input_shape) == 3


FACTS: dict[str, Facts] = {
    "digits": Facts("classification", (1, 8, 8), 10, 1797),
    "iris": Facts("classification", (4,), 3, 150),
    "wine": Facts("classification", (13,), 3, 178),
    "breast_cancer": Facts("classification", (30,), 2, 569),
    "diabetes": Facts("regression", (10,), 1, 442),
    "mnist": Facts("classification", (1, 28, 28), 10, 60_000, 10_000),
    "fashion_mnist": Facts("classification", (1, 28, 28), 10, 60_000, 10_000),
    "kmnist": Facts("classification", (1, 28, 28), 10, 60_000, 10_000),
    "qmnist": Facts("classification", (1, 28, 28), 10, 60_000, 60_000),
    "usps": Facts("classification", (1, 16, 16), 10, 7_291, 2_007),
    "cifar10": Facts("classification", (3, 32, 32), 10, 50_000, 10_000),
    "cifar100": Facts("classification", (3, 32, 32), 100, 50_000, 10_000),
    "svhn": Facts("classification", (3, 32, 32), 10, 73_257, 26_032),
    "stl10": Facts("classification", (3, 96, 96), 10, 5_000, 8_000),
}

EMNIST_FACTS: dict[str, Facts] = {
    "byclass": Facts("classification", (1, 28, 28), 62, 697_932, 116_323),
    "bymerge": Facts("classification", (1, 28, 28), 47, 697_932, 116_323),
    "balanced": Facts("classification", (1, 28, 28), 47, 112_800, 18_800),
    "letters": Facts("classification", (1, 28, 28), 26, 124_800, 20_800),
    "digits": Facts("classification", (1, 28, 28), 10, 240_000, 40_000),
    "mnist": Facts("classification", (1, 28, 28), 10, 60_000, 10_000),
}
