"""A folder of small images at 64 pixels: EfficientNet-Lite2 with its ImageNet weights, by Lite0."""

from ml_collections import ConfigDict

from configs import folder, quickstart
from configs.results import tables
from robust_jax.config import parse_arg


def get_config(arg: str = "") -> ConfigDict:
    """Returns the sweep for `dir=DIR`; `runlocal` shrinks its runs to a check of a few minutes."""
    args = parse_arg(arg, runlocal=False, dir="")
    c = folder.get_config("recipe=small")
    c.data.dir, c.data.image_size = args.dir, 64
    # Enlarged as they are: the resize of these networks would cut their margins off.
    enlarged = "decode|resize_small({size}, 'bicubic')"
    c.data.train_ops = f"{enlarged}|random_crop({{size}}, pad={{pad}})|flip_lr"
    c.data.eval_ops = c.evaluate.perturbation_ops = f"{enlarged}|central_crop({{size}})"
    c.distort.ops = "decode"  # copies of the small images, enlarged like them
    tables.on_folder(c)
    c.student.name, c.teacher.name = "efficientnet_lite2", "efficientnet_lite0"
    c.student.weights = c.teacher.weights = "pretrained"
    c.student.classifier = "finetune"
    c.pretrain.learning_rate = 0.04
    c.pretrain.total_epochs = 8.0
    c.teacher.learning_rate = 0.04
    c.teacher.total_epochs = 8.0
    c.method.tuned_params = "700000"  # from the last convolution on
    c.distill.learning_rate = 3e-4
    c.distill.total_epochs = 5.0
    # Of its teacher, who is behind it on clean and on mildly shifted images, it wants less.
    c.method.kd.weight = 0.3
    c.finetune.total_epochs = 2.0
    if args.runlocal:
        quickstart.runlocal(c)
    tables.fill(
        c,
        "CIFAR-10 subset at 64 px: EfficientNet-Lite2, taught by Lite0",
        transfer=(("source", "digits"),),
    )
    return c
