"""The model table: name -> builder, preprocessing and the weight formats it accepts."""

import dataclasses
import difflib
import math
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from robust_jax.models.resnet import ResNet
from robust_jax.models.stages import StagedModel
from robust_jax.models.vit import ViT

__all__ = [
    "MODELS",
    "ModelEntry",
    "StagedModel",
    "build",
    "entry",
    "normalise",
    "parameter_count",
    "stage_parameter_counts",
]

FAMILIES: dict[str, type[ViT] | type[ResNet]] = {"vit": ViT, "resnet": ResNet}
DTYPES = ("float32", "bfloat16")

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5)  # as mean and std: images in [-1, 1]


@dataclasses.dataclass(frozen=True)
class ModelEntry:
    """One row of `MODELS`.

    Args:
      name: the name it is built by.
      family: key of `FAMILIES`.
      kwargs: fields of the family's model, without num_classes, image_size and dtype.
      input_size: side of the images by default.
      mean: of the pixels in [0, 1], per channel.
      std: likewise.
      interpolation: of the resize to `input_size` in evaluation.
      weights: modules of `robust_jax.weights` that can load pre-trained weights; none: train it.
    """

    name: str
    family: str
    kwargs: Mapping[str, Any]
    input_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str
    weights: tuple[str, ...]


def _vit(name: str, width: int, depth: int, num_heads: int, patch_size: int) -> ModelEntry:
    """A ViT of the augreg papers (Dosovitskiy 2021, Steiner 2022): [-1, 1] images of 224 pixels."""
    kwargs = {
        "width": width,
        "depth": depth,
        "num_heads": num_heads,
        "patch_size": patch_size,
        "mlp_dim": 4 * width,
    }
    weights = ("big_vision", "timm", "huggingface")
    return ModelEntry(name, "vit", kwargs, 224, HALF, HALF, "bicubic", weights)


def _resnet(name: str, block: str, *depths: int) -> ModelEntry:
    """A ResNet as in torchvision, whose files have timm's key names."""
    kwargs = {"block": block, "depths": depths}
    weights = ("timm", "huggingface")
    return ModelEntry(name, "resnet", kwargs, 224, IMAGENET_MEAN, IMAGENET_STD, "bilinear", weights)


def _small(name: str, family: str, **kwargs: Any) -> ModelEntry:
    """A network for images of 32 pixels that has no published weights."""
    return ModelEntry(name, family, kwargs, 32, HALF, HALF, "bilinear", ())


# The first timm "vit_small_patch16_224" (before 2021-06-12), 48.75 M parameters: the only published
# ViT-Small of the paper's size. Its weights need the attention scale of a single head.
_VIT_SMALL_LEGACY48M = ModelEntry(
    "vit_small_legacy48m",
    "vit",
    {
        "width": 768,
        "depth": 8,
        "num_heads": 8,
        "patch_size": 16,
        "mlp_dim": 2304,
        "qkv_bias": False,
        "attention_scale": 768**-0.5,
    },
    224,
    IMAGENET_MEAN,
    IMAGENET_STD,
    "bicubic",
    ("timm",),
)

# A strided first convolution, no pooling, and three groups: cheap at 32 pixels. (A fourth group
# would work on 2 x 2 pixels, whose convolutions XLA runs 17 times slower on CPUs than the matrix
# products that they are.)
_STRIDED: dict[str, Any] = {"block": "basic", "depths": (2, 2, 2), "stem": "small"}

MODELS: dict[str, ModelEntry] = {
    row.name: row
    for row in (
        _vit("vit_ti16", width=192, depth=12, num_heads=3, patch_size=16),
        _vit("vit_s16", width=384, depth=12, num_heads=6, patch_size=16),
        _vit("vit_b16", width=768, depth=12, num_heads=12, patch_size=16),
        _vit("vit_b32", width=768, depth=12, num_heads=12, patch_size=32),
        _VIT_SMALL_LEGACY48M,
        _small("vit_tiny", "vit", width=192, depth=6, num_heads=3, patch_size=4, mlp_dim=768),
        _small("vit_tiny8", "vit", width=192, depth=4, num_heads=3, patch_size=8, mlp_dim=768),
        _resnet("resnet18", "basic", 2, 2, 2, 2),
        _resnet("resnet34", "basic", 3, 4, 6, 3),
        _resnet("resnet50", "bottleneck", 3, 4, 6, 3),
        _resnet("resnet101", "bottleneck", 3, 4, 23, 3),
        _resnet("resnet152", "bottleneck", 3, 8, 36, 3),
        _small("resnet18_cifar", "resnet", block="basic", depths=(2, 2, 2, 2), stem="cifar"),
        _small("resnet20", "resnet", block="basic", depths=(3, 3, 3), stem="cifar", base_width=16),
        _small("resnet_small", "resnet", base_width=16, **_STRIDED),
        _small("resnet_medium", "resnet", base_width=48, **_STRIDED),
    )
}


def _unknown(what: str, got: str, known: Iterable[str]) -> ValueError:
    known = sorted(known)
    nearest = difflib.get_close_matches(got, known, n=1, cutoff=0.0)[0]
    return ValueError(
        f"unknown {what}; got {got!r}; did you mean {nearest!r}? The choice: {', '.join(known)}"
    )


def entry(name: str) -> ModelEntry:
    """The row of a model; ValueError with the nearest name if there is none."""
    if name not in MODELS:
        raise _unknown("model", name, MODELS)
    return MODELS[name]


def build(
    name: str,
    num_classes: int,
    *,
    image_size: int | None = None,
    dtype: str = "float32",
    **overrides: Any,
) -> StagedModel:
    """Builds a model of the table.

    Args:
      name: key of `MODELS`.
      num_classes: k of its logits.
      image_size: side of the images; the entry's by default.
      dtype: of activations and products, "float32" or "bfloat16"; parameters are f32.
      **overrides: fields of the family's model that differ from the entry's.
    """
    row = entry(name)
    if num_classes < 1:
        raise ValueError(
            f"a classifier needs classes; got num_classes={num_classes}; use 1 or more"
        )
    if dtype not in DTYPES:
        raise _unknown("dtype", dtype, DTYPES)
    family = FAMILIES[row.family]
    fixed = {"parent", "name", "num_classes", "image_size", "dtype"}
    fields = {field.name for field in dataclasses.fields(family)} - fixed
    for override in overrides:
        if override not in fields:
            raise _unknown(f"field of {name}", override, fields)
    return family(
        num_classes=num_classes,
        image_size=row.input_size if image_size is None else image_size,
        dtype=jnp.dtype(dtype),
        **{**row.kwargs, **overrides},
    )


def normalise(images: jax.Array, row: ModelEntry) -> jax.Array:
    """Pixels to the network's input, (x / 255 - mean) / std; works under jit.

    Args:
      images: uint8[b, h, w, 3].
      row: the model's entry.

    Returns:
      f32[b, h, w, 3].
    """
    if images.dtype != jnp.uint8 or images.ndim != 4 or images.shape[-1] != 3:
        raise ValueError(
            f"images must be uint8[b, h, w, 3]; got {images.dtype}{list(images.shape)}; "
            "pass RGB pixels in 0..255 that are not normalised yet"
        )
    pixels = jnp.asarray(images, jnp.float32) / 255
    return (pixels - jnp.asarray(row.mean)) / jnp.asarray(row.std)


def stage_parameter_counts(name: str, num_classes: int = 1000) -> dict[str, int]:
    """Parameters of each stage in order, without allocating any; batch statistics do not count."""
    model = build(name, num_classes)
    variables = jax.eval_shape(model.init, jax.random.key(0), model.example_input())
    params = variables["params"]
    return {
        stage: sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params.get(stage, {})))
        for stage in model.stage_names
    }


def parameter_count(name: str, num_classes: int = 1000) -> int:
    """All parameters of a model, without allocating any."""
    return sum(stage_parameter_counts(name, num_classes).values())
