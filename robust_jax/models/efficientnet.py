"""EfficientNet-Lite: inverted residual blocks with ReLU6 and without squeeze-and-excitation."""

import math
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from robust_jax.models.classifier import check_head, classifier
from robust_jax.models.depthwise import DepthwiseConv
from robust_jax.models.resnet import global_average
from robust_jax.models.stages import Stage, StagedModel


class Group(NamedTuple):
    """Consecutive blocks of one width; the first of them strides and changes the width."""

    num_blocks: int
    kernel: int
    stride: int
    expansion: int
    width: int


class BlockShape(NamedTuple):
    """One block, its widths scaled: `width_in` and `width` are d before and after it."""

    width_in: int
    width: int
    kernel: int
    stride: int
    expansion: int


# EfficientNet-B0 (Tan & Le 2019, table 1), on which the Lite models are built.
GROUPS = (
    Group(1, 3, 1, 1, 16),
    Group(2, 3, 2, 6, 24),
    Group(2, 5, 2, 6, 40),
    Group(3, 3, 2, 6, 80),
    Group(3, 5, 1, 6, 112),
    Group(4, 5, 2, 6, 192),
    Group(1, 3, 1, 6, 320),
)
STEM_WIDTH, TOP_WIDTH = 32, 1280  # Not scaled in the Lite models.
WIDTH_STEP = 8
HE_INIT = nn.initializers.variance_scaling(2.0, "fan_out", "normal")  # He et al. 2015


def scaled_width(width: int, factor: float) -> int:
    """The multiple of 8 nearest to `factor * width`, or the next one if that loses over 10 %."""
    wanted = factor * width
    nearest = max(WIDTH_STEP, int(wanted + WIDTH_STEP / 2) // WIDTH_STEP * WIDTH_STEP)
    return nearest + WIDTH_STEP if nearest < 0.9 * wanted else nearest


def conv(name: str, width: int, kernel: int, stride: int, dtype: Any) -> nn.Conv:
    """A convolution without bias, padded as TensorFlow does."""
    # The original is TensorFlow's: padding depends on the size of the map, and odd padding goes
    # to the lower right. The PyTorch port computes the same from the size it is built for.
    return nn.Conv(
        width,
        (kernel, kernel),
        (stride, stride),
        "SAME",
        use_bias=False,
        kernel_init=HE_INIT,
        dtype=dtype,
        name=name,
    )


def batch_norm(name: str, running: bool, dtype: Any) -> nn.BatchNorm:
    """Batch norm computed in f32 and returned in `dtype`; eps and momentum are the original's."""
    return nn.BatchNorm(
        use_running_average=running, momentum=0.99, epsilon=1e-3, dtype=dtype, name=name
    )


class ConvLayer(nn.Module):
    """Convolution, batch norm, ReLU6: the stem and the top."""

    width: int
    kernel: int
    stride: int
    running: bool
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = conv("conv", self.width, self.kernel, self.stride, self.dtype)(x)
        return nn.relu6(batch_norm("bn", self.running, self.dtype)(x))


class Block(nn.Module):
    """An inverted residual block [b, h, w, d] -> [b, ⌈h / stride⌉, ⌈w / stride⌉, d']."""

    shape: BlockShape
    running: bool
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape, y = self.shape, x
        if shape.expansion > 1:
            y = conv("expand_conv", shape.width_in * shape.expansion, 1, 1, self.dtype)(y)
            y = nn.relu6(batch_norm("expand_bn", self.running, self.dtype)(y))
        y = DepthwiseConv(shape.kernel, shape.stride, self.dtype, name="depthwise_conv")(y)
        y = nn.relu6(batch_norm("depthwise_bn", self.running, self.dtype)(y))
        y = conv("project_conv", shape.width, 1, 1, self.dtype)(y)
        y = batch_norm("project_bn", self.running, self.dtype)(y)
        return x + y if shape.stride == 1 and shape.width == shape.width_in else y


class EfficientNet(StagedModel):
    """EfficientNet-Lite as stages: stem, block_00, ..., top, pool, head.

    It takes images of any size; `image_size` is the one it is meant for.

    Args:
      num_classes: k of the logits f32[b, k].
      width_factor: multiplies the widths of `groups`, see `scaled_width`.
      depth_factor: multiplies the number of blocks, rounded up, of all groups but the first and
        the last.
      groups: of blocks, before the factors.
      frozen_bn: use the running statistics in training too.
      head: "linear" or "cosine", see `classifier`.
      dtype: of activations and products; parameters, norms, pooled feature and head are f32.
    """

    num_classes: int
    image_size: int
    width_factor: float = 1.0
    depth_factor: float = 1.0
    groups: tuple[Group, ...] = GROUPS
    frozen_bn: bool = False
    head: str = "linear"
    dtype: Any = jnp.float32

    def __post_init__(self) -> None:
        if self.image_size < 1:
            raise ValueError(
                f"images need pixels; got image_size={self.image_size}; use 224 or 260"
            )
        for field in ("width_factor", "depth_factor"):
            if getattr(self, field) <= 0:
                raise ValueError(
                    f"{field} must be positive; got {getattr(self, field)}; use 1.0 for Lite0"
                )
        check_head(self.head)
        super().__post_init__()

    @property
    def feature_width(self) -> int:
        """d of the pooled feature f32[b, d]."""
        return TOP_WIDTH

    @property
    def blocks(self) -> dict[str, BlockShape]:
        """Stage name of each block, in order, to what it is."""
        shapes: list[BlockShape] = []
        width_in = STEM_WIDTH
        for i, group in enumerate(self.groups):
            inner = 0 < i < len(self.groups) - 1
            depth = math.ceil(self.depth_factor * group.num_blocks) if inner else group.num_blocks
            width = scaled_width(group.width, self.width_factor)
            for number in range(depth):
                stride = 1 if number else group.stride
                shapes.append(BlockShape(width_in, width, group.kernel, stride, group.expansion))
                width_in = width
        return {f"block_{i:02d}": shape for i, shape in enumerate(shapes)}

    @property
    def stage_names(self) -> tuple[str, ...]:
        return ("stem", *self.blocks, "top", "pool", "head")

    def stage(self, name: str, train: bool) -> Stage:
        running = self.frozen_bn or not train
        if name == "stem":
            return ConvLayer(STEM_WIDTH, 3, 2, running, self.dtype, name=name)
        if name == "top":
            return ConvLayer(TOP_WIDTH, 1, 1, running, self.dtype, name=name)
        if name == "pool":
            return global_average
        if name == "head":
            return classifier(self.head, self.num_classes, name)
        return Block(self.blocks[name], running, self.dtype, name=name)

    def freeable(self) -> tuple[tuple[str, ...], ...]:
        groups: list[tuple[str, ...]] = [("top/conv", "top/bn")]
        for name, shape in reversed(self.blocks.items()):
            expand = ("expand",) if shape.expansion > 1 else ()
            for layer in ("project", "depthwise", *expand):
                groups.append((f"{name}/{layer}_conv", f"{name}/{layer}_bn"))
        return tuple(groups)
