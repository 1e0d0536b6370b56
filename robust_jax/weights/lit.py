"""Names in LiT's files: big_vision's two towers, a ViT under img/ and flaxformer's BERT under txt/.

Files of big_vision and of vision_transformer have them, with and without the prefix params/.
"""

from collections.abc import Mapping

import flax.linen as nn
import numpy as np

from robust_jax.models.bert import Bert
from robust_jax.models.stages import StagedModel
from robust_jax.models.vit import ViT
from robust_jax.weights.mapping import Format, Tensor
from robust_jax.weights.vit import PREFIXES, big_vision_rename, big_vision_tensors

IMAGE, TEXT = "img/", "txt/"
BERT = f"{TEXT}BertEncoder_0"


def _image(model: StagedModel) -> list[Tensor]:
    """The image tower; what is called its head in the file is our projection."""
    tensors = big_vision_tensors(model, IMAGE)
    if isinstance(model, ViT) and model.projection:
        if not model.projection_bias:
            raise ValueError(
                "LiT's map of the image feature has a bias; got projection_bias=False; use True"
            )
        tensors += _dense("proj", f"{IMAGE}head")
    return tensors


def _text(model: nn.Module) -> list[Tensor]:
    if not isinstance(model, Bert):
        raise ValueError(
            f"this format holds LiT's BERT; got a {type(model).__name__}; use models.bert.Bert"
        )
    tensors = [
        Tensor("params/token/embedding", f"{BERT}/embedder/embedders_token_ids/embedding"),
        Tensor("params/pos", f"{BERT}/embedder/embedders_position_ids/embedding"),
        Tensor("params/segment", f"{BERT}/embedder/embedders_segment_ids/embedding"),
        *_norm("norm", f"{BERT}/layer_norm"),
    ]
    for i in range(model.depth):
        ours, layer = f"layer_{i:02d}", f"{BERT}/encoder_block/layer_sequence/layers_{i}"
        attn, mlp = f"{layer}/attention_block", f"{layer}/mlp_block"
        for part in ("query", "key", "value"):
            tensors += _dense(f"{ours}/{part}", f"{attn}/attention_layer/{part}")
        tensors += _dense(f"{ours}/out", f"{attn}/dense_layer")
        tensors += _norm(f"{ours}/attn_norm", f"{attn}/layer_norm")
        tensors += _dense(f"{ours}/fc1", f"{mlp}/mlp/dense_layer")
        tensors += _dense(f"{ours}/fc2", f"{mlp}/dense_layer")
        tensors += _norm(f"{ours}/mlp_norm", f"{mlp}/layer_norm")
    tensors += _dense("head", f"{TEXT}head")
    return [*tensors, Tensor("params/logit_scale", "t", "scalar1")]


def _rename(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Drops the prefix of checkpoints, and spells the image tower as big_vision does today."""
    found, image = {}, {}
    for name, tensor in tensors.items():
        for prefix in PREFIXES:
            name = name.removeprefix(prefix)
        if name.startswith(IMAGE):
            image[name.removeprefix(IMAGE)] = tensor
        else:
            found[name] = tensor
    return found | {IMAGE + name: tensor for name, tensor in big_vision_rename(image).items()}


def _norm(ours: str, name: str) -> list[Tensor]:
    return [Tensor(f"params/{ours}/{leaf}", f"{name}/{leaf}") for leaf in ("scale", "bias")]


def _dense(ours: str, name: str) -> list[Tensor]:
    return [Tensor(f"params/{ours}/{leaf}", f"{name}/{leaf}") for leaf in ("kernel", "bias")]


FORMATS: dict[str, Format] = {
    "big_vision": Format(
        tensors=_image,
        text=_text,
        ignored=(r"(opt|chrono|extra)/.*",),
        rename=_rename,
        overrides=lambda config: {"gelu": "tanh", "norm_eps": 1e-6},
    ),
}
