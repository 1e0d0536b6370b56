"""Defocus, glass, motion and zoom blur (Hendrycks & Dietterich 2019)."""

import functools
import math
from collections.abc import Sequence

import numpy as np
import scipy.fft
import scipy.sparse
from numpy.random import Generator
from scipy import ndimage

from robust_jax.corruptions.batches import truncate


def gaussian_taps(sigma: float, radius: int) -> np.ndarray:
    """f64[2 * radius + 1] normalised Gaussian weights."""
    taps = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    return taps / taps.sum()


def shifted_sum(
    padded: np.ndarray, offsets: Sequence[tuple[int, int]], weights: np.ndarray, out: np.ndarray
) -> np.ndarray:
    """Writes the sum over i of `weights[i] * padded[y + dy_i, x + dx_i]` to `out`.

    Args:
        padded: f32[..., h', w', c].
        offsets: (dy, dx) of each weight, from the top left corner of `padded`.
        weights: f[n].
        out: f32[..., h, w, c].
    """
    height, width = out.shape[-3:-1]
    out[:] = 0
    term = np.empty_like(out)
    for (dy, dx), weight in zip(offsets, weights, strict=True):
        window = padded[..., dy : dy + height, dx : dx + width, :]
        out += np.multiply(window, np.float32(weight), out=term)
    return out


def gaussian_blur(images: np.ndarray, sigma: float, cut: float = 4) -> np.ndarray:
    """Gaussian blur of f32[b, h, w, c], cut at `cut` sigmas, edges replicated (as in skimage)."""
    radius = int(cut * sigma + 0.5)
    if radius == 0:
        return images
    taps, steps, margin = gaussian_taps(sigma, radius), range(2 * radius + 1), (radius, radius)
    for axis in (1, 2):
        pads = [margin if i == axis else (0, 0) for i in range(4)]
        offsets = [(i, 0) if axis == 1 else (0, i) for i in steps]
        images = shifted_sum(np.pad(images, pads, "edge"), offsets, taps, np.empty_like(images))
    return images


def disk_kernel(radius: float, alias_sigma: float) -> np.ndarray:
    """f64[n, n] disk smoothed by a small Gaussian; n = 17 up to radius 8, else 2 * radius + 1.

    Not normalised again, as in the reference: at radius 8 the mirrored border gains a little.
    """
    reach = 8 if radius <= 8 else math.ceil(radius)
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    disk = (x**2 + y**2 <= radius**2).astype(np.float64)
    disk /= disk.sum()
    taps = gaussian_taps(alias_sigma, 1 if radius <= 8 else 2)
    for axis in (0, 1):
        disk = ndimage.correlate1d(disk, taps, axis, mode="mirror")
    return disk


@functools.lru_cache(maxsize=16)
def _disk_spectrum(
    radius: float, alias_sigma: float, height: int, width: int
) -> tuple[int, tuple[int, int], np.ndarray]:
    """Reach of the kernel, FFT shape that holds a padded image, and its transform."""
    kernel = disk_kernel(radius, alias_sigma)
    used = np.flatnonzero(kernel.max(0) > 1e-9)
    kernel = kernel[used[0] : used[-1] + 1, used[0] : used[-1] + 1]
    reach = len(kernel) // 2
    shape = (
        scipy.fft.next_fast_len(height + 2 * reach, real=True),
        scipy.fft.next_fast_len(width + 2 * reach, real=True),
    )
    # OpenCV keeps this kernel in float32: its sum just below or above 1 decides which way exact
    # grey levels are truncated, so the convolution needs float64 to show it.
    return reach, shape, scipy.fft.rfft2(kernel.astype(np.float32).astype(np.float64), shape)


def defocus_blur(
    images: np.ndarray, rngs: Sequence[Generator], constants: tuple[float, float]
) -> np.ndarray:
    """Convolves u8[b, h, w, 3] with a disk of (radius, alias sigma), edges mirrored; truncated."""
    del rngs
    height, width = images.shape[1:3]
    reach, shape, spectrum = _disk_spectrum(*constants, height, width)
    inner = (slice(2 * reach, 2 * reach + height), slice(2 * reach, 2 * reach + width))
    padded = np.pad(images, ((0, 0), (reach, reach), (reach, reach), (0, 0)), "reflect")
    blurred = np.empty_like(images)
    # Plane by plane, to stay in the cache.
    for image, out in zip(padded, blurred, strict=True):
        for channel in range(3):
            waves = scipy.fft.rfft2(image[..., channel].astype(np.float64), shape)
            waves *= spectrum
            out[..., channel] = truncate(scipy.fft.irfft2(waves, shape)[inner])
    return blurred


def glass_map(offsets: np.ndarray, height: int, width: int, reach: int) -> np.ndarray:
    """Source pixel of every pixel after the sequential copies of one glass pass.

    The reference walks (y, x) from the bottom right, and each pixel takes the present value of a
    neighbour: what reads as a swap copies, as both sides are views of one array. A neighbour that
    was visited before already holds its own source, so sources are chains towards the bottom
    right, followed here for all pixels at once by pointer doubling.

    Args:
        offsets: i[b, h', w', 2] (dy, dx) in [-reach, reach) for y in reach+1 .. height-reach and
            x in reach+1 .. width-reach.

    Returns:
        i64[b, height * width] flat source indices.
    """
    pixel = np.arange(height * width)
    source = np.tile(pixel, (len(offsets), 1))
    rows = slice(reach + 1, height - reach + 1)
    columns = slice(reach + 1, width - reach + 1)
    source.reshape(-1, height, width)[:, rows, columns] += (
        offsets[..., 0].astype(np.int64) * width + offsets[..., 1]
    )
    pointer = np.maximum(source, pixel)
    while True:
        doubled = np.take_along_axis(pointer, pointer, 1)
        if np.array_equal(doubled, pointer):
            break
        pointer = doubled
    return np.take_along_axis(np.minimum(source, pixel), pointer, 1)


def glass_blur(
    images: np.ndarray, rngs: Sequence[Generator], constants: tuple[float, int, int]
) -> np.ndarray:
    """Blurs u8[b, h, w, 3], copies pixels from near ones, blurs again: (sigma, reach, passes)."""
    sigma, reach, passes = constants
    b, height, width, _ = images.shape
    inner = (passes, max(height - 2 * reach, 0), max(width - 2 * reach, 0), 2)
    offsets = np.stack([rng.integers(-reach, reach, inner, np.int8) for rng in rngs])
    source = glass_map(offsets[:, 0], height, width, reach)
    for i in range(1, passes):
        source = np.take_along_axis(source, glass_map(offsets[:, i], height, width, reach), 1)
    blurred = np.floor(gaussian_blur(images.astype(np.float32), sigma) + np.float32(1e-3))
    shuffled = np.take_along_axis(blurred.reshape(b, -1, 3), source[..., None], 1)
    return gaussian_blur(shuffled.reshape(images.shape), sigma)


def line_blur(images: np.ndarray, radius: int, sigma: float, degrees: np.ndarray) -> np.ndarray:
    """Motion blur of f32[b, h, w, c] along f[b] directions, rounded to grey levels.

    ImageMagick's MotionBlurImage: half a Gaussian of 2 * radius + 1 taps over the pixels nearest
    to the line, edges replicated, 8-bit result.
    """
    reach = 2 * radius
    steps = np.arange(reach + 1)
    weights = np.exp(-0.5 * (steps / sigma) ** 2)
    weights /= weights.sum()
    padded = np.pad(images, ((0, 0), (reach, reach), (reach, reach), (0, 0)), "edge")
    blurred = np.empty_like(images)
    for image, angle, out in zip(padded, np.radians(degrees), blurred, strict=True):
        y, x = (np.ceil(np.outer((np.sin(angle), np.cos(angle)), steps) - 0.5) + reach).astype(int)
        shifted_sum(image, list(zip(y.tolist(), x.tolist(), strict=True)), weights, out)
    return np.rint(blurred, out=blurred)


def motion_blur(
    images: np.ndarray, rngs: Sequence[Generator], constants: tuple[int, float]
) -> np.ndarray:
    """Blurs each of u8[b, h, w, 3] along its own angle in ±45 degrees: (radius, sigma)."""
    angles = np.array([rng.uniform(-45, 45) for rng in rngs])
    return line_blur(images.astype(np.float32), *constants, angles)


@functools.lru_cache(maxsize=256)
def zoom_matrix(size: int, factor: float) -> scipy.sparse.csr_array:
    """f32[size, n] that enlarges n = ceil(size / factor) samples to `size`, sparse.

    Linear interpolation with first and last samples aligned (scipy.ndimage.zoom), then the
    central `size` of the round(n * factor) results.
    """
    crop = math.ceil(size / factor)
    enlarged = round(crop * factor)
    start = (enlarged - size) // 2
    position = np.arange(start, start + size) * ((crop - 1) / max(enlarged - 1, 1))
    below = np.minimum(position.astype(int), max(crop - 2, 0))
    above = np.minimum(below + 1, crop - 1)
    rows = np.tile(np.arange(size), 2)
    shares = np.concatenate([1 - (position - below), position - below]).astype(np.float32)
    return scipy.sparse.csr_array(
        (shares, (rows, np.concatenate([below, above]))), shape=(size, crop)
    )


def zoom(crop: np.ndarray, factor: float, height: int, width: int) -> np.ndarray:
    """Enlarges f32[ceil(height / factor), ceil(width / factor), n] to f32[height, width, n]."""
    n = crop.shape[2]
    tall = zoom_matrix(height, factor) @ crop.reshape(len(crop), -1)
    tall = tall.reshape(height, -1, n).swapaxes(0, 1).reshape(-1, height * n)
    return (zoom_matrix(width, factor) @ tall).reshape(width, height, n).swapaxes(0, 1)


def zoom_blur(
    images: np.ndarray, rngs: Sequence[Generator], constants: tuple[float, float]
) -> np.ndarray:
    """Mean of u8[b, h, w, 3] and its zooms by arange(1, stop, step): (stop, step)."""
    del rngs
    b, height, width, c = images.shape
    # The batch goes last, so that every weight of the sparse zooms acts on a run of memory.
    pixels = np.moveaxis(images, 0, 2).reshape(height, width, b * c).astype(np.float32)
    total = pixels.copy()
    # arange keeps the rounding of the reference: 1.11 itself is one of the factors.
    factors = np.arange(1, constants[0], constants[1])
    for factor in factors.tolist():
        h, w = math.ceil(height / factor), math.ceil(width / factor)
        top, left = (height - h) // 2, (width - w) // 2
        total += zoom(pixels[top : top + h, left : left + w], factor, height, width)
    total /= len(factors) + 1
    return np.moveaxis(total.reshape(height, width, b, c), 2, 0)
