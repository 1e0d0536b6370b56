"""The model table: what each name stands for, and what its weights expect of images."""

import dataclasses
from collections.abc import Mapping
from typing import Any

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
LITE_MEAN, LITE_STD = (0.498,) * 3, (0.502,) * 3  # EfficientNet-Lite's own, almost [-1, 1]
HALF = (0.5, 0.5, 0.5)  # as mean and std: images in [-1, 1]


@dataclasses.dataclass(frozen=True)
class ModelEntry:
    """One row of `MODELS`.

    Attributes:
      name: the name it is built by.
      family: key of `FAMILIES`.
      kwargs: fields of the family's model, without num_classes, image_size and dtype.
      input_size: side of the images by default.
      mean: of the pixels in [0, 1], per channel.
      std: likewise.
      interpolation: of the resize in evaluation.
      resize: what the shorter side becomes in evaluation, before the central crop.
      naming: module of `robust_jax.weights` that knows the names in weight files; "": none.
      weights: its formats; none: train it.
      text_family: key of `TEXT_FAMILIES`; "" without a text tower.
      text_kwargs: fields of the text tower.
      native_size: side of the images that published weights have positions for, and at which
        parameters are counted, where that is not `input_size`.
    """

    name: str
    family: str
    kwargs: Mapping[str, Any]
    input_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str
    resize: int
    naming: str = ""
    weights: tuple[str, ...] = ()
    text_family: str = ""
    text_kwargs: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    native_size: int | None = None

    def shorter_side(self, image_size: int) -> int:
        """What the shorter side of an image becomes before the central crop of `image_size`."""
        return max(image_size, round(self.resize * image_size / self.input_size))


def entry_to_json(row: ModelEntry) -> dict[str, Any]:
    """Returns an entry as plain values."""
    return dataclasses.asdict(row)


def entry_from_json(values: Mapping[str, Any]) -> ModelEntry:
    """Returns the entry that `entry_to_json` wrote."""
    return ModelEntry(**_hashable(values))


def _hashable(value: Any) -> Any:
    """Makes tuples of the lists that JSON knows instead: fields of a network must be hashable."""
    if isinstance(value, Mapping):
        return {key: _hashable(inner) for key, inner in value.items()}
    return tuple(map(_hashable, value)) if isinstance(value, list) else value


def _transformer(width: int, depth: int, patch_size: int, **more: Any) -> dict[str, Any]:
    """Heads of 64 channels and an MLP four times as wide, as all of these have."""
    fields = {"width": width, "depth": depth, "num_heads": width // 64, "mlp_dim": 4 * width}
    return {**fields, "patch_size": patch_size, **more}


def _vit(name: str, width: int, depth: int, patch_size: int) -> ModelEntry:
    """A ViT of the augreg papers (Dosovitskiy 2021, Steiner 2022): [-1, 1] images of 224 pixels."""
    kwargs = _transformer(width, depth, patch_size)
    weights = ("big_vision", "timm", "huggingface")
    return ModelEntry(name, "vit", kwargs, 224, HALF, HALF, "bicubic", 248, "vit", weights)


def _dinov2(name: str, width: int) -> ModelEntry:
    """DINOv2 (Oquab et al. 2023), used at 224 pixels; its published grid is that of 518."""
    kwargs, weights = _transformer(width, 12, 14, layer_scale=True), ("timm", "huggingface")
    row = (224, IMAGENET_MEAN, IMAGENET_STD, "bicubic", 256, "vit", weights)
    return ModelEntry(name, "vit", kwargs, *row, native_size=518)


def _resnet(name: str, block: str, *depths: int) -> ModelEntry:
    """A ResNet as in torchvision, whose files have timm's key names."""
    kwargs, weights = {"block": block, "depths": depths}, ("timm", "huggingface")
    mean, std = IMAGENET_MEAN, IMAGENET_STD
    return ModelEntry(name, "resnet", kwargs, 224, mean, std, "bilinear", 256, "resnet", weights)


def _clip(
    name: str, family: str, kwargs: dict[str, Any], text_width: int, size: int, embed_dim: int
) -> ModelEntry:
    """CLIP (Radford et al. 2021) with its text tower."""
    fields = {"width": text_width, "num_heads": text_width // 64, "embed_dim": embed_dim}
    return ModelEntry(
        name,
        family,
        kwargs,
        size,
        CLIP_MEAN,
        CLIP_STD,
        "bicubic",
        size,
        "clip",
        ("openai_clip",) if family == "clip_resnet" else ("openai_clip", "huggingface"),
        "clip",
        {"depth": 12, **fields},
    )


def _clip_vit(
    name: str, width: int, depth: int, patch_size: int, embed_dim: int, size: int = 224
) -> ModelEntry:
    own = {"pre_norm": True, "patch_bias": False, "gelu": "quick", "norm_eps": 1e-5}
    kwargs = _transformer(width, depth, patch_size, projection=embed_dim, **own)
    return _clip(name, "vit", kwargs, embed_dim, size, embed_dim)


def _clip_resnet(name: str, depths: tuple[int, ...], embed_dim: int) -> ModelEntry:
    kwargs = {"depths": depths, "num_heads": 32, "embed_dim": embed_dim}
    return _clip(name, "clip_resnet", kwargs, 512, 224, embed_dim)


def _lit(name: str, **projection: Any) -> ModelEntry:
    """LiT (Zhai et al. 2022): a locked augreg ViT-B/16 and a BERT-base text tower."""
    kwargs = _transformer(768, 12, 16, gelu="tanh", **projection)
    text = {"embed_dim": 768}
    return ModelEntry(
        name,
        "vit",
        kwargs,
        224,
        HALF,
        HALF,
        "bilinear",
        224,
        "lit",
        ("big_vision",),
        "bert",
        text,
    )


def _lite(name: str, width: float, depth: float, size: int, resize: int) -> ModelEntry:
    """EfficientNet-Lite (Tan & Le 2019, the released Lite variants): ReLU6, no squeezing."""
    kwargs, weights = {"width_factor": width, "depth_factor": depth}, ("efficientnet_lite_pytorch",)
    row = (size, LITE_MEAN, LITE_STD, "bicubic", resize, "efficientnet", weights)
    return ModelEntry(name, "efficientnet", kwargs, *row)


def _small(name: str, family: str, **kwargs: Any) -> ModelEntry:
    """A network for images of 32 pixels that has no published weights."""
    return ModelEntry(name, family, kwargs, 32, HALF, HALF, "bilinear", 32)


# The first timm "vit_small_patch16_224" (before 2021-06-12), 48.75 M parameters: the only published
# ViT-Small of the paper's size. Its weights need the attention scale of a single head.
_VIT_SMALL_LEGACY48M = ModelEntry(
    "vit_small_legacy48m",
    "vit",
    {
        "width": 768,
        "depth": 8,
        "num_heads": 8,
        "patch_size": 16,
        "mlp_dim": 2304,
        "qkv_bias": False,
        "attention_scale": 768**-0.5,
    },
    224,
    IMAGENET_MEAN,
    IMAGENET_STD,
    "bicubic",
    248,
    "vit",
    ("timm",),
)
_SWIN = (224, IMAGENET_MEAN, IMAGENET_STD, "bicubic", 256, "swin")
_UNICL_TEXT = {"width": 512, "depth": 12, "num_heads": 8, "embed_dim": 512, "norm_eps": 1e-12}

# A strided first convolution, no pooling, and three groups: cheap at 32 pixels. (A fourth group
# would work on 2 x 2 pixels, whose convolutions XLA runs 17 times slower on CPUs than the matrix
# products that they are.)
_STRIDED: dict[str, Any] = {"block": "basic", "depths": (2, 2, 2), "stem": "small"}

MODELS: dict[str, ModelEntry] = {
    row.name: row
    for row in (
        _vit("vit_ti16", 192, 12, 16),
        _vit("vit_s16", 384, 12, 16),
        _vit("vit_b16", 768, 12, 16),
        _vit("vit_b32", 768, 12, 32),
        _vit("vit_l16", 1024, 24, 16),
        _VIT_SMALL_LEGACY48M,
        _dinov2("dinov2_vits14", 384),
        _dinov2("dinov2_vitb14", 768),
        _small("vit_tiny", "vit", width=192, depth=6, num_heads=3, patch_size=4, mlp_dim=768),
        _small("vit_tiny8", "vit", width=192, depth=4, num_heads=3, patch_size=8, mlp_dim=768),
        _resnet("resnet18", "basic", 2, 2, 2, 2),
        _resnet("resnet34", "basic", 3, 4, 6, 3),
        _resnet("resnet50", "bottleneck", 3, 4, 6, 3),
        _resnet("resnet101", "bottleneck", 3, 4, 23, 3),
        _resnet("resnet152", "bottleneck", 3, 8, 36, 3),
        _small("resnet18_cifar", "resnet", block="basic", depths=(2, 2, 2, 2), stem="cifar"),
        _small("resnet20", "resnet", block="basic", depths=(3, 3, 3), stem="cifar", base_width=16),
        _small("resnet_tiny", "resnet", base_width=8, **_STRIDED),
        _small("resnet_small", "resnet", base_width=16, **_STRIDED),
        _small("resnet_medium", "resnet", base_width=48, **_STRIDED),
        _lite("efficientnet_lite0", 1.0, 1.0, 224, 256),
        _lite("efficientnet_lite2", 1.1, 1.2, 260, 292),
        ModelEntry("swin_tiny", "swin", {}, *_SWIN, ("timm", "huggingface")),
        ModelEntry(
            "unicl_swin_tiny", "swin", {"projection": 512}, *_SWIN, ("unicl",), "clip", _UNICL_TEXT
        ),
        _clip_resnet("clip_rn50", (3, 4, 6, 3), 1024),
        _clip_resnet("clip_rn101", (3, 4, 23, 3), 512),
        _clip_vit("clip_vit_b32", 768, 12, 32, 512),
        _clip_vit("clip_vit_b16", 768, 12, 16, 512),
        _clip_vit("clip_vit_l14", 1024, 24, 14, 768),
        _clip_vit("clip_vit_l14_336", 1024, 24, 14, 768, 336),
        _lit("lit_b16b", projection=768, projection_bias=True),
        _lit("lit_b16b_2"),
    )
}
