"""What the perturbations of both networks share: draws, masks and turns, of single arrays.

A kernel is f32[h, w, i, o]. The published code is PyTorch with o first, so its dimension 0 is our
last axis, (0, 1) is (3, 2), and (2, 3) is (0, 1).
"""

import jax
import jax.numpy as jnp
from jax import lax

from robust_jax.deepaugment.edsr import convolve


def integers(key: jax.Array, n: int, shape: tuple[int, ...] = ()) -> jax.Array:
    """Draws integers in [0, n), int32; n is small. It compiles much faster than `randint`."""
    return (n * jax.random.uniform(key, shape)).astype(jnp.int32)


def filter_counts(key: jax.Array, filters: int, count: int, *, faithful: bool) -> jax.Array:
    """Draws how often each filter is chosen, int32[filters].

    Args:
      filters: to choose from.
      count: how many are drawn.
      faithful: draw with replacement, as the published code; otherwise all are different.
    """
    drawn = integers(key, filters, (count,)) if faithful else permutation(key, filters)[:count]
    return jnp.zeros(filters, jnp.int32).at[drawn].add(1)


def permutation(key: jax.Array, n: int) -> jax.Array:
    """Draws an order of range(n), int32[n]."""
    return jnp.argsort(jax.random.uniform(key, (n,)))


def scaled_count(count: int, share: float) -> int:
    """Returns a published number of filters or channels for a network of `share` of the width."""
    return max(1, round(count * share))


def spread(values: jax.Array, ndim: int, axis: int) -> jax.Array:
    """Shapes one value for each filter so that it multiplies an array of `ndim` along `axis`."""
    shape = [1] * ndim
    shape[axis] = len(values)
    return values.reshape(shape)


def signs(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Draws -1 or 1, each with probability 1/2."""
    return 2 * zeros_and_ones(key, shape) - 1


def zeros_and_ones(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Draws 0 or 1, each with probability 1/2."""
    return jax.random.bernoulli(key, 0.5, shape).astype(jnp.float32)


def scale_factors(
    key: jax.Array, noise: jax.Array, base: float, slope: float, *, faithful: bool
) -> jax.Array:
    """Returns base + 2 u (slope r - 1), with one u uniform in [0, 1).

    Args:
      noise: r of each element, uniform in [0, 1).
      faithful: without the -1: the published code has it inside `rand_like(weight - 1)`, where it
        changes nothing, so its factors are never below `base`.
    """
    return base + 2 * jax.random.uniform(key) * (slope * noise - (0 if faithful else 1))


def turned(key: jax.Array, kernel: jax.Array, planes: tuple[tuple[int, int], ...]) -> jax.Array:
    """Turns a kernel by 90, 180 or 270 degrees in one of the planes.

    Args:
      kernel: with axes of equal length in each of the planes.
      planes: pairs of axes.
    """
    turns = [jnp.rot90(kernel, k, axes) for axes in planes for k in (1, 2, 3)]
    return jnp.stack(turns)[integers(key, len(turns))]


def largest_tap(kernel: jax.Array) -> jax.Array:
    """Leaves of each filter and input channel only the largest value, with its sign."""
    taps = kernel.reshape(-1, *kernel.shape[2:])
    kept = jnp.arange(len(taps))[:, None, None] == taps.argmax(0)
    return (taps * kept).reshape(kernel.shape)


def minus_gelu(x: jax.Array) -> jax.Array:
    """Returns -gelu(x), with the error function."""
    return -jax.nn.gelu(x, approximate=False)


def repeated_minus_gelu(x: jax.Array, counts: jax.Array) -> jax.Array:
    """Applies `minus_gelu` to each element as often as `counts`, which broadcasts to x, says."""
    return lax.fori_loop(0, counts.max(), lambda n, x: jnp.where(counts > n, minus_gelu(x), x), x)


def convolved_kernel(kernel: jax.Array, other: jax.Array) -> jax.Array:
    """Convolves each filter of a kernel, as an image of i channels, with f32[3, 3, i, i]."""
    return convolve(kernel.transpose(3, 0, 1, 2), other).transpose(1, 2, 3, 0)


def shift_kernel(rows: jax.Array, columns: jax.Array, weights: jax.Array) -> jax.Array:
    """Returns a kernel that shifts every channel on its own, f32[3, 3, c, c].

    Args:
      rows: int32[c] in {0, 1, 2}, the place of the only tap.
      columns: int32[c] likewise.
      weights: f32[c], the value of the tap.
    """
    channels = jnp.arange(len(weights))
    return (
        jnp.zeros((3, 3, len(weights), len(weights)))
        .at[rows, columns, channels, channels]
        .set(weights)
    )
