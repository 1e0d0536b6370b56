"""The state that a training step updates: everything in it is donated, saved and restored."""

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
      average: of `params` and `model_state` over steps, as variables of the model, or None.
    """

    step: jax.Array
    params: Any
    opt_state: optax.OptState
    model_state: Any
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
            average=copies,
        )

    def update(
        self, grads: Any, optimizer: optax.GradientTransformation, model_state: Any = None
    ) -> "TrainState":
        """Returns the state after one step with the gradients `grads` of `params`."""
        updates, opt_state = optimizer.update(grads, self.opt_state, self.params)
        return self.replace(  # type: ignore[attr-defined]
            step=self.step + 1,
            params=optax.apply_updates(self.params, updates),
            opt_state=opt_state,
            model_state=self.model_state if model_state is None else model_state,
        )

    def averaged(self, average: Any) -> "TrainState":
        """Returns the state with another average."""
        return self.replace(average=average)  # type: ignore[attr-defined]
