"""Names in CLIP's files: OpenAI's, which open_clip shares, and Hugging Face's.

The image network is a ViT or a ModifiedResNet, the text tower a TextTransformer. Hugging Face has
no ModifiedResNet. No format has a classifier.
"""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import numpy as np

from robust_jax.models.clip import ModifiedResNet
from robust_jax.models.stages import StagedModel
from robust_jax.models.text import TextTransformer
from robust_jax.models.vit import ViT
from robust_jax.weights.layers import (
    BATCH_NORM_COUNTER,
    QKV,
    activation,
    block_names,
    conv_bn,
    dense,
    norm,
    packed_qkv,
)
from robust_jax.weights.mapping import Format, Tensor
from robust_jax.weights.resnet import torchvision_blocks


def _openai_blocks(transformer: str, depth: int) -> list[Tensor]:
    tensors: list[Tensor] = []
    for i in range(depth):
        block, attn, mlp = f"{transformer}.resblocks.{i}", *block_names(i)
        tensors += norm(f"{attn}/norm", f"{block}.ln_1")
        packed = f"{block}.attn.in_proj_"
        tensors += packed_qkv(attn, f"{packed}weight", f"{packed}bias")
        tensors += dense(f"{attn}/out", f"{block}.attn.out_proj", "heads_out")
        tensors += norm(f"{mlp}/norm", f"{block}.ln_2")
        tensors += dense(f"{mlp}/fc1", f"{block}.mlp.c_fc")
        tensors += dense(f"{mlp}/fc2", f"{block}.mlp.c_proj")
    return tensors


def _openai_vit(model: ViT) -> list[Tensor]:
    return [
        Tensor("params/embed/patch/kernel", "visual.conv1.weight", "conv"),
        Tensor("params/embed/cls", "visual.class_embedding", "drop2"),
        Tensor(
            "params/embed/pos", "visual.positional_embedding", "drop1", resize="antialias_bicubic"
        ),
        *norm("pre_norm", "visual.ln_pre"),
        *_openai_blocks("visual.transformer", model.depth),
        *norm("norm", "visual.ln_post"),
        Tensor("params/proj/kernel", "visual.proj"),
    ]


def _openai_resnet(model: ModifiedResNet) -> list[Tensor]:
    tensors: list[Tensor] = []
    for i in (1, 2, 3):
        conv, bn = f"conv{i}", f"bn{i}"
        tensors += conv_bn(f"stem/{conv}", f"stem/{bn}", f"visual.{conv}", f"visual.{bn}")
    tensors += torchvision_blocks(model.blocks, 3, lambda group, number: number == 0, "visual.")
    pool = "visual.attnpool"
    tensors.append(
        Tensor(
            "params/attn_pool/pos",
            f"{pool}.positional_embedding",
            "drop1",
            resize="antialias_bicubic",
        )
    )
    for part in QKV:
        tensors += dense(f"attn_pool/{part}", f"{pool}.{part[0]}_proj", "heads_in", "heads_bias")
    return tensors + dense("attn_pool/out", f"{pool}.c_proj", "heads_out")


def _openai_tensors(model: StagedModel) -> list[Tensor]:
    if isinstance(model, ModifiedResNet):
        return _openai_resnet(model)
    return _openai_vit(_vit(model))


def _openai_text(model: nn.Module) -> list[Tensor]:
    return [
        Tensor("params/token/embedding", "token_embedding.weight"),
        Tensor("params/pos", "positional_embedding"),
        *_openai_blocks("transformer", _text(model).depth),
        *norm("norm", "ln_final"),
        Tensor("params/proj/kernel", "text_projection"),
        Tensor("params/logit_scale", "logit_scale"),
    ]


def _huggingface_blocks(tower: str, depth: int) -> list[Tensor]:
    tensors: list[Tensor] = []
    for i in range(depth):
        layer, attn, mlp = f"{tower}.encoder.layers.{i}", *block_names(i)
        tensors += norm(f"{attn}/norm", f"{layer}.layer_norm1")
        for part in QKV:
            name = f"{layer}.self_attn.{part[0]}_proj"
            tensors += dense(f"{attn}/{part}", name, "heads_in", "heads_bias")
        tensors += dense(f"{attn}/out", f"{layer}.self_attn.out_proj", "heads_out")
        tensors += norm(f"{mlp}/norm", f"{layer}.layer_norm2")
        tensors += dense(f"{mlp}/fc1", f"{layer}.mlp.fc1")
        tensors += dense(f"{mlp}/fc2", f"{layer}.mlp.fc2")
    return tensors


def _huggingface_tensors(model: StagedModel) -> list[Tensor]:
    embeddings = "vision_model.embeddings"
    return [
        Tensor("params/embed/patch/kernel", f"{embeddings}.patch_embedding.weight", "conv"),
        Tensor("params/embed/cls", f"{embeddings}.class_embedding", "drop2"),
        Tensor(
            "params/embed/pos",
            f"{embeddings}.position_embedding.weight",
            "drop1",
            resize="torch_bicubic",
        ),
        *norm("pre_norm", "vision_model.pre_layrnorm"),  # The spelling is the files'.
        *_huggingface_blocks("vision_model", _vit(model).depth),
        *norm("norm", "vision_model.post_layernorm"),
        Tensor("params/proj/kernel", "visual_projection.weight", "linear"),
    ]


def _huggingface_text(model: nn.Module) -> list[Tensor]:
    embeddings = "text_model.embeddings"
    return [
        Tensor("params/token/embedding", f"{embeddings}.token_embedding.weight"),
        Tensor("params/pos", f"{embeddings}.position_embedding.weight"),
        *_huggingface_blocks("text_model", _text(model).depth),
        *norm("norm", "text_model.final_layer_norm"),
        Tensor("params/proj/kernel", "text_projection.weight", "linear"),
        Tensor("params/logit_scale", "logit_scale"),
    ]


def _vit(model: StagedModel) -> ViT:
    if not isinstance(model, ViT):
        raise ValueError(
            f"this format holds CLIP's ViT towers; got a {type(model).__name__}; "
            "use an OpenAI or open_clip file for a ModifiedResNet"
        )
    return model


def _text(model: nn.Module) -> TextTransformer:
    if not isinstance(model, TextTransformer):
        raise ValueError(
            f"this format holds CLIP's text tower; got a {type(model).__name__}; "
            "use models.text.TextTransformer"
        )
    return model


def _without_module(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Drops the prefix that open_clip's training checkpoints have from data parallelism."""
    return {name.removeprefix("module."): tensor for name, tensor in tensors.items()}


def _openai_overrides(config: Mapping[str, Any]) -> dict[str, Any]:
    """Reads an open_clip_config.json; OpenAI's own files have no configuration."""
    model = config.get("model_cfg")
    # The layers of a ResNet are a list; its image tower has no GELU.
    if model is None or isinstance(model.get("vision_cfg", {}).get("layers"), list):
        return {}
    return _openai_text_overrides(config)


def _openai_text_overrides(config: Mapping[str, Any]) -> dict[str, Any]:
    model = config.get("model_cfg")
    return {} if model is None else {"gelu": "quick" if model.get("quick_gelu") else "erf"}


def _huggingface_overrides(tower: str) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """Reads what a config.json says of a tower, whose section a file of one tower lacks."""

    def overrides(config: Mapping[str, Any]) -> dict[str, Any]:
        section = config.get(tower, config)
        fields: dict[str, Any] = dict(activation(section, "CLIP"))
        if "layer_norm_eps" in section:
            fields["norm_eps"] = section["layer_norm_eps"]
        return fields

    return overrides


FORMATS: dict[str, Format] = {
    "openai_clip": Format(
        tensors=_openai_tensors,
        text=_openai_text,
        ignored=("input_resolution", "context_length", "vocab_size", BATCH_NORM_COUNTER),
        rename=_without_module,
        overrides=_openai_overrides,
        text_overrides=_openai_text_overrides,
    ),
    "huggingface": Format(
        tensors=_huggingface_tensors,
        text=_huggingface_text,
        ignored=(r"(vision|text)_model\.embeddings\.position_ids",),
        overrides=_huggingface_overrides("vision_config"),
        text_overrides=_huggingface_overrides("text_config"),
    ),
}
