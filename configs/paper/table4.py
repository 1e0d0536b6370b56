"""Table 4: one student, taught by teachers of growing robustness."""

from ml_collections import ConfigDict

from configs.paper import scales

STUDENT = "clip_vit_b16"
# Parameters, accuracy of the teacher and of its student on ImageNet-C.
PAPER = {
    "resnet34": (11e6, 0.557, 0.543),
    "resnet50": (23e6, 0.576, 0.569),
    "resnet101": (45e6, 0.587, 0.572),
    "vit_small_legacy48m": (48e6, 0.609, 0.574),
    "resnet152": (60e6, 0.624, 0.597),
    "vit_b16": (88e6, 0.632, 0.625),
}
SMALL: tuple[str, ...] = ("resnet_small", "resnet20", "vit_tiny8")
COLUMNS = (("parameters", "count"), ("teacher %", "percent"), ("student %", "percent"))


def get_config(arg: str = "") -> ConfigDict:
    """Returns the sweep; for `arg` see `scales`."""
    scale = scales.start(arg)
    c = scale.config
    c.baselines.methods = ("teacher",)
    c.sweep.title = scales.name(scale, "Table 4", "teacher and student, accuracy on -C")
    metric, teachers = scale.corrupted(), SMALL
    runs = [scales.small_teacher(name) for name in SMALL]
    if scale.imagenet:
        teachers, runs = tuple(PAPER), [scale.pair(STUDENT, name) for name in PAPER]
    c.sweep.runs = tuple(zip(teachers, runs, strict=True))
    c.sweep.columns = COLUMNS
    shown = (("teacher", "total_params"), ("teacher", metric), ("ours", metric))
    c.sweep.cells = tuple(
        (name, heading, name, *cell, PAPER[name][i] if scale.imagenet else None)
        for name in teachers
        for i, ((heading, _), cell) in enumerate(zip(COLUMNS, shown, strict=True))
    )
    axes = ("accuracy of the teacher on -C, %", "accuracy of its student on -C, %")
    c.sweep.figures = (("teacher_student", "scatter", ("teacher %", "student %"), *axes),)
    return c
