"""AugMix for tf.data: mixes chains of simple operations into an image, as Hendrycks et al. 2020.

`python -m robust_jax.data.augmix --contact_sheet OUT.png [--image FILE]` shows what it does.
"""

import argparse
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from PIL import Image

from robust_jax.augment.settings import check_settings
from robust_jax.data.augmix_ops import OPS, OVERLAPPING_OPS, Op
from robust_jax.data.registry import Features, check_rgb_bytes, register
from robust_jax.data.registry import Op as DataOp


class Draws(NamedTuple):
    """The random choices of one image, c chains of at most t operations."""

    weights: tf.Tensor  # f32[c], on the simplex
    mixing: tf.Tensor  # f32[], the share of the mixed chains in the result
    depths: tf.Tensor  # int32[c]
    ops: tf.Tensor  # int32[c, t]
    levels: tf.Tensor  # f64[c, t]
    signs: tf.Tensor  # int32[c, t], -1 or 1


def draw(
    seed: tf.Tensor,
    num_ops: int,
    severity: float = 3.0,
    width: int = 3,
    depth: int = -1,
    alpha: float = 1.0,
) -> Draws:
    """Draws what `mix` needs, from nothing but the seed.

    Args:
      seed: int32[2].
      num_ops: how many operations there are to choose from.
      severity: levels are uniform between 0.1 and this.
      width: number of chains.
      depth: operations in each chain; -1 draws 1, 2 or 3 for each.
      alpha: chains are weighted by Dirichlet(alpha, ...), mixed in by Beta(alpha, alpha).
    """
    longest = 3 if depth == -1 else depth
    steps = width * longest
    parts = [steps, steps, steps, width, width, 1]
    # All of it in one call, and Philox by name, so that every device draws the same.
    uniform = tf.random.stateless_uniform([sum(parts)], seed, alg="philox")
    op, level, sign, length, exponential, mixing = tf.split(uniform, parts)
    if alpha == 1:
        # Multiples of 2^-23 moved by half a step lie inside (0, 1): the logarithm is finite and
        # never 0. Dirichlet(1, ...) is exponentials over their sum, Beta(1, 1) is uniform.
        gamma = -tf.math.log(exponential + 2.0**-24)
        mixing = mixing[0]
    else:
        gammas = tf.random.stateless_gamma(
            [width + 2], tf.random.experimental.stateless_fold_in(seed, 1), alpha
        )
        gamma, pair = gammas[:width], gammas[width:]
        mixing = pair[0] / tf.reduce_sum(pair)
    depths = 1 + tf.cast(3 * length, tf.int32) if depth == -1 else tf.fill([width], depth)
    levels = 0.1 + tf.cast(level, tf.float64) * (severity - 0.1)
    return Draws(
        weights=gamma / tf.reduce_sum(gamma),
        mixing=mixing,
        depths=depths,
        ops=tf.reshape(tf.cast(num_ops * op, tf.int32), [width, longest]),
        levels=tf.reshape(levels, [width, longest]),
        signs=tf.reshape(tf.where(sign > 0.5, -1, 1), [width, longest]),
    )


def mix(image: tf.Tensor, draws: Draws, ops: Sequence[Op]) -> tf.Tensor:
    """Applies the drawn chains to the image and mixes them with it.

    Args:
      image: uint8[h, w, 3].
      draws: from `draw`.
      ops: what `draws.ops` indexes.

    Returns:
      uint8[h, w, 3]. The published code normalises the image and the chains before it mixes them
      and keeps floats; mean and standard deviation commute with a convex mixture, so this differs
      from it by the rounding only.
    """

    def chain(i: tf.Tensor) -> tf.Tensor:
        def step(j: tf.Tensor, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            level, sign = draws.levels[i, j], draws.signs[i, j]
            branches = [lambda op=op: op(x, level, sign) for op in ops]
            return j + 1, tf.ensure_shape(tf.switch_case(draws.ops[i, j], branches), x.shape)

        return tf.while_loop(lambda j, x: j < draws.depths[i], step, (0, image))[1]

    # A map, not a Python loop: the operations are compiled once, not once for each chain.
    indices = tf.range(draws.weights.shape[0])
    chains = tf.map_fn(chain, indices, fn_output_signature=tf.TensorSpec(image.shape, tf.uint8))
    mixed = tf.add_n(
        [
            weight * tf.cast(one, tf.float32)
            for weight, one in zip(tf.unstack(draws.weights), tf.unstack(chains), strict=True)
        ]
    )
    result = (1 - draws.mixing) * tf.cast(image, tf.float32) + draws.mixing * mixed
    return tf.cast(tf.round(result), tf.uint8)


@register("augmix")
def augmix(
    severity: float = 3.0,
    width: int = 3,
    depth: int = -1,
    alpha: float = 1.0,
    all_ops: bool = False,
) -> DataOp:
    """AugMix with the published operations, level ranges and mixing.

    XLA compiles it once for each image size (about a second), so place it after the crop.

    Args:
      severity: in (0, 10]; published: 3 for CIFAR, 1 for ImageNet.
      width: number of chains, at least 1.
      depth: operations in each chain, at least 1; -1 draws 1, 2 or 3 for each chain.
      alpha: of the Dirichlet and Beta distributions, above 0.
      all_ops: adds color, contrast, brightness and sharpness, which overlap with ImageNet-C.

    Returns:
      fn(features, seed: int32[2]) -> features, on features["image"], uint8[h, w, 3].
    """
    check_settings(severity, width, depth, alpha)
    ops = list((OPS | OVERLAPPING_OPS if all_ops else OPS).values())

    @tf.function(jit_compile=True, autograph=False)
    def compiled_mix(image: tf.Tensor, draws: Draws) -> tf.Tensor:
        return mix(image, draws, ops)

    def apply(features: Features, seed: Any) -> Features:
        image = features["image"]
        check_rgb_bytes(image, "AugMix")
        draws = draw(seed, len(ops), severity, width, depth, alpha)
        mixed = tf.ensure_shape(compiled_mix(image, draws), image.shape)
        return {**features, "image": mixed}

    return apply


def _sample_image() -> np.ndarray:
    """A handwritten digit of scikit-learn, enlarged to uint8[224, 224, 3]."""
    from sklearn.datasets import load_digits

    pixels = (load_digits().images[3] * 15.9375).astype(np.uint8)
    return np.asarray(Image.fromarray(pixels).convert("RGB").resize((224, 224)))


def contact_sheet(image: np.ndarray, path: str) -> None:
    """Draws each operation at level 3, then AugMix at severities 1 and 3 for nine seeds.

    Args:
      image: uint8[h, w, 3].
      path: of the PNG to write.
    """
    from matplotlib.figure import Figure

    pixels = tf.constant(image)
    level, sign = tf.constant(3.0, tf.float64), tf.constant(1)
    ops = {name: op(pixels, level, sign) for name, op in OPS.items()}
    rows = [list(({"original": pixels} | ops).items())]
    for severity in (1, 3):
        fn = augmix(severity=severity)
        seeds = {f"seed {i}": fn({"image": pixels}, tf.constant([0, i])) for i in range(9)}
        rows.append([(f"severity {severity}", pixels)])
        rows[-1] += [(name, features["image"]) for name, features in seeds.items()]
    figure = Figure(figsize=(15, 5.2), layout="constrained")
    axes = figure.subplots(len(rows), len(rows[0]))
    for row_axes, row in zip(axes, rows, strict=True):
        for axis, (title, shown) in zip(row_axes, row, strict=True):
            axis.imshow(shown.numpy())
            axis.set_title(title, fontsize=9)
            axis.set_axis_off()
    figure.savefig(path, dpi=120)


def main() -> None:
    """Reads the arguments and writes the contact sheet."""
    parser = argparse.ArgumentParser(description="Shows what AugMix does to an image.")
    parser.add_argument("--contact_sheet", required=True, metavar="OUT.png")
    parser.add_argument("--image", metavar="FILE", help="default: a digit of scikit-learn")
    args = parser.parse_args()
    image = np.asarray(Image.open(args.image).convert("RGB")) if args.image else _sample_image()
    contact_sheet(image, args.contact_sheet)


if __name__ == "__main__":
    main()
