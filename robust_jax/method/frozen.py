"""How frozen parameters are stored: nothing is ever added to them, so half the bytes do."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from robust_jax.models.stages import check_choice

FROZEN_DTYPES = ("float32", "bfloat16")


def cast_frozen(variables: Mapping[str, Any], dtype: str) -> Any:
    """Returns the variables of a frozen network as they are to be stored.

    Args:
      variables: f32 arrays, or their shapes (`jax.ShapeDtypeStruct`, whose shardings are kept).
      dtype: "float32" returns the tree itself. "bfloat16" casts what makes up the bytes: matrices,
        convolution kernels and embeddings of the stages before the head. Biases, norms, running
        statistics and the classifier stay f32.
    """
    check_choice("frozen_dtype", dtype, FROZEN_DTYPES)
    if dtype == "float32":
        return variables

    def cast(path: tuple[Any, ...], leaf: Any) -> Any:
        collection, stage, *_, name = (entry.key for entry in path)
        # The biases of an attention's query, key and value have an axis for the heads.
        vector = len(leaf.shape) < 2 or name == "bias"
        if collection != "params" or stage == "head" or vector:
            return leaf
        if isinstance(leaf, jax.ShapeDtypeStruct):
            return leaf.update(dtype=jnp.bfloat16)
        return leaf.astype(jnp.bfloat16)

    return jax.tree_util.tree_map_with_path(cast, variables)
