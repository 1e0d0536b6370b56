"""Table 3: ours with and without the teacher, for pairs of student and teacher."""

from ml_collections import ConfigDict

from configs.paper import scales

PAIRS: tuple[tuple[str, str], ...] = (
    ("resnet101", "resnet34"),
    ("clip_rn101", "resnet101"),
    ("clip_vit_b16", "vit_small_legacy48m"),
    ("clip_vit_b32", "vit_small_legacy48m"),
)
PAPER = ((53.8, 55.3), (54.9, 56.7), (55.1, 57.4), (54.5, 57.1))
METHODS = {"ours w/o KD": "ours_no_kd", "ours": "ours"}


def get_config(arg: str = "") -> ConfigDict:
    """Returns the sweep; for `arg` see `scales`."""
    scale = scales.start(arg)
    c = scale.config
    c.baselines.methods = ("ours_no_kd",)
    if scale.imagenet:
        pairs, metric, methods = PAIRS, scales.IMAGENET_C, METHODS
        c.evaluate.sets = scales.read("imagenet_c")
        runs = {pair: (*scales.student(pair[0]), *scales.teacher(pair[1])) for pair in pairs}
    else:
        students, teachers = scales.SMALL_STUDENTS, scales.SMALL_TEACHERS
        pairs, metric = tuple((s, t) for s in students for t in teachers), "corrupted_accuracy"
        methods = {"original": "original", "teacher": "teacher", **METHODS}
        c.baselines.methods = ("teacher", "ours_no_kd")
        runs = {(s, t): (("student.name", s), ("teacher.name", t)) for s, t in pairs}
    c.sweep.title = scales.name(scale, "Table 3", "what the teacher adds, accuracy on -C in %")
    c.sweep.runs = tuple(("-".join(pair), changes) for pair, changes in runs.items())
    c.sweep.columns = tuple((heading, "percent") for heading in methods)
    c.sweep.cells = tuple(
        (
            f"{pair[0]}, taught by {pair[1]}",
            heading,
            "-".join(pair),
            method,
            metric,
            round(PAPER[i][j] / 100, 9) if scale.imagenet else None,
        )
        for i, pair in enumerate(pairs)
        for j, (heading, method) in enumerate(methods.items())
    )
    return c
