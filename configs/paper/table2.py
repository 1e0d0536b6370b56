"""Table 2: how often the head that is meant for an image answers it (F_correct)."""

from typing import Any

from ml_collections import ConfigDict

from configs.paper import scales

METHODS = {"ours_no_kld": "ours w/o KLD", "ours_no_umc": "ours w/o U_mc", "ours": "ours"}
COLUMNS: dict[str, Any] = {
    "ImageNet": "f_correct_clean",
    "ImageNet-R": "benchmarks/imagenet_r/f_correct",
    "ImageNet-Sketch": "benchmarks/imagenet_sketch/f_correct",
    "ObjectNet": "benchmarks/objectnet/f_correct",
    "ImageNet-A": "benchmarks/imagenet_a/f_correct",
    "ImageNet-C": "benchmarks/imagenet_c/f_correct",
}
PAPER: tuple[tuple[float, ...], ...] = (
    (0.89, 0.82, 0.71, 0.82, 0.79, 0.83),
    (0.71, 0.69, 0.72, 0.61, 0.63, 0.71),
    (0.95, 0.94, 0.89, 0.84, 0.92, 0.94),
)
SMALL_METHODS = {**METHODS, "ours_max_logit": "ours (max logit)", "ours_gate": "ours (gate)"}
SMALL: dict[str, Any] = {
    "clean": "f_correct_clean",
    "corrupted": "f_correct_shift",
    "mean of both": ("f_correct_clean", "f_correct_shift"),
    "routing AUROC": "routing_auroc",
}


def get_config(arg: str = "") -> ConfigDict:
    """Returns the sweep; for `arg` see `scales`."""
    scale = scales.start(arg)
    c = scale.config
    c.baselines.methods = ()
    c.sweep.title = scales.name(scale, "Table 2", "the right head's share, F_correct")
    c.sweep.note = "A rule that ignores the image has a mean of at most 0.50 over both domains."
    metrics, methods = SMALL, SMALL_METHODS
    paper: tuple[tuple[float, ...], ...] = ()
    run: scales.Changes = ()
    if scale.imagenet:
        metrics, methods, paper = COLUMNS, METHODS, PAPER
        run = scale.pair("clip_vit_l14_336", "vit_b16")
        c.evaluate.sets = scales.read("imagenet_r", "imagenet_sketch", "objectnet", "imagenet_a",
                                      "imagenet_c")  # fmt: skip
    rows = [(label, "all", method) for method, label in methods.items()]
    c.sweep.runs = (("all", run),)
    c.sweep.cells = scales.grid(rows, metrics.items(), paper, unit=1.0)
    c.sweep.columns = tuple((heading, "fraction") for heading in metrics)
    return c
