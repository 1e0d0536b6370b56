"""How often predictions flip along the perturbation sequences of ImageNet-P."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from robust_jax.corruptions import sequences
from robust_jax.evals import robustness
from robust_jax.evals.classification import EvalSet, Outputs, answer, padded_size

# T5D follows the five best classes.
_FEWEST_CLASSES = 5
_IMAGES = 32  # whose sequences are in memory at a time


def flip_probabilities(
    logits_of: Callable[[np.ndarray], Any],
    images: np.ndarray,
    perturbations: Sequence[str] = sequences.SEQUENCES,
    *,
    seed: int = 0,
    batch_size: int = 32,
    crop: int | None = None,
) -> dict[str, dict[str, float]]:
    """Flip probability and, of at least five classes, T5D of each sequence at difficulty 1.

    The sequences of `batch_size` images are in memory at a time; of the answers, no more.

    Args:
      logits_of: u8[b, h, w, 3] -> logits f32[b, k]; called on frame 1 of a batch of images, then on
        frame 2 and so on, so that it meets one batch size, and that of the last images.
      images: u8[n, h, w, 3]; an image's place is its id.
      perturbations: names of sequences; unknown ones are an error.
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
    noises = {name: sequences.is_noise(name) for name in perturbations}
    sums: dict[str, dict[str, float]] = {name: {} for name in perturbations}
    for start in range(0, len(images), batch_size):
        batch = images[start : start + batch_size]
        ids = np.arange(start, start + len(batch))
        for name, noise in noises.items():
            frames = sequences.perturb(batch, name, ids=ids, seed=seed, crop=crop)
            logits = np.stack(
                [_logits(logits_of, frame) for frame in frames.swapaxes(0, 1)], axis=1
            )
            found = {"flip_probability": robustness.flip_probability(logits.argmax(2), noise)}
            if logits.shape[2] >= _FEWEST_CLASSES:
                found["top5_distance"] = robustness.top5_distance(list(logits), noise)
            for metric, mean in found.items():
                sums[name][metric] = sums[name].get(metric, 0.0) + mean * len(batch)
    return {name: {m: s / len(images) for m, s in found.items()} for name, found in sums.items()}


def labels(
    function: Callable[[Any, jax.Array], dict[str, jax.Array]],
    arrays: Any,
    images: EvalSet,
    name: str,
    *,
    batch_size: int,
    mesh: Mesh,
    seed: int,
) -> Outputs:
    """Returns what every method answers on every frame of a sequence.

    Args:
      function, arrays, images, batch_size, mesh: as for `classification.evaluate`.
      name: of the sequence.
      seed: of the sequence.

    Returns:
      The outputs called METHOD/label, int[n, f].
    """
    padded = padded_size(batch_size, images, mesh)
    found: list[Outputs] = []
    for batch, ids in images.batches(padded):
        for start in range(0, len(batch), _IMAGES):
            part = slice(start, start + _IMAGES)
            frames = sequences.perturb(batch[part], name, ids=ids[part], seed=seed)
            flat = frames.reshape(-1, *frames.shape[2:])
            outputs = answer(function, arrays, flat, padded, mesh)
            found.append(
                {
                    key: values.reshape(frames.shape[:2])
                    for key, values in outputs.items()
                    if key.endswith("/label")
                }
            )
    return {key: np.concatenate([part[key] for part in found]) for key in found[0]}


def names(wanted: Sequence[str]) -> tuple[str, ...]:
    """Returns the sequences that a config asks for; ("all",) is the ten of ImageNet-P.

    Raises:
      ValueError: for an unknown name.
    """
    known = (*sequences.SEQUENCES, *sequences.EXTRA_SEQUENCES)
    if tuple(wanted) == ("all",):
        return sequences.SEQUENCES
    if unknown := [name for name in wanted if name not in known]:
        raise ValueError(
            f"unknown sequences in evaluate.perturbations; got {unknown}; use 'all' or some of "
            f"{list(known)}"
        )
    return tuple(wanted)


def _logits(logits_of: Callable[[np.ndarray], Any], frames: np.ndarray) -> np.ndarray:
    logits = np.asarray(logits_of(np.ascontiguousarray(frames)))
    if logits.ndim != 2 or len(logits) != len(frames):
        raise ValueError(
            f"logits_of must return logits f32[b, k]; got shape {list(logits.shape)} for "
            f"{len(frames)} images; return one row of logits an image"
        )
    if not np.isfinite(logits).all():
        raise ValueError(
            "logits must be finite, as NaN has no rank; got NaN or infinity; check the model"
        )
    return logits
