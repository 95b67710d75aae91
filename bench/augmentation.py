"""Augmentation of batches of 256 images: samples a second, on one thread and on two.

All cases take turns, so that whatever else the machine does meets all alike; the best and the median of the
rounds are printed. The last case is the first one in torchvision, whose transforms draw once a call and so take
an image at a time.

    python bench/augmentation.py [ROUNDS]
"""

import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torchvision.transforms import v2

from mlpcli.augmentation import Augment

BATCH = 256
MNIST, CIFAR = (1, 28, 28), (3, 32, 32)
AFFINE = {"shift": 2.0, "rotate": 15.0, "scale": 0.1}
ELASTIC = {"elastic": (8.0, 4.0)}
CASES: dict[str, tuple[tuple[int, int, int], dict[str, Any]]] = {
    "28x28 shift rotate scale elastic": (MNIST, AFFINE | ELASTIC),
    "28x28 shift rotate scale": (MNIST, AFFINE),
    "28x28 everything": (
        MNIST,
        AFFINE | ELASTIC | {"flip": "both", "cutout": 8, "mixup": 0.2, "noise": 0.1},
    ),
    "3x32x32 flip shift rotate scale": (CIFAR, AFFINE | {"flip": "horizontal"}),
    "3x32x32 flip shift": (CIFAR, {"flip": "horizontal", "shift": 2.0}),
    "3x32x32 flip": (CIFAR, {"flip": "horizontal"}),
    "3x32x32 cutout": (CIFAR, {"cutout": 8}),
    "3x32x32 mixup": (CIFAR, {"mixup": 0.2}),
    "3x32x32 noise": (CIFAR, {"noise": 0.1}),
}
PEER = "torchvision, an image at a time"


def contestants() -> dict[str, Callable[[int], object]]:
    """Each changes a batch; the argument is the step."""
    labels = torch.randint(10, (BATCH,))

    def ours(shape: tuple[int, int, int], options: dict[str, Any]) -> Callable[[int], object]:
        augment, inputs = Augment(shape, 0, 10, **options), torch.randn(BATCH, shape[0] * shape[1] * shape[2])
        return lambda step: augment(inputs, labels, 0, step)

    peer = v2.Compose(
        [
            v2.RandomAffine(15, (2 / 28, 2 / 28), (0.9, 1.1), interpolation=v2.InterpolationMode.BILINEAR),
            v2.ElasticTransform(8.0, 4.0),
        ]
    )
    images = torch.randn(BATCH, *MNIST)
    functions: dict[str, Callable[[int], object]] = {name: ours(*case) for name, case in CASES.items()}
    return functions | {PEER: lambda step: torch.stack([peer(image) for image in images])}


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    print(f"torch {torch.__version__}, n = {rounds}, samples/s: best (median)")
    changes = contestants()
    for threads in (1, 2):
        torch.set_num_threads(threads)
        seconds: dict[str, list[float]] = defaultdict(list)
        for step in range(rounds):
            for name, change in changes.items():
                if name == PEER and step % 20:
                    continue
                started = time.perf_counter()
                change(step)
                seconds[name].append(time.perf_counter() - started)
        print(f"{threads} thread{'s' * (threads > 1)}")
        for name, times in seconds.items():
            print(f"  {name:34} {BATCH / min(times):11,.0f} ({BATCH / statistics.median(times):,.0f})")


if __name__ == "__main__":
    main()
