"""Handwritten digits, from nothing to a report in minutes on a laptop; needs no network."""

from ml_collections import ConfigDict

from configs import base
from robust_jax.config import parse_arg


def get_config(arg: str = "") -> ConfigDict:
    """Returns the config; `runlocal` shrinks what `digits` has to under a minute."""
    args = parse_arg(arg, runlocal=False)
    c = digits()
    if args.runlocal:
        runlocal(c)
        return c
    # Noise2Net's copies are for choosing a head: nothing is trained on them.
    c.distort.networks, c.distort.noise2net_max_eps, c.distort.ops = ("noise2net",), 0.3, "decode"
    c.selection.mixture.augment_ops, c.selection.mixture.noise2net = 1.0, 1.0
    c.baselines.methods = ("teacher", "full_finetune", "apt", "ours_no_kd")
    c.finetune.total_epochs = 5.0
    return c


def digits() -> ConfigDict:
    """Returns what runs on the digits have in common."""
    c = base.get_config()
    c.data.source = "digits"
    c.data.train_ops = "decode|random_crop({size}, pad=2)"  # a mirrored digit is another sign
    c.data.eval_ops = "decode"
    c.student.name = "vit_tiny8"
    c.pretrain.total_epochs = 25.0
    c.teacher.name = "resnet_tiny"  # behind its student on clean images, and cheaper
    c.teacher.total_epochs = 14.0
    c.teacher.learning_rate = 0.1
    c.augmented.replicas = 6
    c.method.tuned_params = "0.05"
    c.distill.total_epochs = 40.0
    c.train.checkpoint_every_steps = 100
    return c


def runlocal(c: ConfigDict) -> None:
    """Shrinks a config to a check that every stage works."""
    for section in (c.pretrain, c.teacher, c.distill, c.finetune):
        section.total_steps = 4
        section.batch_size = 32
    c.distort.fit_steps = 4
    c.augmented.replicas = 1
    c.augmented.fraction = 0.1
    c.evaluate.max_images = 64
    c.evaluate.batch_size = 64
    c.evaluate.corruptions = ("gaussian_noise", "defocus_blur", "fog", "jpeg_compression")
    c.evaluate.severities = (1, 5)
    c.train.log_every_steps = 2
    c.train.checkpoint_every_steps = 2
