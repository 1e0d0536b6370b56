"""Stage `baselines`: what `ours` is compared with, from the same images, features and steps."""

from typing import Any

from robust_jax.method.selection import HEADS
from robust_jax.stages import classifier, wise_ft
from robust_jax.stages.context import Context
from robust_jax.stages.distill import tune

# Tuned students: heads, and whether the teacher is used.
TUNED = {"apt": ("combined",), "ours_no_kd": HEADS}


def run(context: Context) -> dict[str, Any]:
    """Trains every baseline that needs training; returns their times."""
    config, times = context.config, {}
    for name in config.baselines.methods:
        path = f"baselines/{name}"
        if name == "teacher_clean":
            times[name] = classifier.train(context, path, "teacher", "teacher")
        elif name == "full_finetune":
            times[name] = classifier.train(
                context,
                path,
                "student",
                "finetune",
                start=context.variables("pretrain", context.training_mesh),
                loss=config.finetune.loss,
                jsd_weight=config.finetune.jsd_weight,
                augmented=config.augmented,
            )
        elif name == "lp_ft":  # a student with weights has got its linear probe in `pretrain`
            start = context.variables("pretrain", context.training_mesh)
            times[name] = classifier.train(context, path, "student", "finetune", start=start)
        elif name in TUNED:
            kd = {**config.method.kd.to_dict(), "weight": 0.0, "clean_weight": None}
            if name == "apt":  # it knows nothing of ours; the ablation only loses the teacher
                kd["clean_anchor"] = 0.0
            times[name] = tune(context, path, TUNED[name], kd)
    if "wise_ft" in config.baselines.methods:
        times["wise_ft"] = wise_ft.run(context)
    return times
