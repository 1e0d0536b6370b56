"""How a function of one image becomes a function of a batch."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec


def each_image(fn: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """Maps `fn` over the first axis of its arguments.

    A `lax.switch` in `fn` costs its dearest branch on a CPU and all of its branches elsewhere.
    """

    def one_by_one(*args: Any) -> jax.Array:
        return jax.lax.map(lambda image_args: fn(*image_args), args)

    def batched(*args: Any) -> jax.Array:
        return jax.lax.platform_dependent(*args, cpu=one_by_one, default=jax.vmap(fn))

    return batched


def on_mesh(
    fn: Callable[..., jax.Array], mesh: Mesh, shared: Any = None
) -> Callable[..., jax.Array]:
    """Compiles a batched function so that every device works on its own part of the batch.

    Under plain `jit` the devices of a CPU would each go through the whole batch, as the loop over
    images is not split.

    Args:
      fn: f(images[b, ...], keys[b]) -> [b, ...]; f(shared, images, keys) where `shared` is given.
      mesh: with the axis "data", whose size divides b.
      shared: arrays of which every device gets all.
    """
    part = PartitionSpec("data")
    each: Any = part if shared is None else (PartitionSpec(), part, part)
    mapped = jax.jit(jax.shard_map(fn, mesh=mesh, in_specs=each, out_specs=part, check_vma=False))
    if shared is None:
        return mapped
    whole = jax.device_put(shared, NamedSharding(mesh, PartitionSpec()))
    return functools.partial(mapped, whole)


def check_images(images: jax.Array, keys: jax.Array, dtype: Any) -> None:
    """Raises a ValueError for anything but RGB images of `dtype` with a key each.

    Args:
      images: should be [b, h, w, 3].
      keys: should be typed keys [b].
      dtype: of the images.
    """
    check_rgb(images, dtype)
    if not jax.dtypes.issubdtype(keys.dtype, jax.dtypes.prng_key) or keys.shape != images.shape[:1]:
        raise ValueError(
            f"keys must be one typed key an image; got {keys.dtype}{list(keys.shape)} for "
            f"{len(images)} images; pass for instance jax.random.split(jax.random.key(0), b)"
        )


def check_rgb(images: jax.Array | np.ndarray, dtype: Any) -> None:
    """Raises a ValueError for anything but RGB images [b, h, w, 3] of `dtype`."""
    if images.dtype != dtype or images.ndim != 4 or images.shape[-1] != 3:
        raise ValueError(
            f"images must be {jnp.dtype(dtype).name}[b, h, w, 3]; got "
            f"{images.dtype}{list(images.shape)}; convert them and add the batch axis"
        )


def keys_of(seeds: jax.Array) -> jax.Array:
    """Returns the typed keys [...] that are the numbers int32[..., 2]."""
    # Named, so that the configured default generator does not change the images.
    return jax.random.wrap_key_data(seeds.astype(jnp.uint32), impl="threefry2x32")
