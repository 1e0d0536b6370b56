"""Tiny ViTs and DINOv2s in the names of every format.

The other implementations are those of transformers, read from files. timm's and big_vision's files
are brought to its names: big_vision's network is its ViT with the tanh GELU ("gelu_new"), or its
SigLIP before the pooling, which has no CLS token. Their position embeddings are resized by torch.
"""

import numpy as np
from parity import Case, Reference
from transformers_files import run_from_file, written
from vit_names import (
    CLASSES,
    DEPTH,
    HEADS,
    MLP,
    PATCH,
    WIDTH,
    big_vision_shapes,
    from_big_vision,
    from_timm,
    timm_shapes,
)

from robust_jax.models.vit import ViT

FIELDS = {
    "hidden_size": WIDTH,
    "num_hidden_layers": DEPTH,
    "num_attention_heads": HEADS,
    "patch_size": PATCH,
    "layer_norm_eps": 1e-6,
    "num_labels": CLASSES,
}
EPS = 1e-2  # of Hugging Face's, that it is seen in the answer
ONE_HEAD = WIDTH**-0.5  # the scale of the legacy weights


def vit_model(image_size, **fields):
    import transformers

    fields = {**FIELDS, "image_size": image_size, "intermediate_size": MLP, **fields}
    return transformers.ViTForImageClassification(transformers.ViTConfig(**fields))


def dinov2_model(image_size):
    import transformers

    fields = {**FIELDS, "image_size": image_size, "mlp_ratio": MLP // WIDTH}
    return transformers.Dinov2Model(transformers.Dinov2Config(**fields))


def siglip_model(image_size):
    import transformers

    fields = {**FIELDS, "image_size": image_size, "intermediate_size": MLP}
    config = transformers.SiglipVisionConfig(**fields, vision_use_head=False)
    return transformers.SiglipVisionModel(config)


def resized(table, side, num_cls, **how):
    """A position embedding f32[1, n, d] for another grid, by torch."""
    import torch

    old = round((table.shape[1] - num_cls) ** 0.5)
    cells = torch.tensor(table[:, num_cls:]).reshape(1, old, old, -1).permute(0, 3, 1, 2)
    cells = torch.nn.functional.interpolate(cells, (side, side), **how)
    cells = cells.permute(0, 2, 3, 1).reshape(1, side * side, -1).numpy()
    return np.concatenate([table[:, :num_cls], cells], axis=1)


def huggingface():
    model = vit_model(32, layer_norm_eps=EPS)

    def run(tensors, images):
        return run_from_file(model, tensors, images, interpolate_pos_encoding=True)

    return Reference(written(model), run)


def huggingface_dinov2():
    model = dinov2_model(56)
    return Reference(written(model), lambda tensors, x: run_from_file(model, tensors, x)[:, 0])


def timm(image_size, grid=4, dino=False, legacy=False):
    """timm's network for images of this size, and a file for a grid of this side."""

    def make():
        model = dinov2_model(image_size) if dino else vit_model(image_size, qkv_bias=not legacy)

        def run(tensors, images):
            how = {"mode": "bicubic", "antialias": True}
            table = resized(tensors["pos_embed"], image_size // PATCH, 1, **how)
            state = from_timm({**tensors, "pos_embed": table}, dino)
            weight, bias = tensors["head.weight"], tensors["head.bias"]
            if dino:
                return run_from_file(model, state, images)[:, 0] @ weight.T + bias
            state = {f"vit.{name}": tensor for name, tensor in state.items()}
            if legacy:
                for name in [name for name in state if ".query." in name]:
                    state[name] = state[name] * ONE_HEAD / (WIDTH // HEADS) ** -0.5
            state |= {"classifier.weight": weight, "classifier.bias": bias}
            return run_from_file(model, state, images)

        return Reference(timm_shapes(grid, dino, not legacy), run)

    return make


def big_vision(image_size, grid=4, cls=True):
    """big_vision's network for images of this size, and a file for a grid of this side."""

    def make():
        tanh = {"hidden_act": "gelu_new"}
        model = vit_model(image_size, **tanh) if cls else siglip_model(image_size)

        def run(tensors, images):
            how = {"mode": "bilinear", "align_corners": True}
            table = resized(tensors["pos_embedding"], image_size // PATCH, 0, **how)
            state = from_big_vision({**tensors, "pos_embedding": table}, not cls)
            weight, bias = tensors["head/kernel"], tensors["head/bias"]
            if not cls:
                return run_from_file(model, state, images).mean(axis=1) @ weight + bias
            state = {f"vit.{name}": tensor for name, tensor in state.items()}
            state |= {"classifier.weight": weight.T, "classifier.bias": bias}
            return run_from_file(model, state, images)

        return Reference(big_vision_shapes(grid, cls), run)

    return make


def vit(image_size, **fields):
    return ViT(CLASSES, image_size, PATCH, WIDTH, DEPTH, HEADS, MLP, **fields)


def case(name, fmt, make, image_size=32, stop=None, **fields):
    return Case(name, "vit", fmt, lambda: vit(image_size, **fields), make, stop=stop)


BIG, LEGACY = {"gelu": "tanh"}, {"qkv_bias": False, "attention_scale": ONE_HEAD}
DINO = {"layer_scale": True}
CASES = [
    case("vit_huggingface", "huggingface", huggingface, norm_eps=EPS),
    case("vit_huggingface_resized", "huggingface", huggingface, 48, norm_eps=EPS),
    case("vit_timm", "timm", timm(32)),
    case("vit_timm_resized", "timm", timm(32, grid=7)),
    case("vit_timm_legacy", "timm", timm(32, legacy=True), **LEGACY),
    case("vit_big_vision", "big_vision", big_vision(32), **BIG),
    case("vit_big_vision_resized", "big_vision", big_vision(48), 48, **BIG),
    case("vit_big_vision_gap", "big_vision", big_vision(32, cls=False), pool="gap", **BIG),
    case("dinov2_huggingface", "huggingface", huggingface_dinov2, stop="head", **DINO),
    case("dinov2_timm_resized", "timm", timm(48, grid=7, dino=True), 48, **DINO),
]
