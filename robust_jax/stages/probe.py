"""The linear probe of a pre-trained student: features once, then a classifier on them."""

import functools
from typing import Any

import jax
import numpy as np

from robust_jax import models
from robust_jax.data.sources import Source
from robust_jax.evals.features import extract
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
    z, held_out = features("train", context.train), features("calibration", context.calibration)
    labels = context.train.labels, context.calibration.labels
    head, chosen = probe.fit(z, labels[0], (held_out, labels[1]), len(context.class_names))
    variables["params"]["head"] = head
    print(
        f"linear probe: {z.shape[0]:,} images, {z.shape[1]} features, penalty "
        f"{chosen['penalty']:g}, held-out accuracy {chosen['held_out_accuracy']:.4f}"
    )
    return chosen


def _features(
    context: Context, variables: dict[str, Any], digest: str, name: str, source: Source
) -> np.ndarray:
    """Returns the features f32[n, d] of a source, in evaluation view."""
    model, entry = context.student_model, context.student_entry

    @jax.jit
    def trunk(variables: Any, batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
        z: Any = model.apply(variables, models.normalise(batch["image"], entry), stop="head")
        return {"z": z.astype("float32")}

    found = extract(
        trunk,
        variables,
        source,
        context.ops("eval_ops"),
        outputs=("z",),
        directory=context.workdir / "pretrain" / name,
        weights={"weights": digest, "model": repr(model)},
        batch_size=context.config.pretrain.batch_size,
        mesh=context.mesh,
        name=f"features of {name}",
    )
    return found["z"]
