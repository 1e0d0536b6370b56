"""What each weight perturbation makes of a body of the published depth, for many keys."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from robust_jax.deepaugment import edsr_weights

C = 4  # channels of 16 blocks, the published depth: the published block numbers apply
KEYS = jax.random.split(jax.random.key(0), 24)
THIRDS, FOURTHS, ALL = {0, 3, 6, 9}, {1, 5, 9}, set(range(15))


@functools.cache
def body():
    draw = np.random.default_rng(0)
    shapes = {"kernel": (16, 2, 3, 3, C, C), "bias": (16, 2, C)}
    return {k: draw.normal(size=shape).astype(np.float32) for k, shape in shapes.items()}


@functools.cache
def all_results(name, faithful):
    change = edsr_weights.CHANGES[name]
    found = jax.jit(jax.vmap(lambda key: change(key, jax.tree.map(jnp.asarray, body()), faithful)))(
        KEYS
    )
    return np.asarray(found["kernel"]), np.asarray(found["bias"])


def as_file(kernel):
    """[..., h, w, i, o] -> [..., o, i, h, w]"""
    return np.moveaxis(kernel, (-1, -2), (-4, -3))


def results(name, faithful=True):
    """[(block, old, new, old bias, new bias)] by key, kernels f32[2, o, i, h, w]."""
    kernel, bias = body()["kernel"], body()["bias"]
    found = []
    for w, b in zip(*all_results(name, faithful), strict=True):
        moved = np.any(w != kernel, axis=(1, 2, 3, 4, 5)) | np.any(b != bias, axis=(1, 2))
        (i,) = np.flatnonzero(moved)
        found.append((int(i), as_file(kernel[i]), as_file(w[i]), bias[i], b[i]))
    return found


def blocks(rows):
    return {row[0] for row in rows}
