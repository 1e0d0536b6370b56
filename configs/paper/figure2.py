"""Figure 2 of the supplement: transfer to other classes, before and after."""

from ml_collections import ConfigDict

from configs.paper import scales

DATASETS: dict[str, scales.Changes] = {
    "Cars": (("name", "cars196"), ("val_split", "test")),
    "CIFAR-100": (("name", "cifar100"), ("val_split", "test")),
    "Aircraft": (("source", "folder"), ("dir", f"{scales.FILES}/fgvc-aircraft")),
    "SUN-397": (("name", "sun397"), ("train_split", "train+validation"), ("val_split", "test")),
}
METHODS = {"original": "original", "fine-tuned": "full_finetune", "ours": "ours"}
# Small: a network of some classes, transferred to the others.
DIGITS = ("0", "1", "2", "3", "4"), ("5", "6", "7", "8", "9")
CIFAR_10 = ("airplane", "automobile", "bird", "cat", "deer"), ("dog", "frog", "horse", "ship",
                                                               "truck")  # fmt: skip


def get_config(arg: str = "") -> ConfigDict:
    """Returns the sweep; for `arg` see `scales`. A folder has to be CIFAR-10's classes."""
    scale = scales.start(arg)
    c = scale.config
    c.baselines.methods = ("full_finetune",)
    datasets = DATASETS
    run: scales.Changes = ()
    if scale.imagenet:
        run = scale.pair("clip_vit_l14_336", "vit_b16")
    else:
        half, other = CIFAR_10 if c.data.source == "folder" else DIGITS
        c.data.classes = half
        datasets = {
            f"itself, classes {half[0]} to {half[-1]}": (("classes", half),),
            f"the others, {other[0]} to {other[-1]}": (("classes", other),),
        }
    c.sweep.title = scales.name(scale, "Figure 2", "transfer by a linear probe, accuracy in %")
    c.sweep.note = "A linear probe on the features of each network, which themselves stay."
    c.sweep.runs, c.sweep.transfer = (("all", run),), tuple(datasets.items())
    c.sweep.columns = tuple((heading, "percent") for heading in METHODS)
    c.sweep.cells = tuple(
        (name, heading, "all", method, f"transfer/{name}", None)
        for name in datasets
        for heading, method in METHODS.items()
    )
    c.sweep.figures = (("transfer", "bars", tuple(METHODS), "", "accuracy, %"),)
    return c
