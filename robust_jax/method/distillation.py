"""The three-head step: what a batch's features are, and how the tail learns from them."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from robust_jax.method import losses, microbatches
from robust_jax.method.student import Student
from robust_jax.models import ModelEntry, normalise
from robust_jax.state import TrainState
from robust_jax.train import StepFn


def features(
    student: Student,
    frozen: Mapping[str, Any],
    batch: Mapping[str, jax.Array],
    teacher: tuple[Any, ModelEntry] | None,
) -> dict[str, jax.Array]:
    """Computes everything about a batch that tuning does not change.

    Args:
      frozen: {"student": variables, "teacher": variables}.
      batch: "clean" and "aug" uint8[b, h, w, 3] views of the same images.
      teacher: (model, entry); None: no teacher logits.

    Returns:
      "z_clean", "z_aug" (boundary activations) and, with a teacher, "teacher_clean",
      "teacher_aug" f32[b, k].
    """
    z = student.trunk(frozen["student"], _images(batch))
    out = {"z_clean": z[0::2], "z_aug": z[1::2]}
    if teacher is not None:
        out |= answers(teacher, frozen["teacher"], batch)
    return jax.lax.stop_gradient(out)


def answers(
    teacher: tuple[Any, ModelEntry], variables: Any, batch: Mapping[str, jax.Array]
) -> dict[str, jax.Array]:
    """Returns what `features` has of the teacher alone: "teacher_clean" and "teacher_aug"."""
    model, entry = teacher
    logits = model.apply(variables, normalise(_images(batch), entry)).astype(jnp.float32)
    return {"teacher_clean": logits[0::2], "teacher_aug": logits[1::2]}


def _images(batch: Mapping[str, jax.Array]) -> jax.Array:
    """Both views in turn, uint8[2b, h, w, 3]."""
    images = jnp.stack([batch["clean"], batch["aug"]], 1)
    return images.reshape(-1, *images.shape[2:])


def make_step(
    student: Student,
    optimizer: optax.GradientTransformation,
    kd: Any,
    *,
    seed: int,
    teacher: tuple[Any, ModelEntry] | None,
    accum_steps: int = 1,
    remat: bool = False,
) -> StepFn:
    """Returns the step that tunes the tail, on images or on their cached features alike.

    Args:
      kd: config section `method.kd`.
      seed: of the dropout masks, together with the step number.
      teacher: (model, entry) for batches of images; None when nothing is distilled.
      accum_steps: parts of the batch that are computed in sequence, each with the memory of its
        own examples only, in the trunk and in the teacher too. Gradients and metrics are the means
        over the parts. Every loss is a plain mean over examples, the weight of an unsure teacher
        included, so these are those of the whole batch, but for other dropout masks: each part
        draws its own.
      remat: compute each stage of the tail again in the backward pass, see `StagedModel`.
    """
    microbatches.check_parts(accum_steps, "accum_steps")

    def part_fn(
        tuned: Any, frozen: Any, batch: Mapping[str, jax.Array], key: jax.Array
    ) -> tuple[Any, dict[str, jax.Array]]:
        known = batch if "z_clean" in batch else features(student, frozen, batch, teacher)
        anchor = (
            student.original(frozen["student"], known["z_clean"]) if kd["clean_anchor"] else None
        )

        def loss_fn(tuned: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
            z = jnp.stack([known["z_clean"], known["z_aug"]], 1)
            z = z.reshape(-1, *z.shape[2:])
            logits = student.tail(frozen["student"], tuned, z, key, remat=remat)
            return losses.three_head_loss(
                {head: value[0::2] for head, value in logits.items()},
                {head: value[1::2] for head, value in logits.items()},
                batch["label"],
                known.get("teacher_clean"),
                known.get("teacher_aug"),
                kd,
                anchor,
            )

        return jax.grad(loss_fn, has_aux=True)(tuned)

    def step_fn(
        state: TrainState, frozen: Any, batch: Mapping[str, jax.Array]
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        key = jax.random.fold_in(jax.random.key(seed), state.step)

        def one(part: Any, carry: Any, i: jax.Array | None) -> tuple[Any, Any, Any]:
            masks = key if i is None else jax.random.fold_in(key, i)
            grads, metrics = part_fn(state.params, frozen, part, masks)
            return grads, carry, metrics

        grads, _, metrics = microbatches.accumulate(one, state.params, None, batch, accum_steps)
        return state.update(grads, optimizer, metrics)

    return step_fn
