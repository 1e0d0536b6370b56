"""The state that a training step updates: everything in it is donated, saved and restored."""

from collections.abc import Iterable, Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax


@flax.struct.dataclass
class TrainState:
    """What one optimizer step changes.

    Attributes:
      step: int32[], optimizer steps done; the randomness of a step is a function of it.
      params: tuned parameters only; frozen ones travel beside the state.
      opt_state: optax state of `params`.
      model_state: running statistics of batch norm, or an empty dict.
      faults: int32[3], of the steps that changed nothing because something was not finite: how
        many, the first of them (from 1), and what was its first such tensor, a place in `watched`.
      average: of `params` and `model_state` over steps, as variables of the model, or None.
    """

    step: jax.Array
    params: Any
    opt_state: optax.OptState
    model_state: Any
    faults: jax.Array
    average: Any = None

    @classmethod
    def create(
        cls,
        params: Any,
        optimizer: optax.GradientTransformation,
        model_state: Any = None,
        *,
        averaged: bool = False,
    ) -> "TrainState":
        """Returns the state before the first step."""
        state = {} if model_state is None else model_state
        # Copies: a step donates every buffer of the state, and none twice.
        copies = jax.tree.map(jnp.copy, {"params": params, **state}) if averaged else None
        return cls(
            step=jnp.zeros((), jnp.int32),
            params=params,
            opt_state=optimizer.init(params),
            model_state=state,
            faults=jnp.zeros(3, jnp.int32),
            average=copies,
        )

    def update(
        self,
        grads: Any,
        optimizer: optax.GradientTransformation,
        metrics: Mapping[str, jax.Array],
        model_state: Any = None,
    ) -> tuple["TrainState", dict[str, jax.Array]]:
        """Returns the state after one step, and its metrics.

        A step in which something is not finite changes nothing but `step` and `faults`.

        Args:
          grads: of `params`.
          optimizer: of `opt_state`.
          metrics: scalars, the loss among them.
          model_state: the new one, if it changes.

        Returns:
          The state, and the metrics with "gradient_norm", the norm of all gradients together.
        """
        changed = {} if model_state is None else model_state
        squares = [jnp.sum(jnp.square(g.astype(jnp.float32))) for g in jax.tree.leaves(grads)]
        sizes = [*jax.tree.leaves(dict(metrics)), *squares]
        sizes += [jnp.sum(leaf) for leaf in jax.tree.leaves(changed)]
        finite = jnp.stack([jnp.isfinite(size) for size in sizes])
        good, count = finite.all(), self.faults[0]
        fault = jnp.stack([count + 1, self.step + 1, jnp.argmin(finite).astype(jnp.int32)])
        again = fault.at[1:].set(self.faults[1:])
        updates, opt_state = optimizer.update(grads, self.opt_state, self.params)
        new = {
            "params": optax.apply_updates(self.params, updates),
            "opt_state": opt_state,
            "model_state": self.model_state if model_state is None else model_state,
            "faults": self.faults,
        }
        old = {name: getattr(self, name) for name in new}
        old["faults"] = jnp.where(count == 0, fault, again)
        kept = jax.tree.map(lambda new, old: jnp.where(good, new, old), new, old)
        state = self.replace(step=self.step + 1, **kept)  # type: ignore[attr-defined]
        return state, {**metrics, "gradient_norm": jnp.sqrt(sum(squares))}

    def watched(self, metrics: Iterable[str]) -> list[str]:
        """Returns the names of what `update` wants to be finite, in the order of its check.

        Args:
          metrics: names of those that a step has, with or without "gradient_norm".
        """
        names = sorted(set(metrics) - {"gradient_norm"})
        for what, tree in (("gradient", self.params), ("statistics", self.model_state)):
            paths = jax.tree_util.tree_leaves_with_path(tree)
            names += [
                f"{what} of {jax.tree_util.keystr(k, simple=True, separator='/')}" for k, _ in paths
            ]
        return names

    def averaged(self, average: Any) -> "TrainState":
        """Returns the state with another average."""
        return self.replace(average=average)  # type: ignore[attr-defined]
