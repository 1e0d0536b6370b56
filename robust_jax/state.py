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
    """

    step: jax.Array
    params: Any
    opt_state: optax.OptState
    model_state: Any

    @classmethod
    def create(
        cls, params: Any, optimizer: optax.GradientTransformation, model_state: Any = None
    ) -> "TrainState":
        """Returns the state before the first step."""
        return cls(
            step=jnp.zeros((), jnp.int32),
            params=params,
            opt_state=optimizer.init(params),
            model_state={} if model_state is None else model_state,
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
