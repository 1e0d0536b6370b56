"""The perturbations of EDSR's features: one of four before its body, one of five inside.

Source: `EDSR_distort_imagenet.py` of Hendrycks et al. 2021; `faithful` as in `edsr_weights`.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from robust_jax.deepaugment import perturbations as shared
from robust_jax.deepaugment.edsr import PUBLISHED_BLOCKS

PUBLISHED_WIDTH = 64
NONE, SKIP_BLOCKS = "none", "skip_blocks"

Change = Callable[[jax.Array, jax.Array, bool], jax.Array]  # (key, f32[h, w, c], faithful)


def swap_channels(key: jax.Array, x: jax.Array, faithful: bool) -> jax.Array:
    """Swaps five pairs of channels of 64, which may overlap.

    The published code assigns through views of one tensor: the second channel of a pair is copied
    over the first one, and stays.
    """
    c = x.shape[-1]
    count = shared.scaled_count(5, c / PUBLISHED_WIDTH)
    pairs = shared.integers(key, c, (count, 2))

    def step(order: jax.Array, pair: jax.Array) -> tuple[jax.Array, None]:
        swapped = order.at[pair[0]].set(order[pair[1]])
        return (swapped if faithful else swapped.at[pair[1]].set(order[pair[0]])), None

    return x[..., lax.scan(step, jnp.arange(c), pairs)[0]]


def drop_values(key: jax.Array, x: jax.Array, faithful: bool) -> jax.Array:
    """Zeroes one value in 20."""
    return x * jax.random.bernoulli(key, 0.95, x.shape)


def negate_values(key: jax.Array, x: jax.Array, faithful: bool) -> jax.Array:
    """Negates one value in 40."""
    return jnp.where(jax.random.bernoulli(key, 0.025, x.shape), -x, x)


def unchanged(key: jax.Array, x: jax.Array, faithful: bool) -> jax.Array:
    """Leaves the features alone."""
    return x


def negate_features(key: jax.Array, x: jax.Array, faithful: bool) -> jax.Array:
    """Negates all features."""
    return -x


def activate_features(key: jax.Array, x: jax.Array, faithful: bool) -> jax.Array:
    """Applies ReLU to one image in three, GELU to the others."""
    gelu = jax.nn.gelu(x, approximate=False)
    return jnp.where(jax.random.bernoulli(key, 1 / 3), jax.nn.relu(x), gelu)


def flip_features(key: jax.Array, x: jax.Array, faithful: bool) -> jax.Array:
    """Reverses the channels, and mirrors the rows of one image in three, columns of the others."""
    reverse = jnp.flip(x, 2)
    return jnp.where(jax.random.bernoulli(key, 1 / 3), jnp.flip(reverse, 0), jnp.flip(reverse, 1))


BEFORE: dict[str, Change] = {
    "swap_channels": swap_channels,
    "drop_values": drop_values,
    "negate_values": negate_values,
    NONE: unchanged,
}
MIDDLE: dict[str, Change] = {
    "negate_features": negate_features,
    "activate_features": activate_features,
    "flip_features": flip_features,
    SKIP_BLOCKS: unchanged,  # acts by `kept_modules`
    NONE: unchanged,
}


class Plan(NamedTuple):
    """What happens to the features of one image."""

    before: jax.Array  # int32[], index into BEFORE
    middle: jax.Array  # int32[], index into MIDDLE
    before_key: jax.Array
    middle_key: jax.Array
    keep: jax.Array  # bool[blocks + 1]
    chained: jax.Array  # bool[]


def plan(key: jax.Array, blocks: int, name: str = "", *, faithful: bool) -> Plan:
    """Draws what happens, uniformly among the entries of each table.

    Args:
      key: decides everything.
      blocks: of the network.
      name: of the only perturbation, an entry of one of the tables; "" draws one of each.
      faithful: repeat the published code, in which the modules that `skip_blocks` leaves all read
        the input of the body, so that only the last one counts.
    """
    first, second, before_key, middle_key, skip = jax.random.split(key, 5)
    if name:
        before, middle = (
            jnp.int32(list(table).index(name if name in table else NONE))
            for table in (BEFORE, MIDDLE)
        )
    else:
        before = shared.integers(first, len(BEFORE))
        middle = shared.integers(second, len(MIDDLE))
    skipping = middle == list(MIDDLE).index(SKIP_BLOCKS)
    keep = kept_modules(skip, blocks) | ~skipping
    chained = ~skipping | (not faithful)
    return Plan(before, middle, before_key, middle_key, keep, chained)


def kept_modules(key: jax.Array, blocks: int) -> jax.Array:
    """Draws the modules of the body to leave out: three of the third to the last, or fewer.

    Returns:
      bool[blocks + 1], false where left out; the last one is the closing convolution.
    """
    share = blocks / PUBLISHED_BLOCKS
    first, count = math.ceil(2 * share), shared.scaled_count(3, share)
    skipped = first + shared.integers(key, blocks + 1 - first, (count,))
    return jnp.ones(blocks + 1, bool).at[skipped].set(False)


def apply(
    table: dict[str, Change], option: jax.Array, key: jax.Array, x: jax.Array, *, faithful: bool
) -> jax.Array:
    """Changes the features of one image, f32[1, h, w, c], by the entry `option` of a table."""
    branches = [lambda x, change=change: change(key, x, faithful) for change in table.values()]
    return lax.switch(option, branches, x[0])[None]
