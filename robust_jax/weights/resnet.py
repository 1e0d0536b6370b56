"""ResNet weights under the names of torchvision (timm's are the same) and of Hugging Face."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from robust_jax.models.resnet import ResNet
from robust_jax.models.stages import StagedModel
from robust_jax.weights.layers import BATCH_NORM_COUNTER, conv_bn, dense
from robust_jax.weights.mapping import Format, Tensor


def _num_layers(model: ResNet) -> int:
    return 3 if model.block == "bottleneck" else 2


def torchvision_blocks(
    blocks: Mapping[str, tuple[int, int]],
    num_layers: int,
    downsamples: Callable[[int, int], bool],
    prefix: str = "",
) -> list[Tensor]:
    """The residual blocks, as torchvision and OpenAI's CLIP name them.

    Args:
      blocks: our stage of each to its (group, number).
      num_layers: convolutions of a block.
      downsamples: whether the shortcut of (group, number) has a convolution.
      prefix: of every name in the file.
    """
    tensors: list[Tensor] = []
    for ours, (group, number) in blocks.items():
        block = f"{prefix}layer{group + 1}.{number}"
        for i in range(1, num_layers + 1):
            tensors += conv_bn(
                f"{ours}/conv{i}", f"{ours}/bn{i}", f"{block}.conv{i}", f"{block}.bn{i}"
            )
        if downsamples(group, number):
            shortcut = f"{block}.downsample"
            tensors += conv_bn(
                f"{ours}/downsample_conv",
                f"{ours}/downsample_bn",
                f"{shortcut}.0",
                f"{shortcut}.1",
            )
    return tensors


def _torchvision(model: StagedModel) -> list[Tensor]:
    model = _resnet(model)
    tensors = conv_bn("stem/conv", "stem/bn", "conv1", "bn1")
    tensors += torchvision_blocks(model.blocks, _num_layers(model), model.downsamples)
    return tensors + dense("head", "fc")


def _huggingface(model: StagedModel) -> list[Tensor]:
    model = _resnet(model)

    def layer(conv: str, bn: str, name: str) -> list[Tensor]:
        return conv_bn(conv, bn, f"resnet.{name}.convolution", f"resnet.{name}.normalization")

    tensors = layer("stem/conv", "stem/bn", "embedder.embedder")
    for ours, (group, number) in model.blocks.items():
        block = f"encoder.stages.{group}.layers.{number}"
        for i in range(1, _num_layers(model) + 1):
            tensors += layer(f"{ours}/conv{i}", f"{ours}/bn{i}", f"{block}.layer.{i - 1}")
        if model.downsamples(group, number):
            tensors += layer(
                f"{ours}/downsample_conv", f"{ours}/downsample_bn", f"{block}.shortcut"
            )
    return tensors + dense("head", "classifier.1")


def _resnet(model: StagedModel) -> ResNet:
    if not isinstance(model, ResNet):
        raise ValueError(
            f"these weights are a ResNet's; got {type(model).__name__}; name a resnet model"
        )
    return model


def _with_prefix(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Adds the prefix that files of the backbone alone (`ResNetModel`) lack."""
    return {
        name if name.startswith(("resnet.", "classifier.")) else f"resnet.{name}": tensor
        for name, tensor in tensors.items()
    }


def _checked(config: Mapping[str, Any]) -> dict[str, Any]:
    """Refuses the variants whose tensors would fit and whose function is another."""
    for field, ours in (
        ("hidden_act", "relu"),
        ("downsample_in_bottleneck", False),
        ("downsample_in_first_stage", False),
    ):
        if config.get(field, ours) != ours:
            raise ValueError(
                f"a variant of ResNet that there is not; got {field}={config[field]!r} in its "
                f"config.json; use weights with {ours!r}"
            )
    return {}


FORMATS: dict[str, Format] = {
    "timm": Format(tensors=_torchvision, ignored=(BATCH_NORM_COUNTER,)),
    "huggingface": Format(
        tensors=_huggingface, ignored=(BATCH_NORM_COUNTER,), rename=_with_prefix, overrides=_checked
    ),
}
