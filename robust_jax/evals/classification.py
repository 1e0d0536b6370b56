"""Runs a jitted function over every image of an evaluation set exactly once."""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from robust_jax import sharding
from robust_jax.data.pipeline import Elements, ordered_batches
from robust_jax.data.sources import Source

Outputs = dict[str, np.ndarray]
# (arrays, {"image": u8[b, h, w, 3], "label": i32[b]}) -> outputs with b rows; jitted.
Function = Callable[[Any, dict[str, jax.Array]], dict[str, jax.Array]]
KEEP_BYTES = 2 << 30


@dataclasses.dataclass(frozen=True, eq=False)
class EvalSet:
    """The images of a source after the evaluation ops.

    Attributes:
      source: labelled records.
      ops: evaluation ops; images of one size come out.
      max_images: only the first so many (of a fixed random order), or None.
      keep: whether images stay in memory between passes, where they fit in 2 GiB.
    """

    source: Source
    ops: str
    max_images: int | None = None
    keep: bool = True
    # Batch size -> the batches of a whole pass.
    _kept: dict[int, list[tuple[np.ndarray, np.ndarray]]] = dataclasses.field(
        default_factory=dict, init=False, repr=False
    )

    @functools.cached_property
    def records(self) -> Source:
        """The records that are evaluated."""
        if self.max_images is None or self.max_images >= len(self.source):
            return self.source
        return self.source.subset(some(len(self.source), self.max_images))

    @property
    def labels(self) -> np.ndarray:
        """The labels int32[n]."""
        return self.records.labels

    def batches(self, batch_size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields (images uint8[b, h, w, 3], ids int[b]) in order; the last may be shorter."""
        kept = self._kept.get(batch_size)
        if kept is not None:
            yield from kept
            return
        passed: list[tuple[np.ndarray, np.ndarray]] = []
        elements = Elements(source=self.records, ops=self.ops, views={"image": ""}, seed=0)
        for batch in ordered_batches(elements, batch_size=batch_size, pad=False):
            whole = batch["image"].nbytes * len(self.records) / len(batch["id"])
            if self.keep and whole <= KEEP_BYTES:
                passed.append((batch["image"], batch["id"]))
            yield batch["image"], batch["id"]
        if sum(len(ids) for _, ids in passed) == len(self.records):
            self._kept.clear()
            self._kept[batch_size] = passed


def some(count: int, most: int | None) -> np.ndarray:
    """Returns the numbers, in order, of at most so many of `count`: the first of a fixed order."""
    return np.sort(np.random.default_rng(0).permutation(count)[:most])


def evaluate(
    function: Function,
    arrays: Any,
    images: EvalSet,
    *,
    batch_size: int,
    mesh: Mesh,
    transform: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None,
) -> Outputs:
    """Applies a function to every image and returns its outputs in order.

    Args:
      function: see `Function`.
      arrays: replicated over the mesh.
      batch_size: rounded up to a multiple of the devices.
      transform: host function (images, ids) -> images, for example a corruption.

    Returns:
      name -> array with one row for each image; padding rows are gone.
    """
    padded = sharding.padded_size(min(batch_size, len(images.labels)), mesh)
    found: list[Outputs] = []
    for batch, ids in images.batches(padded):
        changed = batch if transform is None else transform(batch, ids)
        found.append(answer(function, arrays, changed, images.labels[ids], padded, mesh))
    return {name: np.concatenate([part[name] for part in found]) for name in found[0]}


def answer(
    function: Function,
    arrays: Any,
    images: np.ndarray,
    labels: np.ndarray,
    padded: int,
    mesh: Mesh,
) -> Outputs:
    """Applies a function to any number of images, `padded` at a time; see `evaluate`."""
    found: list[Outputs] = []
    for start in range(0, len(images), padded):
        part = {"image": images[start : start + padded], "label": labels[start : start + padded]}
        count = len(part["label"])
        batch = {
            k: np.concatenate([v, np.repeat(v[-1:], padded - count, 0)]) for k, v in part.items()
        }
        outputs = function(arrays, sharding.shard_batch(batch, mesh))
        found.append({k: v[:count] for k, v in jax.device_get(outputs).items()})
    return {name: np.concatenate([one[name] for one in found]) for name in found[0]}
