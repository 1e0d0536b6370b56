"""The geometric operations of AugMix in JAX: one bilinear warp, as Pillow's, with its coordinates.

The coordinates of a row and of a column are float64, rounded to fixed point; a pixel's are their
sum. So they are the same on every device, finer than float32, and Pillow's where it matters: at
the border of the image and where pixels are moved by whole numbers.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from robust_jax.augment.pixels import packed, unpacked

WARPS = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")


class Positions(NamedTuple):
    """Where in the input an output pixel lies: x, y = of_column + of_row, in fixed point."""

    of_column: jax.Array  # int32[2, w]
    of_row: jax.Array  # int32[2, h]


def scaled(level: jax.Array, most: float) -> jax.Array:
    """int(level * most / 10) of the published code: f32[] -> int32[]."""
    with jax.enable_x64(True):
        return (level.astype(jnp.float64) * most / 10).astype(jnp.int32)


def _fraction_bits(height: int, width: int) -> int:
    """Positions stay below 2 (height + width) in absolute value, hence inside int32."""
    return 30 - (height + width).bit_length()


def positions(
    which: jax.Array, level: jax.Array, sign: jax.Array, height: int, width: int
) -> Positions:
    """The positions of a warp, which takes output to input pixel centres.

    rotate: by ±int(3 L) degrees, counter-clockwise about the centre; shear: by ±0.03 L; translate:
    by ±int(L side / 30) pixels, the side in place of the published constant.

    Args:
      which: int32[], index into WARPS.
      level: f32[], L in (0, 10].
      sign: int32[], -1 or 1.
      height, width: of the image.
    """
    degrees, right, down = (sign * scaled(level, most) for most in (30.0, width / 3, height / 3))
    with jax.enable_x64(True):
        angle = degrees.astype(jnp.float64) * (math.pi / 180)
        cos, sin = jnp.cos(angle), jnp.sin(angle)
        shear = sign * (level.astype(jnp.float64) * 0.3 / 10)
        x, y = width / 2, height / 2
        matrices = [
            [[cos, -sin, x - cos * x + sin * y], [sin, cos, y - sin * x - cos * y]],
            [[1, shear, 0], [0, 1, 0]],
            [[1, 0, 0], [shear, 1, 0]],
            [[1, 0, right], [0, 1, 0]],
            [[1, 0, 0], [0, 1, down]],
        ]
        of_x, of_y, constant = jnp.array(matrices, jnp.float64)[which].T[..., None]
        of_column = of_x * (jnp.arange(width) + 0.5)
        of_row = of_y * (jnp.arange(height) + 0.5) + constant
        unit = 2.0 ** _fraction_bits(height, width)
        return Positions(*(jnp.round(of * unit).astype(jnp.int32) for of in (of_column, of_row)))


def warp(pixels: jax.Array, where: Positions) -> jax.Array:
    """Samples an image bilinearly, truncated; black where a position is outside.

    Args:
      pixels: int32[h, w], from `pixels.pack`.
      where: from `positions`.

    Returns:
      int32[h, w].
    """
    height, width = pixels.shape
    bits = _fraction_bits(height, width)
    x, y = where.of_column[:, None, :] + where.of_row[:, :, None]
    inside = (x >= 0) & (x < width << bits) & (y >= 0) & (y < height << bits)

    def split(position: jax.Array, size: int) -> tuple[jax.Array, jax.Array, jax.Array]:
        """The pixel before a position, the pixel after it, the way between them."""
        position = position - (1 << bits - 1)
        before, way = position >> bits, position & (1 << bits) - 1
        first, second = (jnp.clip(i, 0, size - 1) for i in (before, before + 1))
        return first, second, way.astype(jnp.float32) * 2.0**-bits

    left, right, way_x = split(x, width)
    top, bottom, way_y = split(y, height)
    flat = pixels.reshape(-1)
    corners = (
        unpacked(flat.at[row * width + column].get(mode="promise_in_bounds"))
        for row in (top, bottom)
        for column in (left, right)
    )
    values = []
    for channel in zip(*corners, strict=True):
        p, q, r, s = (corner.astype(jnp.float32) for corner in channel)
        upper, lower = p + (q - p) * way_x, r + (s - r) * way_x
        values.append((upper + (lower - upper) * way_y).astype(jnp.int32))
    return jnp.where(inside, packed(*values), 0)
