"""Any folder of images: `--config.data.dir=DIR` with DIR/train/CLASS/* and DIR/val/CLASS/*."""

from ml_collections import ConfigDict

from configs import base, quickstart, recipes
from robust_jax.config import parse_arg


def get_config(arg: str = "") -> ConfigDict:
    """Returns the config; `recipe=NAME` picks a teacher's, `runlocal` shrinks it to a minute."""
    args = parse_arg(arg, runlocal=False, recipe="")
    c = base.get_config()
    c.data.source = "folder"
    # A student trained here from scratch; with real weights, name any model of the zoo instead.
    c.student.name = "resnet_medium"
    c.pretrain.optimizer = "sgd"
    c.pretrain.learning_rate = 0.1
    c.pretrain.weight_decay = 5e-4
    c.pretrain.clip_norm = 0.0
    c.pretrain.total_epochs = 20.0
    c.teacher.total_epochs = 20.0
    c.augmented.replicas = 4
    c.distill.total_epochs = 30.0
    c.finetune.optimizer = "sgd"
    c.finetune.learning_rate = 0.01
    c.finetune.weight_decay = 5e-4
    recipes.apply(c, args.recipe)
    if args.runlocal:
        quickstart.runlocal(c)
    return c
