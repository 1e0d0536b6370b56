"""The files that stand beside weights in a directory of transformers, and a student's classifier.

transformers itself is not needed to write them.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn

from robust_jax.method.budget import Plan
from robust_jax.models import ModelEntry, StagedModel
from robust_jax.models.resnet import ResNet
from robust_jax.models.swin import MLP_RATIO, Swin
from robust_jax.models.text import MLP_RATIO as TEXT_MLP_RATIO
from robust_jax.models.text import TextTransformer
from robust_jax.models.vit import ViT
from robust_jax.weights.layers import RESAMPLE, dense, norm
from robust_jax.weights.mapping import Tensor

CODE = Path(__file__).with_name("hf_student.py")
MODULE = "modeling_robust_student"  # its name beside the weights
ACTIVATION = {"erf": "gelu", "tanh": "gelu_new", "quick": "quick_gelu"}


def config(
    model: StagedModel, text: nn.Module | None = None, class_names: Sequence[str] = ()
) -> dict[str, Any]:
    """Returns the config.json of a network; {} where transformers has none like it.

    Args:
      model: the image network.
      text: the text tower in the same file.
      class_names: of the classifier, if the file has one.
    """
    if isinstance(model, ViT):
        said = _clip(model, text) if model.pre_norm else _vit(model)
    elif isinstance(model, Swin):
        said = _swin(model)
    elif isinstance(model, ResNet):
        said = _resnet(model)
    else:
        return {}
    if class_names:
        said["id2label"] = {str(i): name for i, name in enumerate(class_names)}
        said["label2id"] = {name: i for i, name in enumerate(class_names)}
    return {**said, "dtype": "float32"}


def _vit(model: ViT) -> dict[str, Any]:
    said = _transformer(model) | {"num_channels": 3, "qkv_bias": model.qkv_bias}
    if not model.layer_scale:
        return {"model_type": "vit", "architectures": ["ViTForImageClassification"], **said}
    ratio = said.pop("intermediate_size") / model.width
    dino = {"mlp_ratio": int(ratio) if ratio.is_integer() else ratio, "use_mask_token": False}
    return {"model_type": "dinov2", "architectures": ["Dinov2Model"], **said, **dino}


def _clip(model: ViT, text: nn.Module | None) -> dict[str, Any]:
    vision = {**_transformer(model), "projection_dim": model.projection}
    if not isinstance(text, TextTransformer):
        name = "CLIPVisionModelWithProjection"
        return {"model_type": "clip_vision_model", "architectures": [name], **vision}
    words = {
        "vocab_size": text.vocab_size,
        "max_position_embeddings": text.context,
        "hidden_size": text.width,
        "intermediate_size": TEXT_MLP_RATIO * text.width,
        "num_hidden_layers": text.depth,
        "num_attention_heads": text.num_heads,
        "hidden_act": ACTIVATION[text.gelu],
        "layer_norm_eps": text.norm_eps,
        "projection_dim": text.embed_dim,
        "bos_token_id": text.vocab_size - 2,
        "eos_token_id": text.vocab_size - 1,
    }
    return {
        "model_type": "clip",
        "architectures": ["CLIPModel"],
        "projection_dim": text.embed_dim,
        "vision_config": vision,
        "text_config": words,
    }


def _transformer(model: ViT) -> dict[str, Any]:
    return {
        "hidden_size": model.width,
        "num_hidden_layers": model.depth,
        "num_attention_heads": model.num_heads,
        "intermediate_size": model.mlp_dim,
        "hidden_act": ACTIVATION[model.gelu],
        "layer_norm_eps": model.norm_eps,
        "image_size": model.image_size,
        "patch_size": model.patch_size,
    }


def _swin(model: Swin) -> dict[str, Any]:
    return {
        "model_type": "swin",
        "architectures": ["SwinForImageClassification"],
        "image_size": model.image_size,
        "patch_size": model.patch_size,
        "num_channels": 3,
        "embed_dim": model.embed_dim,
        "depths": list(model.depths),
        "num_heads": list(model.num_heads),
        "window_size": model.window,
        "mlp_ratio": MLP_RATIO,
        "hidden_act": "gelu",
        "layer_norm_eps": model.norm_eps,
    }


def _resnet(model: ResNet) -> dict[str, Any]:
    expansion = model.feature_width // (model.base_width << (len(model.depths) - 1))
    return {
        "model_type": "resnet",
        "architectures": ["ResNetForImageClassification"],
        "num_channels": 3,
        "embedding_size": model.base_width,
        "hidden_sizes": [(model.base_width << i) * expansion for i in range(len(model.depths))],
        "depths": list(model.depths),
        "layer_type": model.block,
        "hidden_act": "relu",
    }


def preprocessor(entry: ModelEntry, image_size: int) -> dict[str, Any]:
    """Returns the preprocessor_config.json: what `resize_small` and `central_crop` do here."""
    return {
        "image_processor_type": "BitImageProcessor",  # the one that crops, whatever the network is
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": entry.shorter_side(image_size)},
        "resample": RESAMPLE[entry.interpolation],
        "do_center_crop": True,
        "crop_size": {"height": image_size, "width": image_size},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(entry.mean),
        "image_std": list(entry.std),
    }


def student_config(said: dict[str, Any], head: str, plan: Plan, rate: float) -> dict[str, Any]:
    """Returns the config.json of a network whose classifier is a head of the student.

    Args:
      said: of the network with its original classifier.
      head: name of the head.
      plan: of the student.
      rate: of its dropout, which only acts in training.
    """
    (name,) = said["architectures"]
    return {
        **said,
        "architectures": [f"Robust{name}"],
        "auto_map": {"AutoModelForImageClassification": f"{MODULE}.Robust{name}"},
        "robust_head": head,
        "head_rank": plan.head_rank,
        "adapter_width": plan.adapter_width,
        "head_dropout": rate,
    }


def student_tensors(classifier: str, plan: Plan) -> list[Tensor]:
    """Lists what a head adds to a classifier, params/adapter and params/head.

    Args:
      classifier: its name in the file.
      plan: of the student.
    """
    modules = ["head"]
    tensors: list[Tensor] = []
    if plan.adapter_width:
        modules.append("adapter/bottleneck")
        tensors += norm("adapter/norm", f"{classifier}.adapter.norm")
    for module in modules:
        for part in ("down", "up"):
            ours = f"{module}/{part}"
            tensors += dense(ours, f"{classifier}.{ours.replace('/', '.')}")
    return tensors
