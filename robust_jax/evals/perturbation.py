"""How often predictions flip along the perturbation sequences of ImageNet-P."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from robust_jax.corruptions import sequences
from robust_jax.evals import robustness

# T5D follows the five best classes.
_FEWEST_CLASSES = 5


def flip_probabilities(
    answer: Callable[[np.ndarray], Any],
    images: np.ndarray,
    names: Sequence[str] = sequences.SEQUENCES,
    *,
    seed: int = 0,
    batch_size: int = 32,
    crop: int | None = None,
) -> dict[str, dict[str, float]]:
    """Flip probability and, of at least five classes, T5D of each sequence at difficulty 1.

    The sequences of `batch_size` images are in memory at a time; of the answers, no more.

    Args:
      answer: u8[b, h, w, 3] -> logits f32[b, k]; called on frame 1 of a batch of images, then on
        frame 2 and so on, so that it meets one batch size, and that of the last images.
      images: u8[n, h, w, 3]; an image's place is its id.
      names: sequences; unknown ones are an error.
      seed: of the sequences.
      batch_size: images at a time.
      crop: as in `sequences.perturb`; with images of 256 px and 224 here it is ImageNet-P's.

    Returns:
      name -> {"flip_probability": in [0, 1], "top5_distance": in [0, 15]}, not normalised by
      AlexNet's.
    """
    images = np.asarray(images)
    if len(images) == 0 or batch_size < 1:
        raise ValueError(
            f"flips need images and a positive batch_size; got {len(images)} images and "
            f"batch_size {batch_size}; give at least one of each"
        )
    noises = {name: sequences.is_noise(name) for name in names}
    sums: dict[str, dict[str, float]] = {name: {} for name in names}
    for start in range(0, len(images), batch_size):
        batch = images[start : start + batch_size]
        ids = np.arange(start, start + len(batch))
        for name, noise in noises.items():
            frames = sequences.perturb(batch, name, ids=ids, seed=seed, crop=crop)
            logits = np.stack([_logits(answer, frame) for frame in frames.swapaxes(0, 1)], axis=1)
            found = {"flip_probability": robustness.flip_probability(logits.argmax(2), noise)}
            if logits.shape[2] >= _FEWEST_CLASSES:
                found["top5_distance"] = robustness.top5_distance(list(logits), noise)
            for metric, mean in found.items():
                sums[name][metric] = sums[name].get(metric, 0.0) + mean * len(batch)
    return {name: {m: s / len(images) for m, s in found.items()} for name, found in sums.items()}


def _logits(answer: Callable[[np.ndarray], Any], frames: np.ndarray) -> np.ndarray:
    logits = np.asarray(answer(np.ascontiguousarray(frames)))
    if logits.ndim != 2 or len(logits) != len(frames):
        raise ValueError(
            f"answer must return logits f32[b, k]; got shape {list(logits.shape)} for "
            f"{len(frames)} images; return one row of logits an image"
        )
    if not np.isfinite(logits).all():
        raise ValueError(
            "logits must be finite, as NaN has no rank; got NaN or infinity; check the model"
        )
    return logits
