"""Stage `baselines`: what `ours` is compared with, tuned from the same features and steps."""

from typing import Any

from robust_jax.method.selection import HEADS
from robust_jax.stages import classifier
from robust_jax.stages.context import Context
from robust_jax.stages.distill import tune

# Tuned students: heads, and whether the teacher is used.
TUNED = {"apt": ("combined",), "ours_no_kd": HEADS}


def run(context: Context) -> dict[str, Any]:
    """Tunes every baseline that needs tuning; returns their times."""
    times = {}
    for name in context.config.baselines.methods:
        path = f"baselines/{name}"
        if name == "teacher_clean":
            times[name] = classifier.train(context, path, "teacher", context.config.teacher)
        elif name in TUNED:
            kd = {**context.config.method.kd.to_dict(), "weight": 0.0}
            if name == "apt":  # it knows nothing of ours; the ablation only loses the teacher
                kd["clean_anchor"] = 0.0
            times[name] = tune(context, path, TUNED[name], kd)
    return times
