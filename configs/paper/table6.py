"""Table 6: how steady teachers answer on sequences, trained clean and with both recipes."""

from ml_collections import ConfigDict

from configs import recipes
from configs.paper import scales

PAPER = {
    "resnet34": (0.598, 0.416),
    "resnet50": (0.571, 0.375),
    "resnet101": (0.527, 0.346),
    "vit_small_legacy48m": (0.492, 0.334),
}
SMALL = ("resnet_small", "vit_tiny8")
METHODS = {"naive": "teacher_clean", "AugMix + DeepAugment": "teacher"}


def get_config(arg: str = "") -> ConfigDict:
    """Returns the sweep; for `arg` see `scales`."""
    scale = scales.start(arg)
    c = scale.config
    c.baselines.methods = ("teacher", "teacher_clean")
    what, metric = scale.flips()
    if scale.imagenet:
        # The teachers are the subject; a run has a student, and this is a cheap one.
        runs = {name: scale.pair("resnet101", name) for name in PAPER}
    else:
        c.sweep.note = "Not divided by AlexNet's: its flip probabilities are those of ImageNet."
        runs = {name: scales.small_teacher(name) for name in SMALL}
        recipes.small(c)
        c.distort.fit_steps = c.distort.fit_steps or 500
    c.sweep.title = scales.name(scale, "Table 6", f"teachers, {what}")
    c.sweep.runs = tuple(runs.items())
    c.sweep.columns = tuple((heading, "percent") for heading in METHODS)
    c.sweep.cells = tuple(
        (name, heading, name, method, metric, PAPER[name][i] if scale.imagenet else None)
        for name in runs
        for i, (heading, method) in enumerate(METHODS.items())
    )
    c.sweep.figures = (("flips", "bars", tuple(METHODS), "", what),)
    return c
