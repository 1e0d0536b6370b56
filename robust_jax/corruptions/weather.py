"""Snow, frost and fog (Hendrycks & Dietterich 2019)."""

import functools
import importlib.util
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.random import Generator
from PIL import Image

from robust_jax.corruptions.blur import line_blur, zoom

# The reference draws from the first five of the six files it ships.
FROST_FILES = ("frost1.png", "frost2.png", "frost3.png", "frost4.jpg", "frost5.jpg")
LUMA = np.array([0.299, 0.587, 0.114], np.float32)


def snow_layer(
    rngs: Sequence[Generator],
    height: int,
    width: int,
    constants: tuple[float, float, float, float],
) -> np.ndarray:
    """f32[b, height, width, 1] flakes that do not move yet, in grey levels.

    Args:
        constants: (mean, sigma, zoom factor, threshold).
    """
    mean, sigma, factor, threshold = constants
    crop = (math.ceil(height / factor), math.ceil(width / factor))
    noise = np.stack([rng.standard_normal(crop, np.float32) for rng in rngs], -1)
    flakes = np.moveaxis(zoom(mean + sigma * noise, factor, height, width), -1, 0)
    flakes = flakes.reshape(len(rngs), height, width, 1)
    flakes[flakes < threshold] = 0
    return np.floor(np.clip(flakes, 0, 1) * 255)


def whiten(images: np.ndarray, mix: float) -> np.ndarray:
    """Share `mix` of u8[b, h, w, 3], the rest turned towards white, as f32."""
    pixels = images.astype(np.float32)
    whitened = np.maximum(pixels, (pixels @ LUMA)[..., None] * 1.5 + 127.5)
    return mix * pixels + (1 - mix) * whitened


def snow(images: np.ndarray, rngs: Sequence[Generator], constants: tuple[float, ...]) -> np.ndarray:
    """Whitens u8[b, h, w, 3] and adds motion-blurred flakes.

    Args:
        constants: (mean, sigma, zoom factor, threshold, motion radius, motion sigma, mix).
    """
    mean, sigma, factor, threshold, radius, motion_sigma, mix = constants
    height, width = images.shape[1:3]
    flakes = snow_layer(rngs, height, width, (mean, sigma, factor, threshold))
    angles = np.array([rng.uniform(-135, -45) for rng in rngs])
    flakes = line_blur(flakes, int(radius), motion_sigma, angles)
    return whiten(images, mix) + flakes + flakes[:, ::-1, ::-1]


@functools.cache
def _frost_photo(index: int) -> np.ndarray:
    """u8[h, w, 3] frost photograph as shipped."""
    spec = importlib.util.find_spec("imagecorruptions")
    for folder in (spec and spec.submodule_search_locations) or ():
        path = Path(folder) / "frost" / FROST_FILES[index]
        if path.is_file():
            with Image.open(path) as photo:
                return np.asarray(photo.convert("RGB"))
    raise ValueError(
        f"frost needs its photographs; got no file {FROST_FILES[index]}; "
        "do `pip install imagecorruptions-imaug`"
    )


@functools.lru_cache(maxsize=32)
def frost_texture(index: int, scale: float) -> np.ndarray:
    """f32[h, w, 3] frost photograph `index` of 0..4, resized bilinearly without antialiasing."""
    texture = _frost_photo(index).astype(np.float32)
    for axis in (0, 1):
        size = texture.shape[axis]
        position = (np.arange(round(size * scale)) + 0.5) / scale - 0.5
        position = np.clip(position, 0, size - 1)
        below = np.minimum(position.astype(int), size - 2)
        share = np.expand_dims((position - below).astype(np.float32), (1, 2) if axis == 0 else 1)
        lower, upper = texture.take(below, axis), texture.take(below + 1, axis)
        texture = lower + share * (upper - lower)
    return np.rint(texture)


def frost(
    images: np.ndarray, rngs: Sequence[Generator], constants: tuple[float, float, float]
) -> np.ndarray:
    """Weighted sum of u8[b, h, w, 3] and a random crop of a frost photograph.

    A photograph too small for the crop is enlarged until it is one pixel larger.

    Args:
        constants: (weight of the image, weight of the frost, scale of the photograph).
    """
    weight, frost_weight, base_scale = constants
    height, width = images.shape[1:3]
    crops = np.empty(images.shape, np.float32)
    for rng, out in zip(rngs, crops, strict=True):
        index = int(rng.integers(len(FROST_FILES)))
        rows, columns = _frost_photo(index).shape[:2]
        scale = max(base_scale, (height + 1) / rows, (width + 1) / columns)
        texture = frost_texture(index, scale)
        y = rng.integers(texture.shape[0] - height)
        x = rng.integers(texture.shape[1] - width)
        out[:] = texture[y : y + height, x : x + width]
    crops *= np.float32(frost_weight)
    return crops + images * np.float32(weight)


def plasma(rngs: Sequence[Generator], size: int, decay: float) -> np.ndarray:
    """f32[b, size, size] periodic diamond-square fractals scaled to [0, 1].

    Args:
        size: a power of two.
        decay: the noise shrinks by decay ** 2 each time the grid is halved.
    """
    noise = np.empty((len(rngs), size * size - 1), np.float32)
    for rng, out in zip(rngs, noise, strict=True):
        rng.random(out=out, dtype=np.float32)
    noise = 2 * noise - 1
    heights = np.zeros((len(rngs), size, size), np.float32)
    step, amplitude = size, 1.0
    while step >= 2:
        half, cells = step // 2, size // step
        # The coarser levels used 3 * (1 + 4 + 16 + ...) = cells ** 2 - 1 numbers.
        level = noise[:, cells**2 - 1 : 4 * cells**2 - 1].reshape(-1, 3, cells, cells)
        wibble = np.float32(amplitude) * level
        corners = heights[:, ::step, ::step]
        right, below = np.roll(corners, -1, 2), np.roll(corners, -1, 1)
        centres = (corners + right + below + np.roll(right, -1, 1)) / 4 + wibble[:, 0]
        tops = (corners + right + centres + np.roll(centres, 1, 1)) / 4 + wibble[:, 1]
        lefts = (corners + below + centres + np.roll(centres, 1, 2)) / 4 + wibble[:, 2]
        heights[:, half::step, half::step] = centres
        heights[:, ::step, half::step] = tops
        heights[:, half::step, ::step] = lefts
        step, amplitude = half, amplitude / decay**2
    heights -= heights.min((1, 2), keepdims=True)
    return heights / heights.max((1, 2), keepdims=True)


def fog(
    images: np.ndarray, rngs: Sequence[Generator], constants: tuple[float, float]
) -> np.ndarray:
    """Adds a plasma fractal to u8[b, h, w, 3] and scales back by max / (max + amount).

    Args:
        constants: (amount, decay); the map is the next power of two above the longer side.
    """
    amount, decay = constants
    height, width = images.shape[1:3]
    mist = plasma(rngs, 2 ** math.ceil(math.log2(max(height, width))), decay)
    brightest = images.max((1, 2, 3)).astype(np.float32)[:, None, None, None]
    added = np.float32(255 * amount) * mist[:, :height, :width, None]
    return (images + added) * (brightest / (brightest + 255 * np.float32(amount)))
