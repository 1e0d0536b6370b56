"""Figure 1 of the paper: accuracy on -C against training time, and against tuned parameters."""

from ml_collections import ConfigDict

from configs.paper import scales
from configs.paper.scales import Cell, Changes

BUDGETS = {"imagenet": ("1100000", "2200000", "paper", "8600000"),
           "small": ("0.02", "0.05", "0.2")}  # fmt: skip
EPOCHS = {"imagenet": (1.0, 3.0, 10.0), "small": (2.0, 10.0)}
COLUMNS = (
    ("clean %", "percent"),
    ("-C %", "percent"),
    ("tuned", "count"),
    ("training s", "seconds"),
    ("compile s", "seconds"),
    ("FLOPs", "flops"),
)


def get_config(arg: str = "") -> ConfigDict:
    """Returns the sweep; for `arg` see `scales`."""
    scale = scales.start(arg)
    c = scale.config
    metric, kind = scale.corrupted(), "small"
    pair: Changes = ()
    if scale.imagenet:
        kind, pair = "imagenet", scale.pair("clip_vit_b16", "vit_small_legacy48m")
    runs: dict[str, Changes] = {}
    rows = [("original", "", "original"), ("teacher", "", "teacher")]
    for budget in BUDGETS[kind]:
        run = f"budget_{budget}"
        runs[run] = (*pair, ("method.tuned_params", budget),
                     ("baselines.methods", ("teacher", "apt")))  # fmt: skip
        rows += [(f"ours, {budget}", run, "ours"), (f"APT, {budget}", run, "apt")]
    for epochs in EPOCHS[kind]:
        run = f"epochs_{epochs:g}"
        runs[run] = (*pair, ("finetune.total_epochs", epochs),
                     ("baselines.methods", ("full_finetune", "wise_ft")))  # fmt: skip
        rows += [(f"full fine-tuning, {epochs:g} epochs", run, "full_finetune")]
        rows += [(f"WiSE-FT, {epochs:g} epochs", run, "wise_ft")]
    first = next(iter(runs))
    c.sweep.title = scales.name(scale, "Figure 1 of the paper", "what robustness costs")
    c.sweep.note = (
        "Behind ours and APT stands the part of the parameters that is tuned. Seconds and FLOPs "
        "are of all that a method needs (for ours the teacher and the cache of features, too), "
        "compilation apart."
    )
    c.sweep.runs, c.sweep.columns = tuple(runs.items()), COLUMNS
    shown = ("clean_accuracy", metric, "tuned_params", "train_seconds", "compile_seconds",
             "train_flops")  # fmt: skip
    cells = list[Cell]()
    for label, run, method in rows:
        for (heading, _), path in zip(COLUMNS, shown, strict=True):
            cells.append((label, heading, run or first, method, path, None))
    c.sweep.cells = tuple(cells)
    accuracy = "accuracy on -C, %"
    c.sweep.figures = (
        ("seconds", "scatter", ("training s", "-C %"), "training seconds", accuracy),
        ("parameters", "scatter", ("tuned", "-C %"), "tuned parameters", accuracy),
        ("flops", "scatter", ("FLOPs", "-C %"), "FLOPs of the training", accuracy),
    )
    return c
