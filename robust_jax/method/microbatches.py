"""A batch in parts, one after another, so that only one part's activations are in memory."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def check_parts(parts: int, name: str) -> None:
    """Raises ValueError for a number of parts below 1; `name` is what the message calls it."""
    if parts < 1:
        raise ValueError(f"{name} counts the parts of a batch; got {parts}; use 1 or more")


def split(tree: Any, parts: int) -> Any:
    """Cuts every leaf [b, ...] into parts: [parts, b / parts, ...], of which part i is i::parts.

    Rows of a batch that lies split over devices along axis 0 stay on their device, where b / parts
    is a multiple of the devices: each gives every part an equal share of its own.

    Raises:
      ValueError: where `parts` is not a divisor of b.
    """
    check_parts(parts, "parts")

    def cut(leaf: jax.Array) -> jax.Array:
        b, *rest = leaf.shape
        if b % parts:
            raise ValueError(
                f"a batch must split evenly; got {b} rows in {parts} parts; use a divisor of {b}"
            )
        return leaf.reshape(b // parts, parts, *rest).swapaxes(0, 1)

    return jax.tree.map(cut, tree)


def join(tree: Any) -> Any:
    """The inverse of `split`: leaves [parts, b / parts, ...] to [b, ...]."""
    return jax.tree.map(lambda leaf: leaf.swapaxes(0, 1).reshape(-1, *leaf.shape[2:]), tree)


def accumulate(
    part_fn: Callable[[Any, Any, jax.Array | None], tuple[Any, Any, Any]],
    params: Any,
    carry: Any,
    batch: Any,
    parts: int,
) -> tuple[Any, Any, Any]:
    """Means of the gradients and metrics over the parts of a batch, computed in sequence.

    Args:
      part_fn: (part, carry, i) -> (gradients, carry, metrics) of part i, int32[]; i is None, and
        the part the whole batch, where there is only one.
      params: a tree of the shapes of the gradients, whose sum is kept in f32.
      carry: what one part hands to the next, such as the statistics of batch norm.
      batch: leaves [b, ...].
      parts: how many; a divisor of b.

    Returns:
      Gradients, the last carry, and metrics.
    """
    if parts == 1:
        return part_fn(batch, carry, None)

    def add(state: tuple[Any, Any], one: tuple[Any, jax.Array]) -> tuple[tuple[Any, Any], Any]:
        total, carry = state
        part, i = one
        grads, carry, metrics = part_fn(part, carry, i)
        total = jax.tree.map(lambda a, g: a + g.astype(jnp.float32), total, grads)
        return (total, carry), metrics

    zeros = jax.tree.map(lambda p: jnp.zeros(p.shape, jnp.float32), params)
    counted = (split(batch, parts), jnp.arange(parts))
    (total, carry), metrics = jax.lax.scan(add, (zeros, carry), counted)
    grads = jax.tree.map(lambda g, p: (g / parts).astype(p.dtype), total, params)
    return grads, carry, jax.tree.map(lambda m: m.mean(0), metrics)
