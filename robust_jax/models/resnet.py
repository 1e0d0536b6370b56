"""ResNet v1.5: the bottleneck strides its 3x3 convolution, as in torchvision's weights."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from robust_jax.models.classifier import check_head, classifier
from robust_jax.models.stages import Stage, StagedModel, check_choice, grouped_blocks

BLOCKS = ("basic", "bottleneck")
BOTTLENECK_EXPANSION = 4
# (kernel, stride, max-pool): "imagenet" is He et al. 2016; "cifar" keeps a 32-pixel image whole;
# "small" halves it, a quarter of the cost.
STEMS = {"imagenet": (7, 2, True), "cifar": (3, 1, False), "small": (3, 2, False)}


def conv(name: str, width: int, kernel: int, stride: int, dtype: Any) -> nn.Conv:
    """A convolution without bias, padded by half its kernel on every side."""
    # "SAME" pads strided convolutions on one side only, which is wrong for torch's weights.
    return nn.Conv(
        width,
        (kernel, kernel),
        (stride, stride),
        ((kernel // 2, kernel // 2),) * 2,
        use_bias=False,
        kernel_init=nn.initializers.variance_scaling(2.0, "fan_out", "normal"),  # He et al. 2015
        dtype=dtype,
        name=name,
    )


def batch_norm(name: str, running: bool, dtype: Any, *, zero_scale: bool = False) -> nn.BatchNorm:
    """Batch norm computed in f32 and returned in `dtype`; eps and momentum are torchvision's."""
    return nn.BatchNorm(
        use_running_average=running,
        momentum=0.9,
        epsilon=1e-5,
        scale_init=nn.initializers.zeros if zero_scale else nn.initializers.ones,
        dtype=dtype,
        name=name,
    )


def global_average(x: jax.Array) -> jax.Array:
    """[b, h, w, d] to f32[b, d]."""
    return x.mean(axis=(1, 2), dtype=jnp.float32)


class Stem(nn.Module):
    """Images f32[b, h, w, 3] to the first feature map [b, h', w', d]."""

    width: int
    kind: str
    running: bool
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kernel, stride, max_pool = STEMS[self.kind]
        x = conv("conv", self.width, kernel, stride, self.dtype)(x)
        x = nn.relu(batch_norm("bn", self.running, self.dtype)(x))
        return nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1))) if max_pool else x


class Block(nn.Module):
    """A residual block [b, h, w, d] -> [b, h / stride, w / stride, d'].

    Args:
      layers: (width, kernel, stride) of its convolutions in order.
      downsample: whether the shortcut is a strided 1x1 convolution with batch norm.
    """

    layers: tuple[tuple[int, int, int], ...]
    downsample: bool
    running: bool
    zero_init: bool
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = x
        for i, (width, kernel, stride) in enumerate(self.layers, start=1):
            last = i == len(self.layers)
            y = conv(f"conv{i}", width, kernel, stride, self.dtype)(y)
            zero_scale = last and self.zero_init
            y = batch_norm(f"bn{i}", self.running, self.dtype, zero_scale=zero_scale)(y)
            y = y if last else nn.relu(y)
        if self.downsample:
            stride = max(stride for _, _, stride in self.layers)
            x = conv("downsample_conv", y.shape[-1], 1, stride, self.dtype)(x)
            x = batch_norm("downsample_bn", self.running, self.dtype)(x)
        return nn.relu(x + y)


class ResNet(StagedModel):
    """ResNet (He et al. 2016) as stages: stem, stage1_block0, ..., pool, head.

    It takes images of any size; `image_size` is the one it is meant for.

    Args:
      num_classes: k of the logits f32[b, k].
      depths: number of blocks in each group; a group after the first halves the map and doubles
        the width.
      block: "basic" or "bottleneck".
      stem: "imagenet", "cifar" or "small", see `STEMS`.
      base_width: width of the stem and of the first group.
      frozen_bn: use the running statistics in training too.
      zero_init: start every block as the identity; for training from scratch.
      head: "linear" or "cosine", see `classifier`.
      dtype: of activations and products; parameters, norms, pooled feature and head are f32.
    """

    num_classes: int
    image_size: int
    depths: tuple[int, ...]
    block: str
    stem: str = "imagenet"
    base_width: int = 64
    frozen_bn: bool = False
    zero_init: bool = True
    head: str = "linear"
    dtype: Any = jnp.float32

    def __post_init__(self) -> None:
        check_choice("block", self.block, BLOCKS)
        check_choice("stem", self.stem, STEMS)
        if self.image_size < 1:
            raise ValueError(f"images need pixels; got image_size={self.image_size}; use 32 or 224")
        check_head(self.head)
        super().__post_init__()

    @property
    def feature_width(self) -> int:
        """d of the pooled feature f32[b, d]."""
        expansion = BOTTLENECK_EXPANSION if self.block == "bottleneck" else 1
        return self.base_width * 2 ** (len(self.depths) - 1) * expansion

    @property
    def blocks(self) -> dict[str, tuple[int, int]]:
        """Stage name of each residual block, in order, to its (group, number), both from 0."""
        return grouped_blocks(self.depths)

    @property
    def stage_names(self) -> tuple[str, ...]:
        return ("stem", *self.blocks, "pool", "head")

    def downsamples(self, group: int, number: int) -> bool:
        """Whether the shortcut of a block changes the shape of the map."""
        return number == 0 and (group > 0 or self.block == "bottleneck")

    def stage(self, name: str, train: bool) -> Stage:
        running = self.frozen_bn or not train
        if name == "stem":
            return Stem(self.base_width, self.stem, running, self.dtype, name=name)
        if name == "pool":
            return global_average
        if name == "head":
            return classifier(self.head, self.num_classes, name)
        group, number = self.blocks[name]
        width, stride = self.base_width * 2**group, 2 if group > 0 and number == 0 else 1
        layers: tuple[tuple[int, int, int], ...] = ((width, 3, stride), (width, 3, 1))
        if self.block == "bottleneck":
            layers = ((width, 1, 1), (width, 3, stride), (width * BOTTLENECK_EXPANSION, 1, 1))
        downsample = self.downsamples(group, number)
        return Block(layers, downsample, running, self.zero_init, self.dtype, name=name)

    def freeable(self) -> tuple[tuple[str, ...], ...]:
        groups: list[tuple[str, ...]] = []
        num_layers = 3 if self.block == "bottleneck" else 2
        for name, (group, number) in reversed(self.blocks.items()):
            for i in range(num_layers, 0, -1):
                groups.append((f"{name}/conv{i}", f"{name}/bn{i}"))
            if self.downsamples(group, number):
                groups.append((f"{name}/downsample_conv", f"{name}/downsample_bn"))
        return tuple(groups)
