"""Parameters without zeros and ones, behind which errors hide."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest


@pytest.fixture
def variables_of():
    def make(model):
        abstract = jax.eval_shape(model.init, jax.random.key(0), model.example_input())
        rng = np.random.default_rng(1)

        def leaf(path, like):
            noise = rng.standard_normal(like.shape)
            *_, module, name = (entry.key for entry in path)
            if name == "kernel":
                summed = 1 if module in ("query", "key", "value") else len(like.shape) - 1
                noise *= np.sqrt(1.5 / np.prod(like.shape[:summed]))
            else:
                noise = np.exp(0.3 * noise) if name in ("scale", "var") else 0.3 * noise
            return jnp.asarray(noise, like.dtype)

        return jax.tree_util.tree_map_with_path(leaf, abstract)

    return make
