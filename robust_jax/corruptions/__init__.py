"""The 15 corruptions of ImageNet-C at five severities, for images of any size.

`corrupt` picks the published constants by image size: both sides <= 48 px CIFAR-C's, <= 96 px
Tiny-ImageNet-C's, otherwise ImageNet-C's. They are pixels of those benchmarks (32, 64 and 224) and
are not rescaled in between, except elastic's, which the reference defines by the image's side.
Results are uint8 in memory; the published files were then saved as JPEG of quality 85 (not CIFAR).
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from robust_jax.corruptions import blur, digital, noise, weather
from robust_jax.corruptions.batches import check_batch, check_name, in_parts, truncate
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
    check_name(name, CORRUPTIONS, "corruption")
    if severity not in SEVERITIES:
        raise ValueError(f"severity must be an integer from 1 to 5; got {severity!r}; choose one")
    check_batch(images, ids, seed)
    b, height, width, _ = images.shape
    constants = constants_for(height, width)[name][severity - 1]
    result = np.empty_like(images)

    def run(part: slice) -> None:
        stream = (seed, CORRUPTIONS.index(name), int(severity))
        rngs = [np.random.default_rng([*stream, int(i)]) for i in ids[part]]
        result[part] = truncate(_FUNCTIONS[name](images[part], rngs, constants))

    in_parts(run, b, height * width)
    return result
