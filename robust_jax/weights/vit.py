"""Names in ViT's files: big_vision's, timm's, which DINOv2's own share, and Hugging Face's.

Hugging Face's DINOv2 has a classifier of CLS token and mean patch, which is not ours: of its files
the network before it is read.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from robust_jax.models.stages import StagedModel
from robust_jax.models.vit import ViT
from robust_jax.weights.layers import QKV, activation, block_names, dense, norm, packed_qkv
from robust_jax.weights.mapping import Format, Tensor

PREFIXES = ("params/", "opt/target/")  # of big_vision's checkpoints with an optimizer's state
SCANNED = "Transformer/encoderblock/"  # big_vision's blocks in one, depth first
AUGREG = (  # big_vision's names of before 2022, as in the augreg files, to those of today
    ("Transformer/posembed_input/", ""),
    ("Transformer/pos_embedding", "pos_embedding"),
    ("/MultiHeadDotProductAttention_1/", "/MultiHeadDotProductAttention_0/"),
    ("/LayerNorm_2/", "/LayerNorm_1/"),
    ("/MlpBlock_3/", "/MlpBlock_0/"),
)


def big_vision_tensors(model: StagedModel, prefix: str = "") -> list[Tensor]:
    """The network up to its last norm, in the names `big_vision_rename` gives.

    Args:
      model: a ViT.
      prefix: of every name in the file, such as "img/" of the image tower among two.
    """
    vit = _vit(model, "big_vision", pre_norm=False, layer_scale=False)
    tensors = copied("embed/patch", f"{prefix}embedding")
    if vit.pool == "cls":
        tensors.append(Tensor("params/embed/cls", f"{prefix}cls"))
    tensors.append(Tensor("params/embed/pos", f"{prefix}pos_embedding", resize="corner_linear"))
    for i in range(vit.depth):
        block, attn, mlp = f"{prefix}Transformer/encoderblock_{i}", *block_names(i)
        tensors += copied(f"{attn}/norm", f"{block}/LayerNorm_0", "scale")
        for part in (*QKV, "out"):
            name = f"{block}/MultiHeadDotProductAttention_0/{part}"
            tensors += copied(f"{attn}/{part}", name, bias=vit.qkv_bias or part == "out")
        tensors += copied(f"{mlp}/norm", f"{block}/LayerNorm_1", "scale")
        tensors += copied(f"{mlp}/fc1", f"{block}/MlpBlock_0/Dense_0")
        tensors += copied(f"{mlp}/fc2", f"{block}/MlpBlock_0/Dense_1")
    return tensors + copied("norm", f"{prefix}Transformer/encoder_norm", "scale")


def big_vision_rename(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Brings every spelling to big_vision's names of today, with one block after the other.

    The position embedding gets a row for the CLS token, as in the older files. Today's big_vision
    puts the token before the patches when these have their positions: its row is zero.
    """
    found: dict[str, np.ndarray] = {}
    for name, tensor in tensors.items():
        for prefix in PREFIXES:
            name = name.removeprefix(prefix)
        for old, new in AUGREG:
            name = name.replace(old, new)
        if name.startswith(SCANNED):
            rest = name.removeprefix(SCANNED)
            found |= {f"Transformer/encoderblock_{i}/{rest}": a for i, a in enumerate(tensor)}
        else:
            found[name] = tensor
    pos = found.get("pos_embedding")
    if pos is not None and pos.ndim == 3 and "cls" in found:
        num_rows = pos.shape[1]
        if math.isqrt(num_rows) ** 2 == num_rows:
            found["pos_embedding"] = np.concatenate([np.zeros_like(pos[:, :1]), pos], axis=1)
    return found


def _big_vision(model: StagedModel) -> list[Tensor]:
    _vit(model, "big_vision", projection=None, head="linear")
    return big_vision_tensors(model) + copied("head", "head")


def _timm(model: StagedModel) -> list[Tensor]:
    vit = _vit(model, "timm", pre_norm=False, projection=None, head="linear")
    tensors = dense("embed/patch", "patch_embed.proj", "conv")
    if vit.pool == "cls":
        tensors.append(Tensor("params/embed/cls", "cls_token"))
    tensors.append(Tensor("params/embed/pos", "pos_embed", resize="antialias_bicubic"))
    for i in range(vit.depth):
        block, attn, mlp = f"blocks.{i}", *block_names(i)
        tensors += norm(f"{attn}/norm", f"{block}.norm1")
        packed = f"{block}.attn.qkv"
        tensors += packed_qkv(attn, f"{packed}.weight", f"{packed}.bias" if vit.qkv_bias else "")
        tensors += dense(f"{attn}/out", f"{block}.attn.proj", "heads_out")
        tensors += norm(f"{mlp}/norm", f"{block}.norm2")
        tensors += dense(f"{mlp}/fc1", f"{block}.mlp.fc1")
        tensors += dense(f"{mlp}/fc2", f"{block}.mlp.fc2")
        if vit.layer_scale:
            tensors.append(Tensor(f"params/{attn}/layer_scale", f"{block}.ls1.gamma"))
            tensors.append(Tensor(f"params/{mlp}/layer_scale", f"{block}.ls2.gamma"))
    # timm's `fc_norm` comes after the mean over tokens, not before it: that is another network.
    return [*tensors, *norm("norm", "norm"), *dense("head", "head")]


def _timm_rename(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Makes a convolution of the linear map of patches in timm's first files."""
    found, name = dict(tensors), "patch_embed.proj.weight"
    if name in found and found[name].ndim == 2:
        width, fan_in = found[name].shape
        side = math.isqrt(fan_in // 3)
        found[name] = found[name].reshape(width, 3, side, side)
    return found


def _huggingface(model: StagedModel) -> list[Tensor]:
    """The names that `save_pretrained` writes; transformers 5 has others in memory."""
    vit = _vit(model, "Hugging Face's", pool="cls", pre_norm=False, projection=None)
    dino = vit.layer_scale
    base = "dinov2" if dino else "vit"
    norms = ("norm1", "norm2") if dino else ("layernorm_before", "layernorm_after")
    fcs = ("mlp.fc1", "mlp.fc2") if dino else ("intermediate.dense", "output.dense")
    embeddings = f"{base}.embeddings"
    tensors = [
        *dense("embed/patch", f"{embeddings}.patch_embeddings.projection", "conv"),
        Tensor("params/embed/cls", f"{embeddings}.cls_token"),
        Tensor("params/embed/pos", f"{embeddings}.position_embeddings", resize="torch_bicubic"),
    ]
    for i in range(vit.depth):
        layer, attn, mlp = f"{base}.encoder.layer.{i}", *block_names(i)
        tensors += norm(f"{attn}/norm", f"{layer}.{norms[0]}")
        for part in QKV:
            path, name = f"params/{attn}/{part}", f"{layer}.attention.attention.{part}"
            tensors.append(Tensor(f"{path}/kernel", f"{name}.weight", "heads_in"))
            if vit.qkv_bias:
                tensors.append(Tensor(f"{path}/bias", f"{name}.bias", "heads_bias"))
        tensors += dense(f"{attn}/out", f"{layer}.attention.output.dense", "heads_out")
        tensors += norm(f"{mlp}/norm", f"{layer}.{norms[1]}")
        for fc, name in zip(("fc1", "fc2"), fcs, strict=True):
            tensors += dense(f"{mlp}/{fc}", f"{layer}.{name}")
        if dino:
            tensors.append(Tensor(f"params/{attn}/layer_scale", f"{layer}.layer_scale1.lambda1"))
            tensors.append(Tensor(f"params/{mlp}/layer_scale", f"{layer}.layer_scale2.lambda1"))
    tensors += norm("norm", f"{base}.layernorm")
    return tensors if dino else tensors + dense("head", "classifier")


def _huggingface_rename(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Adds the prefix that files of the network alone lack, and DINOv2's classifier always."""
    dino = any(".layer_scale1." in name for name in tensors)
    base = "dinov2." if dino else "vit."
    bare = ("embeddings.", "encoder.", "layernorm.", "classifier." if dino else "pooler.")
    return {base + n if n.startswith(bare) else n: tensor for n, tensor in tensors.items()}


def _huggingface_overrides(config: Mapping[str, Any]) -> dict[str, Any]:
    names = {
        "layer_norm_eps": "norm_eps",
        "num_attention_heads": "num_heads",
        "qkv_bias": "qkv_bias",
    }
    fields = {ours: config[name] for name, ours in names.items() if name in config}
    return fields | activation(config, "ViT")


def _vit(model: StagedModel, files: str, **required: Any) -> ViT:
    if not isinstance(model, ViT):
        raise ValueError(f"these weights are a ViT's; got a {type(model).__name__}; name a ViT")
    for field, value in required.items():
        if getattr(model, field) != value:
            raise ValueError(
                f"{files} files hold no such ViT; got {field}={getattr(model, field)!r}; "
                f"use {value!r}, or the files of another project"
            )
    return model


def copied(ours: str, name: str, weight: str = "kernel", bias: bool = True) -> list[Tensor]:
    """A layer of ours that lies in a file of big_vision as it is."""
    leaves = (weight, "bias") if bias else (weight,)
    return [Tensor(f"params/{ours}/{leaf}", f"{name}/{leaf}") for leaf in leaves]


FORMATS: dict[str, Format] = {
    "big_vision": Format(
        tensors=_big_vision,
        ignored=(r"(opt|chrono|extra)/.*",),
        rename=big_vision_rename,
        overrides=lambda config: {"gelu": "tanh", "norm_eps": 1e-6},
    ),
    "timm": Format(tensors=_timm, ignored=("mask_token",), rename=_timm_rename),
    "huggingface": Format(
        tensors=_huggingface,
        ignored=(
            r"(vit|dinov2)\.embeddings\.mask_token",
            r"vit\.pooler\..*",
            r"dinov2\.classifier\..*",
        ),
        rename=_huggingface_rename,
        overrides=_huggingface_overrides,
    ),
}
