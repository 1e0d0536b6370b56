"""Any folder of images: `--config.data.dir=DIR` with DIR/train/CLASS/* and DIR/val/CLASS/*."""

from ml_collections import ConfigDict

from configs import base, quickstart
from robust_jax.config import parse_arg


def get_config(arg: str = "") -> ConfigDict:
    """Returns the config; `runlocal` shrinks it to under a minute."""
    args = parse_arg(arg, runlocal=False)
    c = base.get_config()
    c.data.source = "folder"
    if args.runlocal:
        quickstart.runlocal(c)
    return c
