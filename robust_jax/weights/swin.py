"""Names in Swin's files: timm's, which are Microsoft's, Hugging Face's, and UniCL's of both towers.

UniCL's files have no classifier, and its text tower is CLIP's under other names.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import numpy as np

from robust_jax.models.stages import StagedModel
from robust_jax.models.swin import Swin
from robust_jax.weights import clip
from robust_jax.weights.layers import QKV, dense, norm, packed_qkv
from robust_jax.weights.mapping import Format, Tensor

# In files from before timm and transformers computed them: the offset between two tokens of a
# window, and what a shift hides.
BUFFERS = (r".*\.relative_position_index", r".*\.attn_mask")


def _merge(ours: str, name: str) -> list[Tensor]:
    return [
        *norm(f"{ours}/norm", f"{name}.norm"),
        Tensor(f"params/{ours}/reduction/kernel", f"{name}.reduction.weight", "linear"),
    ]


def _microsoft(model: Swin, prefix: str, merge_layer: int) -> list[Tensor]:
    """The network before its classifier, in the names of Microsoft's code.

    Args:
      prefix: of every name.
      merge_layer: 0 where a layer ends with its patch merging, 1 where the next begins with it.
    """
    tensors = [
        *dense("embed/patch", f"{prefix}patch_embed.proj", "conv"),
        *norm("embed/norm", f"{prefix}patch_embed.norm"),
    ]
    for block, (group, number) in model.blocks.items():
        name, attn, mlp = f"{prefix}layers.{group}.blocks.{number}", f"{block}_attn", f"{block}_mlp"
        tensors += norm(f"{attn}/norm", f"{name}.norm1")
        tensors += packed_qkv(attn, f"{name}.attn.qkv.weight", f"{name}.attn.qkv.bias")
        table = f"{name}.attn.relative_position_bias_table"
        tensors.append(Tensor(f"params/{attn}/bias_table", table))
        tensors += dense(f"{attn}/out", f"{name}.attn.proj", "heads_out")
        tensors += norm(f"{mlp}/norm", f"{name}.norm2")
        tensors += dense(f"{mlp}/fc1", f"{name}.mlp.fc1")
        tensors += dense(f"{mlp}/fc2", f"{name}.mlp.fc2")
        for merge in model.merge_after(group, number):
            tensors += _merge(merge, f"{prefix}layers.{group + merge_layer}.downsample")
    return tensors + norm("norm", f"{prefix}norm")


def _timm(model: StagedModel) -> list[Tensor]:
    return _microsoft(_classifier(model), "", 1) + dense("head", "head.fc")


def _timm_rename(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Brings Microsoft's names, with which timm began, to those of timm's files of today."""
    if not any(name.startswith(("layers.0.downsample.", "head.weight")) for name in tensors):
        return dict(tensors)

    def today(name: str) -> str:
        layers, *rest = name.split(".")
        if layers == "layers" and rest[1] == "downsample":
            return ".".join((layers, str(int(rest[0]) + 1), *rest[1:]))
        return f"head.fc.{rest[0]}" if layers == "head" else name

    return {today(name): tensor for name, tensor in tensors.items()}


def _huggingface(model: StagedModel) -> list[Tensor]:
    """The names that `save_pretrained` writes; transformers 5 has others in memory."""
    swin = _classifier(model)
    tensors = [
        *dense("embed/patch", "swin.embeddings.patch_embeddings.projection", "conv"),
        *norm("embed/norm", "swin.embeddings.norm"),
    ]
    for block, (group, number) in swin.blocks.items():
        layer, attn, mlp = f"swin.encoder.layers.{group}", f"{block}_attn", f"{block}_mlp"
        name = f"{layer}.blocks.{number}"
        tensors += norm(f"{attn}/norm", f"{name}.layernorm_before")
        for part in QKV:
            own = f"{name}.attention.self.{part}"
            tensors += dense(f"{attn}/{part}", own, "heads_in", "heads_bias")
        table = f"{name}.attention.self.relative_position_bias_table"
        tensors.append(Tensor(f"params/{attn}/bias_table", table))
        tensors += dense(f"{attn}/out", f"{name}.attention.output.dense", "heads_out")
        tensors += norm(f"{mlp}/norm", f"{name}.layernorm_after")
        tensors += dense(f"{mlp}/fc1", f"{name}.intermediate.dense")
        tensors += dense(f"{mlp}/fc2", f"{name}.output.dense")
        for merge in swin.merge_after(group, number):
            tensors += _merge(merge, f"{layer}.downsample")
    return tensors + norm("norm", "swin.layernorm") + dense("head", "classifier")


def _huggingface_rename(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Adds the prefix that the files of the network without a classifier lack."""
    bare = ("embeddings.", "encoder.", "layernorm.")
    return {f"swin.{n}" if n.startswith(bare) else n: tensor for n, tensor in tensors.items()}


def _huggingface_overrides(config: Mapping[str, Any]) -> dict[str, Any]:
    if config.get("hidden_act", "gelu") != "gelu":
        raise ValueError(
            f"Swin's activation is the erf GELU; got hidden_act={config['hidden_act']!r}; "
            "use weights that were trained with 'gelu'"
        )
    names = {"layer_norm_eps": "norm_eps", "window_size": "window"}
    return {ours: config[name] for name, ours in names.items() if name in config}


def _unicl(model: StagedModel) -> list[Tensor]:
    swin = _swin(model)
    if not swin.projection:
        raise ValueError(
            "UniCL's image tower ends with a projection; got projection=None; "
            "build the model with projection=512"
        )
    projection = Tensor("params/proj/kernel", "image_projection")
    return [*_microsoft(swin, "image_encoder.", 0), projection]


def _unicl_text(model: nn.Module) -> list[Tensor]:
    openai: Any = clip.FORMATS["openai_clip"].text

    def name(of_clip: str) -> str:
        if of_clip in ("text_projection", "logit_scale"):
            return of_clip
        return f"text_encoder.{of_clip.removeprefix('transformer.')}"

    return [dataclasses.replace(tensor, name=name(tensor.name)) for tensor in openai(model)]


def _unicl_rename(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Brings the names of UniCL's first files to those of its released code."""
    prefixes = {
        "visual.": "image_encoder.",
        "text.": "text_encoder.",
        "lang_encoder.": "text_encoder.",
        "vision_projection": "image_projection",
    }

    def released(name: str) -> str:
        for old, new in prefixes.items():
            if name.startswith(old):
                return new + name.removeprefix(old)
        return name

    return {released(name): tensor for name, tensor in tensors.items()}


def _swin(model: StagedModel) -> Swin:
    if not isinstance(model, Swin):
        raise ValueError(
            f"this format holds a Swin Transformer; got a {type(model).__name__}; "
            "use the formats of its own family"
        )
    return model


def _classifier(model: StagedModel) -> Swin:
    swin = _swin(model)
    if swin.projection:
        raise ValueError(
            f"only UniCL's files hold a projection; got projection={swin.projection}; "
            "use projection=None, or a UniCL file"
        )
    return swin


FORMATS: dict[str, Format] = {
    "timm": Format(tensors=_timm, ignored=BUFFERS, rename=_timm_rename),
    "huggingface": Format(
        tensors=_huggingface,
        ignored=(*BUFFERS, r"swin\.embeddings\.mask_token"),
        rename=_huggingface_rename,
        overrides=_huggingface_overrides,
    ),
    "unicl": Format(tensors=_unicl, text=_unicl_text, ignored=BUFFERS, rename=_unicl_rename),
}
