"""The image operations of AugMix in JAX: lookup tables, warps and, as an option, enhancements.

Parameters as a function of the level L: Hendrycks et al. 2020, "AugMix", code `augmentations.py`;
pixels as in Pillow. Four operations are a lookup table of each channel, five one bilinear warp: a
batch in which every image has another operation costs one table and one warp, not nine operations.
"""

import jax
import jax.numpy as jnp
import numpy as np

from robust_jax.augment.pixels import packed, unpacked
from robust_jax.augment.warps import WARPS, Positions, positions, scaled, warp

# In the order of the tf.data operations, whose draws these can replay.
OPS = (
    "autocontrast",
    "equalize",
    "posterize",
    "rotate",
    "solarize",
    "shear_x",
    "shear_y",
    "translate_x",
    "translate_y",
)
# These resemble ImageNet-C corruptions: a model trained with them is not comparable on ImageNet-C.
OVERLAPPING_OPS = ("color", "contrast", "brightness", "sharpness")

_LOOKUPS = ("autocontrast", "equalize", "posterize", "solarize")
_GROUPS = (_LOOKUPS, WARPS, OVERLAPPING_OPS)
_GROUP = np.array([[op in group for group in _GROUPS].index(True) for op in OPS + OVERLAPPING_OPS])
_MEMBER = np.array(
    [_GROUPS[group].index(op) for op, group in zip(OPS + OVERLAPPING_OPS, _GROUP, strict=True)]
)

# f64[256, 256]: for a range (maximum - minimum) of a channel, every value by PIL's scale. A table,
# as XLA would round differently where it divides by multiplying and contracts multiply and
# subtract, and autocontrast would be one level off in places.
_PRODUCTS = (255.0 / np.arange(256).clip(1))[:, None] * np.arange(256)


def warp_positions(
    op: jax.Array, level: jax.Array, sign: jax.Array, height: int, width: int
) -> Positions:
    """Where the operation samples, if it is a warp.

    Args:
      op: int32[], as for `apply`.
      level: f32[], as for `apply`.
      sign: int32[], -1 or 1, the direction of a warp.
      height, width: of the image.
    """
    return positions(jnp.asarray(_MEMBER)[op], level, sign, height, width)


def apply(
    pixels: jax.Array, op: jax.Array, level: jax.Array, where: Positions, all_ops: bool
) -> jax.Array:
    """Applies one operation to one image.

    Args:
      pixels: int32[h, w], from `pixels.pack`.
      op: int32[], index into OPS, or into OPS + OVERLAPPING_OPS with `all_ops`.
      level: f32[], the strength in (0, 10].
      where: from `warp_positions`.
      all_ops: whether the overlapping operations are among the choice.

    Returns:
      int32[h, w].
    """
    which = jnp.asarray(_MEMBER)[op]
    groups = [
        lambda x: _look_up(x, which, level),
        lambda x: warp(x, where),
        lambda x: _enhance(x, which, level),
    ]
    return jax.lax.switch(jnp.asarray(_GROUP)[op], groups[: 3 if all_ops else 2], pixels)


def _look_up(pixels: jax.Array, which: jax.Array, level: jax.Array) -> jax.Array:
    tables = [_autocontrast, _equalize, _posterize, _solarize]
    table = jax.lax.switch(which, tables, pixels, level).reshape(768)
    places = (values + 256 * c for c, values in enumerate(unpacked(pixels)))
    return packed(*(table.at[place].get(mode="promise_in_bounds") for place in places))


def _autocontrast(pixels: jax.Array, level: jax.Array) -> jax.Array:
    """Stretches each channel to the full range: int32[3, 256]."""
    low, high = (jnp.stack([m(c) for c in unpacked(pixels)]) for m in (jnp.min, jnp.max))
    with jax.enable_x64(True):
        products = jnp.asarray(_PRODUCTS)[high - low]
        stretched = products - jnp.take_along_axis(products, low[:, None], axis=1)
        stretched = jnp.clip(stretched, 0, 255).astype(jnp.int32)
    return jnp.where((high > low)[:, None], stretched, jnp.arange(256))


def _equalize(pixels: jax.Array, level: jax.Array) -> jax.Array:
    """Equalizes each channel's histogram with PIL's integer steps: int32[3, 256]."""
    places = jnp.stack([values + 256 * c for c, values in enumerate(unpacked(pixels))])
    counts = jnp.zeros(768, jnp.int32).at[places].add(1, mode="promise_in_bounds")
    histogram, value = counts.reshape(3, 256), jnp.arange(256)
    # PIL leaves out the count of the brightest value present.
    brightest = jnp.max(jnp.where(histogram > 0, value, 0), 1, keepdims=True)
    step = jnp.sum(jnp.where(value < brightest, histogram, 0), 1, keepdims=True) // 255
    below = jnp.cumsum(histogram, 1) - histogram
    table = jnp.minimum((step // 2 + below) // jnp.maximum(step, 1), 255)
    return jnp.where(step > 0, table, value)


def _posterize(pixels: jax.Array, level: jax.Array) -> jax.Array:
    """Keeps the 4 - int(0.4 L) highest bits: int32[3, 256]."""
    dropped = 4 + scaled(level, 4)
    return jnp.broadcast_to((jnp.arange(256) >> dropped) << dropped, (3, 256))


def _solarize(pixels: jax.Array, level: jax.Array) -> jax.Array:
    """Inverts values from 256 - int(25.6 L) upwards: int32[3, 256]."""
    value = jnp.arange(256)
    inverted = jnp.where(value < 256 - scaled(level, 256), value, 255 - value)
    return jnp.broadcast_to(inverted, (3, 256))


def _enhance(pixels: jax.Array, which: jax.Array, level: jax.Array) -> jax.Array:
    """From a degenerate image (factor 0) through the image (1) and beyond, factor 0.18 L + 0.1."""
    x = jnp.stack(unpacked(pixels))
    degenerate = jax.lax.switch(which, [_luminance, _mean_grey, jnp.zeros_like, _smooth], x)
    with jax.enable_x64(True):
        factor = (level.astype(jnp.float64) * 1.8 / 10 + 0.1).astype(jnp.float32)
    degenerate, values = degenerate.astype(jnp.float32), x.astype(jnp.float32)
    return packed(*jnp.clip(degenerate + factor * (values - degenerate), 0, 255).astype(jnp.int32))


def _luminance(x: jax.Array) -> jax.Array:
    """ITU-R 601 luma in PIL's 16-bit fixed point: int32[3, h, w], for color."""
    luma = (19595 * x[0] + 38470 * x[1] + 7471 * x[2] + 32768) >> 16
    return jnp.broadcast_to(luma, x.shape)


def _mean_grey(x: jax.Array) -> jax.Array:
    """The mean luma everywhere: int32[3, h, w], for contrast."""
    luma = _luminance(x)
    with jax.enable_x64(True):  # the sum of a large image does not fit int32
        mean = (jnp.mean(luma.astype(jnp.float64)) + 0.5).astype(jnp.int32)
    return jnp.broadcast_to(mean, x.shape)


def _smooth(x: jax.Array) -> jax.Array:
    """PIL's `ImageFilter.SMOOTH`, with the image's own border: int32[3, h, w], for sharpness."""
    _, height, width = x.shape
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1)))
    total = 4 * x
    for i in range(3):
        for j in range(3):
            total += padded[:, i : i + height, j : j + width]
    row, column = jnp.arange(height)[:, None], jnp.arange(width)
    border = (row == 0) | (row == height - 1) | (column == 0) | (column == width - 1)
    return jnp.where(border, x, (2 * total + 13) // 26)
