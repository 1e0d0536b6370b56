"""Stage `teacher`: trains the small robust teacher (AugMix, DeepAugment, the consistency loss)."""

from typing import Any

from robust_jax.stages import classifier
from robust_jax.stages.context import Context


def run(context: Context) -> dict[str, Any]:
    """Trains the teacher; returns its clean accuracy and times."""
    section = context.config.teacher
    return classifier.train(
        context,
        "teacher",
        "teacher",
        "teacher",
        loss=section.loss,
        jsd_weight=section.jsd_weight,
        augmented=section,
        ema_decay=section.ema_decay,
    )
