"""The weight perturbations of EDSR: three of 17, with replacement, on its residual blocks.

Source: `EDSR_distort_imagenet.py` of Hendrycks et al. 2021. `faithful` repeats what that code does;
otherwise each is what it was evidently meant to be.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from robust_jax.deepaugment import perturbations as shared
from robust_jax.deepaugment.edsr import PUBLISHED_BLOCKS

DRAWS = 3
REPEATS = 5  # of the perturbations that draw block after block
THIRDS, FOURTHS, ALL = (0, 3, 6, 9), (1, 5, 9), tuple(range(15))  # published blocks to draw from
LAPLACE_4 = ((0, 1, 0), (1, -4, 1), (0, 1, 0))
LAPLACE_8 = ((-1, -1, -1), (-1, 8, -1), (-1, -1, -1))

Weights = dict[str, jax.Array]  # "kernel" f32[n, 2, 3, 3, c, c], "bias" f32[n, 2, c]
Change = Callable[[jax.Array, Weights, bool], Weights]  # (key, weights, faithful)
Edit = Callable[[jax.Array, jax.Array], jax.Array]  # (key, kernel f32[3, 3, c, c])


def blocks_of(published: Sequence[int], blocks: int) -> list[int]:
    """Returns published block numbers, of 16, at the same fractions of another depth."""
    return sorted({i * blocks // PUBLISHED_BLOCKS for i in published})


def flip_filters(key: jax.Array, weights: Weights, faithful: bool) -> Weights:
    """Reverses the order of the filters of both convolutions of a block."""
    i = _block(key, weights, THIRDS)
    return {name: w.at[i].set(jnp.flip(w[i], -1)) for name, w in weights.items()}


def negate_convolution(key: jax.Array, weights: Weights, faithful: bool) -> Weights:
    """Negates a first convolution."""
    i = _block(key, weights, (1, 4, 7))
    return {name: w.at[i, 0].multiply(-1) for name, w in weights.items()}


def zero_convolution(key: jax.Array, weights: Weights, faithful: bool) -> Weights:
    """Zeroes a first convolution."""
    i = _block(key, weights, THIRDS)
    return {name: w.at[i, 0].set(0) for name, w in weights.items()}


def gelu_kernels(key: jax.Array, weights: Weights, faithful: bool) -> Weights:
    """Replaces both kernels w of a block by -gelu(w)."""
    i = _block(key, weights, THIRDS)
    kernel = weights["kernel"]
    return {**weights, "kernel": kernel.at[i].set(shared.minus_gelu(kernel[i]))}


def laplace_4(key: jax.Array, weights: Weights, faithful: bool) -> Weights:
    """Multiplies the taps of a first kernel by a Laplacian of four neighbours."""
    return _edit(key, weights, THIRDS, 0, lambda key, w: w * _taps(LAPLACE_4))


def laplace_8(key: jax.Array, weights: Weights, faithful: bool) -> Weights:
    """Multiplies the taps of a first kernel by a Laplacian of eight neighbours."""
    return _edit(key, weights, THIRDS, 0, lambda key, w: w * _taps(LAPLACE_8))


def scale_weights(key: jax.Array, weights: Weights, faithful: bool) -> Weights:
    """Multiplies a second kernel by factors in [1, 5), or (-1, 3) if not faithful."""

    def edit(key: jax.Array, w: jax.Array) -> jax.Array:
        one, each = jax.random.split(key)
        noise = jax.random.uniform(each, w.shape)
        return w * shared.scale_factors(one, noise, 1, 2, faithful=faithful)

    return _edit(key, weights, THIRDS, 1, edit)


def mirror_and_negate(key: jax.Array, weights: Weights, faithful: bool) -> Weights:
    """Mirrors the columns of a first kernel and negates the second one."""
    i = _block(key, weights, THIRDS)
    kernel = weights["kernel"]
    changed = kernel.at[i, 0].set(jnp.flip(kernel[i, 0], 1)).at[i, 1].multiply(-1)
    return {**weights, "kernel": changed}


def convolve_shifts(key: jax.Array, weights: Weights, faithful: bool) -> Weights:
    """Convolves a first kernel with a signed shift of each input channel.

    The published code writes each shift for all outputs at once (`z[:, j]`, not `z[j, j]`), so that
    the new kernel is the same for all input channels: the sum of the shifted ones.
    """

    def edit(key: jax.Array, w: jax.Array) -> jax.Array:
        place, coin = jax.random.split(key)
        c = w.shape[2]
        rows, columns = shared.integers(place, 3, (2, c))
        kernel = shared.shift_kernel(rows, columns, shared.signs(coin, (c,)))
        if faithful:
            kernel = jnp.broadcast_to(kernel.sum(-1, keepdims=True), kernel.shape)
        return shared.convolved_kernel(w, kernel)

    return _edit(key, weights, FOURTHS, 0, edit)


def convolve_noise(key: jax.Array, weights: Weights, faithful: bool) -> Weights:
    """Convolves a first kernel with noise u (2 r - 1) / 6; when faithful, (2 r u - 1) / 6."""

    def edit(key: jax.Array, w: jax.Array) -> jax.Array:
        one, each = jax.random.split(key)
        u, r = jax.random.uniform(one), jax.random.uniform(each, w.shape)
        noise = 2 * r * u - 1 if faithful else u * (2 * r - 1)
        return shared.convolved_kernel(w, noise / 6)

    return _edit(key, weights, THIRDS, 0, edit)


def convolve_dirichlet(key: jax.Array, weights: Weights, faithful: bool) -> Weights:
    """Convolves a second kernel with taps from Dirichlet(0.1), for each pair of channels."""

    def edit(key: jax.Array, w: jax.Array) -> jax.Array:
        taps = jax.random.dirichlet(key, jnp.full(9, 0.1), w.shape[2:])  # f32[i, o, 9]
        return shared.convolved_kernel(w, taps.transpose(2, 0, 1).reshape(w.shape))

    return _edit(key, weights, FOURTHS, 1, edit)


def add_noise(key: jax.Array, weights: Weights, faithful: bool) -> Weights:
    """Adds noise in [-0.5, 0.5) to a second kernel."""

    def edit(key: jax.Array, w: jax.Array) -> jax.Array:
        return w + jax.random.uniform(key, w.shape, minval=-0.5, maxval=0.5)

    return _edit(key, weights, ALL, 1, edit)


def rotate_kernels(key: jax.Array, weights: Weights, faithful: bool) -> Weights:
    """Turns five kernels, in space or in the plane of their outputs and inputs."""
    return _repeat(key, weights, 2, lambda key, w: shared.turned(key, w, ((0, 1), (3, 2))))


def sign_mask(key: jax.Array, weights: Weights, faithful: bool) -> Weights:
    """Multiplies every weight of five first kernels by -1 or 1."""
    return _repeat(key, weights, 1, lambda key, w: w * shared.signs(key, w.shape))


def zero_mask(key: jax.Array, weights: Weights, faithful: bool) -> Weights:
    """Multiplies every weight of five first kernels by 0 or 1."""
    return _repeat(key, weights, 1, lambda key, w: w * shared.zeros_and_ones(key, w.shape))


def negate_filters(key: jax.Array, weights: Weights, faithful: bool) -> Weights:
    """Negates half of the filters of five first kernels; fewer where some are drawn twice."""

    def edit(key: jax.Array, w: jax.Array) -> jax.Array:
        filters = w.shape[-1]
        counts = shared.filter_counts(key, filters, max(1, filters // 2), faithful=faithful)
        return jnp.where(counts > 0, -w, w)

    return _repeat(key, weights, 1, edit)


def keep_largest_tap(key: jax.Array, weights: Weights, faithful: bool) -> Weights:
    """Leaves of five kernels one tap of each filter and input channel."""
    return _repeat(key, weights, 2, lambda key, w: shared.largest_tap(w))


CHANGES: dict[str, Change] = {
    "flip_filters": flip_filters,
    "negate_convolution": negate_convolution,
    "zero_convolution": zero_convolution,
    "gelu_kernels": gelu_kernels,
    "laplace_4": laplace_4,
    "laplace_8": laplace_8,
    "scale_weights": scale_weights,
    "mirror_and_negate": mirror_and_negate,
    "convolve_shifts": convolve_shifts,
    "convolve_noise": convolve_noise,
    "convolve_dirichlet": convolve_dirichlet,
    "add_noise": add_noise,
    "rotate_kernels": rotate_kernels,
    "sign_mask": sign_mask,
    "zero_mask": zero_mask,
    "negate_filters": negate_filters,
    "keep_largest_tap": keep_largest_tap,
}


def perturb(
    key: jax.Array, params: Mapping[str, Any], names: Sequence[str], *, faithful: bool
) -> dict[str, Any]:
    """Applies perturbations to the body of a network.

    Args:
      key: decides everything.
      params: of the network.
      names: keys of `CHANGES`; a single one is applied once, of several `DRAWS` are drawn, with
        replacement.
      faithful: repeat the published code.
    """
    branches = [
        lambda key, body, change=CHANGES[name]: change(key, body, faithful) for name in names
    ]

    def step(body: Weights, key: jax.Array) -> tuple[Weights, None]:
        which, draw = jax.random.split(key)
        return lax.switch(shared.integers(which, len(names)), branches, draw, body), None

    keys = jax.random.split(key, 1 if len(names) == 1 else DRAWS)
    return {**params, "body": lax.scan(step, dict(params["body"]), keys)[0]}


def _taps(taps: tuple[tuple[int, ...], ...]) -> jax.Array:
    return jnp.asarray(taps, jnp.float32)[:, :, None, None]


def _block(key: jax.Array, weights: Weights, published: Sequence[int]) -> jax.Array:
    found = jnp.asarray(blocks_of(published, len(weights["kernel"])))
    return found[shared.integers(key, len(found))]


def _edit(
    key: jax.Array, weights: Weights, published: Sequence[int], convolution: int, edit: Edit
) -> Weights:
    """Changes one kernel, of a block that is drawn."""
    which, draw = jax.random.split(key)
    kernel, at = weights["kernel"], (_block(which, weights, published), convolution)
    return {**weights, "kernel": kernel.at[at].set(edit(draw, kernel[at]))}


def _repeat(key: jax.Array, weights: Weights, convolutions: int, edit: Edit) -> Weights:
    """Changes five kernels one after the other, each of the first `convolutions` of any block."""

    def step(kernel: jax.Array, key: jax.Array) -> tuple[jax.Array, None]:
        which, convolution, draw = jax.random.split(key, 3)
        i = _block(which, weights, ALL)
        j = shared.integers(convolution, convolutions)
        return kernel.at[i, j].set(edit(draw, kernel[i, j])), None

    return {
        **weights,
        "kernel": lax.scan(step, weights["kernel"], jax.random.split(key, REPEATS))[0],
    }
