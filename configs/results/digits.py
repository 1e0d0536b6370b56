"""Handwritten digits: a small ViT taught by a robust ResNet; minutes a seed on two cores."""

from ml_collections import ConfigDict

from configs import quickstart
from configs.results import tables
from robust_jax.config import parse_arg


def get_config(arg: str = "") -> ConfigDict:
    """Returns the sweep; `runlocal` shrinks its runs to a check of a few minutes."""
    args = parse_arg(arg, runlocal=False)
    c = quickstart.get_config()
    if args.runlocal:
        quickstart.runlocal(c)
    tables.fill(c, "Digits: vit_tiny8, taught by resnet_tiny")
    return c
