"""Stage `teacher`: trains the small robust teacher (AugMix with its consistency loss)."""

from typing import Any

from robust_jax.stages.context import Context
from robust_jax.stages.pretrain import train_classifier


def run(context: Context) -> dict[str, Any]:
    """Trains the teacher; returns its clean accuracy and times."""
    section = context.config.teacher
    return train_classifier(
        context,
        "teacher",
        context.teacher_model,
        context.teacher_entry,
        loss=section.loss,
        jsd_weight=section.jsd_weight,
        # Without the consistency loss there is one view, and it has to be the augmented one.
        augmented_image=section.loss == "cross_entropy",
        start=section.weights,
    )
