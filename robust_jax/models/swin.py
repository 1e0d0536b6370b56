"""Swin Transformer: attention within windows that shift, on maps that shrink by patch merging."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from robust_jax.models.attention import MlpBlock, layer_norm
from robust_jax.models.classifier import check_head, classifier
from robust_jax.models.stages import Stage, StagedModel, grouped_blocks
from robust_jax.models.windows import (
    from_windows,
    offset_index,
    pad_to_multiple,
    shift_mask,
    to_windows,
)

MLP_RATIO = 4
TABLE_INIT = nn.initializers.truncated_normal(0.02)  # Liu et al. 2021, as all of their matrices


class PatchEmbed(nn.Module):
    """Images f32[b, h, w, 3] to normalised patches [b, h / p, w / p, d], padded to whole ones."""

    patch_size: int
    embed_dim: int
    norm_eps: float
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        patch = (self.patch_size, self.patch_size)
        x = pad_to_multiple(x, self.patch_size)
        x = nn.Conv(self.embed_dim, patch, patch, "VALID", dtype=self.dtype, name="patch")(x)
        return layer_norm("norm", self.norm_eps, self.dtype)(x)


class WindowAttention(nn.Module):
    """Residual self-attention within windows [b, h, w, d] -> [b, h, w, d].

    A map no larger than a window is one window, not shifted. Other maps are padded to whole windows
    with tokens that are zero after the norm, and that take part in the softmax as in the published
    networks.

    Args:
      window: side of a window, in tokens.
      shifted: roll the map by half a window first.
    """

    num_heads: int
    window: int
    shifted: bool
    norm_eps: float
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        _, height, width, d = x.shape
        head_width = d // self.num_heads
        window = min(self.window, height, width)
        shift = window // 2 if self.shifted and min(height, width) > self.window else 0
        init = nn.initializers.xavier_uniform()

        def project(name: str) -> jax.Array:
            features = (self.num_heads, head_width)
            return nn.DenseGeneral(features, kernel_init=init, dtype=self.dtype, name=name)(tokens)

        y = pad_to_multiple(layer_norm("norm", self.norm_eps, self.dtype)(x), window)
        padded_height, padded_width = y.shape[1:3]
        tokens = to_windows(jnp.roll(y, (-shift, -shift), (1, 2)), window)
        table_shape = ((2 * self.window - 1) ** 2, self.num_heads)
        table = self.param("bias_table", TABLE_INIT, table_shape)
        bias = jnp.moveaxis(table[offset_index(window, self.window)], -1, 0)

        query, key, value = project("query"), project("key"), project("value")
        scores = jnp.einsum("bmqhc,bmnhc->bmhqn", query, key, preferred_element_type=jnp.float32)
        scores = scores * head_width**-0.5 + bias
        if shift:
            mask = shift_mask(padded_height, padded_width, window, shift)
            scores = jnp.where(mask, scores, -jnp.inf)
        weights = jax.nn.softmax(scores, axis=-1).astype(value.dtype)
        y = jnp.einsum("bmhqn,bmnhc->bmqhc", weights, value)
        y = nn.DenseGeneral(d, (-2, -1), kernel_init=init, dtype=self.dtype, name="out")(y)

        y = from_windows(y, window, padded_height, padded_width)
        return x + jnp.roll(y, (shift, shift), (1, 2))[:, :height, :width]


class PatchMerging(nn.Module):
    """[b, h, w, d] to [b, ⌈h / 2⌉, ⌈w / 2⌉, 2d]: each 2x2 tokens, concatenated, are projected."""

    norm_eps: float
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = pad_to_multiple(x, 2)
        b, height, width, d = x.shape
        x = x.reshape(b, height // 2, 2, width // 2, 2, d)
        # Column before row: the order of the published weights.
        x = x.transpose(0, 1, 3, 4, 2, 5).reshape(b, height // 2, width // 2, 4 * d)
        x = layer_norm("norm", self.norm_eps, self.dtype)(x)
        return nn.Dense(2 * d, use_bias=False, dtype=self.dtype, name="reduction")(x)


class Swin(StagedModel):
    """Swin Transformer (Liu et al. 2021) as stages.

    Stages: embed, stage1_block0_attn, stage1_block0_mlp, ..., stage1_merge, ..., norm, pool, proj
    (if `projection`), head. It takes images of any size; `image_size` is the one it is meant for.

    Args:
      num_classes: k of the logits f32[b, k].
      embed_dim: d of the first tokens; every merge doubles it.
      depths: number of blocks in each stage.
      num_heads: of the blocks in each stage.
      window: side of the attention's windows, in tokens.
      projection: e of the bias-free projection after the pooling, as in UniCL; none if None.
      head: kind of classifier, see `classifier`.
      dtype: of activations and products; parameters, norms, softmax, pooled feature, projection
        and head are f32.
    """

    num_classes: int
    image_size: int
    patch_size: int = 4
    embed_dim: int = 96
    depths: tuple[int, ...] = (2, 2, 6, 2)
    num_heads: tuple[int, ...] = (3, 6, 12, 24)
    window: int = 7
    projection: int | None = None
    head: str = "linear"
    norm_eps: float = 1e-5
    dtype: Any = jnp.float32

    def __post_init__(self) -> None:
        for field in ("image_size", "patch_size", "window"):
            if getattr(self, field) < 1:
                raise ValueError(
                    f"{field} counts from 1; got {getattr(self, field)}; use 1 or more"
                )
        if not self.depths or min(self.depths) < 1:
            raise ValueError(f"each stage needs a block; got depths={self.depths}; use 1 or more")
        if len(self.num_heads) != len(self.depths):
            raise ValueError(
                f"each stage has its number of heads; got depths={self.depths}, "
                f"num_heads={self.num_heads}; make them equally long"
            )
        for group, heads in enumerate(self.num_heads):
            if (self.embed_dim << group) % heads:
                raise ValueError(
                    f"heads must share the width evenly; got width={self.embed_dim << group}, "
                    f"num_heads={heads} in stage {group + 1}; use a divisor of the width"
                )
        check_head(self.head)
        super().__post_init__()

    @property
    def feature_width(self) -> int:
        """d of the pooled, and projected, feature f32[b, d] that enters the head."""
        return self.projection or self.embed_dim << (len(self.depths) - 1)

    @property
    def blocks(self) -> dict[str, tuple[int, int]]:
        """Name of each block, in order, to its (group, number), both from 0."""
        return grouped_blocks(self.depths)

    def merge_after(self, group: int, number: int) -> tuple[str, ...]:
        """The patch merging behind a block, if there is one."""
        last = number == self.depths[group] - 1 and group < len(self.depths) - 1
        return (f"stage{group + 1}_merge",) if last else ()

    @property
    def stage_names(self) -> tuple[str, ...]:
        names = ["embed"]
        for block, place in self.blocks.items():
            names += [f"{block}_attn", f"{block}_mlp", *self.merge_after(*place)]
        return (*names, "norm", "pool", *(("proj",) if self.projection else ()), "head")

    def stage(self, name: str, train: bool) -> Stage:
        eps, dtype = self.norm_eps, self.dtype
        if name == "embed":
            return PatchEmbed(self.patch_size, self.embed_dim, eps, dtype, name=name)
        if name == "norm":
            return layer_norm(name, eps, jnp.float32)
        if name == "pool":
            return lambda x: x.mean(axis=(1, 2))
        if name == "proj":
            return nn.Dense(self.feature_width, use_bias=False, name=name)
        if name == "head":
            return classifier(self.head, self.num_classes, name)
        if name.endswith("_merge"):
            return PatchMerging(eps, dtype, name=name)
        block, part = name.rsplit("_", 1)
        group, number = self.blocks[block]
        if part == "mlp":
            mlp_dim = MLP_RATIO * (self.embed_dim << group)
            return MlpBlock(mlp_dim, eps, "erf", dtype, name=name)
        heads, shifted = self.num_heads[group], number % 2 == 1
        return WindowAttention(heads, self.window, shifted, eps, dtype, name=name)

    def freeable(self) -> tuple[tuple[str, ...], ...]:
        groups: list[tuple[str, ...]] = [("proj",)] if self.projection else []
        groups.append(("norm",))
        for block, place in reversed(self.blocks.items()):
            for merge in self.merge_after(*place):
                groups += [(f"{merge}/reduction",), (f"{merge}/norm",)]
            mlp, attn = f"{block}_mlp", f"{block}_attn"
            groups += [(f"{mlp}/fc2",), (f"{mlp}/fc1",), (f"{mlp}/norm",), (f"{attn}/out",)]
            asked = ("query", "key", "value", "bias_table")
            groups += [tuple(f"{attn}/{part}" for part in asked), (f"{attn}/norm",)]
        return tuple(groups)
