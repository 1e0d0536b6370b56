"""The corruptions of ImageNet-C as ops, one a name: `gaussian_noise(severity=2)`.

For training on plain corruptions, which makes ImageNet-C no test of unseen ones: see `overlap`.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from robust_jax.corruptions import CORRUPTIONS, EXTRA_CORRUPTIONS, SEVERITIES, corrupt
from robust_jax.data.registry import Features, Op, check_rgb_bytes, register

Severity = int | tuple[int, int]


def corrupt_image(image: np.ndarray, name: str, severity: Severity, seed: np.ndarray) -> np.ndarray:
    """Corrupts one image, from nothing but the seed.

    Args:
      image: uint8[h, w, 3], sides of at least 8 px.
      name: one of CORRUPTIONS or EXTRA_CORRUPTIONS.
      severity: 1 to 5, or (lowest, highest) to draw one uniformly.
      seed: int32[2], any values; as unsigned numbers they are the seed and the id of
        `corruptions.corrupt`.

    Returns:
      uint8[h, w, 3].
    """
    first, second = seed.astype(np.uint32).tolist()
    if isinstance(severity, tuple):
        low, high = severity
        severity = int(np.random.default_rng([first, second]).integers(low, high + 1))
    return corrupt(image[None], name, severity, ids=[second], seed=first)[0]


def _check_severity(severity: Severity) -> Severity:
    if isinstance(severity, int) and severity in SEVERITIES:
        return severity
    if isinstance(severity, list | tuple) and len(severity) == 2:
        low, high = severity
        if isinstance(low, int) and isinstance(high, int) and 1 <= low <= high <= SEVERITIES[-1]:
            return low, high
    raise ValueError("severity is an integer from 1 to 5, or (lowest, highest) of them")


def _factory(name: str) -> Callable[..., Op]:
    def factory(severity: Severity) -> Op:
        checked = _check_severity(severity)

        def run(image: np.ndarray, seed: np.ndarray) -> np.ndarray:
            return corrupt_image(image, name, checked, seed)

        def apply(features: Features, seed: Any) -> Features:
            image = features["image"]
            check_rgb_bytes(image, name)
            pixels = tf.numpy_function(run, [image, seed], tf.uint8, stateful=False)
            return features | {"image": tf.ensure_shape(pixels, image.shape)}

        return apply

    factory.__name__ = factory.__qualname__ = name  # the registry tells factories apart by it
    return factory


for _name in CORRUPTIONS + EXTRA_CORRUPTIONS:
    register(_name)(_factory(_name))
