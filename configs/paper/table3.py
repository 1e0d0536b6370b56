"""Table 3: ours with and without the teacher, for pairs of student and teacher."""

from ml_collections import ConfigDict

from configs.paper import scales

PAIRS: tuple[tuple[str, str], ...] = (
    ("resnet101", "resnet34"),
    ("clip_rn101", "resnet101"),
    ("clip_vit_b16", "vit_small_legacy48m"),
    ("clip_vit_b32", "vit_small_legacy48m"),
)
PAPER = ((0.538, 0.553), (0.549, 0.567), (0.551, 0.574), (0.545, 0.571))
METHODS = {"ours w/o KD": "ours_no_kd", "ours": "ours"}


def get_config(arg: str = "") -> ConfigDict:
    """Returns the sweep; for `arg` see `scales`."""
    scale = scales.start(arg)
    c = scale.config
    c.baselines.methods = ("ours_no_kd",)
    metric, pairs, methods = scale.corrupted(), PAIRS, METHODS
    if not scale.imagenet:
        students, teachers = scales.SMALL_STUDENTS, scales.SMALL_TEACHERS
        pairs = tuple((s, t) for s in students for t in teachers)
        methods = {"original": "original", "teacher": "teacher", **METHODS}
        c.baselines.methods = ("teacher", "ours_no_kd")
    c.sweep.title = scales.name(scale, "Table 3", "what the teacher adds, accuracy on -C in %")
    c.sweep.runs = tuple(("-".join(pair), scale.pair(*pair)) for pair in pairs)
    c.sweep.columns = tuple((heading, "percent") for heading in methods)
    c.sweep.cells = tuple(
        (
            f"{pair[0]}, taught by {pair[1]}",
            heading,
            "-".join(pair),
            method,
            metric,
            PAPER[i][j] if scale.imagenet else None,
        )
        for i, pair in enumerate(pairs)
        for j, (heading, method) in enumerate(methods.items())
    )
    return c
