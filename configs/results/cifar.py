"""A folder of 32-pixel images: a ResNet trained here, taught by a smaller robust one."""

from ml_collections import ConfigDict

from configs import folder, quickstart
from configs.results import tables
from robust_jax.config import parse_arg


def get_config(arg: str = "") -> ConfigDict:
    """Returns the sweep for `dir=DIR`; `runlocal` shrinks its runs to a check of a few minutes."""
    args = parse_arg(arg, runlocal=False, dir="")
    c = folder.get_config("recipe=small")
    c.data.dir, c.data.image_size = args.dir, 32
    tables.on_folder(c)
    # So that the student is ahead of its teacher on clean images, and costs more.
    c.pretrain.total_epochs = 30.0
    c.teacher.total_epochs = 40.0
    c.method.tuned_params = "0.3"  # from the last block on
    c.method.kd.weight, c.method.kd.clean_weight = 0.6, 0.3
    c.distill.total_epochs = 10.0
    c.finetune.total_epochs = 5.0
    if args.runlocal:
        quickstart.runlocal(c)
    tables.fill(
        c,
        "CIFAR-10 subset: resnet_medium, taught by resnet_small",
        transfer=(("source", "digits"),),
    )
    return c
