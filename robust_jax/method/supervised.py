"""Supervised training of a whole model: the clean student and the robust teacher."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from robust_jax.method import losses, microbatches
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
    accum_steps: int = 1,
    remat: bool = False,
) -> StepFn:
    """Returns the step that trains all parameters and batch statistics of a model.

    Args:
      loss: "cross_entropy", or "augmix_jsd": cross-entropy on the clean view plus `jsd_weight`
        times the Jensen-Shannon divergence of three views that share one forward pass (AugMix,
        ICLR 2020, equation 3).
      ema_decay: of the average of all variables, `state.average`; smaller in the first steps,
        (1 + t) / (10 + t), so that it forgets where it began. 0 keeps none.
      accum_steps: parts of the batch that are computed in sequence, each with the memory of its
        own images only. Gradients and metrics are the means over the parts. The losses are plain
        means over images, so these are those of the whole batch; but batch norm normalises by the
        statistics of a part, and updates its running ones part after part.
      remat: compute each stage again in the backward pass, see `StagedModel`.
    """
    views, options = VIEWS[loss], {"remat": True} if remat else {}
    microbatches.check_parts(accum_steps, "accum_steps")

    def part_fn(
        params: Any, batch: Mapping[str, jax.Array], model_state: Any
    ) -> tuple[Any, Any, dict[str, jax.Array]]:
        # Views of one example lie together, so that a device's slice of the batch stays its own.
        images = jnp.stack([batch[view] for view in views], 1)
        images = normalise(images.reshape(-1, *images.shape[2:]), entry)

        def loss_fn(params: Any) -> tuple[jax.Array, Any]:
            logits, changed = model.apply(
                {"params": params, **model_state},
                images,
                train=True,
                mutable=list(model_state),
                **options,
            )
            logits = logits.astype(jnp.float32).reshape(-1, len(views), logits.shape[-1])
            value = losses.cross_entropy(logits[:, 0], batch["label"]).mean()
            metrics = {"cross_entropy": value}
            if loss == "augmix_jsd":
                divergence = losses.jensen_shannon([logits[:, i] for i in range(3)]).mean()
                metrics["jensen_shannon"] = divergence
                value = value + jsd_weight * divergence
            correct = logits[:, 0].argmax(-1) == batch["label"]
            return value, (changed, {**metrics, "loss": value, "accuracy": correct.mean()})

        grads, (changed, metrics) = jax.grad(loss_fn, has_aux=True)(params)
        return grads, dict(changed), metrics

    def step_fn(
        state: TrainState, frozen: Any, batch: Mapping[str, jax.Array]
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        del frozen
        grads, model_state, metrics = microbatches.accumulate(
            lambda part, model_state, _: part_fn(state.params, part, model_state),
            state.params,
            state.model_state,
            batch,
            accum_steps,
        )
        new, metrics = state.update(grads, optimizer, metrics, model_state)
        if ema_decay:
            decay = jnp.minimum(ema_decay, (1 + new.step) / (10 + new.step))
            now = {"params": new.params, **new.model_state}
            new = new.averaged(optax.incremental_update(now, new.average, 1 - decay))
        return new, metrics

    return step_fn
