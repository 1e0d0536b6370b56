"""MC-dropout uncertainty and the divergence of two predictions; natural logarithms, float32."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

_TINY = float(jnp.finfo(jnp.float32).tiny)


def kl(p: jax.Array, q: jax.Array) -> jax.Array:
    """KL(p || q) over the last axis, natural log; finite where a probability underflowed to 0.

    Args: p, q: f32[..., k], broadcast against each other. Returns: f32[...], at least 0.
    """
    log_ratio = jnp.log(jnp.maximum(p, _TINY)) - jnp.log(jnp.maximum(q, _TINY))
    return jnp.maximum(jnp.sum(p * log_ratio, axis=-1), 0.0)


def mutual_information(probs: jax.Array) -> jax.Array:
    """BALD (Houlsby et al. 2011; Gal et al. 2017): entropy of the mean less the mean entropy.

    Written as the mean KL of the samples to their mean, which is the same number without the
    cancellation of two large entropies.

    Args: probs: f32[..., s, b, k]. Returns: f32[..., b], in [0, log s].
    """
    return jnp.mean(kl(probs, jnp.mean(probs, axis=-3, keepdims=True)), axis=-2)


def variance(probs: jax.Array) -> jax.Array:
    """Sum over classes of the variance over samples: f32[..., s, b, k] -> f32[..., b]."""
    return jnp.sum(jnp.var(probs, axis=-3), axis=-1)


def predictive_entropy(probs: jax.Array) -> jax.Array:
    """Entropy of the mean of the samples, natural log: f32[..., s, b, k] -> f32[..., b]."""
    return jnp.sum(jax.scipy.special.entr(jnp.mean(probs, axis=-3)), axis=-1)


UNCERTAINTIES: dict[str, Callable[[jax.Array], jax.Array]] = {
    "mutual_information": mutual_information,
    "variance": variance,
    "predictive_entropy": predictive_entropy,
}
