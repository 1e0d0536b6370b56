"""A tiny ViT's tensors in timm's and big_vision's names, and the way to those of transformers."""

import numpy as np

WIDTH, DEPTH, HEADS, PATCH, MLP, CLASSES = 32, 2, 4, 8, 96, 10
QKV = ("query", "key", "value")
TIMM = {  # of timm's modules -> of transformers' ViT, and of its DINOv2
    "norm1": ("layernorm_before", "norm1"),
    "attn.proj": ("attention.output.dense", "attention.output.dense"),
    "norm2": ("layernorm_after", "norm2"),
    "mlp.fc1": ("intermediate.dense", "mlp.fc1"),
    "mlp.fc2": ("output.dense", "mlp.fc2"),
}
BIG_VISION = {  # of big_vision's modules -> of transformers' ViT, and of its SigLIP
    "LayerNorm_0": ("layernorm_before", "layer_norm1"),
    "MultiHeadDotProductAttention_0/query": ("attention.attention.query", "self_attn.q_proj"),
    "MultiHeadDotProductAttention_0/key": ("attention.attention.key", "self_attn.k_proj"),
    "MultiHeadDotProductAttention_0/value": ("attention.attention.value", "self_attn.v_proj"),
    "MultiHeadDotProductAttention_0/out": ("attention.output.dense", "self_attn.out_proj"),
    "LayerNorm_1": ("layernorm_after", "layer_norm2"),
    "MlpBlock_0/Dense_0": ("intermediate.dense", "mlp.fc1"),
    "MlpBlock_0/Dense_1": ("output.dense", "mlp.fc2"),
}


def timm_shapes(grid, dino, qkv_bias):
    norm, sizes = ((WIDTH,), (WIDTH,)), {"attn.proj": WIDTH, "mlp.fc1": MLP, "mlp.fc2": WIDTH}
    shapes = {"cls_token": (1, 1, WIDTH), "pos_embed": (1, grid**2 + 1, WIDTH)}
    pairs = {"patch_embed.proj": ((WIDTH, 3, PATCH, PATCH), (WIDTH,)), "norm": norm}
    pairs["head"] = ((CLASSES, WIDTH), (CLASSES,))
    for i in range(DEPTH):
        block = f"blocks.{i}"
        pairs |= {f"{block}.norm1": norm, f"{block}.norm2": norm}
        for name, size in sizes.items():
            pairs[f"{block}.{name}"] = ((size, MLP if name == "mlp.fc2" else WIDTH), (size,))
        shapes[f"{block}.attn.qkv.weight"] = (3 * WIDTH, WIDTH)
        if qkv_bias:
            shapes[f"{block}.attn.qkv.bias"] = (3 * WIDTH,)
        if dino:
            shapes |= {f"{block}.ls1.gamma": (WIDTH,), f"{block}.ls2.gamma": (WIDTH,)}
    for name, (weight, bias) in pairs.items():
        shapes |= {f"{name}.weight": weight, f"{name}.bias": bias}
    return shapes


def from_timm(tensors, dino):
    """A network without its classifier in the names of transformers' files."""
    state = {
        "embeddings.cls_token": tensors["cls_token"],
        "embeddings.position_embeddings": tensors["pos_embed"],
    }
    for leaf in ("weight", "bias"):
        patch = f"embeddings.patch_embeddings.projection.{leaf}"
        state[patch] = tensors[f"patch_embed.proj.{leaf}"]
        state[f"layernorm.{leaf}"] = tensors[f"norm.{leaf}"]
        for i in range(DEPTH):
            block, layer = f"blocks.{i}", f"encoder.layer.{i}"
            for name, theirs in TIMM.items():
                state[f"{layer}.{theirs[dino]}.{leaf}"] = tensors[f"{block}.{name}.{leaf}"]
            if f"{block}.attn.qkv.{leaf}" in tensors:
                thirds = np.split(tensors[f"{block}.attn.qkv.{leaf}"], 3)
                for part, third in zip(QKV, thirds, strict=True):
                    state[f"{layer}.attention.attention.{part}.{leaf}"] = third
    if dino:
        state["embeddings.mask_token"] = np.zeros((1, WIDTH), np.float32)
        for i in range(DEPTH):
            for j in (1, 2):
                scale = f"encoder.layer.{i}.layer_scale{j}.lambda1"
                state[scale] = tensors[f"blocks.{i}.ls{j}.gamma"]
    return state


def big_vision_shapes(grid, cls):
    head_width = WIDTH // HEADS
    shapes = {
        "embedding/kernel": (PATCH, PATCH, 3, WIDTH),
        "embedding/bias": (WIDTH,),
        "pos_embedding": (1, grid**2, WIDTH),
        "Transformer/encoder_norm/scale": (WIDTH,),
        "Transformer/encoder_norm/bias": (WIDTH,),
        "head/kernel": (WIDTH, CLASSES),
        "head/bias": (CLASSES,),
    }
    if cls:
        shapes["cls"] = (1, 1, WIDTH)
    for i in range(DEPTH):
        block = f"Transformer/encoderblock_{i}"
        attn, mlp = f"{block}/MultiHeadDotProductAttention_0", f"{block}/MlpBlock_0"
        for j in (0, 1):
            norm = f"{block}/LayerNorm_{j}"
            shapes |= {f"{norm}/scale": (WIDTH,), f"{norm}/bias": (WIDTH,)}
        for part in QKV:
            shapes[f"{attn}/{part}/kernel"] = (WIDTH, HEADS, head_width)
            shapes[f"{attn}/{part}/bias"] = (HEADS, head_width)
        shapes |= {f"{attn}/out/kernel": (HEADS, head_width, WIDTH), f"{attn}/out/bias": (WIDTH,)}
        shapes |= {f"{mlp}/Dense_0/kernel": (WIDTH, MLP), f"{mlp}/Dense_0/bias": (MLP,)}
        shapes |= {f"{mlp}/Dense_1/kernel": (MLP, WIDTH), f"{mlp}/Dense_1/bias": (WIDTH,)}
    return shapes


def from_big_vision(tensors, siglip):
    """A network without its classifier in the names of transformers' files."""
    layers = "encoder.layers" if siglip else "encoder.layer"
    modules = {"Transformer/encoder_norm": "post_layernorm" if siglip else "layernorm"}
    for i in range(DEPTH):
        for name, theirs in BIG_VISION.items():
            modules[f"Transformer/encoderblock_{i}/{name}"] = f"{layers}.{i}.{theirs[siglip]}"
    state = {}
    for name, theirs in modules.items():
        bias = tensors[f"{name}/bias"].reshape(-1)
        scale, kernel = tensors.get(f"{name}/scale"), tensors.get(f"{name}/kernel")
        weight = scale if kernel is None else kernel.reshape(-1, len(bias)).T
        if name.endswith(QKV):
            weight = kernel.reshape(WIDTH, -1).T
        state |= {f"{theirs}.weight": weight, f"{theirs}.bias": bias}
    patch = "embeddings.patch_embedding" if siglip else "embeddings.patch_embeddings.projection"
    state[f"{patch}.weight"] = tensors["embedding/kernel"].transpose(3, 2, 0, 1)
    state[f"{patch}.bias"] = tensors["embedding/bias"]
    table = tensors["pos_embedding"]
    if siglip:
        state["embeddings.position_embedding.weight"] = table[0]
    else:  # which adds a position to its CLS token too
        state["embeddings.cls_token"] = tensors["cls"]
        table = np.concatenate([np.zeros((1, 1, WIDTH), np.float32), table], axis=1)
        state["embeddings.position_embeddings"] = table
    return state
