"""Images with the channels of a pixel in one integer, so that gathers are done once a pixel."""

import jax
import jax.numpy as jnp


def pack(image: jax.Array) -> jax.Array:
    """uint8[h, w, 3] -> int32[h, w], as `packed`."""
    return packed(*jnp.moveaxis(image.astype(jnp.int32), -1, 0))


def unpack(pixels: jax.Array) -> jax.Array:
    """int32[h, w] -> uint8[h, w, 3]."""
    return jnp.stack(unpacked(pixels), -1).astype(jnp.uint8)


def packed(red: jax.Array, green: jax.Array, blue: jax.Array) -> jax.Array:
    """Channels, int32[...] in 0..255, to one integer a pixel."""
    return red | green << 8 | blue << 16


def unpacked(pixels: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The inverse of `packed`."""
    return pixels & 255, pixels >> 8 & 255, pixels >> 16
