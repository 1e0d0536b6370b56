"""Interpolation between two sets of weights of one network (WiSE-FT, Wortsman et al. 2022)."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def interpolate(a: Any, b: Any, alpha: float) -> Any:
    """Returns (1 - alpha) a + alpha b, of every floating-point array.

    Args:
      a: tree of arrays, batch statistics included; computed in f32 and kept in its own dtypes.
      b: tree of the same structure, shapes and dtypes.
      alpha: from 0, which returns `a` itself, to 1, which returns `b` itself.

    Raises:
      ValueError: when the trees differ in structure, shape, dtype or an integer array, naming the
        first path that does; or for another alpha.
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha must lie between the two weights; got {alpha}; use 0 to 1")
    first, second = (
        {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}
        for leaves in map(jax.tree.leaves_with_path, (a, b))
    )
    structure, other = str(jax.tree.structure(a)), str(jax.tree.structure(b))
    missing = [(path, "a", "b") for path in first if path not in second]
    missing += [(path, "b", "a") for path in second if path not in first]
    if missing or structure != other:
        path, has, lacks = min(missing, default=("", "a", "b"))
        where = f"{path!r} in {has} and not in {lacks}" if path else f"{structure} and {other}"
        raise ValueError(
            f"the trees have another structure; got {where}; interpolate weights of one network"
        )
    for path, x in first.items():
        _check(path, x, second[path])
    if alpha in (0, 1):  # exact, whatever the signs of zeros are
        return a if alpha == 0 else b
    return jax.tree.map(lambda x, y: _between(x, y, alpha), a, b)


def _check(path: str, x: Any, y: Any) -> None:
    if (x.dtype, x.shape) != (y.dtype, y.shape):
        raise ValueError(
            f"arrays of another kind; got {path!r} as {x.dtype}{list(x.shape)} and "
            f"{y.dtype}{list(y.shape)}; interpolate weights of one network"
        )
    if not _floats(x) and not np.array_equal(x, y):
        raise ValueError(
            f"an array of whole numbers differs; got {path!r}, between whose values there is "
            "nothing; interpolate weights of one training recipe"
        )


def _floats(x: Any) -> bool:
    return bool(jnp.issubdtype(x.dtype, jnp.floating))


def _between(x: Any, y: Any, alpha: float) -> Any:
    if not _floats(x):
        return x
    wide = jnp.promote_types(x.dtype, jnp.float32)
    return ((1 - alpha) * x.astype(wide) + alpha * y.astype(wide)).astype(x.dtype)
