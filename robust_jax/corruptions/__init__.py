"""The 15 corruptions of ImageNet-C and its four extra ones, at five severities, for any size.

`corrupt` picks the published constants by image size: both sides <= 48 px CIFAR-C's, <= 96 px
Tiny-ImageNet-C's, otherwise ImageNet-C's. They are pixels of those benchmarks (32, 64 and 224) and
are not rescaled in between, except elastic's, which the reference defines by the image's side.
Results are uint8 in memory; the published files were then saved as JPEG of quality 85 (not CIFAR),
which takes part of the noise away again: `jpeg85`.

`python -m robust_jax.corruptions --contact_sheet OUT.png` shows them, `--sequences OUT.png` those
of ImageNet-P.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import ndimage

from robust_jax.corruptions import blur, digital, noise, spatter, weather
from robust_jax.corruptions.batches import as_batch, check_name, in_parts, truncate
from robust_jax.corruptions.constants import (
    CATEGORY,
    CORRUPTIONS,
    EXTRA_CORRUPTIONS,
    SEVERITIES,
    STORED_JPEG_QUALITY,
    constants_for,
)

__all__ = ["CATEGORY", "CORRUPTIONS", "EXTRA_CORRUPTIONS", "SEVERITIES", "corrupt"]

_ALL = CORRUPTIONS + EXTRA_CORRUPTIONS
# First numbers of the random streams; `sequences` has 15 to 28.
_STREAMS = {name: number for number, name in enumerate(CORRUPTIONS)} | {
    name: number for number, name in enumerate(EXTRA_CORRUPTIONS, 100)
}


def _gaussian_blur(images: np.ndarray, rngs: Any, sigma: float) -> np.ndarray:
    del rngs
    # In float64, for truncation shows the rounding of exact grey levels.
    return 255 * ndimage.gaussian_filter(images / 255, (0, sigma, sigma, 0), mode="nearest")


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
    "speckle_noise": noise.speckle_noise,
    "gaussian_blur": _gaussian_blur,
    "spatter": spatter.spatter,
    "saturate": digital.saturate,
}


def corrupt(
    images: np.ndarray, name: str, severity: int, *, ids: Any, seed: int = 0, jpeg85: bool = False
) -> np.ndarray:
    """Corrupts a batch; the result for an image does not depend on the rest of the batch.

    Args:
        images: u8[b, h, w, 3], sides of at least 8 px.
        name: one of CORRUPTIONS or EXTRA_CORRUPTIONS.
        severity: 1 to 5.
        ids: i[b], non-negative: with seed, name and severity they determine each image's noise.
        seed: non-negative.
        jpeg85: whether the result is saved as JPEG of quality 85 and read back, as the published
            files were.

    Returns:
        u8[b, h, w, 3], truncated (not rounded) as in the reference.
    """
    check_name(name, _ALL, "corruption")
    if not isinstance(severity, int | np.integer) or severity not in SEVERITIES:
        raise ValueError(f"severity must be an integer from 1 to 5; got {severity!r}; choose one")
    images, ids = as_batch(images, ids, seed)
    b, height, width, _ = images.shape
    constants = constants_for(height, width)[name][severity - 1]
    result = np.empty_like(images)

    def run(part: slice) -> None:
        stream = (seed, _STREAMS[name], int(severity))
        rngs = [np.random.default_rng([*stream, int(i)]) for i in ids[part]]
        corrupted = truncate(_FUNCTIONS[name](images[part], rngs, constants))
        if jpeg85:
            corrupted = digital.jpeg_compression(corrupted, rngs, STORED_JPEG_QUALITY)
        result[part] = corrupted

    in_parts(run, b, height * width)
    return result
