"""The 15 corruptions of ImageNet-C at five severities, for images of any size.

`corrupt` picks the published constants by image size: both sides <= 48 px CIFAR-C's, <= 96 px
Tiny-ImageNet-C's, otherwise ImageNet-C's. They are pixels of those benchmarks (32, 64 and 224) and
are not rescaled in between, except elastic's, which the reference defines by the image's side.
Results are uint8 in memory; the published files were then saved as JPEG of quality 85 (not CIFAR).
"""

import difflib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from robust_jax.corruptions import blur, digital, noise, weather
from robust_jax.corruptions.constants import CATEGORY, CORRUPTIONS, SEVERITIES, constants_for

__all__ = ["CATEGORY", "CORRUPTIONS", "SEVERITIES", "corrupt"]

_FUNCTIONS: dict[str, Callable[..., np.ndarray]] = {
    "gaussian_noise": noise.gaussian_noise,
    "shot_noise": noise.shot_noise,
    "impulse_noise": noise.impulse_noise,
    "defocus_blur": blur.defocus_blur,
    "glass_blur": blur.glass_blur,
    "motion_blur": blur.motion_blur,
    "zoom_blur": blur.zoom_blur,
    "snow": weather.snow,
    "frost": weather.frost,
    "fog": weather.fog,
    "brightness": digital.brightness,
    "contrast": digital.contrast,
    "elastic_transform": digital.elastic_transform,
    "pixelate": digital.pixelate,
    "jpeg_compression": digital.jpeg_compression,
}
_SMALLEST_SIDE = 8
# Few enough pixels at a time to stay near the cache, enough to hide numpy's cost per call.
_PIXELS_AT_ONCE = 2**18


def corrupt(images: np.ndarray, name: str, severity: int, *, ids: Any, seed: int = 0) -> np.ndarray:
    """Corrupts a batch; the result for an image does not depend on the rest of the batch.

    Args:
        images: u8[b, h, w, 3], sides of at least 8 px.
        name: one of CORRUPTIONS.
        severity: 1 to 5.
        ids: i[b], non-negative: with seed, name and severity they determine each image's noise.
        seed: non-negative.

    Returns:
        u8[b, h, w, 3], truncated (not rounded) as in the reference.
    """
    images, ids = np.asarray(images), np.asarray(ids)
    _check(images, name, severity, ids, seed)
    b, height, width, _ = images.shape
    constants = constants_for(height, width)[name][severity - 1]
    result = np.empty_like(images)

    def run(part: slice) -> None:
        stream = (seed, CORRUPTIONS.index(name), int(severity))
        rngs = [np.random.default_rng([*stream, int(i)]) for i in ids[part]]
        result[part] = _truncate(_FUNCTIONS[name](images[part], rngs, constants))

    workers = os.cpu_count() or 1
    size = max(1, min(_PIXELS_AT_ONCE // (height * width), -(-b // workers)))
    parts = [slice(start, start + size) for start in range(0, b, size)]
    if len(parts) <= 1:
        for part in parts:
            run(part)
    else:
        with ThreadPoolExecutor(min(len(parts), workers)) as pool:
            list(pool.map(run, parts))
    return result


def _truncate(images: np.ndarray) -> np.ndarray:
    """Floor to u8; the rounding of float32 must not turn an exact 255 into 254."""
    if images.dtype == np.uint8:
        return images
    slack = np.float32(1e-3) if images.dtype == np.float32 else 0
    return (np.clip(images, 0, 255) + slack).astype(np.uint8)


def _check(images: np.ndarray, name: str, severity: int, ids: np.ndarray, seed: int) -> None:
    if name not in _FUNCTIONS:
        near = difflib.get_close_matches(str(name), CORRUPTIONS, n=1, cutoff=0.0)[0]
        raise ValueError(f"unknown corruption; got {name!r}; did you mean {near!r}?")
    if severity not in SEVERITIES:
        raise ValueError(f"severity must be an integer from 1 to 5; got {severity!r}; choose one")
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3:
        raise ValueError(
            f"images must be uint8[b, h, w, 3]; got {images.dtype}{list(images.shape)}; "
            "convert to RGB in 0..255 and add the batch axis"
        )
    if min(images.shape[1:3]) < _SMALLEST_SIDE:
        raise ValueError(
            f"images must have sides of at least {_SMALLEST_SIDE} px; "
            f"got {images.shape[1]}x{images.shape[2]}; enlarge them first"
        )
    if ids.shape != images.shape[:1] or not (ids.size == 0 or np.issubdtype(ids.dtype, np.integer)):
        raise ValueError(
            f"ids must be one integer an image; got {ids.dtype}{list(ids.shape)} for "
            f"{len(images)} images; pass for instance np.arange({len(images)})"
        )
    if not isinstance(seed, int | np.integer) or seed < 0 or (ids.size and ids.min() < 0):
        raise ValueError(
            f"seed and ids must be integers, not negative; got seed {seed!r}, smallest id "
            f"{ids.min() if ids.size else 'none'}; use numbers from 0 up"
        )
