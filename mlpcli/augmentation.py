"""Random changes of a batch of training images and their targets, on the device of the batch."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from mlpcli.seeds import stream_seed

TRUNCATE = 4.0
"""Standard deviations at which the Gaussian of the elastic field ends."""


@dataclass(frozen=True)
class Draws:
    """What is random about a batch of n samples.

    Attributes:
        flips: bool (n, 2), whether mirrored left to right, top to bottom.
        shifts: (n, 2), pixels to the right and down.
        angles: (n,), radians, clockwise.
        factors: (n,), by which the image is enlarged.
        field: (n, height, width, 2), rightward and downward displacements in [−1, 1) before they are smoothed;
            None without elastic.
        centres: int64 (n, 2), column and row of the middle of the square that is cut out; None without cutout.
        shares: (n,), of the sample itself in its mixture; None without mixup.
        partners: int64 (n,), a permutation: the other sample of each mixture; None without mixup.
        noise: (n, channels * height * width), standard normal; None without noise.
    """

    flips: Tensor
    shifts: Tensor
    angles: Tensor
    factors: Tensor
    field: Tensor | None
    centres: Tensor | None
    shares: Tensor | None
    partners: Tensor | None
    noise: Tensor | None


@dataclass(frozen=True)
class _Constants:
    """What is the same for all batches of one type on one device, with (u, v) a pixel's place from the centre.

    Attributes:
        ranges: (4,), the largest shifts, angle in radians, and change of the factor.
        flip: (2,), probabilities.
        sides: (2,), width and height.
        half: (2,), half of them: u or v is that many times what grid_sample counts in.
        u: (width, 1).
        lines: (height, 2), 1 and v.
        along, across: matrices (height, height) and (2 width, 2 width) that smooth the elastic field and bring it
            to grid_sample's unit; the second takes x and y in turn. None without elastic.
        columns, rows: (width,) and (height,), their indices.
    """

    ranges: Tensor
    flip: Tensor
    sides: Tensor
    half: Tensor
    u: Tensor
    lines: Tensor
    along: Tensor | None
    across: Tensor | None
    columns: Tensor
    rows: Tensor


class Augment:
    """Changes a batch, each sample by draws of its own, in the order of the arguments below.

    Flip, scale, rotate, shift and elastic are one bilinear resampling: with the flip F, the factor s, the rotation
    R, the shift t and the smoothed displacements d, the pixel at p, from the centre of the image, takes the value
    at F R⁻¹(p − t)/s + d(p); beyond the border the outermost pixels go on. Flips by themselves only move pixels.

    What is random depends on the seed, the epoch, the step and the number of samples alone, and on the kind of
    device.

    Args:
        shape: channels, height and width of an image.
        seed: of all draws.
        classes: their number; None for regression.
        shift: the most pixels to each side, uniform.
        flip: `none`, `horizontal`, `vertical` or `both`, each with probability 1/2.
        rotate: the most degrees to each side, uniform.
        scale: the factor is uniform on 1 ± `scale`, which is less than 1.
        elastic: α and σ of Simard, Steinkraus & Platt 2003, in pixels: displacements uniform on [−1, 1), smoothed
            by a Gaussian of standard deviation σ (up to 4σ, with zeros outside of the image) and multiplied by α.
        cutout: side of a square around a uniformly drawn pixel, clipped at the border, that becomes 0, the mean of
            standardised images (DeVries & Taylor 2017).
        mixup: α of Beta(α, α), from which each sample's share in its mixture with another is drawn (Zhang et al.
            2018).
        noise: standard deviation of the Gaussian noise.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        seed: int,
        classes: int | None,
        *,
        shift: float = 0.0,
        flip: str = "none",
        rotate: float = 0.0,
        scale: float = 0.0,
        elastic: tuple[float, float] | None = None,
        cutout: int = 0,
        mixup: float = 0.0,
        noise: float = 0.0,
    ) -> None:
        self.shape, self.seed, self.classes = shape, seed, classes
        self.shift, self.flip, self.rotate, self.scale = shift, flip, rotate, scale
        self.elastic, self.cutout, self.mixup, self.noise = elastic, cutout, mixup, noise
        self._resamples = bool(shift or rotate or scale or elastic)
        self._generators: dict[torch.device, torch.Generator] = {}
        self._constants: dict[tuple[torch.dtype, torch.device], _Constants] = {}

    def __call__(self, inputs: Tensor, targets: Tensor, epoch: int, step: int) -> tuple[Tensor, Tensor]:
        """The changed batch.

        Args:
            inputs: (n, channels * height * width), standardised; may be overwritten.
            targets: int64 (n,) class indices, or (n, k) real numbers.
            epoch, step: which batch of the training this is.

        Returns:
            Inputs of the same shape; the targets themselves, or with mixup the mixtures, (n, classes) or (n, k).
        """
        return self.apply(inputs, targets, self.draw(inputs, epoch, step))

    def draw(self, inputs: Tensor, epoch: int, step: int) -> Draws:
        """What is random about that batch; of `inputs` only length, type and device matter."""
        n, (_, height, width) = len(inputs), self.shape
        constants = self._on(inputs)
        generator = self._generators.get(inputs.device)
        if generator is None:
            generator = self._generators[inputs.device] = torch.Generator(inputs.device)
        generator.manual_seed(stream_seed(self.seed, f"augmentation {epoch} {step}"))
        # all of them, used or not, so that switching one change on leaves the draws of the others as they were
        uniform = torch.rand(n, 10, dtype=torch.float64, device=inputs.device, generator=generator)
        ranged = (2 * uniform[:, :4] - 1) * constants.ranges
        field = centres = shares = partners = noise = None
        if self.elastic is not None:
            field = _signed_uniform((n, height, width, 2), inputs, generator)
        if self.cutout:
            centres = (uniform[:, 6:8] * constants.sides).long()
        if self.mixup:
            shares = _symmetric_beta(self.mixup, uniform[:, 8], uniform[:, 9]).to(inputs.dtype)
            partners = torch.randperm(n, device=inputs.device, generator=generator)
        if self.noise:
            noise = torch.empty_like(inputs).normal_(generator=generator)
        return Draws(
            flips=uniform[:, 4:6] < constants.flip,
            shifts=ranged[:, :2].to(inputs.dtype),
            angles=ranged[:, 2].to(inputs.dtype),
            factors=(1 + ranged[:, 3]).to(inputs.dtype),
            field=field,
            centres=centres,
            shares=shares,
            partners=partners,
            noise=noise,
        )

    def apply(self, inputs: Tensor, targets: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        """The batch, changed as drawn: see `__call__`."""
        images = inputs.view(len(inputs), *self.shape)
        if self._resamples:
            images = F.grid_sample(
                images, self._grid(inputs, draws), mode="bilinear", padding_mode="border", align_corners=False
            )
        elif self.flip != "none":
            images = self._flipped(images, draws.flips)
        if draws.centres is not None:
            # a product, as filling by a mask takes ten times as long
            images = images.mul_(self._outside(inputs, draws.centres))
        inputs = images.view(len(inputs), -1)
        if draws.shares is not None and draws.partners is not None:
            share = draws.shares[:, None]
            targets = self._mixed_targets(targets, share, draws.partners)
            inputs = torch.lerp(inputs.index_select(0, draws.partners), inputs, share)
        if draws.noise is not None:
            inputs.add_(draws.noise, alpha=self.noise)
        return inputs, targets

    def _grid(self, inputs: Tensor, draws: Draws) -> Tensor:
        """Where each pixel's value is taken, (n, height, width, 2) as grid_sample wants it: x, y from −1 to 1."""
        n, (_, height, width) = len(inputs), self.shape
        constants = self._on(inputs)
        cos, sin = (function(draws.angles) / draws.factors for function in (torch.cos, torch.sin))
        mirror = (1 - 2 * draws.flips.to(inputs.dtype)) / constants.half
        of_u = torch.stack((cos, -sin), 1) * mirror
        of_v = torch.stack((sin, cos), 1) * mirror
        start = of_u * draws.shifts[:, :1] + of_v * draws.shifts[:, 1:]
        # the affine map is u of_u − start, the same in all lines, and v of_v, the same in all columns
        parts = torch.empty(n, 2, width, 2, dtype=inputs.dtype, device=inputs.device)
        torch.sub(of_u[:, None] * constants.u, start[:, None], out=parts[:, 0])
        parts[:, 1] = of_v[:, None]
        grid = torch.bmm(constants.lines.expand(n, -1, -1), parts.view(n, 2, -1))
        if draws.field is not None:
            assert constants.along is not None and constants.across is not None
            smooth = torch.mm(draws.field.view(n * height, -1), constants.across).view(n, height, -1)
            grid.baddbmm_(constants.along.expand(n, -1, -1), smooth)
        return grid.view(n, height, width, 2)

    def _flipped(self, images: Tensor, flips: Tensor) -> Tensor:
        """Each pixel from its mirror image where that axis is flipped."""
        n, (channels, height, width) = len(images), self.shape
        constants = self._on(images)
        across, down = flips[:, :1], flips[:, 1:]
        columns = torch.where(across, width - 1 - constants.columns, constants.columns)
        rows = torch.where(down, height - 1 - constants.rows, constants.rows)
        places = (rows[:, :, None] * width + columns[:, None]).view(n, 1, -1)
        return images.flatten(2).gather(2, places.expand(-1, channels, -1)).view_as(images)

    def _outside(self, inputs: Tensor, centres: Tensor) -> Tensor:
        """0 for the pixels that are cut out, 1 for all others, (n, 1, height, width)."""
        constants = self._on(inputs)
        first = centres - self.cutout // 2
        x, y = constants.columns - first[:, :1], constants.rows - first[:, 1:]
        across, down = ((offset >= 0) & (offset < self.cutout) for offset in (x, y))
        return (~(down[:, :, None] & across[:, None])).to(inputs.dtype)[:, None]

    def _mixed_targets(self, targets: Tensor, share: Tensor, partners: Tensor) -> Tensor:
        others = targets.index_select(0, partners)
        if self.classes is None:
            return torch.lerp(others, targets, share.to(targets.dtype))
        mixed = share.new_zeros(len(targets), self.classes)
        return mixed.scatter_(1, targets[:, None], share).scatter_add_(1, others[:, None], 1 - share)

    def _on(self, inputs: Tensor) -> _Constants:
        key = inputs.dtype, inputs.device
        if key not in self._constants:
            self._constants[key] = self._make_constants(*key)
        return self._constants[key]

    def _make_constants(self, dtype: torch.dtype, device: torch.device) -> _Constants:
        _, height, width = self.shape

        def tensor(values: object, dtype: torch.dtype = dtype) -> Tensor:
            return torch.as_tensor(values, dtype=dtype, device=device)

        half = torch.tensor([width / 2, height / 2], dtype=torch.float64)
        v = torch.arange(height, dtype=torch.float64) - (height - 1) / 2
        along = across = None
        if self.elastic is not None:
            alpha, sigma = self.elastic
            along = tensor(smoothing(height, sigma))
            across = tensor(alpha * torch.kron(smoothing(width, sigma), torch.diag(1 / half)))
        return _Constants(
            ranges=tensor([self.shift, self.shift, math.radians(self.rotate), self.scale], torch.float64),
            flip=tensor([self.flip in (way, "both") for way in ("horizontal", "vertical")], torch.float64) / 2,
            sides=tensor([width, height], torch.float64),
            half=tensor(half),
            u=tensor(torch.arange(width) - (width - 1) / 2)[:, None],
            lines=tensor(torch.stack((torch.ones_like(v), v), 1)),
            along=along,
            across=across,
            columns=tensor(torch.arange(width), torch.int64),
            rows=tensor(torch.arange(height), torch.int64),
        )


def smoothing(side: int, sigma: float) -> Tensor:
    """The matrix, float64 (side, side), that smooths a vector as scipy.ndimage.gaussian_filter1d does with zeros
    beyond its ends."""
    radius = int(TRUNCATE * sigma + 0.5)
    weights = torch.exp(-0.5 * (torch.arange(-radius, radius + 1, dtype=torch.float64) / sigma) ** 2)
    places = torch.arange(side)
    distance = (places[:, None] - places).abs()
    within = distance <= radius
    return torch.where(within, (weights / weights.sum())[(distance + radius).clamp_(max=2 * radius)], 0.0)


def _signed_uniform(shape: tuple[int, ...], like: Tensor, generator: torch.Generator) -> Tensor:
    """Uniform on [−1, 1) in steps of 2⁻¹⁵: 16 random bits a number take a quarter of the time of torch's own."""
    numbers = math.prod(shape)
    bits = torch.empty(-(-numbers // 4), dtype=torch.int64, device=like.device)
    lanes = bits.random_(-(2**63), None, generator=generator).view(torch.int16)[:numbers]
    return lanes.to(like.dtype).mul_(2.0**-15).view(shape)


def _symmetric_beta(alpha: float, first: Tensor, second: Tensor) -> Tensor:
    """Beta(α, α) from two uniform numbers: Student's t with 2α degrees of freedom by Bailey's polar method (1994),
    over √(2α), is the tangent of an angle whose sine is 2 Beta(α, α) − 1 (Devroye 1996)."""
    tangent = torch.expm1(-torch.log(first) / alpha).sqrt() * torch.cos(2 * math.pi * second)
    return (1 + torch.sin(torch.atan(tangent))) / 2
