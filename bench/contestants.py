"""One way of training a multi-layer perceptron, alone in its process: prints one JSON line, for bench/peers.py.

    python bench/contestants.py NAME --size S|M|L --optimizer sgd|adam --epochs E [--samples N] [--batches-limit K]

All train the same network on the same samples: relu, mean cross-entropy, pixels standardised by one mean and
standard deviation, reshuffled every epoch, initial weights and biases uniform in ±1/√fan_in. Each is written as a
good user of that library would write it, with the library's own choice of threads. MNIST is read from the folder
in MLPCLI_TEST_DATA; without it, data of the same shape is generated.

The line holds `epoch_seconds` (the first one includes compilation), `losses` (mean training loss of each epoch,
as the contestant counts it) and `final_loss`: the exact cross-entropy of the final weights on all training
samples, computed by one function for all. With --batches-limit K only the first K batches are trained on, and
`epoch_seconds` is scaled up to the full epoch: `extrapolated` is then true.
"""

import argparse
import json
import os
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # a contestant imports only its own library
    import torch

    from mlpcli.training import Trainer

Floats = NDArray[np.float32]

WIDTHS = {"S": [784, 128, 10], "M": [784, 512, 512, 10], "L": [784, 2048, 2048, 2048, 10]}
"""Length of the input, units of the hidden layers, number of classes."""
BATCH = {"S": 64, "M": 128, "L": 256}
SAMPLES = {"S": 60_000, "M": 60_000, "L": 15_360}
"""L takes 60 steps an epoch, as a whole pass would take a minute."""

LR = {"sgd": 0.01, "adam": 0.001}
MOMENTUM = 0.9
BETAS = (0.9, 0.999)
EPS = 1e-8

LIBRARIES = ("torch", "jax", "jaxlib", "optax", "keras", "skorch", "lightning", "sklearn", "numpy")


@dataclass(frozen=True)
class Task:
    """What is trained: images as bytes (n, 784) and standardised (n, 784), labels (n,), and how."""

    images: NDArray[np.uint8]
    inputs: Floats
    labels: NDArray[np.int64]
    widths: list[int]
    batch: int
    optimizer: str
    epochs: int

    @property
    def lr(self) -> float:
        return LR[self.optimizer]

    def first(self, samples: int) -> "Task":
        return replace(
            self, images=self.images[:samples], inputs=self.inputs[:samples], labels=self.labels[:samples]
        )


@dataclass
class Result:
    """What a contestant measured; weights are (W, b) of each layer with W of shape (in, out)."""

    epoch_seconds: list[float]
    losses: list[float]
    weights: list[tuple[Floats, Floats]]
    threads: int


# --- the data, and what is common to all ----------------------------------------------------------------


def read_data(samples: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    folder = Path(os.environ.get("MLPCLI_TEST_DATA", "")) / "MNIST" / "raw"
    if "MLPCLI_TEST_DATA" in os.environ and folder.is_dir():
        images = np.fromfile(folder / "train-images-idx3-ubyte", np.uint8, offset=16).reshape(-1, 784)
        labels = np.fromfile(folder / "train-labels-idx1-ubyte", np.uint8, offset=8)
        return images[:samples], labels[:samples].astype(np.int64)
    return generated_data(samples, 784)


def generated_data(samples: int, features: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """A prototype for each of ten classes under noise, weak enough that a network has something to learn."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, samples)
    prototypes = 128 + 8 * rng.standard_normal((10, features), np.float32)
    images = rng.standard_normal((samples, features), np.float32)
    images *= 60
    images += prototypes[labels]
    return images.clip(0, 255, out=images).astype(np.uint8), labels


def standardised(images: NDArray[np.uint8]) -> Floats:
    """`data.standardize: pixel`: one mean and one standard deviation, of all pixels of these samples."""
    counts, values = np.bincount(images.ravel(), minlength=256), np.arange(256)
    mean = counts @ values / images.size
    std = np.sqrt(counts @ (values - mean) ** 2 / images.size)
    return (images - np.float32(mean)) * np.float32(1 / std)


def initial_weights(widths: Sequence[int]) -> list[tuple[Floats, Floats]]:
    """torch.nn.Linear's default, for the libraries that have another one."""
    rng = np.random.default_rng(0)
    weights = []
    for fan_in, units in pairwise(widths):
        bound = fan_in**-0.5
        matrix, bias = rng.uniform(-bound, bound, (fan_in, units)), rng.uniform(-bound, bound, units)
        weights.append((matrix.astype(np.float32), bias.astype(np.float32)))
    return weights


def exact_loss(weights: list[tuple[Floats, Floats]], inputs: Floats, labels: NDArray[np.int64]) -> float:
    """Mean cross-entropy of the network with these weights."""
    total = 0.0
    for start in range(0, len(inputs), 2048):
        outputs, classes = inputs[start : start + 2048], labels[start : start + 2048]
        for matrix, bias in weights[:-1]:
            outputs = np.maximum(outputs @ matrix + bias, 0)
        matrix, bias = weights[-1]
        logits = (outputs @ matrix + bias).astype(np.float64)
        logits -= logits.max(1, keepdims=True)
        total += float((np.log(np.exp(logits).sum(1)) - logits[np.arange(len(classes)), classes]).sum())
    return total / len(inputs)


def torch_model(widths: list[int]) -> "torch.nn.Sequential":
    from torch import nn

    layers: list[nn.Module] = []
    for fan_in, units in pairwise(widths):
        layers += [nn.Linear(fan_in, units), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def torch_optimizer(task: Task, model: "torch.nn.Module") -> "torch.optim.Optimizer":
    import torch

    # `fused` is the fastest variant that torch.optim has on the CPU, and not the default
    if task.optimizer == "sgd":
        return torch.optim.SGD(model.parameters(), lr=task.lr, momentum=MOMENTUM, fused=True)
    return torch.optim.Adam(model.parameters(), lr=task.lr, betas=BETAS, eps=EPS, fused=True)


def torch_result(seconds: list[float], losses: list[float], model: "torch.nn.Module") -> Result:
    import torch

    linears = [module for module in model.modules() if isinstance(module, torch.nn.Linear)]
    weights = [(linear.weight.detach().numpy().T, linear.bias.detach().numpy()) for linear in linears]
    return Result(seconds, losses, weights, torch.get_num_threads())


def mean_loss(losses: "list[torch.Tensor]", task: Task) -> float:
    """The mean over samples of the losses of an epoch's batches, of which the last one may be smaller."""
    import torch

    sizes = torch.full((len(losses),), task.batch)
    sizes[-1] = len(task.labels) - task.batch * (len(losses) - 1)
    return float((torch.stack(losses) * sizes).sum() / len(task.labels))


# --- the contestants ------------------------------------------------------------------------------------


def mlpcli_trainer(task: Task, **training: Any) -> "tuple[Trainer, torch.nn.Sequential]":
    """mlpcli's training of `task`, and the model that it trains; `training` adds keys of that section.

    The only place here that knows mlpcli's insides; bench/scaling.py uses it too.
    """
    import torch

    from mlpcli import data
    from mlpcli.config import config_from_plain
    from mlpcli.data import Split
    from mlpcli.data.statistics import fit
    from mlpcli.experiment import build_trainer
    from mlpcli.network import network_for
    from mlpcli.threads import fastest_threads, flush_denormals

    flush_denormals()  # as mlpcli.experiment.start does
    shape = [1, 1, task.widths[0]]
    optimizer: dict[str, Any] = {"name": task.optimizer, "lr": task.lr}
    optimizer |= {"momentum": MOMENTUM} if task.optimizer == "sgd" else {"betas": list(BETAS), "eps": EPS}
    config = config_from_plain(
        {
            "data": {"dataset": "fake", "train_size": 10, "test_size": 10, "image_size": shape, "validation": 0},
            "model": {"width": task.widths[1:-1]},
            "optimizer": optimizer,
            "training": {"epochs": task.epochs, "batch_size": task.batch, "device": "cpu", **training},
        }
    )
    train = Split(torch.from_numpy(task.images), torch.from_numpy(task.labels))
    dataset = replace(
        data.load(config.data, config.seed), train=train, preprocessing=fit(train, tuple(shape), "pixel")
    )
    network = network_for(config, dataset)
    trainer = build_trainer(config, dataset, network)
    if config.training.threads == "auto":  # as mlpcli.experiment.start does
        fastest_threads(trainer, torch.get_num_threads())
    return trainer, network.model


def train_mlpcli(task: Task, **training: Any) -> Result:
    trainer, model = mlpcli_trainer(task, **training)
    seconds, losses = [], []
    started = time.perf_counter()
    for record in trainer.run():
        if record is not None:
            seconds.append(time.perf_counter() - started)
            losses.append(record.train["loss"])
            started = time.perf_counter()
    return torch_result(seconds, losses, model)


def train_mlpcli_autograd(task: Task) -> Result:
    return train_mlpcli(task, engine="autograd")


def train_torch_eager(task: Task, compiled: bool = False) -> Result:
    import torch
    import torch.nn.functional as F

    inputs, labels = torch.from_numpy(task.inputs), torch.from_numpy(task.labels)
    model = torch_model(task.widths)
    optimizer = torch_optimizer(task, model)

    def mean_cross_entropy(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(x), y)

    if compiled:  # one graph for the full batch, one for the smaller last one
        mean_cross_entropy = torch.compile(mean_cross_entropy, dynamic=False)
    seconds, losses = [], []
    for _ in range(task.epochs):
        started = time.perf_counter()
        batch_losses = []
        for index in torch.randperm(len(inputs)).split(task.batch):
            optimizer.zero_grad()
            loss = mean_cross_entropy(inputs[index], labels[index])
            loss.backward()
            optimizer.step()
            batch_losses.append(loss.detach())
        losses.append(mean_loss(batch_losses, task))
        seconds.append(time.perf_counter() - started)
    return torch_result(seconds, losses, model)


def train_torch_compile(task: Task) -> Result:
    return train_torch_eager(task, compiled=True)


def train_torch_dataloader(task: Task) -> Result:
    """PyTorch's MNIST example: torchvision's path from a stored image to a tensor, a sample at a time."""
    import torch
    import torch.nn.functional as F
    from PIL import Image
    from torch.utils.data import DataLoader, Dataset
    from torchvision import transforms

    mean, std = float(task.images.mean()) / 255, float(task.images.std()) / 255
    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((mean,), (std,))])

    class Images(Dataset[tuple[torch.Tensor, int]]):  # as torchvision.datasets.MNIST does it
        def __len__(self) -> int:
            return len(task.labels)

        def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
            return transform(Image.fromarray(task.images[i].reshape(28, 28))), int(task.labels[i])

    loader = DataLoader(Images(), batch_size=task.batch, shuffle=True)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch_model(task.widths))
    optimizer = torch_optimizer(task, model)
    seconds, losses = [], []
    for _ in range(task.epochs):
        started = time.perf_counter()
        batch_losses = []
        for x, y in loader:
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            batch_losses.append(loss.detach())
        losses.append(mean_loss(batch_losses, task))
        seconds.append(time.perf_counter() - started)
    return torch_result(seconds, losses, model)


def train_lightning(task: Task) -> Result:
    import logging

    import torch
    import torch.nn.functional as F

    # its advice at the start is about loggers and worker processes
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    import lightning as L
    from torch.utils.data import DataLoader, TensorDataset

    seconds: list[float] = []
    losses: list[float] = []

    class Classifier(L.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = torch_model(task.widths)
            self.batch_losses: list[torch.Tensor] = []

        def training_step(self, batch: tuple[torch.Tensor, torch.Tensor], _index: int) -> torch.Tensor:
            x, y = batch
            loss = F.cross_entropy(self.model(x), y)
            self.batch_losses.append(loss.detach())
            return loss

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch_optimizer(task, self.model)

        def on_train_epoch_start(self) -> None:
            self.started = time.perf_counter()

        def on_train_epoch_end(self) -> None:
            losses.append(mean_loss(self.batch_losses, task))
            self.batch_losses.clear()
            seconds.append(time.perf_counter() - self.started)

    samples = TensorDataset(torch.from_numpy(task.inputs), torch.from_numpy(task.labels))
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=task.epochs,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    classifier = Classifier()
    trainer.fit(classifier, DataLoader(samples, batch_size=task.batch, shuffle=True))
    return torch_result(seconds, losses, classifier.model)


def train_skorch(task: Task) -> Result:
    import torch
    from skorch import NeuralNetClassifier

    if task.optimizer == "sgd":
        options: dict[str, Any] = {"optimizer": torch.optim.SGD, "optimizer__momentum": MOMENTUM}
    else:
        options = {"optimizer": torch.optim.Adam, "optimizer__betas": BETAS, "optimizer__eps": EPS}
    net = NeuralNetClassifier(
        torch_model(task.widths),
        criterion=torch.nn.CrossEntropyLoss,
        lr=task.lr,
        batch_size=task.batch,
        max_epochs=task.epochs,
        iterator_train__shuffle=True,
        train_split=None,
        callbacks__valid_acc=None,  # the timer and the training loss stay
        callbacks__valid_loss=None,
        callbacks__print_log=None,
        optimizer__fused=True,
        verbose=0,
        **options,
    )
    net.fit(task.inputs, task.labels)
    return torch_result(net.history[:, "dur"], net.history[:, "train_loss"], net.module_)


def train_jax(task: Task) -> Result:
    """An epoch is one compiled program: a scan over the permuted batches, then the smaller last one."""
    from functools import partial

    import jax
    import jax.numpy as jnp
    import optax

    adam = optax.adam(task.lr, *BETAS, eps=EPS)
    optimizer = adam if task.optimizer == "adam" else optax.sgd(task.lr, MOMENTUM)
    weights = jax.tree.map(jnp.asarray, initial_weights(task.widths))
    state = optimizer.init(weights)
    inputs, labels = jnp.asarray(task.inputs), jnp.asarray(task.labels, jnp.int32)
    n, full = len(labels), len(labels) // task.batch * task.batch

    def mean_cross_entropy(weights: Any, x: Any, y: Any) -> Any:
        for matrix, bias in weights[:-1]:
            x = jax.nn.relu(x @ matrix + bias)
        matrix, bias = weights[-1]
        return optax.softmax_cross_entropy_with_integer_labels(x @ matrix + bias, y).mean()

    @partial(jax.jit, donate_argnums=(0, 1))
    def epoch(weights: Any, state: Any, inputs: Any, labels: Any, order: Any) -> Any:
        def step(carry: Any, rows: Any) -> Any:
            weights, state = carry
            loss, gradient = jax.value_and_grad(mean_cross_entropy)(weights, inputs[rows], labels[rows])
            updates, state = optimizer.update(gradient, state)
            return (optax.apply_updates(weights, updates), state), loss * len(rows)

        carry, losses = jax.lax.scan(step, (weights, state), order[:full].reshape(-1, task.batch))
        total = losses.sum()
        if full < n:
            carry, last = step(carry, order[full:])
            total += last
        return *carry, total / n

    rng = np.random.default_rng(0)
    seconds, means = [], []
    for _ in range(task.epochs):
        started = time.perf_counter()
        weights, state, loss = epoch(weights, state, inputs, labels, jnp.asarray(rng.permutation(n)))
        means.append(float(loss))  # waits for the computation
        seconds.append(time.perf_counter() - started)
    return Result(seconds, means, [(np.asarray(w), np.asarray(b)) for w, b in weights], os.cpu_count() or 1)


def train_keras(task: Task, backend: str) -> Result:
    os.environ["KERAS_BACKEND"] = backend
    import keras
    from keras.initializers import RandomUniform

    keras.utils.set_random_seed(0)
    seconds: list[float] = []

    class Timer(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self.started = time.perf_counter()

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            seconds.append(time.perf_counter() - self.started)

    model = keras.Sequential([keras.Input((task.widths[0],))])
    for fan_in, units in pairwise(task.widths):
        bound = fan_in**-0.5
        is_last = len(model.layers) == len(task.widths) - 2
        model.add(
            keras.layers.Dense(
                units,
                activation=None if is_last else "relu",
                kernel_initializer=RandomUniform(-bound, bound),
                bias_initializer=RandomUniform(-bound, bound),
            )
        )
    if task.optimizer == "sgd":
        optimizer = keras.optimizers.SGD(task.lr, momentum=MOMENTUM)
    else:
        optimizer = keras.optimizers.Adam(task.lr, *BETAS, epsilon=EPS)
    model.compile(
        optimizer,
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        steps_per_execution=8
        if backend == "jax"
        else 1,  # faster where Python is the bottleneck; torch has only 1
    )
    history = model.fit(
        task.inputs, task.labels, task.batch, task.epochs, shuffle=True, verbose=0, callbacks=[Timer()]
    )
    values = [np.asarray(value) for value in model.get_weights()]
    return Result(
        seconds,
        history.history["loss"],
        list(zip(values[::2], values[1::2], strict=True)),
        default_threads(backend),
    )


def default_threads(backend: str) -> int:
    if backend == "torch":
        import torch

        return torch.get_num_threads()
    return os.cpu_count() or 1  # XLA's pool


def train_keras_jax(task: Task) -> Result:
    return train_keras(task, "jax")


def train_keras_torch(task: Task) -> Result:
    return train_keras(task, "torch")


def train_sklearn(task: Task) -> Result:
    from sklearn.neural_network import MLPClassifier
    from threadpoolctl import threadpool_info

    ends: list[float] = []
    initial = iter(initial_weights(task.widths))

    class Timed(MLPClassifier):
        """The same initial weights as everybody's, and a clock at the end of each epoch: at no cost."""

        def _init_coef(self, fan_in: int, fan_out: int, dtype: Any) -> tuple[Floats, Floats]:
            return next(initial)

        def _update_no_improvement_count(self, *arguments: Any) -> None:
            ends.append(time.perf_counter())
            super()._update_no_improvement_count(*arguments)

    warnings.filterwarnings("ignore", message="Stochastic Optimizer: Maximum iterations")
    model = Timed(
        task.widths[1:-1],
        activation="relu",
        solver=task.optimizer,
        alpha=0,
        batch_size=task.batch,
        learning_rate_init=task.lr,
        max_iter=task.epochs,
        random_state=0,
        tol=0,
        n_iter_no_change=task.epochs + 1,  # all epochs
        momentum=MOMENTUM,
        nesterovs_momentum=False,
        beta_1=BETAS[0],
        beta_2=BETAS[1],
        epsilon=EPS,
    )
    started = time.perf_counter()
    model.fit(task.inputs, task.labels)
    seconds = [end - start for start, end in pairwise([started, *ends])]
    threads = max((pool["num_threads"] for pool in threadpool_info()), default=1)
    return Result(seconds, model.loss_curve_, list(zip(model.coefs_, model.intercepts_, strict=True)), threads)


def multiply(task: Task) -> Result:
    """Only the matrix products of a step, the work that no implementation of the network can leave out."""
    import torch

    inputs = torch.from_numpy(task.inputs)
    shapes = list(pairwise(task.widths))
    weights = [torch.empty(shape).uniform_(-(shape[0] ** -0.5), shape[0] ** -0.5) for shape in shapes]
    gradients = [torch.empty(shape) for shape in shapes]
    batches = inputs.split(task.batch)
    outputs = {len(x): [torch.randn(len(x), units) for units in task.widths[1:]] for x in batches}
    deltas = {len(x): [torch.randn(len(x), units) for units in task.widths[1:]] for x in batches}
    seconds = []
    for _ in range(task.epochs):
        started = time.perf_counter()
        for x in batches:
            a, z, d = [x, *outputs[len(x)]], outputs[len(x)], deltas[len(x)]
            for layer, matrix in enumerate(weights):
                torch.mm(a[layer], matrix, out=z[layer])
            for layer in reversed(range(len(weights))):
                torch.mm(a[layer].T, d[layer], out=gradients[layer])
                if layer:
                    torch.mm(d[layer], weights[layer].T, out=d[layer - 1])
        seconds.append(time.perf_counter() - started)
    return Result(seconds, [], [], torch.get_num_threads())


CONTESTANTS: dict[str, Callable[[Task], Result]] = {
    "mlpcli": train_mlpcli,
    "mlpcli autograd": train_mlpcli_autograd,
    "jax": train_jax,
    "keras-jax": train_keras_jax,
    "keras-torch": train_keras_torch,
    "sklearn": train_sklearn,
    "skorch": train_skorch,
    "lightning": train_lightning,
    "torch-eager": train_torch_eager,
    "torch-dataloader": train_torch_dataloader,
    "torch-compile": train_torch_compile,
    "products": multiply,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=CONTESTANTS)
    parser.add_argument("--size", choices=WIDTHS, required=True)
    parser.add_argument("--optimizer", choices=LR, required=True)
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--samples", type=int)
    parser.add_argument("--batches-limit", type=int)
    args = parser.parse_args()

    images, labels = read_data(args.samples or SAMPLES[args.size])
    task = Task(
        images, standardised(images), labels, WIDTHS[args.size], BATCH[args.size], args.optimizer, args.epochs
    )
    n = len(labels)
    trained_on = min(n, (args.batches_limit or n) * task.batch)
    try:
        result = CONTESTANTS[args.name](task.first(trained_on))
    except ModuleNotFoundError as error:
        print(json.dumps({"name": args.name, "missing": error.name}))
        return
    line = {
        "name": args.name,
        "size": args.size,
        "optimizer": args.optimizer,
        "version": {name: sys.modules[name].__version__ for name in LIBRARIES if name in sys.modules},
        "epoch_seconds": [seconds * n / trained_on for seconds in result.epoch_seconds],
        "losses": [float(loss) for loss in result.losses],
        "final_loss": exact_loss(result.weights, task.inputs, labels) if result.weights else None,
        "samples": n,
        "extrapolated": trained_on < n,
        "threads": result.threads,
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
