"""What is answered on every frame of the perturbation sequences of ImageNet-P."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from jax.sharding import Mesh

from robust_jax import sharding
from robust_jax.config import nearest
from robust_jax.corruptions import sequences
from robust_jax.evals.answers import FRAME_OUTPUTS
from robust_jax.evals.classification import EvalSet, Function, Outputs, answer

_IMAGES = 32  # whose sequences are in memory at a time

# (frames u8[b, f, h, w, 3], labels i32[b]) of b sequences, in order.
Frames = Iterator[tuple[np.ndarray, np.ndarray]]


def generated(images: EvalSet, name: str, *, crop: int, seed: int, batch_size: int) -> Frames:
    """Makes the sequences of an evaluation set.

    Args:
      images: of at least `crop` pixels each side; what lies beyond the crop moves into it.
      name: of the sequence.
      crop: side of the frames.
      seed: of the sequences.
      batch_size: of the images.
    """
    for batch, ids in images.batches(batch_size):
        for start in range(0, len(batch), _IMAGES):
            part = slice(start, start + _IMAGES)
            frames = sequences.perturb(batch[part], name, ids=ids[part], seed=seed, crop=crop)
            yield frames, images.labels[ids[part]]


def evaluate(
    function: Function, arrays: Any, frames: Frames, *, batch_size: int, mesh: Mesh
) -> Outputs:
    """Applies a function to every frame of every sequence.

    Args:
      function, arrays, mesh: as for `classification.evaluate`.
      frames: the sequences.
      batch_size: frames at a time, rounded up to a multiple of the devices.

    Returns:
      The outputs called METHOD/label, int[n, f], and METHOD/top5, int[n, f, 5].
    """
    padded = sharding.padded_size(batch_size, mesh)
    found: list[Outputs] = []
    for batch, labels in frames:
        flat = batch.reshape(-1, *batch.shape[2:])
        labels = np.repeat(labels, batch.shape[1])
        outputs = answer(function, arrays, flat, labels, padded, mesh)
        found.append(
            {
                key: values.reshape(*batch.shape[:2], *values.shape[1:])
                for key, values in outputs.items()
                if key.partition("/")[2] in FRAME_OUTPUTS
            }
        )
    return {key: np.concatenate([part[key] for part in found]) for key in found[0]}


def names(wanted: Sequence[str]) -> tuple[str, ...]:
    """Returns the sequences asked for; "all" is the ten of ImageNet-P, "extra" the other four.

    Raises:
      ValueError: for an unknown name.
    """
    groups = {"all": sequences.SEQUENCES, "extra": sequences.EXTRA_SEQUENCES}
    known = (*groups["all"], *groups["extra"])
    found: dict[str, None] = {}
    for name in wanted:
        if name not in groups and name not in known:
            raise ValueError(
                f"unknown sequence; got {name!r}; use all, extra or some of {', '.join(known)}"
                + nearest(name, known)
            )
        found |= dict.fromkeys(groups.get(name, (name,)))
    return tuple(found)
