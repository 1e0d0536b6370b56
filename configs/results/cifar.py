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
    if args.runlocal:
        quickstart.runlocal(c)
    tables.fill(c, "CIFAR-10 subset: resnet_medium, taught by resnet_small")
    return c
