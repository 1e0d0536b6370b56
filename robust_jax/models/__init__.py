"""Networks by name: built from the model table, with the preprocessing that belongs to them."""

import dataclasses
import difflib
import importlib
import math
from collections.abc import Iterable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from robust_jax.models.stages import StagedModel
from robust_jax.models.table import MODELS, ModelEntry, entry_from_json, entry_to_json

__all__ = [
    "MODELS",
    "ModelEntry",
    "StagedModel",
    "build",
    "build_text",
    "entry",
    "entry_from_json",
    "entry_to_json",
    "normalise",
    "parameter_count",
    "shapes",
    "stage_parameter_counts",
    "text_parameter_count",
]

# The class of each family, by module and name.
FAMILIES = {
    "vit": ("vit", "ViT"),
    "resnet": ("resnet", "ResNet"),
    "clip_resnet": ("clip", "ModifiedResNet"),
    "swin": ("swin", "Swin"),
    "efficientnet": ("efficientnet", "EfficientNet"),
}
TEXT_FAMILIES = {"clip": ("text", "TextTransformer"), "bert": ("bert", "Bert")}
DTYPES = ("float32", "bfloat16")


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
    name: str | ModelEntry,
    num_classes: int,
    *,
    image_size: int | None = None,
    dtype: str = "float32",
    **overrides: Any,
) -> StagedModel:
    """Builds a model of the table.

    Args:
      name: key of `MODELS`, or an entry with fields of its own.
      num_classes: k of its logits.
      image_size: side of the images; the entry's by default.
      dtype: of activations and products, "float32" or "bfloat16"; parameters are f32.
      **overrides: fields of the family's model that differ from the entry's.
    """
    row = entry(name) if isinstance(name, str) else name
    if num_classes < 1:
        raise ValueError(
            f"a classifier needs classes; got num_classes={num_classes}; use 1 or more"
        )
    fixed = {
        "num_classes": num_classes,
        "image_size": row.input_size if image_size is None else image_size,
    }
    return _make(row, FAMILIES[row.family], row.kwargs, fixed, dtype, overrides)


def build_text(name: str | ModelEntry, *, dtype: str = "float32", **overrides: Any) -> nn.Module:
    """Builds the text tower that belongs to a model, int32[b, n] -> f32[b, e].

    Args:
      name: key of `MODELS`, or an entry.
      dtype: of activations and products.
      **overrides: fields of the tower that differ from the entry's.

    Raises:
      ValueError: when the model has no text tower.
    """
    row = entry(name) if isinstance(name, str) else name
    if not row.text_family:
        having = sorted(other.name for other in MODELS.values() if other.text_family)
        raise ValueError(
            f"this model has no text tower; got {row.name!r}; use one of {', '.join(having)}"
        )
    return _make(row, TEXT_FAMILIES[row.text_family], row.text_kwargs, {}, dtype, overrides)


def _make(
    row: ModelEntry,
    family: tuple[str, str],
    kwargs: Mapping[str, Any],
    fixed: Mapping[str, Any],
    dtype: str,
    overrides: Mapping[str, Any],
) -> Any:
    if dtype not in DTYPES:
        raise _unknown("dtype", dtype, DTYPES)
    module, name = family
    cls = getattr(importlib.import_module(f"robust_jax.models.{module}"), name)
    fields = {field.name for field in dataclasses.fields(cls)}
    fields -= {"parent", "name", "dtype", *fixed}
    for override in overrides:
        if override not in fields:
            raise _unknown(f"field of {row.name}", override, fields)
    return cls(**fixed, dtype=jnp.dtype(dtype), **{**kwargs, **overrides})


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


def shapes(module: Any) -> dict[str, Any]:
    """The shapes of the variables of a network or a text tower, without allocating any."""
    return jax.eval_shape(module.init, jax.random.key(0), module.example_input())


def stage_parameter_counts(name: str, num_classes: int = 1000) -> dict[str, int]:
    """Parameters of each stage in order, without allocating any; batch statistics do not count."""
    model = build(name, num_classes, image_size=entry(name).native_size)
    params = shapes(model)["params"]
    return {stage: _count(params.get(stage, {})) for stage in model.stage_names}


def text_parameter_count(name: str) -> int:
    """Parameters of a model's text tower, without allocating any; 0 if it has none."""
    if not entry(name).text_family:
        return 0
    return _count(shapes(build_text(name)))


def parameter_count(name: str, num_classes: int = 1000) -> int:
    """All parameters of a model; of one with a text tower, of both towers without a classifier."""
    counts = stage_parameter_counts(name, num_classes)
    total = sum(counts.values())
    return total - counts["head"] + text_parameter_count(name) if entry(name).text_family else total


def _count(tree: Any) -> int:
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))
