"""Figure 1 of the supplement: accuracy on -C against the part of the augmented data, a."""

from ml_collections import ConfigDict

from configs.paper import scales

FRACTIONS = (0.1, 0.25, 0.5, 1.0)
METHODS = {"APT": "apt", "ours": "ours"}


def get_config(arg: str = "") -> ConfigDict:
    """Returns the sweep; for `arg` see `scales`."""
    scale = scales.start(arg)
    c = scale.config
    c.baselines.methods = ("apt",)
    metric, pair = scale.corrupted(), scale.pair("resnet101", "resnet34") if scale.imagenet else ()
    c.sweep.title = scales.name(scale, "Figure 1", "accuracy on -C against the data used")
    c.sweep.note = (
        "All of the augmented data is N' elements, of which the part a is used. The tuning is as "
        "many passes over what is used, so less data is fewer steps, too."
    )
    c.sweep.runs = tuple((f"a_{a}", (*pair, ("augmented.fraction", a))) for a in FRACTIONS)
    c.sweep.columns = tuple((heading, "percent") for heading in METHODS)
    c.sweep.cells = tuple(
        (str(a), heading, f"a_{a}", method, metric, None)
        for a in FRACTIONS
        for heading, method in METHODS.items()
    )
    axes = ("a, the part of the augmented data that is used", "accuracy on -C, %")
    c.sweep.figures = (("data", "lines", tuple(METHODS), *axes),)
    return c
