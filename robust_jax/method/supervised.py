"""Supervised training of a whole model: the clean student and the robust teacher."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from robust_jax.method import losses
from robust_jax.models import ModelEntry, normalise
from robust_jax.state import TrainState
from robust_jax.train import StepFn

# Which views of an image a loss reads; the pipeline makes these and no others.
VIEWS = {"cross_entropy": ("image",), "augmix_jsd": ("image", "aug1", "aug2")}


def make_step(
    model: Any,
    entry: ModelEntry,
    optimizer: optax.GradientTransformation,
    *,
    loss: str = "cross_entropy",
    jsd_weight: float = 12.0,
    ema_decay: float = 0.0,
) -> StepFn:
    """Returns the step that trains all parameters and batch statistics of a model.

    Args:
      loss: "cross_entropy", or "augmix_jsd": cross-entropy on the clean view plus `jsd_weight`
        times the Jensen-Shannon divergence of three views that share one forward pass (AugMix,
        ICLR 2020, equation 3).
      ema_decay: of the average of all variables, `state.average`; smaller in the first steps,
        (1 + t) / (10 + t), so that it forgets where it began. 0 keeps none.
    """
    views = VIEWS[loss]

    def step_fn(
        state: TrainState, frozen: Any, batch: Mapping[str, jax.Array]
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        del frozen
        # Views of one example lie together, so that a device's slice of the batch stays its own.
        images = jnp.stack([batch[view] for view in views], 1)
        images = normalise(images.reshape(-1, *images.shape[2:]), entry)

        def loss_fn(params: Any) -> tuple[jax.Array, Any]:
            logits, model_state = model.apply(
                {"params": params, **state.model_state},
                images,
                train=True,
                mutable=list(state.model_state),
            )
            logits = logits.astype(jnp.float32).reshape(-1, len(views), logits.shape[-1])
            value = losses.cross_entropy(logits[:, 0], batch["label"]).mean()
            metrics = {"cross_entropy": value}
            if loss == "augmix_jsd":
                divergence = losses.jensen_shannon([logits[:, i] for i in range(3)]).mean()
                metrics["jensen_shannon"] = divergence
                value = value + jsd_weight * divergence
            correct = logits[:, 0].argmax(-1) == batch["label"]
            return value, (model_state, {**metrics, "loss": value, "accuracy": correct.mean()})

        grads, (model_state, metrics) = jax.grad(loss_fn, has_aux=True)(state.params)
        metrics["gradient_norm"] = optax.tree.norm(grads)
        new = state.update(grads, optimizer, dict(model_state))
        if ema_decay:
            decay = jnp.minimum(ema_decay, (1 + new.step) / (10 + new.step))
            now = {"params": new.params, **new.model_state}
            new = new.averaged(optax.incremental_update(now, new.average, 1 - decay))
        return new, metrics

    return step_fn
