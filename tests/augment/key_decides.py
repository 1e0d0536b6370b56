"""What every augmentation owes: an image and its key decide on any batch and any devices."""

import jax
import jax.numpy as jnp
import numpy as np

from robust_jax.augment.batching import on_mesh
from robust_jax.sharding import make_mesh


def keys(count, seed=0):
    return jax.random.split(jax.random.key(seed), count)


def check(fn, images):
    """Runs fn(images[8, ...], keys[8]) on other devices and in other batches; gives its answer."""
    key, compiled = keys(8), jax.jit(fn)
    alone = np.asarray(compiled(images, key))
    mesh = make_mesh()
    assert mesh.size == 4
    np.testing.assert_array_equal(on_mesh(fn, mesh)(images, key), alone)
    # Other neighbours, in another order.
    order, images = np.array([6, 1, 4, 3, 2, 5, 0, 7]), images.copy()
    images[1::2], key = 255 - images[1::2], jnp.where(np.arange(8) % 2, keys(8, 1), key)
    shuffled = np.asarray(compiled(images[order], key[order]))
    np.testing.assert_array_equal(shuffled[::2], alone[order[::2]])
    assert (shuffled[1::2] != alone[order[1::2]]).any((1, 2, 3)).all()
    return alone
