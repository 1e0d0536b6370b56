"""Stage `pretrain`: the clean student, from pre-trained weights or trained here."""

from typing import Any

from robust_jax import config as config_lib
from robust_jax.stages import classifier, probe
from robust_jax.stages.context import Context
from robust_jax.zero_shot.head import ZeroShotHead


def run(context: Context) -> dict[str, Any]:
    """Makes the student; returns its clean accuracy and times."""
    student = context.config.student
    if not student.weights or student.classifier == "finetune":
        seed = config_lib.student_seed(context.config)
        return classifier.train(context, "pretrain", "student", "pretrain", seed=seed)
    kind = "load" if student.classifier == "load" else "new"
    variables, facts = classifier.load_weights(context, "student", kind)
    if student.classifier == "zero_shot":
        variables["params"]["head"] = {"kernel": zero_shot_kernel(context)}
    elif student.classifier == "probe":
        facts |= probe.run(context, variables, facts["weights_hash"])
    return {**facts, **classifier.finish(context, "pretrain", "student", variables)}


def zero_shot_kernel(context: Context) -> Any:
    """Returns the classifier of `student.zero_shot_head`, f32[d, k].

    Raises:
      ValueError: when it is of another number of classes or of another width.
    """
    path = context.config.student.zero_shot_head
    head = ZeroShotHead.load(path)
    wanted = (context.student_model.feature_width, len(context.class_names))
    if head.kernel.shape != wanted:
        raise ValueError(
            f"the zero-shot head does not fit; got {list(head.kernel.shape)} in {path} for "
            f"{wanted[0]} features and {wanted[1]} classes; build it with this model's text tower "
            "and one name for each class, in the order of the data's classes"
        )
    return head.kernel
