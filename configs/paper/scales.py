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
from robust_jax.method.budget import PAPER_TUNED

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
# What a ViT's recipe has of its own.
OF_A_VIT = (
    "batch_size",
    "learning_rate",
    "weight_decay",
    "total_epochs",
    "warmup_percent",
    "clip_norm",
)
SMALL_STUDENTS = ("vit_tiny8", "resnet_medium")
SMALL_TEACHERS = ("resnet_small", "resnet20")
SEEDS = (0, 1, 2)


class Scale(NamedTuple):
    """A scale and the config to start from."""

    config: ConfigDict
    imagenet: bool

    def corrupted(self) -> str:
        """Has -C evaluated, and returns the metric of it."""
        if not self.imagenet:
            return "corrupted_accuracy"
        self.config.evaluate.sets = read("imagenet_c")
        return IMAGENET_C

    def flips(self) -> tuple[str, str]:
        """Has sequences evaluated, and returns what is measured of them and its metric."""
        section = self.config.evaluate
        if self.imagenet:
            section.sets = read("imagenet_p")
            return "mFR in %", "benchmarks/imagenet_p/mfr"
        section.perturbations = ("all",)
        section.max_images = min(section.max_images or 100, 100)
        return "mean flip probability in %", "mean_flip_probability"

    def pair(self, of: str, by: str) -> Changes:
        """Returns the changes that have one network taught by another."""
        if self.imagenet:
            return (*student(of), *teacher(by))
        return (("student.name", of), ("teacher.name", by))


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
    c = _imagenet() if args.imagenet else _small(args)
    c.selection.score, c.selection.keep_clean = "product", 0.0  # the gate is ours
    return Scale(c, args.imagenet)


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
        c.pretrain.total_epochs = c.teacher.total_epochs = 12.0
        c.augmented.replicas = 2
        c.distill.total_epochs = 20.0
        c.finetune.total_epochs = 5.0
    else:
        c = quickstart.digits()
        c.pretrain.total_epochs = c.teacher.total_epochs = 10.0
        c.augmented.replicas = 4
        c.finetune.update(optimizer="adamw", learning_rate=3e-4, total_epochs=10.0)
    c.teacher.loss = c.finetune.loss = "cross_entropy"  # one view a step, of AugMix alone
    c.evaluate.severities = (1, 3, 5)
    if args.runlocal:
        quickstart.runlocal(c)
    c.sweep.seeds = SEEDS[:2] if args.runlocal else SEEDS
    return c


def student(name: str) -> Changes:
    """Returns the changes that make a pre-trained network the student."""
    budget = "paper" if name in PAPER_TUNED else "auto"
    return (
        ("student.name", name),
        ("student.weights", WEIGHTS[name]),
        ("student.classifier", "load" if name in SUPERVISED else "probe"),
        ("method.tuned_params", budget),
    )


def teacher(name: str) -> Changes:
    """Returns the changes that make a pre-trained network, tuned with both recipes, the teacher."""
    found: Changes = (("teacher.name", name), ("teacher.weights", WEIGHTS[name]))
    if name.startswith("vit"):
        recipe = base.get_config()
        recipes.vit(recipe)
        found += tuple((f"teacher.{key}", recipe.teacher[key]) for key in OF_A_VIT)
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
