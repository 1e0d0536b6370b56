"""The perturbations of the autoencoder's code: one of nine on every image.

Source: `CAE_Model` of Hendrycks et al. 2021; `faithful` as in `cae_weights`.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import lax

from robust_jax.deepaugment import perturbations as shared
from robust_jax.deepaugment.cae import binarise
from robust_jax.deepaugment.cae_weights import PUBLISHED_CODE
from robust_jax.deepaugment.edsr import convolve

Change = Callable[[jax.Array, jax.Array, bool], jax.Array]  # (key, f32[h, w, c], faithful)

SCALE_BITS = "scale_bits"  # the only one that acts behind the binarisation


def scale_bits(key: jax.Array, bits: jax.Array, faithful: bool) -> jax.Array:
    """Multiplies the bits by factors in [3, 7), or (1, 5) if not faithful."""
    one, each = jax.random.split(key)
    noise = jax.random.uniform(each, bits.shape)
    return bits * shared.scale_factors(one, noise, 3, 2, faithful=faithful)


def zero_positions(key: jax.Array, code: jax.Array, faithful: bool) -> jax.Array:
    """Zeroes a fifth of the positions, in all channels."""
    return code * jax.random.bernoulli(key, 0.8, (*code.shape[:2], 1))


def negate_positions(key: jax.Array, code: jax.Array, faithful: bool) -> jax.Array:
    """Negates a tenth of the positions, in all channels."""
    return jnp.where(jax.random.bernoulli(key, 0.1, (*code.shape[:2], 1)), -code, code)


def permute_channels(key: jax.Array, code: jax.Array, faithful: bool) -> jax.Array:
    """Permutes the first 10 channels of 32."""
    first = _channels(code, 10)
    order = shared.permutation(key, first)
    return code.at[..., :first].set(code[..., order])


def flip_some_channels(key: jax.Array, code: jax.Array, faithful: bool) -> jax.Array:
    """Mirrors 5 channels of 32; one that is drawn twice is back where it was."""
    which, axes = jax.random.split(key)
    channels = code.shape[-1]
    counts = shared.filter_counts(which, channels, _channels(code, 5), faithful=faithful)
    return jnp.where(counts % 2 == 1, _mirrored(axes, code), code)


def flip_all_channels(key: jax.Array, code: jax.Array, faithful: bool) -> jax.Array:
    """Mirrors the code."""
    return _mirrored(key, code)


def convolve_noise(key: jax.Array, code: jax.Array, faithful: bool) -> jax.Array:
    """Convolves with the identity plus noise in [-0.1, 0.1)."""
    c = code.shape[-1]
    noise = jax.random.uniform(key, (3, 3, c, c), minval=-0.1, maxval=0.1)
    return convolve(code[None], noise.at[1, 1].add(jnp.eye(c)))[0]


def mix_channels(key: jax.Array, code: jax.Array, faithful: bool) -> jax.Array:
    """Adds to every other channel, at random, a shifted channel."""
    coin, channel, row, column = jax.random.split(key, 4)
    c = code.shape[-1]
    mixed = jax.random.bernoulli(coin, 0.5, (c,))
    source = shared.integers(channel, c, (c,))
    rows, columns = (shared.integers(part, 3, (c,)) for part in (row, column))
    # A tap that falls on that of the identity is set to 1, not to 2.
    kernel = jnp.zeros((3, 3, c, c)).at[1, 1].set(jnp.eye(c))
    kernel = kernel.at[rows, columns, source, jnp.arange(c)].max(mixed.astype(jnp.float32))
    return convolve(code[None], kernel)[0]


def shift_channels(key: jax.Array, code: jax.Array, faithful: bool) -> jax.Array:
    """Shifts each channel by at most one position; four of five as the channel before."""
    coin, place = jax.random.split(key)
    c = code.shape[-1]
    new = jax.random.bernoulli(coin, 0.2, (c,)).at[0].set(True)
    last_new = lax.cummax(jnp.where(new, jnp.arange(c), 0))
    rows, columns = shared.integers(place, 3, (2, c))[:, last_new]
    return convolve(code[None], shared.shift_kernel(rows, columns, jnp.ones(c)))[0]


CHANGES: dict[str, Change] = {
    SCALE_BITS: scale_bits,
    "zero_positions": zero_positions,
    "negate_positions": negate_positions,
    "permute_channels": permute_channels,
    "flip_some_channels": flip_some_channels,
    "flip_all_channels": flip_all_channels,
    "convolve_noise": convolve_noise,
    "mix_channels": mix_channels,
    "shift_channels": shift_channels,
}


def perturb(key: jax.Array, code: jax.Array, names: Sequence[str], *, faithful: bool) -> jax.Array:
    """Makes a code binary, and applies one of the named perturbations before or after.

    Args:
      key: decides everything.
      code: f32[h, w, c] in [-1, 1].
      names: keys of `CHANGES`; none leaves the code alone.
      faithful: repeat the published code.

    Returns:
      f32[h, w, c], bits, or multiples of them after `scale_bits`.
    """
    which, change, draw = jax.random.split(key, 3)
    if not names:
        return binarise(draw, code)
    option = shared.integers(which, len(names))

    def branch(name: str) -> Callable[[jax.Array], jax.Array]:
        if name == SCALE_BITS:
            return lambda code: scale_bits(change, binarise(draw, code), faithful)
        return lambda code: binarise(draw, CHANGES[name](change, code, faithful))

    return lax.switch(option, [branch(name) for name in names], code)


def _channels(code: jax.Array, published: int) -> int:
    return shared.scaled_count(published, code.shape[-1] / PUBLISHED_CODE)


def _mirrored(key: jax.Array, code: jax.Array) -> jax.Array:
    """Mirrors rows, columns or both, each as often.

    The published code draws two axes of batch, rows and columns; its batch is one image.
    """
    rows, columns = jnp.flip(code, 0), jnp.flip(code, 1)
    both = jnp.flip(rows, 1)
    return jnp.stack([rows, columns, both])[shared.integers(key, 3)]
