"""The two scales: `imagenet`, as the paper has it, and `small`, which takes minutes on a CPU.

Every config here takes `small` (the default) or `imagenet`; of the small one also `dir=DIR` for a
folder of images in place of the built-in digits, and `runlocal` for a check of a few minutes.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from configs import base, folder, quickstart, recipes
from robust_jax.config import parse_arg

Changes = tuple[tuple[str, Any], ...]
Cell = tuple[str, str, str, str, Any, float | None]

# Where weights and benchmarks are that are neither on the Hugging Face Hub nor in TFDS.
FILES = "data"
WEIGHTS = {
    "resnet34": "hf://timm/resnet34.tv_in1k",
    "resnet50": "hf://timm/resnet50.tv_in1k",
    "resnet101": "hf://timm/resnet101.tv_in1k",
    "resnet152": "hf://timm/resnet152.tv_in1k",
    "vit_b16": "hf://timm/vit_base_patch16_224.augreg_in21k_ft_in1k",
    "vit_small_legacy48m": f"{FILES}/weights/vit_small_p16_224-15ec54c9.pth",
    "clip_rn50": "hf://timm/resnet50_clip.openai/open_clip_pytorch_model.bin",
    "clip_rn101": "hf://timm/resnet101_clip.openai/open_clip_pytorch_model.bin",
    "clip_vit_b32": "hf://openai/clip-vit-base-patch32",
    "clip_vit_b16": "hf://openai/clip-vit-base-patch16",
    "clip_vit_l14_336": "hf://openai/clip-vit-large-patch14-336",
    "lit_b16b": "gs://vit_models/lit/LiT-B16B.npz",
    "unicl_swin_tiny": f"{FILES}/weights/yfcc14m.pth",
}
# Trained on ImageNet's classes; the others get a linear probe.
SUPERVISED = ("resnet34", "resnet50", "resnet101", "resnet152", "vit_b16", "vit_small_legacy48m")
IN_TABLE_5 = (
    "resnet101",
    "resnet152",
    "vit_small_legacy48m",
    "vit_b16",
    "clip_rn50",
    "clip_rn101",
    "clip_vit_b16",
    "clip_vit_l14_336",
    "lit_b16b",
)
SETS = {
    "imagenet_v2": "tfds:imagenet_v2/matched-frequency",
    "imagenet_r": "tfds:imagenet_r",
    "imagenet_sketch": "tfds:imagenet_sketch",
    "objectnet": f"objectnet:{FILES}/objectnet/images",
    "imagenet_a": "tfds:imagenet_a",
    "imagenet_c": "tfds:imagenet2012_corrupted",
    "imagenet_p": f"imagenet_p:{FILES}/ImageNet-P",
    "objectnet_c": f"objectnet_c:{FILES}/objectnet/images",
}
IMAGENET_C = "benchmarks/imagenet_c/corrupted_accuracy"
SMALL_STUDENTS = ("vit_tiny8", "resnet_medium")
SMALL_TEACHERS = ("resnet_small", "resnet20")
SEEDS = (0, 1, 2)


class Scale(NamedTuple):
    """A scale and the config to start from."""

    config: ConfigDict
    imagenet: bool


def start(arg: str) -> Scale:
    """Returns the config of a scale, with the paper's setting or a small one.

    Raises:
      ValueError: for both scales at once, and for options that are not of the scale.
    """
    args = parse_arg(arg, imagenet=False, small=False, runlocal=False, dir="")
    if args.imagenet and (args.small or args.runlocal or args.dir):
        raise ValueError(
            f"runlocal, small and dir=DIR are of the small scale; got {arg!r}; write imagenet alone"
        )
    if args.imagenet:
        return Scale(_imagenet(), True)
    return Scale(_small(args), False)


def name(scale: Scale, paper: str, what: str) -> str:
    """Returns the title of a table: the paper's number, or what it is and of which images."""
    if scale.imagenet:
        return f"{paper}: {what}"
    data = scale.config.data
    images = Path(data.dir).name if data.dir else "digits"
    return f"{what[0].upper()}{what[1:]} ({images}, small; after {paper})"


def _imagenet() -> ConfigDict:
    c = base.get_config()
    c.data.source, c.data.name, c.data.val_split = "tfds", "imagenet2012", "validation"
    c.data.train_ops = recipes.IMAGENET_TRAIN_OPS
    c.data.calibration_images = 10_000
    recipes.deepaugment_augmix_imagenet(c)
    c.distort.cae_weights = f"{FILES}/weights/model_final.state"
    c.distort.edsr_weights = f"{FILES}/weights/edsr_baseline_x4-6b446fab.pt"
    c.augmented.mixture.update(c.teacher.mixture)
    c.augmented.replicas = 1
    c.method.tuned_params = "paper"
    # Supplement, section 7: the rest of it are defaults (a = 0.5, dropout, N, the heads' share).
    c.distill.update(optimizer="adam", learning_rate=1e-3, batch_size=256, total_epochs=500.0)
    c.student.dtype = c.teacher.dtype = "bfloat16"
    c.evaluate.corruptions = ()  # ImageNet-C is read as it was published
    return c


def _small(args: ConfigDict) -> ConfigDict:
    if args.dir:
        c = folder.get_config()
        c.data.dir = args.dir
        c.student.name = "resnet_medium"
        c.pretrain.total_epochs = c.teacher.total_epochs = 12.0
        c.augmented.replicas = 2
        c.distill.total_epochs = 20.0
        c.finetune.total_epochs = 5.0
    else:
        c = quickstart.get_config()
        c.pretrain.total_epochs = c.teacher.total_epochs = 10.0
        c.augmented.replicas = 4
        c.finetune.update(optimizer="adamw", learning_rate=3e-4, total_epochs=10.0)
    c.teacher.loss = c.finetune.loss = "cross_entropy"  # one view a step, of AugMix alone
    c.evaluate.severities = (1, 3, 5)
    if args.runlocal:
        quickstart.runlocal(c)
    c.sweep.seeds = SEEDS[:2] if args.runlocal else SEEDS
    return c


def student(name: str, classifier: str = "") -> Changes:
    """Returns the changes that make a pre-trained network the student.

    Args:
      name: of the network.
      classifier: "" for its own of ImageNet's classes, or a linear probe where it has none.
    """
    own = "load" if name in SUPERVISED else "probe"
    budget = "paper" if name in IN_TABLE_5 else "auto"
    return (
        ("student.name", name),
        ("student.weights", WEIGHTS[name]),
        ("student.classifier", classifier or own),
        ("method.tuned_params", budget),
    )


def teacher(name: str) -> Changes:
    """Returns the changes that make a pre-trained network, tuned with both recipes, the teacher."""
    found: Changes = (("teacher.name", name), ("teacher.weights", WEIGHTS[name]))
    if name.startswith("vit"):
        found += (
            ("teacher.batch_size", 512),
            ("teacher.learning_rate", 0.01),
            ("teacher.weight_decay", 0.0),
            ("teacher.total_epochs", 8.0),
            ("teacher.warmup_percent", 5.0),
            ("teacher.clip_norm", 1.0),
        )
    return found


def small_teacher(name: str) -> Changes:
    """Returns the changes that make a small network, trained here, the teacher."""
    found: Changes = (("teacher.name", name),)
    if name.startswith("vit"):  # which the rate of the ResNets would leave at chance
        found += (("teacher.optimizer", "adamw"), ("teacher.learning_rate", 1e-3))
    return found


def read(*names: str) -> tuple[str, ...]:
    """Returns `evaluate.sets` for some benchmarks."""
    return tuple(f"{name}={SETS[name]}" for name in names)


def grid(
    rows: Iterable[tuple[str, str, str]],
    columns: Iterable[tuple[str, Any]],
    paper: Sequence[Sequence[float]] = (),
    unit: float = 0.01,
) -> tuple[Cell, ...]:
    """Returns the cells of a table with a method a row and a metric a column.

    Args:
      rows: (label, run, method).
      columns: (heading, metric).
      paper: its numbers, a row each; () where the setting is not the paper's.
      unit: of these numbers.
    """
    columns = list(columns)
    return tuple(
        (label, heading, run, method, metric, round(paper[i][j] * unit, 9) if paper else None)
        for i, (label, run, method) in enumerate(rows)
        for j, (heading, metric) in enumerate(columns)
    )
