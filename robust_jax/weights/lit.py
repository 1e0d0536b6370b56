"""Names in LiT's files: big_vision's two towers, a ViT under img/ and flaxformer's BERT under txt/.

Files of big_vision and of vision_transformer have them, with and without the prefix params/.
"""

import dataclasses
from collections.abc import Mapping

import flax.linen as nn
import numpy as np

from robust_jax.models.bert import Bert
from robust_jax.models.stages import StagedModel
from robust_jax.models.vit import ViT
from robust_jax.weights.mapping import Format, Tensor
from robust_jax.weights.vit import FORMATS as FORMATS_OF_VIT
from robust_jax.weights.vit import PREFIXES, big_vision_rename, big_vision_tensors, copied

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
        tensors += copied("proj", f"{IMAGE}head")
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
        *copied("norm", f"{BERT}/layer_norm", "scale"),
    ]
    for i in range(model.depth):
        ours, layer = f"layer_{i:02d}", f"{BERT}/encoder_block/layer_sequence/layers_{i}"
        attn, mlp = f"{layer}/attention_block", f"{layer}/mlp_block"
        for part in ("query", "key", "value"):
            tensors += copied(f"{ours}/{part}", f"{attn}/attention_layer/{part}")
        tensors += copied(f"{ours}/out", f"{attn}/dense_layer")
        tensors += copied(f"{ours}/attn_norm", f"{attn}/layer_norm", "scale")
        tensors += copied(f"{ours}/fc1", f"{mlp}/mlp/dense_layer")
        tensors += copied(f"{ours}/fc2", f"{mlp}/dense_layer")
        tensors += copied(f"{ours}/mlp_norm", f"{mlp}/layer_norm", "scale")
    tensors += copied("head", f"{TEXT}head")
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


FORMATS: dict[str, Format] = {
    "big_vision": dataclasses.replace(
        FORMATS_OF_VIT["big_vision"], tensors=_image, text=_text, rename=_rename
    ),
}
