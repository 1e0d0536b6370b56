"""Noise2Net: every image goes through a small residual network of its own with random weights.

Architecture and ranges: Hendrycks et al. 2021, "The Many Faces of Robustness", code
`DeepAugment/train_noise2net.py`: four Res2Net blocks, x += epsilon * block(x), of 16 hidden planes
at scale 4, PyTorch's default initialisation, batch statistics of one image (instance norm). Its
kernel sizes and dilations are drawn once an epoch and its epsilon once a batch, for all images
alike; here each image draws its own, so that an image's result depends on its key alone. Biases
are left out: the norm that follows removes them.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from robust_jax.augment.batching import check_images, each_image
from robust_jax.models.table import IMAGENET_MEAN, IMAGENET_STD

Channels = tuple[float, float, float]

_BLOCKS, _PLANES, _SCALE = 4, 16, 4
_CONVS = _SCALE - 1
_DILATIONS = (1, 2, 3)
_NORM_EPS = 1e-5  # PyTorch's BatchNorm2d


class Networks(NamedTuple):
    """The networks of b images, each of n blocks with m convolutions."""

    epsilon: jax.Array  # f32[b], the weight of a block's output
    expand: jax.Array  # f32[b, n, 3, 64]
    kernels: jax.Array  # f32[b, n, m, 3, 3, 16, 16]; of a 1x1 convolution only the middle counts
    is_wide: jax.Array  # bool[b, n, m], whether a convolution is 3x3 or 1x1
    dilations: jax.Array  # int32[b, n, m], 1 to 3
    project: jax.Array  # f32[b, n, 64, 3]


def draw(keys: jax.Array, *, max_eps: float = 0.75) -> Networks:
    """Draws a network for each image from nothing but its key.

    Args:
      keys: typed keys [b].
      max_eps: epsilon is uniform between half of this and this; published: 0.75.
    """
    if not max_eps > 0:
        raise ValueError(
            f"max_eps is out of range; got {max_eps}; use a number above 0, such as 0.75"
        )
    convs, hidden = (_BLOCKS, _CONVS), _PLANES * _SCALE
    shapes = [(), convs, convs, (_BLOCKS, 3, hidden), (*convs, 3, 3, _PLANES, _PLANES)]
    shapes.append((_BLOCKS, hidden, 3))
    ends = np.cumsum([math.prod(shape) for shape in shapes])

    def weights(uniform: jax.Array, fan_in: jax.Array | int) -> jax.Array:
        """PyTorch's default for convolutions, uniform within 1 / sqrt(fan_in)."""
        return (2 * uniform - 1) / jnp.sqrt(fan_in)

    def one(key: jax.Array) -> Networks:
        # All of it in one call: each takes XLA a second to compile on a CPU.
        parts = jnp.split(jax.random.uniform(key, (ends[-1],)), ends[:-1])
        epsilon, wide, dilation, expand, kernels, project = (
            part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)
        )
        is_wide = wide < 0.5
        fan_in = _PLANES * jnp.where(is_wide, 9, 1)[..., None, None, None, None]
        return Networks(
            epsilon=max_eps / 2 * (1 + epsilon),
            expand=weights(expand, 3),
            kernels=weights(kernels, fan_in),
            is_wide=is_wide,
            dilations=1 + (len(_DILATIONS) * dilation).astype(jnp.int32),
            project=weights(project, hidden),
        )

    return jax.vmap(one)(keys)


def distort(images: jax.Array, networks: Networks) -> jax.Array:
    """Applies each network to its image.

    Args:
      images: f32[b, h, w, 3], normalised.
      networks: from `draw`.

    Returns:
      f32[b, h, w, 3].
    """

    def one(image: jax.Array, network: Networks) -> jax.Array:
        def step(x: jax.Array, weights: Networks) -> tuple[jax.Array, None]:
            return x + network.epsilon * block(x, weights), None

        # `epsilon` is the same for all blocks; the scan wants one for each.
        blocks = network._replace(epsilon=jnp.broadcast_to(network.epsilon, _BLOCKS))
        return jax.lax.scan(step, image, blocks)[0]

    return each_image(one)(images, networks)


def block(x: jax.Array, weights: Networks) -> jax.Array:
    """A Res2Net bottleneck without its shortcut: convolutions in a row, each adding a new group.

    Args:
      x: f32[h, w, 3].
      weights: of one block of one network: without the axes b and n; `epsilon` is not used.

    Returns:
      f32[h, w, 3], each channel with mean 0 and variance 1.
    """
    groups = jnp.split(jax.nn.relu(_norm(x @ weights.expand)), _SCALE, axis=-1)
    *project, last = jnp.split(weights.project, _SCALE)

    def convolution(carry: tuple[jax.Array, jax.Array], i: Any) -> tuple[Any, None]:
        y, total = carry
        group, kernel, is_wide, dilation, projection = i
        y = jax.nn.relu(_norm(_convolve(y + group, kernel, is_wide, dilation)))
        return (y, total + y @ projection), None

    # A product with the concatenated groups is the sum of the products with each.
    each = (weights.kernels, weights.is_wide, weights.dilations)
    start = (jnp.zeros_like(groups[0]), groups[-1] @ last)
    scanned = (jnp.stack(groups[:-1]), *each, jnp.stack(project))
    (_, total), _ = jax.lax.scan(convolution, start, scanned)
    return _norm(total)


def _norm(x: jax.Array) -> jax.Array:
    """Instance norm of [h, w, d]."""
    centred = x - jnp.mean(x, (0, 1))
    return centred * jax.lax.rsqrt(jnp.mean(jnp.square(centred), (0, 1)) + _NORM_EPS)


def _convolve(
    x: jax.Array, kernel: jax.Array, is_wide: jax.Array, dilation: jax.Array
) -> jax.Array:
    """Convolves [h, w, 16] by a dilated 3x3 kernel or by its middle, zeros around the image."""

    def middle(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return x @ kernel[1, 1]

    # A loop over images runs the one branch; a batch of images with a kernel and a dilation each
    # would be grouped convolutions of all dilations, hence shifts and products there.
    def by_convolution(x: jax.Array, kernel: jax.Array) -> jax.Array:
        def dilated(d: int) -> jax.Array:
            return jax.lax.conv_general_dilated(
                x[None],
                kernel,
                window_strides=(1, 1),
                padding=((d, d), (d, d)),
                rhs_dilation=(d, d),
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
            )[0]

        return jax.lax.switch(dilation - 1, [lambda d=d: dilated(d) for d in _DILATIONS])

    def by_shifts(x: jax.Array, kernel: jax.Array) -> jax.Array:
        most = _DILATIONS[-1]
        padded = jnp.pad(x, ((most, most), (most, most), (0, 0)))
        y = jnp.zeros_like(x)
        for i in range(3):
            for j in range(3):
                start = (most + (i - 1) * dilation, most + (j - 1) * dilation, 0)
                y += jax.lax.dynamic_slice(padded, start, x.shape) @ kernel[i, j]
        return y

    def wide(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return jax.lax.platform_dependent(x, kernel, cpu=by_convolution, default=by_shifts)

    return jax.lax.cond(is_wide, wide, middle, x, kernel)


def noise2net(images: jax.Array, keys: jax.Array, *, max_eps: float = 0.75) -> jax.Array:
    """Noise2Net on normalised images; made for `jit`.

    Published training distorts the first half of each batch with it and keeps the other half.

    Args:
      images: f32[b, h, w, 3], normalised.
      keys: typed keys [b]; an image and its key determine the result.
      max_eps: as for `draw`.

    Returns:
      f32[b, h, w, 3].
    """
    check_images(images, keys, jnp.float32)
    return distort(images, draw(keys, max_eps=max_eps))


def noise2net_pixels(
    images: jax.Array,
    keys: jax.Array,
    *,
    max_eps: float = 0.75,
    mean: Channels = IMAGENET_MEAN,
    std: Channels = IMAGENET_STD,
) -> jax.Array:
    """Noise2Net from pixels to pixels, which are normalised in between.

    The networks add signals of about unit variance, so that `std` sets the strength: with 0.5 it
    is nearly twice the published one.

    Args:
      images: uint8[b, h, w, 3].
      keys: typed keys [b].
      max_eps: as for `draw`.
      mean, std: of the channels of x / 255; published: ImageNet's.

    Returns:
      uint8[b, h, w, 3], rounded, clipped to 0..255.
    """
    check_images(images, keys, jnp.uint8)
    offset, scale = jnp.asarray(mean, jnp.float32) * 255, jnp.asarray(std, jnp.float32) * 255
    normalised = (images.astype(jnp.float32) - offset) / scale
    distorted = noise2net(normalised, keys, max_eps=max_eps) * scale + offset
    return jnp.round(jnp.clip(distorted, 0, 255)).astype(jnp.uint8)
