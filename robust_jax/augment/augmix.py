"""AugMix as a batched JAX function: the operations, levels and mixing of `robust_jax.data.augmix`.

Its random numbers are JAX's, so that a key gives another image than a seed of the tf.data
operation does; `mix` gives the same image for the same `Draws`.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from robust_jax.augment import augmix_ops
from robust_jax.augment.augmix_ops import OPS, OVERLAPPING_OPS
from robust_jax.augment.batching import check_images, each_image
from robust_jax.augment.pixels import pack, unpack
from robust_jax.augment.settings import check_settings


class Draws(NamedTuple):
    """The random choices for b images, each with c chains of at most t operations."""

    weights: jax.Array  # f32[b, c], each row on the simplex
    mixing: jax.Array  # f32[b], the share of the mixed chains in the result
    depths: jax.Array  # int32[b, c]
    ops: jax.Array  # int32[b, c, t]
    levels: jax.Array  # f32[b, c, t]
    signs: jax.Array  # int32[b, c, t], -1 or 1


def draw(
    keys: jax.Array,
    *,
    severity: float,
    width: int = 3,
    depth: int = -1,
    alpha: float = 1.0,
    all_ops: bool = False,
) -> Draws:
    """Draws what `mix` needs, for each image from nothing but its key.

    Args:
      keys: typed keys [b].
      severity: levels are uniform between 0.1 and this, in (0, 10]; published: 3 for CIFAR, 1 for
        ImageNet.
      width: number of chains, at least 1.
      depth: operations in each chain, at least 1; -1 draws 1, 2 or 3 for each chain.
      alpha: chains are weighted by Dirichlet(alpha, ...), mixed in by Beta(alpha, alpha); above 0.
      all_ops: adds the operations that overlap with ImageNet-C.
    """
    check_settings(severity, width, depth, alpha)
    longest = 3 if depth == -1 else depth
    steps = width * longest
    parts = np.cumsum([steps, steps, steps, width, width])
    num_ops = len(OPS) + len(OVERLAPPING_OPS) * all_ops

    def one(key: jax.Array) -> Draws:
        # All of it in one call: each takes XLA a second to compile on a CPU.
        uniform = jax.random.uniform(key, (parts[-1] + 1,))
        op, level, sign, length, exponential, mixing = jnp.split(uniform, parts)
        if alpha == 1:
            # Multiples of 2^-23 moved by half a step lie inside (0, 1): the logarithm is finite
            # and never 0. Dirichlet(1, ...) is exponentials over their sum, Beta(1, 1) is uniform.
            gamma, share = -jnp.log(exponential + 2.0**-24), mixing[0]
        else:
            gammas = jax.random.gamma(jax.random.fold_in(key, 1), alpha, (width + 2,))
            gamma, share = gammas[:width], gammas[-1] / (gammas[-2] + gammas[-1])
        random_depths = 1 + (3 * length).astype(jnp.int32)
        return Draws(
            weights=gamma / jnp.sum(gamma),
            mixing=share,
            depths=random_depths if depth == -1 else jnp.full(width, depth, jnp.int32),
            ops=(num_ops * op).astype(jnp.int32).reshape(width, longest),
            levels=(0.1 + level * (severity - 0.1)).reshape(width, longest),
            signs=jnp.where(sign > 0.5, -1, 1).reshape(width, longest),
        )

    return jax.vmap(one)(keys)


def mix(images: jax.Array, draws: Draws, *, all_ops: bool = False) -> jax.Array:
    """Applies the drawn chains to each image and mixes them with it.

    Args:
      images: uint8[b, h, w, 3].
      draws: from `draw`.
      all_ops: whether `draws.ops` index OPS + OVERLAPPING_OPS or OPS.

    Returns:
      uint8[b, h, w, 3].
    """

    def one(image: jax.Array, draws: Draws) -> jax.Array:
        def add_chain(mixed: jax.Array, chain: Any) -> tuple[jax.Array, None]:
            weight, depth, ops, levels, where = chain

            def step(i: jax.Array, x: jax.Array) -> jax.Array:
                at = jax.tree.map(lambda positions: positions[i], where)
                return augmix_ops.apply(x, ops[i], levels[i], at, all_ops)

            x = unpack(jax.lax.fori_loop(0, depth, step, pixels))
            return mixed + weight * x.astype(jnp.float32), None

        pixels, clean = pack(image), image.astype(jnp.float32)
        # Outside the loops: inside, XLA would work them out again at every pixel.
        height, width = pixels.shape
        positions = partial(augmix_ops.warp_positions, height=height, width=width)
        where = jax.vmap(jax.vmap(positions))(draws.ops, draws.levels, draws.signs)
        chains = (draws.weights, draws.depths, draws.ops, draws.levels, where)
        mixed, _ = jax.lax.scan(add_chain, jnp.zeros_like(clean), chains)
        result = (1 - draws.mixing) * clean + draws.mixing * mixed
        return jnp.round(result).astype(jnp.uint8)

    return each_image(one)(images, draws)


def augmix(
    images: jax.Array,
    keys: jax.Array,
    *,
    severity: float,
    width: int = 3,
    depth: int = -1,
    alpha: float = 1.0,
    all_ops: bool = False,
) -> jax.Array:
    """AugMix with the published operations, level ranges and mixing; made for `jit`.

    Args:
      images: uint8[b, h, w, 3].
      keys: typed keys [b]; an image and its key determine the result.
      severity, width, depth, alpha, all_ops: as for `draw`.

    Returns:
      uint8[b, h, w, 3].
    """
    check_images(images, keys, jnp.uint8)
    draws = draw(keys, severity=severity, width=width, depth=depth, alpha=alpha, all_ops=all_ops)
    return mix(images, draws, all_ops=all_ops)
