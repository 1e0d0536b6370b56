"""Brightness, saturation, contrast, elastic transform, pixelation and JPEG.

Hendrycks & Dietterich 2019.
"""

import functools
import io
from collections.abc import Sequence

import numpy as np
import scipy.fft
from numpy.random import Generator
from PIL import Image


@functools.lru_cache(maxsize=64)
def _brightness_table(shift: float) -> np.ndarray:
    """u8[256 * 256] new level of a channel, by 256 * V of its pixel + its old level.

    With hue and saturation fixed every channel keeps its ratio to V, and V = 0 becomes grey. The
    order of operations is that of HSV in float64, as truncation shows its rounding.
    """
    level = np.arange(256)
    value = level[:, None] / 255
    below = np.maximum(value - level / 255, 0) / np.where(value > 0, value, 1)
    raised = np.clip(value + shift, 0, 1)
    return (raised * (1 - below) * 255).astype(np.uint8).ravel()


def brightness(images: np.ndarray, rngs: Sequence[Generator], shift: float) -> np.ndarray:
    """Adds `shift` to the V of HSV of u8[b, h, w, 3]."""
    del rngs
    value = np.maximum(np.maximum(images[..., 0], images[..., 1]), images[..., 2])
    row = value.astype(np.uint16)[..., None] << 8
    return _brightness_table(shift).take(row | images)


def saturate(
    images: np.ndarray, rngs: Sequence[Generator], constants: tuple[float, float]
) -> np.ndarray:
    """Maps the S of HSV of u8[b, h, w, 3] to factor * S + shift: (factor, shift).

    Grey has hue 0, so that a shift tints it red.
    """
    from matplotlib.colors import hsv_to_rgb, rgb_to_hsv  # equal to scikit-image's, the reference's

    del rngs
    factor, shift = constants
    hsv = rgb_to_hsv(images / 255)
    hsv[..., 1] = np.clip(factor * hsv[..., 1] + shift, 0, 1)
    return hsv_to_rgb(hsv) * 255


def contrast(images: np.ndarray, rngs: Sequence[Generator], factor: float) -> np.ndarray:
    """Pulls u8[b, h, w, 3] towards each image's mean of each channel."""
    del rngs
    pixels = images.shape[1] * images.shape[2]
    means = images.sum((1, 2), dtype=np.int64, keepdims=True) / pixels
    return images * np.float32(factor) + ((1 - factor) * means).astype(np.float32)


def bilinear(images: np.ndarray, y: np.ndarray, x: np.ndarray, mode: str) -> np.ndarray:
    """Samples f32[b, h, w, c] at f32[b, h, w] coordinates.

    Args:
        mode: "mirror" reflects about the centre of the edge pixels (OpenCV's REFLECT_101),
            "reflect" about their outer edge; both as scipy.ndimage calls them.
    """
    b, height, width, c = images.shape

    def fold(position: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
        outer = 0.5 if mode == "reflect" else 0.0
        period = 2 * (size - 1 + 2 * outer)
        position = position + outer
        position -= period * np.floor(position / period)
        position = np.clip(np.minimum(position, period - position) - outer, 0, size - 1)
        below = np.minimum(position.astype(np.int64), size - 2)
        return below, (position - below).astype(np.float32)[..., None]

    row, down = fold(y, height)
    column, across = fold(x, width)
    corner = (np.arange(b)[:, None, None] * height + row) * width + column
    pixels = images.reshape(-1, c)

    def along_row(corner: np.ndarray) -> np.ndarray:
        left = pixels.take(corner, 0)
        return left + across * (pixels.take(corner + 1, 0) - left)

    top = along_row(corner)
    return top + down * (along_row(corner + width) - top)


@functools.lru_cache(maxsize=16)
def _smoothing_response(size: int, sigma: float) -> np.ndarray:
    """f32[size] factors of a Gaussian filter, cut at 3 sigma, on the cosines of a DCT-II.

    A filter that reflects at the borders is diagonal there, so any sigma costs the same.
    """
    radius = int(3 * sigma + 0.5)
    steps = np.arange(-radius, radius + 1)
    taps = np.exp(-0.5 * (steps / sigma) ** 2)
    cosines = np.cos(np.pi / size * np.arange(size)[:, None] * steps)
    return (cosines @ taps / taps.sum()).astype(np.float32)


def smooth(fields: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian filter of f32[n, h, w] fields."""
    rows, columns = (_smoothing_response(n, sigma) for n in fields.shape[1:])
    cosines = scipy.fft.dctn(fields, axes=(1, 2)) * (rows[:, None] * columns)
    return scipy.fft.idctn(cosines, axes=(1, 2), overwrite_x=True)


def elastic_transform(
    images: np.ndarray, rngs: Sequence[Generator], constants: tuple[float, float, float]
) -> np.ndarray:
    """Random affine map, then smooth random displacements, of u8[b, h, w, 3].

    Args:
        constants: (displacement alpha, its Gaussian sigma, affine jitter of three points), as
            fractions of the shorter side.
    """
    height, width = images.shape[1:3]
    side = min(height, width)
    alpha, sigma, jitter = (side * constant for constant in constants)

    centre = np.array([width // 2, height // 2])
    points = centre + side // 3 * np.array([[1, 1], [1, -1], [-1, -1]])
    moved = points + np.stack([rng.uniform(-jitter, jitter, (3, 2)) for rng in rngs])
    moved = np.concatenate([moved, np.ones((len(images), 3, 1))], -1)
    # The image is pulled: every output pixel looks up where the inverse map sends it.
    inverse = np.linalg.solve(moved, np.broadcast_to(points, (len(images), 3, 2)).astype(float))
    inverse = inverse.astype(np.float32)[..., None, None]
    y = np.arange(height, dtype=np.float32)[:, None]
    x = np.arange(width, dtype=np.float32)
    source_x, source_y = (
        inverse[:, 0, i] * x + inverse[:, 1, i] * y + inverse[:, 2, i] for i in (0, 1)
    )
    warped = bilinear(images.astype(np.float32), source_y, source_x, "mirror")
    if alpha == 0:
        return warped

    noise = (2 * rng.random((2, height, width), np.float32) - 1 for rng in rngs)
    shifts = np.float32(alpha) * np.stack([smooth(fields, sigma) for fields in noise])
    return bilinear(warped, y + shifts[:, 1], x + shifts[:, 0], "reflect")


@functools.lru_cache(maxsize=64)
def _enlarging_filter(small: int, size: int) -> Image.Resampling:
    """NEAREST where it takes the very pixels that BOX does, for it is nine times as fast."""
    pixels = Image.fromarray(np.arange(small, dtype=np.int32)[None])
    box, nearest = Image.Resampling.BOX, Image.Resampling.NEAREST
    boxed, taken = (np.asarray(pixels.resize((size, 1), method)) for method in (box, nearest))
    return nearest if np.array_equal(boxed, taken) else box


def pixelate(images: np.ndarray, rngs: Sequence[Generator], scale: float) -> np.ndarray:
    """Shrinks u8[b, h, w, 3] by `scale` with a box filter and enlarges it again."""
    del rngs
    height, width = images.shape[1:3]
    small = (max(int(width * scale), 1), max(int(height * scale), 1))
    box = Image.Resampling.BOX
    filters = {_enlarging_filter(small[0], width), _enlarging_filter(small[1], height)}
    enlarging = box if box in filters else Image.Resampling.NEAREST

    def roundtrip(image: np.ndarray) -> np.ndarray:
        shrunk = Image.fromarray(image).resize(small, box)
        return np.asarray(shrunk.resize((width, height), enlarging))

    return np.stack([roundtrip(image) for image in images])


def jpeg_compression(images: np.ndarray, rngs: Sequence[Generator], quality: int) -> np.ndarray:
    """Writes and reads u8[b, h, w, 3] as JPEG of the given quality."""
    del rngs

    def roundtrip(image: np.ndarray) -> np.ndarray:
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "JPEG", quality=quality)
        with Image.open(buffer) as decoded:
            return np.asarray(decoded)

    return np.stack([roundtrip(image) for image in images])
