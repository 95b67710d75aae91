"""The schema of the data section: a class for each kind of data set."""

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from mlpcli.config.datasets import EMNIST_FACTS, FACTS, Facts
from mlpcli.config.section import (
    Count,
    Fraction,
    NonNegative,
    Positive,
    Section,
    Side,
    TestFraction,
    conflict,
    named,
)


class DataSection(Section):
    """What every data set has in common."""

    validation: Fraction = 0.1
    """Fraction of the training split that is cut off, seeded and stratified, to choose the best checkpoint;
    0 for none."""
    limit: Count | None = None
    """Use at most this many samples of the training and of the test data, for quick trials."""

    @property
    def facts(self) -> Facts | None:
        """Task, shapes and sizes of this data set; None where only reading it can tell."""
        return FACTS[self.dataset]  # type: ignore[attr-defined]  # every subclass has the key `dataset`


class NoFeatures(Section):
    """The pixels themselves."""

    name: Literal["none"]


class Hog(Section):
    """Histograms of oriented gradients (Dalal & Triggs 2005), by scikit-image."""

    name: Literal["hog"]
    orientations: Annotated[int, Field(ge=1, le=360)] = 9
    """Directions that are told apart."""
    cell: Annotated[int, Field(ge=1, le=10_000)] = 8
    """Side of a cell, for which a histogram is made, in pixels."""
    block: Annotated[int, Field(ge=1, le=100)] = 2
    """Side of a block, over which histograms are normalised, in cells."""


class Daisy(Section):
    """DAISY descriptors (Tola, Lepetit & Fua 2010) on a grid, by scikit-image."""

    name: Literal["daisy"]
    step: Annotated[int, Field(ge=1, le=10_000)] = 4
    """Distance between two descriptors, in pixels."""
    radius: Annotated[int, Field(ge=1, le=10_000)] = 7
    """Of a descriptor, in pixels."""
    rings: Annotated[int, Field(ge=1, le=100)] = 2
    """Rings of histograms around its centre."""
    histograms: Annotated[int, Field(ge=1, le=100)] = 6
    """Histograms on each ring."""
    orientations: Annotated[int, Field(ge=1, le=360)] = 8
    """Directions that are told apart."""


class Wavelet(Section):
    """Coefficients of a two-dimensional wavelet transform of each channel, by PyWavelets."""

    name: Literal["wavelet"]
    wavelet: Literal["haar", "db2", "db3", "db4", "sym4", "sym5", "coif1", "coif2", "bior2.2", "bior4.4"] = "haar"
    """Which one, by the name that PyWavelets has for it."""
    level: Annotated[int, Field(ge=1, le=12)] | None = None
    """How often the image is halved; as often as it goes unless stated."""


class Pca(Section):
    """Coordinates on the principal components of the training images."""

    name: Literal["pca"]
    components: Annotated[int, Field(ge=1, le=100_000)] = 64
    """How many of them."""
    whiten: bool = False
    """Give each of them variance 1."""


type_of_features = NoFeatures | Hog | Daisy | Wavelet | Pca
FeaturesName = Literal["none", "hog", "daisy", "wavelet", "pca"]
Features = Annotated[
    Annotated[type_of_features, Field(discriminator="name")],
    BeforeValidator(
        named,
        json_schema_input_type=FeaturesName | Annotated[type_of_features, Field(discriminator="name")],
    ),
]


class Elastic(Section):
    """Random displacements of every pixel, smoothed (Simard, Steinkraus & Platt 2003)."""

    alpha: Positive = 34.0
    """Length of the displacements before they are smoothed, in pixels."""
    sigma: Annotated[float, Field(gt=0, le=10_000, allow_inf_nan=False)] = 4.0
    """Standard deviation of the Gaussian that smooths them, in pixels."""


class Augmentation(Section):
    """Random changes of the training images, drawn anew for each sample in each epoch."""

    shift: NonNegative = 0.0
    """Move by up to this many pixels in each direction."""
    flip: Literal["none", "horizontal", "vertical", "both"] = "none"
    """Mirror half of the images left to right, top to bottom, or each way by a draw of its own."""
    rotate: Annotated[float, Field(ge=0, le=180, allow_inf_nan=False)] = 0.0
    """Turn by up to this many degrees in each direction."""
    scale: Fraction = 0.0
    """Enlarge or shrink by a factor between 1 − scale and 1 + scale."""
    elastic: Elastic | None = None
    """Displace the pixels by a smooth random field."""
    cutout: Annotated[int, Field(ge=0, le=10_000)] = 0
    """Side of a square that is set to 0, the mean of standardised images (DeVries & Taylor 2017), in pixels; 0 for
    none."""
    mixup: NonNegative = 0.0
    """α of the Beta(α, α) distribution of the share with which two samples and their targets are mixed (Zhang et
    al. 2018); 0 for none."""
    noise: NonNegative = 0.0
    """Standard deviation of Gaussian noise, in units of the standardised inputs."""


class ImageSection(DataSection):
    """What every set of images has in common."""

    standardize: Literal["pixel", "feature", "scale", "none"] = "pixel"
    """`pixel`: one mean and standard deviation a channel; `feature`: one for each input; `scale`: to [0, 1];
    `none`: raw values. The statistics come from the training split alone."""
    features: Features = NoFeatures(name="none")
    """What the model sees instead of the pixels: f(X) in the linear model ⟨θ, f(X)⟩. Computed once and cached."""
    augmentation: Augmentation | None = None
    """Random changes of the training images."""

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        assert self.facts is not None
        channels, height, width = self.facts.input_shape
        return channels, height, width

    @model_validator(mode="after")
    def _augments_pixels(self) -> Self:
        if self.augmentation is not None and self.features.name != "none":
            raise conflict(
                "augmentation",
                f"augmentation changes pixels, but the model sees {self.features.name} features of them",
                "leave one of them out",
            )
        return self

    @model_validator(mode="after")
    def _leaves_something_of_an_image(self) -> Self:
        side = min(self.input_shape[1:])
        for key in ("shift", "cutout"):
            pixels = 0 if self.augmentation is None else getattr(self.augmentation, key)
            if pixels >= side:
                raise conflict(
                    "augmentation",
                    f"{key} {pixels:g} leaves nothing of an image whose shorter side has {side} pixels",
                    f"use a smaller {key}",
                )
        return self


class DigitsData(ImageSection):
    """scikit-learn's embedded 8x8 digits: 1,797 images, no download."""

    dataset: Literal["digits"]
    test: TestFraction = 0.2
    """Fraction of all samples that is cut off, seeded and stratified, as the test split."""


class TableData(DataSection):
    """scikit-learn's embedded tables: no download."""

    dataset: Literal["iris", "wine", "breast_cancer", "diabetes"]
    test: TestFraction = 0.2
    """Fraction of all samples that is cut off, seeded and stratified, as the test split."""
    standardize: Literal["feature", "scale", "none"] = "feature"
    """`feature`: every feature to mean 0 and standard deviation 1; `scale`: to [0, 1]; `none`: raw values.
    The statistics come from the training split alone."""


class StoredImageSection(ImageSection):
    """Image sets that torchvision reads from disk."""

    root: Annotated[str, Field(min_length=1)] = "data"
    """Folder that holds the set's own folder, as torchvision lays it out; relative to the working
    directory."""
    download: bool = False
    """Download what is absent. Files that are there are never replaced."""

    @property
    def facts(self) -> Facts:
        """Task, shapes and sizes of this data set."""
        return FACTS[self.dataset]  # type: ignore[attr-defined]  # every subclass has the key `dataset`


class VisionData(StoredImageSection):
    """torchvision's image sets."""

    dataset: Literal["mnist", "fashion_mnist", "kmnist", "qmnist", "usps", "cifar10", "cifar100", "svhn", "stl10"]


class EmnistData(StoredImageSection):
    """EMNIST: handwritten letters and digits, in six splits."""

    dataset: Literal["emnist"]
    split: Literal["byclass", "bymerge", "balanced", "letters", "digits", "mnist"] = "balanced"
    """Which of EMNIST's six data sets."""

    @property
    def facts(self) -> Facts:
        """Task, shapes and sizes of this split."""
        return EMNIST_FACTS[self.split]


class FakeData(ImageSection):
    """torchvision's FakeData: random images and labels, to try things at any size."""

    dataset: Literal["fake"]
    train_size: Count = 1000
    """Training images."""
    test_size: Count = 200
    """Test images."""
    image_size: Annotated[list[Annotated[int, Field(ge=1, le=10_000)]], Field(min_length=3, max_length=3)] = [
        1,
        28,
        28,
    ]
    """Channels, height and width; 1 or 3 channels."""
    classes: Annotated[int, Field(ge=2, le=100_000)] = 10
    """Number of classes."""

    @model_validator(mode="after")
    def _channels(self) -> Self:
        if self.image_size[0] not in (1, 3):
            raise conflict("image_size", f"an image has 1 or 3 channels, not {self.image_size[0]}")
        return self

    @property
    def facts(self) -> Facts:
        """Task, shapes and sizes as configured."""
        shape = tuple(self.image_size)
        return Facts("classification", shape, self.classes, self.train_size, self.test_size)


class ImageFolderData(ImageSection):
    """Your own images: a folder for each class."""

    dataset: Literal["image_folder"]
    path: Annotated[str, Field(min_length=1)]
    """Folder that holds a folder of images for each class; or train/, test/ and perhaps validation/ with those in
    them. Relative to the working directory."""
    image_size: Side | Annotated[list[Side], Field(min_length=2, max_length=2)] = 32
    """Height and width to which every image is brought; one number for both."""
    color: Literal["rgb", "grayscale"] = "rgb"
    """Three channels or one."""
    test: TestFraction = 0.2
    """Fraction of all samples cut off, seeded and stratified, as the test split where there is no test/."""
    in_memory: Literal["auto"] | bool = "auto"
    """Whether the decoded images are held in memory, or streamed from the cache by worker processes; `auto`
    streams what takes more than half of the memory that is free."""
    on_bad_file: Literal["error", "skip"] = "error"
    """What a file does that is no image, or a damaged one: end the command, or be left out, counted and listed."""

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Channels, height and width."""
        height, width = self.image_size if isinstance(self.image_size, list) else (self.image_size,) * 2
        return (3 if self.color == "rgb" else 1), height, width

    @property
    def facts(self) -> None:
        """The classes are known when the folder is read."""


# --- tables ---


class TableFiles(Section):
    """A file for each split."""

    train: Annotated[str, Field(min_length=1)]
    """The training data, or all of it."""
    validation: Annotated[str, Field(min_length=1)] | None = None
    """The validation split; `data.validation` cuts one off the training data unless stated."""
    test: Annotated[str, Field(min_length=1)] | None = None
    """The test split; `data.test` cuts one off the training data unless stated."""


def _train_file(value: Any) -> Any:
    """`data.csv` is short for `{train: data.csv}`."""
    return {"train": value} if isinstance(value, str) else value


ColumnName = Annotated[str, Field(min_length=1)]


class TableFileSection(DataSection):
    """What tables in files have in common."""

    path: Annotated[
        TableFiles,
        BeforeValidator(_train_file, json_schema_input_type=Annotated[str, Field(min_length=1)] | TableFiles),
    ]
    """The file, or a file for each split. Relative to the working directory."""
    target: ColumnName | Annotated[list[ColumnName], Field(min_length=1)]
    """The column that is to be predicted; a list of them for regression with several outputs."""
    task: Literal["auto", "classification", "regression"] = "auto"
    """`auto` takes text, booleans and up to 20 different whole numbers for classes, and anything else for
    regression."""
    columns: Annotated[list[ColumnName], Field(min_length=1)] | None = None
    """The columns that the model sees; all but the target unless stated."""
    drop: list[ColumnName] = []
    """Columns that are left out."""
    categories: list[ColumnName] = []
    """Columns of numbers that are taken for categories, such as postal codes."""
    categorical: Literal["one_hot", "embedding"] = "one_hot"
    """How the model sees categories: a number 0 or 1 for each, or a vector for each that is learned. A missing
    value, and a category that the training split has not, are zeros."""
    missing: list[str] = ["", "NA", "N/A", "NaN", "nan", "null", "NULL", "None", "?"]
    """Texts that stand for a missing value. Missing numbers become the mean of the column, and an input of their
    own tells the model where they were."""
    test: TestFraction = 0.2
    """Fraction of all samples that is cut off, seeded and stratified, as the test split where no file is one."""
    standardize: Literal["feature", "scale", "none"] = "feature"
    """`feature`: every number column to mean 0 and standard deviation 1; `scale`: to [0, 1]; `none`: raw values.
    The statistics come from the training split alone."""

    @property
    def facts(self) -> None:
        """Columns and classes are known when the file is read."""

    @property
    def targets(self) -> list[str]:
        """The target columns."""
        return self.target if isinstance(self.target, list) else [self.target]

    @model_validator(mode="after")
    def _columns_are_told_apart(self) -> Self:
        for key in ("columns", "drop", "categories"):
            names = getattr(self, key) or []
            if len(set(names)) < len(names):
                twice = next(name for name in names if names.count(name) > 1)
                raise conflict(key, f"{twice} is listed twice", "list each column once")
            both = [name for name in names if name in self.targets]
            if both:
                raise conflict(key, f"{both[0]} is the target", "the target is left out of the inputs anyway")
        if len(set(self.targets)) < len(self.targets):
            raise conflict("target", "a column is listed twice", "list each target once")
        both = [name for name in self.columns or [] if name in self.drop]
        if both:
            raise conflict("drop", f"{both[0]} is in columns too", "leave it out of one of them")
        if len(self.targets) > 1 and self.task == "classification":
            raise conflict("task", "classification has one target column", "name one target, or use regression")
        return self


class CsvData(TableFileSection):
    """Your own table, as comma-separated values with a header line."""

    dataset: Literal["csv"]
    delimiter: Literal[",", ";", "\t", "|"] = ","
    """What separates the columns: a comma, a semicolon, a tab (written `"\\t"`) or a bar."""


class ParquetData(TableFileSection):
    """Your own table, as a Parquet file."""

    dataset: Literal["parquet"]


Data = Annotated[
    DigitsData | TableData | VisionData | EmnistData | FakeData | ImageFolderData | CsvData | ParquetData,
    Field(discriminator="dataset"),
]
