"""Drops of water or mud on an image; in the sequence of ImageNet-P and CIFAR-P they run down.

The reference draws the relief of water with OpenCV's edge detector, distance transform and
histogram equalisation; these are the same steps in numpy and scipy.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.random import Generator
from scipy import ndimage

from robust_jax.corruptions.blur import gaussian_blur, shifted_sum
from robust_jax.corruptions.noise import normal

PALE_TURQUOISE = np.array([175, 238, 238], np.float32)
MUD_BROWN = np.array([63, 42, 20], np.float32)
THINNEST_MUD = 0.8
SEQUENCE_STRENGTH = 0.6
EDGE_THRESHOLDS = (50, 150)
FARTHEST = 20.0
# OpenCV's distances of 1, 1.4 and 2.1969 in 1/65536, and the moves (dx, length) from rows above.
STRAIGHT, DIAGONAL, KNIGHT = 1.0, 91750 / 65536, 143976 / 65536
ROW_BEFORE = ((-2, KNIGHT), (-1, DIAGONAL), (0, STRAIGHT), (1, DIAGONAL), (2, KNIGHT))
ROW_BEFORE_THAT = ((-1, KNIGHT), (1, KNIGHT))
EMBOSS = np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]])


def edges(images: np.ndarray) -> np.ndarray:
    """bool[b, h, w] edges of u8[b, h, w]: Canny's detector, as in OpenCV with its defaults."""
    low, high = EDGE_THRESHOLDS
    wide = np.pad(images.astype(np.int32), [(0, 0), (1, 1), (1, 1)], "edge")
    dx, dy = (
        ndimage.correlate1d(ndimage.correlate1d(wide, [-1, 0, 1], along), [1, 2, 1], across)
        for along, across in ((2, 1), (1, 2))
    )
    dx, dy = dx[:, 1:-1, 1:-1], dy[:, 1:-1, 1:-1]
    across, down = np.abs(dx), np.abs(dy)
    here = across + down
    padded = np.pad(here, [(0, 0), (1, 1), (1, 1)])

    def beside(y: int, x: int) -> np.ndarray:
        return padded[:, 1 + y : padded.shape[1] - 1 + y, 1 + x : padded.shape[2] - 1 + x]

    falling = (dx < 0) != (dy < 0)
    before = np.where(falling, beside(-1, 1), beside(-1, -1))
    after = np.where(falling, beside(1, -1), beside(1, 1))
    ridge = np.select(
        [down < np.tan(np.pi / 8) * across, down > np.tan(3 * np.pi / 8) * across],
        [
            (here > beside(0, -1)) & (here >= beside(0, 1)),
            (here > beside(-1, 0)) & (here >= beside(1, 0)),
        ],
        (here > before) & (here > after),
    )
    ridge &= here > low
    touching = np.zeros((3, 3, 3))
    touching[1] = 1
    lines, count = ndimage.label(ridge, touching)
    kept = np.zeros(count + 1, bool)
    kept[lines[ridge & (here > high)]] = True
    return kept[lines]


def distance(targets: np.ndarray) -> np.ndarray:
    """f64[b, h, w] distance to the nearest of bool[b, h, w], at most FARTHEST.

    The shortest way in straight, diagonal and knight's moves of the lengths that OpenCV gives them,
    found in one pass down and one up.
    """
    height, width = targets.shape[1:]
    lengths = np.pad(
        np.where(targets, 0.0, FARTHEST), [(0, 0), (0, 0), (2, 2)], constant_values=FARTHEST
    )
    column = np.arange(width) * STRAIGHT
    for _ in range(2):
        for y in range(height):
            row = lengths[:, y, 2:-2]
            for back, moves in enumerate((ROW_BEFORE, ROW_BEFORE_THAT), 1):
                if y >= back:
                    for x, length in moves:
                        near = lengths[:, y - back, 2 + x : 2 + x + width]
                        np.minimum(row, near + length, out=row)
            row[:] = np.minimum.accumulate(row - column, axis=1) + column
        lengths = lengths[:, ::-1, ::-1]
    return lengths[:, :, 2:-2]


def equalize(images: np.ndarray) -> np.ndarray:
    """u8[b, h, w] with equalised histograms; an image of one grey level stays as it is."""
    b = len(images)
    first = 256 * np.arange(b)[:, None, None]
    counts = np.bincount((first + images).ravel(), minlength=256 * b).reshape(b, 256)
    lowest = np.take_along_axis(counts, images.min((1, 2))[:, None].astype(int), 1)
    rest = counts.sum(1, keepdims=True) - lowest
    scale = (255 / np.maximum(rest, 1)).astype(np.float32)
    table = np.rint((np.cumsum(counts, 1) - lowest) * scale)
    table = np.where(rest > 0, np.clip(table, 0, 255), np.arange(256)).astype(np.uint8)
    return table.ravel()[first + images]


def relief(layers: np.ndarray) -> np.ndarray:
    """f32[b, h, w] light on the water of u8[b, h, w]: their embossed distance from an edge."""

    def mean(fields: np.ndarray) -> np.ndarray:
        return ndimage.uniform_filter(fields, (1, 3, 3), mode="mirror")

    depth = equalize((mean(distance(edges(layers))) + 1e-6).astype(np.uint8))
    lit = ndimage.correlate(depth.astype(np.int32), EMBOSS[None], mode="mirror")
    return np.rint(mean(np.clip(lit, 0, 255).astype(float))).astype(np.float32)


def drops(
    images: np.ndarray,
    rngs: Sequence[Generator],
    mean: float,
    sigma: float,
    blur_sigma: float,
    threshold: float,
) -> np.ndarray:
    """f32[b, h, w, 1] blurred normal noise for u8[b, h, w, 3]; 0 below the threshold."""
    layer = gaussian_blur(mean + normal(images[..., :1], rngs, sigma), blur_sigma)
    layer[layer < threshold] = 0
    return layer


def shine(layer: np.ndarray, strength: float) -> np.ndarray:
    """f32[b, h, w, 3] light to add for the water of f32[b, h, w, 1]; none where there is none."""
    water = np.clip(layer[..., 0] * 255, 0, 255).astype(np.uint8)
    light = water * relief(water)
    brightest = light.max((1, 2), keepdims=True)
    light *= strength / np.where(brightest > 0, brightest, 1)
    return light[..., None] * PALE_TURQUOISE


def spatter(
    images: np.ndarray,
    rngs: Sequence[Generator],
    constants: tuple[float, float, float, float, float, bool],
) -> np.ndarray:
    """Adds drops of water to u8[b, h, w, 3], or covers parts of it with mud.

    Args:
        constants: (mean, sigma, blur sigma, threshold, amount, mud): `amount` is the strength of
            the water's light, or the sigma that softens the edges of mud.
    """
    mean, sigma, blur_sigma, threshold, amount, mud = constants
    layer = drops(images, rngs, mean, sigma, blur_sigma, threshold)
    if not mud:
        return images + shine(layer, amount)
    cover = gaussian_blur((layer > threshold).astype(np.float32), amount)
    cover[cover < THINNEST_MUD] = 0
    return images * (1 - cover) + cover * MUD_BROWN


def spatters(
    images: np.ndarray,
    rngs: Sequence[Generator],
    steps: Sequence[int],
    constants: tuple[float, float, float, float, tuple[float, ...]],
) -> Iterator[np.ndarray]:
    """Adds drops to u8[b, h, w, 3]; between frames they run down. No drop leaves an image alone.

    Args:
        constants: (mean, sigma, blur sigma, threshold, flow): `flow` are the shares of a pixel's
            water that go to successive pixels of its column, the middle one its own.
    """
    mean, sigma, blur_sigma, threshold, flow = constants
    layer = drops(images, rngs, mean, sigma, blur_sigma, threshold)
    up = (len(flow) - 1) // 2
    down = len(flow) - 1 - up
    offsets = [(len(flow) - 1 - i, 0) for i in range(len(flow))]
    for _ in steps:
        yield images + shine(layer, SEQUENCE_STRENGTH)
        padded = np.pad(layer, [(0, 0), (down, up), (0, 0), (0, 0)])
        layer = shifted_sum(padded, offsets, np.array(flow), np.empty_like(layer))
