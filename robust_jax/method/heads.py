"""The parts that are added to a pre-trained model: bottleneck heads, a residual adapter, dropout.

Every up-projection starts at zero, so that a student at step 0 is the original model exactly.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp


def dropout(x: jax.Array, rate: float, key: jax.Array | None, shared: bool) -> jax.Array:
    """Inverted dropout.

    Args:
      x: f32[b, ...].
      rate: probability of a zero, in [0, 1).
      key: PRNG key; None turns dropout off.
      shared: True draws one mask for the whole batch (Monte Carlo samples, whose answers then do
        not depend on how images are batched); False draws one for each example (training).
    """
    if key is None or rate == 0:
        return x
    shape = (1, *x.shape[1:]) if shared else x.shape
    keep = jax.random.bernoulli(key, 1 - rate, shape)
    return jnp.where(keep, x / (1 - rate), 0)


class Bottleneck(nn.Module):
    """d -> rank -> features with a GELU between; dropout acts on the hidden units.

    Attributes:
      rank: hidden units.
      features: outputs.
      rate: dropout rate.
    """

    rank: int
    features: int
    rate: float

    @nn.compact
    def __call__(
        self, x: jax.Array, key: jax.Array | None = None, shared: bool = False
    ) -> jax.Array:
        """Maps f32[b, d] to f32[b, features]; zero for any input at initialisation."""
        hidden = nn.gelu(nn.Dense(self.rank, name="down")(x), approximate=False)
        hidden = dropout(hidden, self.rate, key, shared)
        return nn.Dense(self.features, kernel_init=nn.initializers.zeros, name="up")(hidden)


class Adapter(nn.Module):
    """A residual bottleneck on the feature: x + up(gelu(down(norm(x)))).

    Attributes:
      width: hidden units.
      rate: dropout rate.
    """

    width: int
    rate: float

    @nn.compact
    def __call__(
        self, x: jax.Array, key: jax.Array | None = None, shared: bool = False
    ) -> jax.Array:
        """Maps f32[b, d] to f32[b, d]; the identity at initialisation."""
        normed = nn.LayerNorm(use_fast_variance=False, name="norm")(x)
        return x + Bottleneck(self.width, x.shape[-1], self.rate, name="bottleneck")(
            normed, key, shared
        )
