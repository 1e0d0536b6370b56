"""The weight perturbations of the compressive autoencoder: one of nine, on one or two layers.

Source: `CAE_distort_imagenet.py` of Hendrycks et al. 2021. `faithful` repeats what that code does;
otherwise each is what it was evidently meant to be.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from robust_jax.deepaugment import perturbations as shared
from robust_jax.deepaugment.cae import CAE

PUBLISHED_WIDTH, PUBLISHED_CODE = 64, 32
NEVER_DRAWN = "keep_largest_tap"  # by the published code, whose range ends before it


class LayerWeights(NamedTuple):
    """What a perturbation changes, and what it has to know."""

    kernel: jax.Array  # f32[h, w, i, o], or f32[h, w, o, i] of a transposed convolution
    bias: jax.Array  # f32[o]
    axis: int  # of the kernel, over what counts as filters
    share: float  # filters of this layer over those of the published one
    noise: jax.Array  # like the kernel, uniform in [0, 1)


Change = Callable[[jax.Array, LayerWeights, bool], LayerWeights]  # (key, layer, faithful)


def flip_filters(key: jax.Array, layer: LayerWeights, faithful: bool) -> LayerWeights:
    """Reverses the order of the filters; when not faithful, in two layers."""
    kernel, bias = jnp.flip(layer.kernel, layer.axis), jnp.flip(layer.bias)
    return layer._replace(kernel=kernel, bias=bias)


def negate_filters(key: jax.Array, layer: LayerWeights, faithful: bool) -> LayerWeights:
    """Negates 12 filters; one that is drawn twice is back where it was."""
    weights, biases = _chosen(key, layer, 12, faithful)
    kernel = layer.kernel * (1 - 2 * (weights % 2))
    return layer._replace(kernel=kernel, bias=layer.bias * (1 - 2 * (biases % 2)))


def zero_filters(key: jax.Array, layer: LayerWeights, faithful: bool) -> LayerWeights:
    """Zeroes 25 filters."""
    weights, biases = _chosen(key, layer, 25, faithful)
    return layer._replace(kernel=layer.kernel * (weights == 0), bias=layer.bias * (biases == 0))


def gelu_filters(key: jax.Array, layer: LayerWeights, faithful: bool) -> LayerWeights:
    """Replaces 25 filters w by -gelu(w), again for each time that one is drawn."""
    weights, biases = _chosen(key, layer, 25, faithful)
    kernel = shared.repeated_minus_gelu(layer.kernel, weights)
    return layer._replace(kernel=kernel, bias=shared.repeated_minus_gelu(layer.bias, biases))


def scale_weights(key: jax.Array, layer: LayerWeights, faithful: bool) -> LayerWeights:
    """Multiplies every weight of two layers by a factor in [1, 9), or (-1, 7) if not faithful."""
    factors = shared.scale_factors(key, layer.noise, 1, 4, faithful=faithful)
    return layer._replace(kernel=layer.kernel * factors)


def mask_weights(key: jax.Array, layer: LayerWeights, faithful: bool) -> LayerWeights:
    """Multiplies every weight by 0 or 1, or every weight by -1 or 1, at random."""
    mask = jnp.round(layer.noise)
    mask = jnp.where(jax.random.bernoulli(key), mask, 2 * mask - 1)
    return layer._replace(kernel=layer.kernel * mask)


def rotate_kernel(key: jax.Array, layer: LayerWeights, faithful: bool) -> LayerWeights:
    """Turns the kernel by 90, 180 or 270 degrees."""
    return layer._replace(kernel=shared.turned(key, layer.kernel, ((0, 1),)))


def negate_fifth(key: jax.Array, layer: LayerWeights, faithful: bool) -> LayerWeights:
    """Negates a fifth of the filters without their biases; fewer where some are drawn twice."""
    filters = layer.kernel.shape[layer.axis]
    counts = shared.filter_counts(key, filters, max(1, filters // 5), faithful=faithful)
    negated = shared.spread(counts > 0, 4, layer.axis)
    return layer._replace(kernel=jnp.where(negated, -layer.kernel, layer.kernel))


def keep_largest_tap(key: jax.Array, layer: LayerWeights, faithful: bool) -> LayerWeights:
    """Leaves one tap of each filter and input channel; the published code never draws it."""
    return layer._replace(kernel=shared.largest_tap(layer.kernel))


CHANGES: dict[str, Change] = {
    "flip_filters": flip_filters,
    "negate_filters": negate_filters,
    "zero_filters": zero_filters,
    "gelu_filters": gelu_filters,
    "scale_weights": scale_weights,
    "mask_weights": mask_weights,
    "rotate_kernel": rotate_kernel,
    "negate_fifth": negate_fifth,
    NEVER_DRAWN: keep_largest_tap,
}


def layers_of(model: CAE, name: str) -> list[str]:
    """Returns the layers that a perturbation chooses from.

    At the published depth: 11 to 15 for `flip_filters`, 10 to 13 for `gelu_filters`, else 8 to 13.
    """
    blocks = model.block_layers("d")
    if name == "flip_filters":
        return blocks[:-1]
    around = ["e_conv_3_0", "d_up_conv_1_0", "d_up_conv_1_3", *blocks[: len(blocks) // 2]]
    return around[2:] if name == "gelu_filters" else around


def drawn(faithful: bool) -> list[str]:
    """Returns the names of the perturbations that are drawn, each as often."""
    return [name for name in CHANGES if not (faithful and name == NEVER_DRAWN)]


def perturb(
    key: jax.Array,
    params: Mapping[str, Any],
    model: CAE,
    names: Sequence[str],
    *,
    faithful: bool,
) -> dict[str, Any]:
    """Applies one of the named perturbations to layers that it draws.

    Args:
      key: decides everything.
      params: of the model.
      model: whose layers they are.
      names: keys of `CHANGES`.
      faithful: repeat the published code.
    """
    which, key = jax.random.split(key)
    touched = sorted({layer for name in names for layer in layers_of(model, name)})
    rest = {layer: params[layer] for layer in touched}  # a branch returns only these
    branches = [partial(_perturb, model=model, name=name, faithful=faithful) for name in names]
    option = shared.integers(which, len(names))
    return {**params, **lax.switch(option, branches, key, rest)}


def _perturb(
    key: jax.Array, params: dict[str, Any], *, model: CAE, name: str, faithful: bool
) -> dict[str, Any]:
    first_key, second_key, draw = jax.random.split(key, 3)
    layers = layers_of(model, name)
    branches = [
        partial(_on_layer, model=model, name=name, layer=layer, faithful=faithful)
        for layer in layers
    ]
    chosen = [shared.integers(first_key, len(layers))]
    if name == "scale_weights":
        chosen.append(shared.integers(second_key, len(layers)))
    elif name == "flip_filters" and not faithful and len(layers) > 1:
        # The published code flips the second layer's weights twice, which leaves them. It has to
        # be another layer: a second flip would undo the first.
        step = 1 + shared.integers(second_key, len(layers) - 1)
        chosen.append((chosen[0] + step) % len(layers))

    largest = max(params[layer]["kernel"].size for layer in layers)

    def step_fn(params: dict[str, Any], one: tuple[jax.Array, jax.Array]) -> Any:
        index, key = one
        key, noise_key = jax.random.split(key)
        noise = jax.random.uniform(noise_key, (largest,))  # in every branch it compiles for seconds
        return lax.switch(index, branches, key, noise, params), None

    keys = jax.random.split(draw, len(chosen))
    return lax.scan(step_fn, params, (jnp.stack(chosen), keys))[0]


def _on_layer(
    key: jax.Array,
    noise: jax.Array,
    params: dict[str, Any],
    *,
    model: CAE,
    name: str,
    layer: str,
    faithful: bool,
) -> dict[str, Any]:
    weights = layer_weights(params, noise, model, layer, faithful=faithful)
    changed = CHANGES[name](key, weights, faithful)
    return {**params, layer: {"kernel": changed.kernel, "bias": changed.bias}}


def layer_weights(
    params: Mapping[str, Any], noise: jax.Array, model: CAE, layer: str, *, faithful: bool
) -> LayerWeights:
    """Returns what a perturbation changes in one layer; `noise` is f32[m], m enough for its kernel.

    The published code takes the first axis of every tensor for its filters. That of a transposed
    convolution runs over its inputs, so there `faithful` negates inputs, and biases of outputs.
    """
    transposed = any(row.transposed for row in model.layers() if row.name == layer)
    share = model.width / PUBLISHED_WIDTH
    kernel = params[layer]["kernel"]
    return LayerWeights(
        kernel=kernel,
        bias=params[layer]["bias"],
        axis=-2 if transposed and not faithful else -1,
        share=model.code / PUBLISHED_CODE if layer == "e_conv_3_0" else share,
        noise=noise[: kernel.size].reshape(kernel.shape),
    )


def _chosen(
    key: jax.Array, layer: LayerWeights, count: int, faithful: bool
) -> tuple[jax.Array, jax.Array]:
    """Returns how often each filter is drawn, shaped for the kernel and for the bias."""
    filters = layer.kernel.shape[layer.axis]
    number = min(filters, shared.scaled_count(count, layer.share))
    counts = shared.filter_counts(key, filters, number, faithful=faithful)
    return shared.spread(counts, 4, layer.axis), jnp.pad(counts, (0, len(layer.bias) - filters))
