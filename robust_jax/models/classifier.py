"""The last stage of every network: a linear classifier, or one by cosine similarity."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from robust_jax.models.stages import check_choice

HEADS = ("linear", "cosine")


class CosineClassifier(nn.Module):
    """Normalised features against one column a class, as text-derived classifiers are used.

    The factor that sharpens the cosines (exp(logit_scale) of CLIP) is part of the kernel.

    Args:
      num_classes: k of the logits f32[b, k].
    """

    num_classes: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps features [b, d] to logits f32[b, k]."""
        x = unit_length(x.astype(jnp.float32))
        init = nn.initializers.lecun_normal()
        return x @ self.param("kernel", init, (x.shape[-1], self.num_classes))


def unit_length(x: jax.Array) -> jax.Array:
    """Divides [..., d] by its length along the last axis."""
    # The floor keeps a zero vector, and its gradient, finite; CLIP itself has none.
    squared = jnp.maximum(jnp.sum(jnp.square(x), axis=-1, keepdims=True), 1e-24)
    return x * jax.lax.rsqrt(squared)


def check_head(kind: str) -> None:
    """Raises ValueError for a kind of classifier that there is not."""
    check_choice("head", kind, HEADS)


def classifier(kind: str, num_classes: int, name: str) -> nn.Module:
    """The classifier on the pooled feature [b, d]: "linear" or "cosine"."""
    check_head(kind)
    if kind == "cosine":
        return CosineClassifier(num_classes, name=name)
    return nn.Dense(num_classes, name=name)
