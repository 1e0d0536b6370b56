"""The ResNet image tower of CLIP: three-convolution stem, average-pooled strides, attention pool.

Radford et al. 2021, section 2.4. The ViT tower of CLIP is `models.vit.ViT` with a pre-norm, a patch
convolution without bias and a projection.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from robust_jax.models.attention import attend
from robust_jax.models.classifier import check_head, classifier
from robust_jax.models.resnet import BOTTLENECK_EXPANSION, batch_norm, conv
from robust_jax.models.stages import Stage, StagedModel, grouped_blocks

STEM_STRIDE = 4


def halve(x: jax.Array) -> jax.Array:
    """Means of 2x2 squares: [b, h, w, d] to [b, h / 2, w / 2, d]."""
    return nn.avg_pool(x, (2, 2), (2, 2))


class Stem(nn.Module):
    """Images f32[b, h, w, 3] to the first feature map [b, h / 4, w / 4, d]."""

    image_size: int
    width: int
    running: bool
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        size = self.image_size
        if x.shape[1:] != (size, size, 3):
            raise ValueError(
                f"the model was built for images [b, {size}, {size}, 3]; got {list(x.shape)}; "
                "resize them, or build the model with another image_size"
            )
        widths = (self.width // 2, self.width // 2, self.width)
        for i, width in enumerate(widths, start=1):
            x = conv(f"conv{i}", width, 3, 2 if i == 1 else 1, self.dtype)(x)
            x = nn.relu(batch_norm(f"bn{i}", self.running, self.dtype)(x))
        return halve(x)


class Block(nn.Module):
    """A bottleneck [b, h, w, d] -> [b, h', w', 4 width]; all of its convolutions have stride 1.

    Args:
      width: of the first two convolutions.
      halves: whether h' is h / 2, by averages before the last convolution and in the shortcut.
      downsample: whether the shortcut has a 1x1 convolution with batch norm.
    """

    width: int
    halves: bool
    downsample: bool
    running: bool
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = conv("conv1", self.width, 1, 1, self.dtype)(x)
        y = nn.relu(batch_norm("bn1", self.running, self.dtype)(y))
        y = conv("conv2", self.width, 3, 1, self.dtype)(y)
        y = nn.relu(batch_norm("bn2", self.running, self.dtype)(y))
        if self.halves:
            x, y = halve(x), halve(y)
        y = conv("conv3", BOTTLENECK_EXPANSION * self.width, 1, 1, self.dtype)(y)
        y = batch_norm("bn3", self.running, self.dtype, zero_scale=True)(y)
        if self.downsample:
            x = conv("downsample_conv", y.shape[-1], 1, 1, self.dtype)(x)
            x = batch_norm("downsample_bn", self.running, self.dtype)(x)
        return nn.relu(x + y)


class AttentionPool(nn.Module):
    """Attention of a map's mean to the mean and the map: [b, h, w, d] to f32[b, e].

    Its positions `pos` [1, 1 + h * w, d] have the mean's row first.
    """

    num_heads: int
    embed_dim: int
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        width = x.shape[-1]
        head_width = width // self.num_heads
        init = nn.initializers.normal(width**-0.5)  # Radford et al. 2021, as the positions' below

        def project(name: str, tokens: jax.Array) -> jax.Array:
            features = (self.num_heads, head_width)
            return nn.DenseGeneral(features, kernel_init=init, dtype=self.dtype, name=name)(tokens)

        x = x.reshape(x.shape[0], -1, width)
        mean = x.mean(axis=1, keepdims=True, dtype=jnp.float32).astype(x.dtype)
        x = jnp.concatenate([mean, x], axis=1)
        x = x + self.param("pos", init, (1, *x.shape[1:])).astype(x.dtype)
        query, key, value = project("query", x[:, :1]), project("key", x), project("value", x)
        y = attend(query, key, value, head_width**-0.5)[:, 0]
        return nn.DenseGeneral(
            self.embed_dim, (-2, -1), kernel_init=init, dtype=jnp.float32, name="out"
        )(y)


class ModifiedResNet(StagedModel):
    """CLIP's ResNet (Radford et al. 2021) as stages: stem, stage1_block0, ..., attn_pool, head.

    Args:
      num_classes: k of the logits f32[b, k].
      image_size: side of the images, a multiple of the whole stride (32 for four groups).
      depths: number of blocks in each group; a group after the first halves the map and doubles
        the width.
      num_heads: of the attention pool.
      embed_dim: d of the pooled feature.
      base_width: width of the stem and of the first group.
      head: "linear" or "cosine", see `classifier`.
      frozen_bn: use the running statistics in training too.
      dtype: of activations and products; parameters, norms, softmax, pooled feature and head are
        f32.
    """

    num_classes: int
    image_size: int
    depths: tuple[int, ...]
    num_heads: int
    embed_dim: int
    base_width: int = 64
    head: str = "linear"
    frozen_bn: bool = False
    dtype: Any = jnp.float32

    def __post_init__(self) -> None:
        stride, size = STEM_STRIDE * 2 ** (len(self.depths) - 1), self.image_size
        if size < stride or size % stride:
            nearest = max(1, size // stride) * stride
            raise ValueError(
                f"the network halves its map to a last one of whole pixels; got image_size={size}; "
                f"use a multiple of {stride}, such as {nearest}"
            )
        width = self.base_width * 2 ** (len(self.depths) - 1) * BOTTLENECK_EXPANSION
        if width % self.num_heads:
            raise ValueError(
                f"heads must share the last map's width evenly; got width {width}, "
                f"num_heads={self.num_heads}; use a divisor of the width"
            )
        check_head(self.head)
        super().__post_init__()

    @property
    def feature_width(self) -> int:
        """d of the pooled feature f32[b, d]."""
        return self.embed_dim

    @property
    def blocks(self) -> dict[str, tuple[int, int]]:
        """Stage name of each residual block, in order, to its (group, number), both from 0."""
        return grouped_blocks(self.depths)

    @property
    def stage_names(self) -> tuple[str, ...]:
        return ("stem", *self.blocks, "attn_pool", "head")

    def stage(self, name: str, train: bool) -> Stage:
        running = self.frozen_bn or not train
        if name == "stem":
            return Stem(self.image_size, self.base_width, running, self.dtype, name=name)
        if name == "attn_pool":
            return AttentionPool(self.num_heads, self.embed_dim, self.dtype, name=name)
        if name == "head":
            return classifier(self.head, self.num_classes, name)
        group, number = self.blocks[name]
        return Block(
            self.base_width * 2**group,
            halves=group > 0 and number == 0,
            downsample=number == 0,
            running=running,
            dtype=self.dtype,
            name=name,
        )

    def freeable(self) -> tuple[tuple[str, ...], ...]:
        inputs = tuple(f"attn_pool/{part}" for part in ("query", "key", "value"))
        groups: list[tuple[str, ...]] = [("attn_pool/out",), inputs, ("attn_pool/pos",)]
        for name, (_, number) in reversed(self.blocks.items()):
            groups += [(f"{name}/conv{i}", f"{name}/bn{i}") for i in (3, 2, 1)]
            if number == 0:
                groups.append((f"{name}/downsample_conv", f"{name}/downsample_bn"))
        return tuple(groups)
