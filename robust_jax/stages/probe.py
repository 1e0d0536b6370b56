"""The linear probe of a pre-trained student: features once, then a classifier on them."""

import functools
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from robust_jax import models, sharding
from robust_jax.data.cache import Block, FeatureCache, build
from robust_jax.data.elements import Elements
from robust_jax.data.sources import Source
from robust_jax.method import probe
from robust_jax.stages.context import Context


def run(context: Context, variables: dict[str, Any], digest: str) -> dict[str, float]:
    """Gives `variables` a classifier fitted to the clean training images.

    Args:
      context: of the run.
      variables: of the student; its params["head"] is replaced.
      digest: of the weights, which a resumed pass over the images must share.

    Returns:
      What the probe chose.
    """
    features = functools.partial(_features, context, variables, digest)
    z, labels = features("train", context.train)
    held_out = features("calibration", context.calibration)
    head, chosen = probe.fit(z, labels, held_out, len(context.class_names))
    variables["params"]["head"] = head
    print(
        f"linear probe: {z.shape[0]:,} images, {z.shape[1]} features, penalty "
        f"{chosen['penalty']:g}, held-out accuracy {chosen['held_out_accuracy']:.4f}"
    )
    return chosen


def _features(
    context: Context, variables: dict[str, Any], digest: str, name: str, source: Source
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the features f32[n, d] and labels int[n] of a source, in evaluation view."""
    from robust_jax.data.pipeline import ordered_batches

    elements = Elements(source, context.ops("eval_ops"), {"image": ""}, seed=0)
    model, entry = context.student_model, context.student_entry

    @jax.jit
    def trunk(variables: Any, images: jax.Array) -> Any:
        return model.apply(variables, models.normalise(images, entry), stop="head")

    def compute(batch: Block) -> Block:
        images = sharding.shard_batch({"image": batch["image"]}, context.mesh)["image"]
        return {"z": np.asarray(trunk(variables, images)), "label": batch["label"]}

    def blocks(start: int) -> Iterator[tuple[int, Block]]:
        size = context.config.pretrain.batch_size
        for batch in ordered_batches(elements, batch_size=size, start=start):
            yield int(batch["mask"].sum()), batch

    fingerprint = {
        "weights": digest,
        "source": source.fingerprint,
        "ops": elements.ops,
        "model": repr(model),
    }
    cache = FeatureCache(context.workdir / "pretrain" / name, fingerprint, len(elements))
    build(cache, blocks, compute, name=f"features of {name}")
    found = cache.load(("z", "label"))
    return found["z"], found["label"]
