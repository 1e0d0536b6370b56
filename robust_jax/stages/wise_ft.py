"""WiSE-FT (Wortsman et al. 2022): between the student and its full fine-tuning, in weight space."""

import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from robust_jax import costs, models, sharding
from robust_jax.data.pipeline import ordered_batches
from robust_jax.stages import classifier
from robust_jax.stages.context import Context

ALPHAS = tuple(i / 10 for i in range(11))
_SHOWN = ("clean", "aug", "label", "mask")  # of a batch


def interpolate(original: Any, tuned: Any, alpha: float) -> Any:
    """Returns (1 - alpha) original + alpha tuned, array by array; at 0 and 1 the ends themselves.

    Args:
      original, tuned: trees of float arrays of the same shapes.
      alpha: in [0, 1].
    """
    if alpha in (0, 1):
        return tuned if alpha else original
    return _between(original, tuned, jnp.float32(alpha))


@jax.jit
def _between(original: Any, tuned: Any, alpha: jax.Array) -> Any:
    return jax.tree.map(lambda a, b: ((1 - alpha) * a + alpha * b).astype(a.dtype), original, tuned)


def run(context: Context) -> dict[str, Any]:
    """Chooses alpha on the held-out images and stores that network; returns what was chosen.

    What counts is the mean of the accuracies on the clean and on the augmented views: nothing of
    the test images may choose. Of equally good alphas it is the smallest.
    """
    original, tuned = (context.variables(p) for p in ("pretrain", "baselines/full_finetune"))
    accuracies, times = held_out(context, original, tuned)
    alpha = ALPHAS[int(accuracies.mean(1).argmax())]
    for tried, (clean, augmented) in zip(ALPHAS, accuracies, strict=True):
        chosen = "  chosen" if tried == alpha else ""
        print(f"wise_ft: alpha {tried}: held out {clean:.4f} clean, {augmented:.4f} aug{chosen}")
    found = interpolate(original, tuned, alpha)
    measured = classifier.finish(context, "baselines/wise_ft", "student", found)
    return {"alpha": alpha, "held_out": accuracies.tolist(), **times, **measured}


def held_out(context: Context, original: Any, tuned: Any) -> tuple[np.ndarray, dict[str, float]]:
    """Asks the network of every alpha.

    Returns:
      Accuracy f[11, 2] on the clean and the augmented view of the held-out images; and "seconds",
      "compile_seconds" and "flops".
    """
    model, entry = context.network("student")
    elements = context.calibration_set()
    size = sharding.padded_size(context.config.evaluate.batch_size, context.mesh)

    @jax.jit
    def hits(variables: Any, batch: dict[str, jax.Array]) -> jax.Array:
        def count(view: str) -> jax.Array:
            logits: Any = model.apply(variables, models.normalise(batch[view], entry))
            return jnp.sum((logits.argmax(-1) == batch["label"]) & batch["mask"])

        return jnp.stack([count("clean"), count("aug")])

    compiled, times, began = None, {"compile_seconds": 0.0}, time.perf_counter()
    total = np.zeros((len(ALPHAS), 2))
    for batch in ordered_batches(elements, batch_size=size):
        placed = sharding.shard_batch({name: batch[name] for name in _SHOWN}, context.mesh)
        if compiled is None:
            prepared = time.perf_counter()
            compiled = hits.lower(original, placed).compile()
            jax.block_until_ready(interpolate(original, tuned, 0.5))  # compiles
            times["compile_seconds"] = time.perf_counter() - prepared
            batches, ends = -(-len(elements) // size), (0, 1)
            mixed = batches * sum(alpha not in ends for alpha in ALPHAS)
            times |= costs.added(
                costs.flops(batches * len(ALPHAS), hits, original, placed),
                costs.flops(mixed, _between, original, tuned, jnp.float32(0.5)),
            )
            began += time.perf_counter() - prepared
        for row, alpha in zip(total, ALPHAS, strict=True):
            row += jax.device_get(compiled(interpolate(original, tuned, alpha), placed))
    return total / len(elements), {**times, "seconds": time.perf_counter() - began}
