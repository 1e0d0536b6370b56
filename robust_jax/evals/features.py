"""Features of every image of a source, computed once over all devices and kept on disk."""

from collections.abc import Mapping
from typing import Any

import jax
from etils import epath
from jax.sharding import Mesh

from robust_jax import hosts, sharding
from robust_jax.data.cache import Block, FeatureCache
from robust_jax.data.cache_build import build, in_order
from robust_jax.data.elements import Elements
from robust_jax.data.sources import Source
from robust_jax.evals.classification import Function


def extract(
    function: Function,
    arrays: Any,
    source: Source,
    ops: str,
    *,
    outputs: tuple[str, ...],
    directory: epath.PathLike,
    weights: Mapping[str, Any],
    batch_size: int,
    mesh: Mesh,
    name: str,
) -> Block:
    """Returns what a function says of the images of a source; an interrupted pass continues.

    Args:
      function: see `classification.Function`.
      arrays: of the function.
      source: labelled records, n of them.
      ops: evaluation ops; images of one size come out.
      outputs: the names of what the function returns.
      directory: where the outputs are kept.
      weights: what determines function and arrays, as plain values.
      batch_size: rounded up to a multiple of the devices.
      mesh: the devices.
      name: of the progress line.

    Returns:
      The outputs, f[n, ...] in the order of the records.

    Raises:
      ValueError: when the directory holds features of something else.
    """
    elements = Elements(source, ops, {"image": ""}, seed=0)
    arrays, size = sharding.place(arrays, mesh), sharding.padded_size(batch_size, mesh)

    def views(batch: Block) -> dict[str, jax.Array]:
        return sharding.shard_batch({k: batch[k] for k in ("image", "label")}, mesh)

    def compute(batch: Block) -> tuple[Block, dict[str, float]]:
        return jax.device_get(function(arrays, views(batch))), {}

    fingerprint = {**weights, "source": source.fingerprint, "ops": elements.ops}
    cache = FeatureCache(directory, fingerprint, len(elements), f"remove {directory}")
    batches = in_order(elements, size)
    if not cache.finished():
        _, first = next(batches(0, min(size, len(elements))))
        if hosts.is_first():
            cache.lay_out(jax.eval_shape(function, arrays, views(first)), size)
    hosts.wait(f"{name}: laid out")
    build(cache, batches, compute, name=name)
    return cache.load(outputs)
