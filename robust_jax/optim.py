"""Optimizers from optax: a schedule, clipping, and weight decay on weight matrices only."""

from typing import Any

import jax
import optax


def schedule(section: Any, total_steps: int) -> optax.Schedule:
    """Returns step -> learning rate: linear warm-up, then cosine, thirds or constant.

    `step` divides the rate by 10 after each third of all steps, as AugMix's ImageNet recipe.
    """
    peak = section.learning_rate
    warmup = min(round(section.warmup_percent / 100 * total_steps), total_steps - 1)
    first = 0.0 if warmup else peak
    if section.schedule == "cosine":
        return optax.warmup_cosine_decay_schedule(first, peak, warmup, total_steps)
    if section.schedule == "step":
        tenths = {max(1, total_steps * i // 3): 0.1 for i in (1, 2)}
        factor = optax.piecewise_constant_schedule(1.0, tenths)
        rate = optax.warmup_constant_schedule(first, peak, warmup)
        return lambda step: rate(step) * factor(step)
    return optax.warmup_constant_schedule(first, peak, warmup)


def decay_mask(params: Any) -> Any:
    """Marks what weight decay applies to: leaves called `kernel` (no bias, norm or embedding)."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)


def make(section: Any, total_steps: int) -> optax.GradientTransformation:
    """Builds the optimizer of a config section (`optimizer`, `learning_rate`, `weight_decay`, ...).

    The gradient norm is that of the tuned parameters: frozen ones are not in the tree.
    """
    rate = schedule(section, total_steps)
    decay = section.weight_decay
    chain = [optax.clip_by_global_norm(section.clip_norm)] if section.clip_norm else []
    if section.optimizer == "sgd":
        if decay:
            chain.append(optax.add_decayed_weights(decay, mask=decay_mask))
        chain.append(optax.sgd(rate, momentum=0.9, nesterov=True))
    elif section.optimizer == "adam":
        if decay:
            raise ValueError(
                f"optimizer 'adam' has no weight decay; got weight_decay={decay}; use 'adamw'"
            )
        chain.append(optax.adam(rate))
    else:
        chain.append(optax.adamw(rate, weight_decay=decay, mask=decay_mask))
    return optax.chain(*chain)
