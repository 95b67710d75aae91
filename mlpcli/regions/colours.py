"""One colour a cell, from its affine map: the same map has the same colour, similar maps have similar colours."""

from collections.abc import Sequence

import numpy as np
from scipy.sparse import csr_array

from mlpcli.regions.measures import areas
from mlpcli.regions.piecewise import Bits, Floats
from mlpcli.regions.view import View

LIGHTNESS, LIGHTER, CHROMA = 0.85, 0.065, 0.115
"""Of the colours in Oklab: the middle lightness, how far it varies, and the strongest chroma. Light enough for
dark lines, and inside sRGB but for a few blues, which are clipped."""
TYPICAL = 0.7
"""The share of the area whose distance from the middle is less than what becomes a strong colour."""
COMMON = 0.97
"""The share of the area whose distance from the middle is not shortened before the directions are found."""
NOTHING = 1e-9
"""A distance, relative to the largest gradient, that is rounding."""
RAMP = np.array([(44, 40, 160), (132, 30, 160), (205, 58, 112), (226, 112, 46)], np.float64)
"""sRGB colours along the layers, the first to the last: their lightness grows, for colour-blind eyes too."""


def cell_colours(views: Sequence[View]) -> list[Bits]:
    """Of each view (cells, 3), sRGB; the same map has the same colour in all of them.

    The gradients of all affine regions, weighted by area, are projected onto the three directions in which they
    differ most. The first two become hue and chroma, so that what is far from the middle is colourful; the third
    becomes lightness.

    Args:
        views: at least one, with the same number of outputs.
    """
    gradients, weights, owners = [], [], []
    for view in views:
        area = areas(view.cells, view.outline)
        weight = np.maximum(area, 0.0) / max(float(area.sum()), 1e-300) + 1e-12  # a cell without an area has a map
        regions, cells = int(view.regions.max()) + 1, len(view.cells)
        total = np.bincount(view.regions, weight, regions)
        sums = csr_array((weight / total[view.regions], (view.regions, np.arange(cells))), shape=(regions, cells))
        gradients.append(sums @ view.maps.gradients.reshape(cells, -1))
        weights.append(total)
        owners.append(view.regions)
    colours = _srgb(_oklab(np.concatenate(gradients), np.concatenate(weights)))
    parts = np.split(colours, np.cumsum([len(each) for each in gradients])[:-1])
    return [part[owner] for part, owner in zip(parts, owners, strict=True)]


def layer_colours(layers: int) -> Bits:
    """(layers, 3), sRGB, of the boundaries that each hidden layer makes."""
    places = np.linspace(0, len(RAMP) - 1, layers) if layers > 1 else np.zeros(layers)
    channels = [np.interp(places, np.arange(len(RAMP)), channel) for channel in RAMP.T]
    return np.stack(channels, axis=1).round().astype(np.uint8)


def hexadecimal(colour: Bits) -> str:
    """(3,) -> #rrggbb."""
    return "#" + bytes(colour.tolist()).hex()


def _oklab(gradients: Floats, weights: Floats) -> Floats:
    """(n, k) with weights (n,) -> (n, 3): L, a, b."""
    largest = float(np.abs(gradients).max(initial=0.0))
    away = gradients / largest if largest > 0 else gradients
    away = away - _middle(away, weights)
    distance = np.linalg.norm(away, axis=1)
    # few small cells have gradients far beyond all others: they alone would decide what all colours mean
    limit = max(_quantile(distance, weights, COMMON), NOTHING)
    away *= np.minimum(1.0, limit / np.maximum(distance, limit))[:, None]
    _, directions = np.linalg.eigh((away * weights[:, None]).T @ away)
    directions = directions[:, ::-1][:, :3]
    directions *= np.sign(directions[np.abs(directions).argmax(0), np.arange(directions.shape[1])])
    along = np.zeros((len(away), 3))
    along[:, : directions.shape[1]] = away @ directions
    spreads = np.array([_quantile(np.abs(each), weights, TYPICAL) for each in along.T])
    widest = max(float(spreads.max()), NOTHING)
    for column, spread in enumerate(spreads):
        # between one scale for all, in which little is seen of the lesser ones, and one scale each
        scale = np.sqrt(max(float(spread), NOTHING) * widest)
        along[:, column] /= scale
    along[:, :2] /= np.sqrt(1 + (along[:, :2] ** 2).sum(1, keepdims=True))
    along[:, 2] /= np.sqrt(1 + along[:, 2] ** 2)
    return np.stack((LIGHTNESS + LIGHTER * along[:, 2], CHROMA * along[:, 0], CHROMA * along[:, 1]), axis=1)


def _middle(values: Floats, weights: Floats) -> Floats:
    """(n, k) -> (k,): the weighted median of each column."""
    return np.array([_quantile(column, weights, 0.5) for column in values.T])


def _quantile(values: Floats, weights: Floats, share: float) -> float:
    """The least value that at least that share of the weight does not exceed."""
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(weights[order])
    place = np.searchsorted(reached, share * reached[-1])
    return float(values[order[min(int(place), len(order) - 1)]])


def _srgb(oklab: Floats) -> Bits:
    """(n, 3) -> (n, 3): Björn Ottosson, A perceptual color space for image processing, 2020."""
    lightness, a, b = oklab.T
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    middle = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    linear = np.stack(
        (
            4.0767416621 * long - 3.3077115913 * middle + 0.2309699292 * short,
            -1.2684380046 * long + 2.6097574011 * middle - 0.3413193965 * short,
            -0.0041960863 * long - 0.7034186147 * middle + 1.7076147010 * short,
        ),
        axis=1,
    ).clip(0.0, 1.0)
    curved = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return (255 * curved).round().astype(np.uint8)
