"""Handwritten digits: a small ViT taught by a robust ResNet; minutes a seed on two cores."""

from ml_collections import ConfigDict

from configs import quickstart
from configs.results import tables
from robust_jax.config import parse_arg


def get_config(arg: str = "") -> ConfigDict:
    """Returns the sweep; `runlocal` shrinks its runs to a check of a few minutes."""
    args = parse_arg(arg, runlocal=False)
    c = quickstart.get_config("runlocal" if args.runlocal else "")
    # Noise2Net's copies are for choosing a head: nothing is trained on them.
    c.distort.networks, c.distort.noise2net_max_eps, c.distort.ops = ("noise2net",), 0.3, "decode"
    c.selection.mixture.augment_ops, c.selection.mixture.noise2net = 1.0, 1.0
    c.finetune.total_epochs = 5.0
    tables.fill(c, "Digits: vit_tiny8, taught by resnet_tiny")
    return c
