"""The schema of a config: one section a class, one key a field, its bounds in its type, its text beneath it.

Nothing here knows files or torch. Rules within a section are its validator's; rules that span sections are in
`rules`. The data section is in `data_schema`.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from mlpcli.config.data_schema import Data
from mlpcli.config.section import Count, Fraction, NonNegative, Positive, Section, Width, conflict, named

# --- model --------------------------------------------------------------------------------------------

Activation = Literal["relu", "leaky_relu", "gelu", "silu", "tanh", "sigmoid", "identity"]
Normalization = Literal["none", "batch", "layer"]
Init = Literal["default", "kaiming", "xavier", "orthogonal", "zeros"]


class NoEmbedding(Section):
    """Numbers enter the first affine layer as they are."""

    name: Literal["none"]


class Periodic(Section):
    """ReLU(affine(sin(2πcx), cos(2πcx))) of each number x, with learned frequencies c (PLR of Gorishniy, Rubachev
    & Babenko 2022)."""

    name: Literal["periodic"]
    frequencies: Annotated[int, Field(ge=1, le=10_000)] = 24
    """How many c each number has."""
    sigma: Positive = 0.1
    """Standard deviation of the initial c."""
    size: Annotated[int, Field(ge=1, le=10_000)] = 16
    """Numbers that each number becomes."""


class PiecewiseLinear(Section):
    """How far each number is through each of the bins between quantiles of the training split (PLE of Gorishniy,
    Rubachev & Babenko 2022)."""

    name: Literal["piecewise_linear"]
    bins: Annotated[int, Field(ge=2, le=10_000)] = 16
    """Bins of each number; fewer where quantiles coincide."""


type_of_embedding = NoEmbedding | Periodic | PiecewiseLinear
EmbeddingName = Literal["none", "periodic", "piecewise_linear"]
NumericEmbedding = Annotated[
    Annotated[type_of_embedding, Field(discriminator="name")],
    BeforeValidator(
        named,
        json_schema_input_type=EmbeddingName | Annotated[type_of_embedding, Field(discriminator="name")],
    ),
]


class Model(Section):
    """The multi-layer perceptron."""

    depth: Annotated[int, Field(ge=1, le=1000)] | None = None
    """Number of affine layers: 1 is the linear model, 3 has two hidden layers. Follows from `width` where
    that is a list; otherwise 2 unless stated."""
    width: Width | Annotated[list[Width], Field(min_length=1, max_length=999)] = 128
    """Units of each hidden layer, or a list with one entry a hidden layer."""
    activation: Activation = "relu"
    """σ after every layer but the last."""
    dropout: Fraction = 0.0
    """Probability with which a hidden unit is dropped in training."""
    normalization: Normalization = "none"
    """Between each hidden affine layer and its activation."""
    bias: bool = True
    """Whether the affine layers have biases."""
    init: Init = "default"
    """`default`: torch.nn.Linear's own; `kaiming`, `xavier`, `orthogonal`: with the gain of the activation
    and zero biases; `zeros`: torch's own, and zeros for the last layer."""
    numeric_embedding: NumericEmbedding = NoEmbedding(name="none")
    """How the numbers of a table enter the network."""

    @model_validator(mode="after")
    def _depth_fits_width(self) -> Self:
        if isinstance(self.width, list) and self.depth not in (None, len(self.width) + 1):
            raise conflict(
                "depth",
                f"depth {self.depth} has {self.depth - 1 if self.depth else 0} hidden layers, "
                f"but width lists {len(self.width)}",
                f"leave depth out, or set it to {len(self.width) + 1}",
            )
        return self

    @property
    def widths(self) -> list[int]:
        """Units of each hidden layer, first to last; empty for the linear model."""
        if isinstance(self.width, list):
            return self.width
        return [self.width] * ((self.depth or DEFAULT_DEPTH) - 1)


DEFAULT_DEPTH = 2


# --- loss ---------------------------------------------------------------------------------------------


class CrossEntropy(Section):
    """−Σ y′ ln softmax(output)."""

    name: Literal["cross_entropy"]
    label_smoothing: Fraction = 0.0
    """Share of the target's probability that is spread evenly over all classes."""
    class_weights: Literal["none", "balanced"] | Annotated[list[NonNegative], Field(min_length=2)] = "none"
    """What a sample of each class counts: `balanced` for samples/(classes · samples of the class), so that every
    class weighs alike in the objective, or a number for each class."""


class MeanSquaredError(Section):
    """Squared differences, summed over coordinates, averaged over samples (one-hot targets for classes)."""

    name: Literal["mse"]


class MeanAbsoluteError(Section):
    """Absolute differences, summed over coordinates, averaged over samples (one-hot targets for classes)."""

    name: Literal["mae"]


class Huber(Section):
    """Quadratic up to `delta`, linear beyond; summed over coordinates, averaged over samples."""

    name: Literal["huber"]
    delta: Positive = 1.0
    """Where the quadratic part ends."""


UNTRAINABLE = {
    "accuracy": "its gradient is zero almost everywhere, so gradient descent cannot move",
    "error": "the 0-1 loss has gradient zero almost everywhere, so gradient descent cannot move",
    "top5_accuracy": "its gradient is zero almost everywhere, so gradient descent cannot move",
    "rmse": "it is only measured; mse has the same minimum",
    "r2": "it is only measured; mse has the same optimum",
}
"""Metrics that people ask for as a loss, and why that cannot be."""


def _named_loss(value: Any) -> Any:
    value = named(value)
    name = value.get("name") if isinstance(value, dict) else None
    if isinstance(name, str) and name in UNTRAINABLE:
        instead = "mse" if name in ("rmse", "r2") else "cross_entropy"
        raise PydanticCustomError(
            "conflict",
            "{message}",
            {
                "key": "name",
                "message": f"{name} is a metric and cannot be trained: {UNTRAINABLE[name]}",
                "hint": f"use loss: {instead}; {name} is measured all the same",
            },
        )
    return value


type_of_loss = CrossEntropy | MeanSquaredError | MeanAbsoluteError | Huber
LossName = Literal["cross_entropy", "mse", "mae", "huber"]
Loss = Annotated[
    Annotated[type_of_loss, Field(discriminator="name")],
    BeforeValidator(
        _named_loss, json_schema_input_type=LossName | Annotated[type_of_loss, Field(discriminator="name")]
    ),
]


# --- optimizer ----------------------------------------------------------------------------------------


class OptimizerSection(Section):
    """What every optimizer has in common."""

    weight_decay: NonNegative = 0.0
    """λ: each step adds λθ to the gradient, as the penalty λ‖θ‖²/2 on the objective would."""


class Momentum(OptimizerSection):
    """Gradient descent with momentum."""

    lr: Positive = 0.1
    """Learning rate."""
    momentum: Fraction = 0.0
    """Share of the last step's velocity that is kept."""
    nesterov: bool = False
    """Nesterov's form of momentum."""

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> Self:
        if self.nesterov and self.momentum == 0:
            raise conflict("nesterov", "nesterov needs momentum > 0", "set momentum: 0.9, or leave nesterov out")
        return self


class GD(Momentum):
    """Gradient descent: each step uses the exact gradient of the whole objective; one step an epoch."""

    name: Literal["gd"]


class SGD(Momentum):
    """Stochastic gradient descent: each step uses a mini-batch of a fresh shuffle."""

    name: Literal["sgd"]


class AdamSection(OptimizerSection):
    """Adam's moments."""

    lr: Positive = 0.001
    """Learning rate."""
    betas: Annotated[list[Fraction], Field(min_length=2, max_length=2)] = [0.9, 0.999]
    """Decay of the running means of the gradient and of its square."""
    eps: Positive = 1e-8
    """Added to the denominator."""


class Adam(AdamSection):
    """Adam (Kingma & Ba 2015)."""

    name: Literal["adam"]


class AdamW(AdamSection):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019)."""

    name: Literal["adamw"]
    weight_decay: NonNegative = 0.01
    """λ: each step first shrinks θ by the factor 1 − lr·λ."""


class RMSprop(OptimizerSection):
    """RMSprop (Tieleman & Hinton 2012)."""

    name: Literal["rmsprop"]
    lr: Positive = 0.001
    """Learning rate."""
    alpha: Fraction = 0.99
    """Decay of the running mean of the squared gradient."""
    eps: Positive = 1e-8
    """Added to the denominator."""
    momentum: Fraction = 0.0
    """Share of the last step's velocity that is kept."""


class Adagrad(OptimizerSection):
    """Adagrad (Duchi et al. 2011)."""

    name: Literal["adagrad"]
    lr: Positive = 0.01
    """Learning rate."""
    eps: Positive = 1e-10
    """Added to the denominator."""


class LBFGS(Section):
    """L-BFGS on the whole objective; an epoch is one call of up to `max_iter` iterations."""

    name: Literal["lbfgs"]
    lr: Positive = 1.0
    """Length of a step, before the line search if there is one."""
    max_iter: Count = 20
    """Iterations an epoch."""
    history_size: Annotated[int, Field(ge=1, le=10_000)] = 10
    """Past steps that approximate the inverse Hessian."""
    line_search: Literal["strong_wolfe", "none"] = "strong_wolfe"
    """How the length of a step is found."""


type_of_optimizer = GD | SGD | Adam | AdamW | RMSprop | Adagrad | LBFGS
OptimizerName = Literal["gd", "sgd", "adam", "adamw", "rmsprop", "adagrad", "lbfgs"]
Optimizer = Annotated[
    Annotated[type_of_optimizer, Field(discriminator="name")],
    BeforeValidator(
        named,
        json_schema_input_type=OptimizerName | Annotated[type_of_optimizer, Field(discriminator="name")],
    ),
]


# --- scheduler ----------------------------------------------------------------------------------------


class SchedulerSection(Section):
    """What every schedule has in common."""

    warmup: Annotated[float, Field(ge=0, le=100_000_000, allow_inf_nan=False)] = 0.0
    """Epochs (fractions too) over which the learning rate first rises, linearly."""


class Constant(SchedulerSection):
    """The learning rate stays."""

    name: Literal["constant"]


class Step(SchedulerSection):
    """The learning rate is multiplied by `gamma` every `step_size` epochs."""

    name: Literal["step"]
    step_size: Count
    """Epochs between two drops."""
    gamma: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] = 0.1
    """Factor of each drop."""


class Cosine(SchedulerSection):
    """Half a cosine from the learning rate to `end_factor` of it just after the last step (Loshchilov & Hutter
    2017)."""

    name: Literal["cosine"]
    end_factor: Fraction = 0.0
    """Share of the learning rate that is left at the end."""


class Linear(SchedulerSection):
    """A straight line from the learning rate to `end_factor` of it just after the last step."""

    name: Literal["linear"]
    end_factor: Fraction = 0.0
    """Share of the learning rate that is left at the end."""


class OneCycle(SchedulerSection):
    """Up to the learning rate and down again, by half cosines (Smith & Topin 2018)."""

    name: Literal["one_cycle"]
    pct_start: Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)] = 0.3
    """Share of all steps spent rising."""
    div_factor: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 25.0
    """The first learning rate is lr / div_factor."""
    final_div_factor: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 1e4
    """The last learning rate is lr / div_factor / final_div_factor."""


class Plateau(SchedulerSection):
    """The learning rate is multiplied by `factor` when `training.monitor` has not improved."""

    name: Literal["plateau"]
    factor: Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)] = 0.5
    """Factor of each drop."""
    patience: Annotated[int, Field(ge=0, le=1_000_000)] = 5
    """Epochs without improvement that are tolerated before a drop."""
    min_delta: NonNegative = 0.0
    """A smaller change than this is no improvement."""
    min_lr: NonNegative = 0.0
    """The learning rate never drops below this."""


type_of_scheduler = Constant | Step | Cosine | Linear | OneCycle | Plateau
SchedulerName = Literal["constant", "cosine", "linear", "one_cycle", "plateau"]
Scheduler = Annotated[
    Annotated[type_of_scheduler, Field(discriminator="name")],
    BeforeValidator(
        named,
        json_schema_input_type=SchedulerName | Annotated[type_of_scheduler, Field(discriminator="name")],
    ),
]


# --- training -----------------------------------------------------------------------------------------

Monitor = Literal[
    "validation.loss",
    "validation.accuracy",
    "validation.error",
    "validation.top5_accuracy",
    "validation.mse",
    "validation.mae",
    "validation.rmse",
    "validation.r2",
    "train.loss",
    "train.accuracy",
    "train.error",
    "train.mse",
    "train.mae",
    "train.rmse",
    "train.r2",
]

TASK_METRICS: dict[str, tuple[str, ...]] = {
    "classification": ("loss", "accuracy", "error", "top5_accuracy"),
    "regression": ("loss", "mse", "mae", "rmse", "r2"),
}
TOP5_CLASSES = 6
"""The fewest classes for which top-5 accuracy says anything."""


class EarlyStopping(Section):
    """Stop when a metric has not improved for a while."""

    patience: Annotated[int, Field(ge=1, le=1_000_000)] = 10
    """Epochs without improvement after which training stops."""
    min_delta: NonNegative = 0.0
    """A smaller change than this is no improvement."""
    monitor: Monitor | None = None
    """What is watched; `training.monitor` unless stated."""
    mode: Literal["auto", "min", "max"] = "auto"
    """Whether less or more is better; `auto` knows it from the metric."""


class Training(Section):
    """The loop."""

    epochs: Annotated[int, Field(ge=1, le=100_000_000)] = 20
    """Passes over the training split."""
    batch_size: Count | None = None
    """Samples a step (64 unless stated). With gd and lbfgs it only bounds memory: the gradient is accumulated
    over chunks of this size, and null takes the whole split at once."""
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda|cuda:[0-9]{1,3})$")] = "auto"
    """`auto` takes CUDA where there is one; `cpu`, `cuda` and `cuda:N` insist."""
    precision: Literal["float32", "tf32", "bfloat16", "float64"] = "float32"
    """Type of the arithmetic. Both tf32 (CUDA's matrix products with 10 bits of mantissa; float32 on the CPU) and
    bfloat16 (mixed precision) keep the parameters in float32."""
    engine: Literal["auto", "explicit", "autograd"] = "auto"
    """Who computes the gradient: `explicit` is backpropagation written out for this network, the fastest;
    `autograd` is torch's tape and covers everything; `auto` is explicit wherever that covers the config."""
    compile: bool = False
    """Let torch.compile make kernels for this network first, with the autograd engine; takes a while and needs a
    C++ compiler."""
    threads: Literal["auto"] | Annotated[int, Field(ge=1, le=1024)] = "auto"
    """CPU threads of a run. `auto` times a few gradients and takes the fewest threads that no larger number beats
    by a tenth; the run's config keeps the number, because sums in another order round differently."""
    parallel: Literal["auto", "ddp", "fsdp"] = "auto"
    """How the processes that torchrun starts share the work: with `ddp` each has the whole network and a part of
    every batch; with `fsdp` each has also but a part of the network, which may be larger than a device. `auto` is
    ddp. A single process trains as ever."""
    timeout: Positive = 600.0
    """Seconds after which one of several processes that does not answer counts as hung, and ends all."""
    clip_grad_norm: Positive | None = None
    """Scale the gradient down to this L2 norm where it is longer."""
    monitor: Monitor | None = None
    """What chooses the best checkpoint: `validation.loss` unless stated, or `train.loss` without a validation
    split."""
    early_stopping: EarlyStopping | None = None
    """Stop when the monitored metric no longer improves."""
    checkpoint_seconds: Positive = 60.0
    """Also save a checkpoint inside an epoch, this often."""
    keep_checkpoints: Literal["all"] | Annotated[int, Field(ge=0, le=1_000_000)] = 0
    """Of how many epochs the checkpoints stay in the run: spread evenly from epoch 0 (the initial weights) to the
    last one, both among them; 1 is the last one alone, `all` is every epoch. Each takes as much disk space as
    last.pt."""
    diagnostics: bool = True
    """Look into the network on up to 256 training samples at up to 25 epochs, and write histograms of its weights
    and activations, dead units, gradient norms and update ratios to diagnostics.jsonl."""


class Config(Section):
    """A training: data, model, loss, optimizer, schedule and loop."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")] | None = None
    """Name of the run directory; the data set's name unless stated. Letters, digits and . _ - only."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Seeds the splits, the initial weights, the shuffle and dropout, each by a stream of its own."""
    data: Data
    """What to learn from; `dataset` decides which other keys there are."""
    model: Model = Model()
    """The network."""
    loss: Loss | None = None
    """What is minimised: cross_entropy for classification and mse for regression unless stated."""
    optimizer: Optimizer = SGD(name="sgd")
    """How θ moves."""
    scheduler: Scheduler = Constant(name="constant")
    """How the learning rate moves."""
    training: Training = Training()
    """The loop."""
    report: bool = True
    """Whether training ends with report.html, its pictures in plots/ and the model card README.md."""


FULL_BATCH = ("gd", "lbfgs")
"""Optimizers whose every step uses the whole objective."""
EXPLICIT = ("gd", "sgd", "adam", "adamw")
"""Optimizers of the explicit engine."""
