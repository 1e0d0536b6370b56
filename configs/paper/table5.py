"""Table 5: how many parameters are tuned, and what they gain."""

from ml_collections import ConfigDict

from configs.paper import scales

PAPER = {
    "resnet101": (2.1e6, 45e6),
    "resnet152": (2.6e6, 60e6),
    "vit_small_legacy48m": (2.3e6, 48e6),
    "vit_b16": (3.1e6, 88e6),
    "clip_rn50": (3.9e6, 102e6),
    "clip_rn101": (4.1e6, 119e6),
    "clip_vit_b16": (4.3e6, 149e6),
    "clip_vit_l14_336": (5.6e6, 450e6),
    "lit_b16b": (4.4e6, 195e6),
}
SMALL = ("vit_tiny8", "resnet_medium")
COLUMNS = (("tuned", "count"), ("total", "count"), ("original, -C %", "percent"),
           ("ours, -C %", "percent"))  # fmt: skip


def get_config(arg: str = "") -> ConfigDict:
    """Returns the sweep; for `arg` see `scales`."""
    scale = scales.start(arg)
    c = scale.config
    c.baselines.methods = ()
    c.sweep.title = scales.name(scale, "Table 5", "parameters tuned, and what they gain")
    metric = scale.corrupted()
    if scale.imagenet:
        c.sweep.note = (
            "The paper has the parameters alone. Its totals of CLIP and LiT contain the text tower."
        )
        runs = {name: scale.pair(name, "resnet34") for name in PAPER}
    else:
        runs = {name: (("student.name", name),) for name in SMALL}
    c.sweep.runs = tuple(runs.items())
    c.sweep.columns = COLUMNS
    shown = (("ours", "tuned_params"), ("ours", "total_params"), ("original", metric),
             ("ours", metric))  # fmt: skip
    c.sweep.cells = tuple(
        (name, heading, name, *cell, PAPER[name][i] if scale.imagenet and i < 2 else None)
        for name in runs
        for i, ((heading, _), cell) in enumerate(zip(COLUMNS, shown, strict=True))
    )
    return c
