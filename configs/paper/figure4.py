"""Figure 4 of the supplement: how steady students answer on sequences, and who taught them."""

from ml_collections import ConfigDict

from configs.paper import scales
from configs.paper.scales import Cell

STUDENTS: tuple[str, ...] = ("clip_rn50", "clip_rn101", "clip_vit_b16")
TEACHERS: tuple[str, ...] = ("resnet101", "vit_small_legacy48m")


def get_config(arg: str = "") -> ConfigDict:
    """Returns the sweep; for `arg` see `scales`."""
    scale = scales.start(arg)
    c = scale.config
    c.baselines.methods = ("apt",)
    c.sweep.note = "No teacher is APT. Lower is steadier."
    what, metric = scale.flips()
    students, teachers = STUDENTS, TEACHERS
    if not scale.imagenet:
        students, teachers = scales.SMALL_STUDENTS, scales.SMALL_TEACHERS
        c.sweep.note += " Not divided by AlexNet's, whose flip probabilities are those of ImageNet."
    runs = {(s, t): scale.pair(s, t) for s in students for t in teachers}
    c.sweep.title = scales.name(scale, "Figure 4", f"students and their teachers, {what}")
    c.sweep.runs = tuple(("-".join(pair), changes) for pair, changes in runs.items())
    headings = ("no teacher", *teachers)
    c.sweep.columns = tuple((heading, "percent") for heading in headings)
    cells = list[Cell]()
    for student in students:
        cells.append((student, headings[0], f"{student}-{teachers[0]}", "apt", metric, None))
        cells += [(student, t, f"{student}-{t}", "ours", metric, None) for t in teachers]
    c.sweep.cells = tuple(cells)
    c.sweep.figures = (("flips", "bars", headings, "", what),)
    return c
