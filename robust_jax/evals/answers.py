"""What is kept of an answer to an image: a few numbers, enough for every metric."""

import jax
import jax.numpy as jnp

# T5D follows the five best classes.
TOP = 5
FRAME_OUTPUTS = ("label", "top5")


def summarise(probs: jax.Array, labels: jax.Array) -> dict[str, jax.Array]:
    """Sums up what a classifier says of each image.

    Args:
      probs: f32[b, k].
      labels: int[b], the true ones.

    Returns:
      "label" int32[b], the answer; "confidence" f32[b], its probability; "nll" f32[b], minus the
      natural logarithm of the true label's probability, an underflow counting as the smallest
      float32; "brier" f32[b], the squared distance to the one-hot label, in [0, 2]; and, of at
      least five classes, "top5" int32[b, 5], the best first, equal ones in class order.
    """
    true = jnp.take_along_axis(probs, labels[:, None], axis=1)[:, 0]
    found = {
        "label": probs.argmax(-1).astype(jnp.int32),
        "confidence": probs.max(-1),
        "nll": -jnp.log(jnp.maximum(true, jnp.finfo(jnp.float32).tiny)),
        "brier": jnp.square(probs).sum(-1) - 2 * true + 1,
    }
    if probs.shape[-1] >= TOP:
        found["top5"] = jax.lax.top_k(probs, TOP)[1].astype(jnp.int32)
    return found
