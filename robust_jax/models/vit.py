"""Vision Transformer: pre-norm blocks, learned position embedding, CLS token or average pooling."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from robust_jax.models.stages import Stage, StagedModel

# Weights are tied to the variant they were trained with: erf in timm and Hugging Face files, tanh
# in big_vision, quick (Hendrycks & Gimpel 2016, the sigmoid form) in OpenAI's CLIP.
GELU: dict[str, Callable[[jax.Array], jax.Array]] = {
    "erf": lambda x: nn.gelu(x, approximate=False),
    "tanh": lambda x: nn.gelu(x, approximate=True),
    "quick": lambda x: x * nn.sigmoid(1.702 * x),
}
POOLS = ("cls", "gap")


def layer_norm(name: str, eps: float, dtype: Any) -> nn.LayerNorm:
    """Layer norm computed in f32 and returned in `dtype`."""
    # The one-pass variance loses the small spread of activations with a large mean.
    return nn.LayerNorm(epsilon=eps, dtype=dtype, use_fast_variance=False, name=name)


def attend(query: jax.Array, key: jax.Array, value: jax.Array, scale: float) -> jax.Array:
    """Softmax attention, the softmax in f32.

    Args:
      query: [b, q, h, c], the q tokens that ask.
      key: [b, n, h, c].
      value: [b, n, h, c].
      scale: multiplies the dot products.

    Returns:
      [b, q, h, c] in the dtype of `value`.
    """
    scores = jnp.einsum("bqhc,bnhc->bhqn", query, key, preferred_element_type=jnp.float32)
    weights = jax.nn.softmax(scores * scale, axis=-1).astype(value.dtype)
    return jnp.einsum("bhqn,bnhc->bqhc", weights, value)


class Embed(nn.Module):
    """Images f32[b, h, w, 3] to tokens [b, n, d]: patches, CLS token if asked, positions."""

    image_size: int
    patch_size: int
    width: int
    cls_token: bool
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        size, patch = self.image_size, self.patch_size
        if x.shape[1:] != (size, size, 3):
            raise ValueError(
                f"the model was built for images [b, {size}, {size}, 3]; got {list(x.shape)}; "
                "resize them, or build the model with another image_size"
            )
        no_padding = ((0, 0), (0, 0))
        x = nn.Conv(
            self.width, (patch, patch), (patch, patch), no_padding, dtype=self.dtype, name="patch"
        )(x)
        x = x.reshape(len(x), -1, self.width)
        if self.cls_token:
            cls = self.param("cls", nn.initializers.zeros, (1, 1, self.width))
            cls = jnp.broadcast_to(cls.astype(self.dtype), (len(x), 1, self.width))
            x = jnp.concatenate([cls, x], axis=1)
        # The standard deviation is big_vision's: unit norm for each token's embedding.
        init = nn.initializers.normal(self.width**-0.5)
        return x + self.param("pos", init, (1, *x.shape[1:])).astype(self.dtype)


class AttentionBlock(nn.Module):
    """Residual self-attention [b, n, d] -> [b, n, d], or -> [b, d] for the first token alone."""

    num_heads: int
    norm_eps: float
    qkv_bias: bool
    scale: float | None
    cls_only: bool
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        width = x.shape[-1]
        head_width = width // self.num_heads
        init = nn.initializers.xavier_uniform()

        def project(name: str, tokens: jax.Array) -> jax.Array:
            features = (self.num_heads, head_width)
            return nn.DenseGeneral(
                features, use_bias=self.qkv_bias, kernel_init=init, dtype=self.dtype, name=name
            )(tokens)

        y = layer_norm("norm", self.norm_eps, self.dtype)(x)
        asking = y[:, :1] if self.cls_only else y
        scale = head_width**-0.5 if self.scale is None else self.scale
        y = attend(project("query", asking), project("key", y), project("value", y), scale)
        y = nn.DenseGeneral(width, (-2, -1), kernel_init=init, dtype=self.dtype, name="out")(y)
        return x[:, 0] + y[:, 0] if self.cls_only else x + y


class MlpBlock(nn.Module):
    """Residual MLP on the last axis: [..., d] -> [..., d]."""

    mlp_dim: int
    norm_eps: float
    gelu: str
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        init = nn.initializers.xavier_uniform()
        y = layer_norm("norm", self.norm_eps, self.dtype)(x)
        y = nn.Dense(self.mlp_dim, kernel_init=init, dtype=self.dtype, name="fc1")(y)
        y = GELU[self.gelu](y)
        return x + nn.Dense(x.shape[-1], kernel_init=init, dtype=self.dtype, name="fc2")(y)


class ViT(StagedModel):
    """Vision Transformer (Dosovitskiy et al. 2021) as stages.

    Stages: embed, block_00_attn, block_00_mlp, ..., norm, head. With pool="cls" the last attention
    asks for the CLS token alone, so every later stage works on [b, d]; no other token reaches the
    logits. With pool="gap" the norm stage ends with the mean over tokens.

    Args:
      num_classes: k of the logits f32[b, k].
      image_size: side of the images, a multiple of `patch_size`.
      width: d of the tokens and of the pooled feature.
      attention_scale: replaces head_width**-0.5.
      dtype: of activations and products; parameters, norms, softmax and head are f32.
    """

    num_classes: int
    image_size: int
    patch_size: int
    width: int
    depth: int
    num_heads: int
    mlp_dim: int
    pool: str = "cls"
    gelu: str = "erf"
    norm_eps: float = 1e-6
    qkv_bias: bool = True
    attention_scale: float | None = None
    dtype: Any = jnp.float32

    def __post_init__(self) -> None:
        size, patch = self.image_size, self.patch_size
        if size < patch or size % patch:
            nearest = max(1, size // patch) * patch
            raise ValueError(
                f"the image must hold whole patches; got image_size={size} with patches of "
                f"{patch}x{patch}; use a multiple of {patch}, such as {nearest}"
            )
        if self.width % self.num_heads:
            raise ValueError(
                f"heads must share the width evenly; got width={self.width}, "
                f"num_heads={self.num_heads}; use a divisor of the width"
            )
        if self.depth < 1:
            raise ValueError(f"a ViT needs a block; got depth={self.depth}; use 1 or more")
        for field, value, known in (("pool", self.pool, POOLS), ("gelu", self.gelu, tuple(GELU))):
            if value not in known:
                raise ValueError(f"unknown {field}; got {value!r}; use one of {', '.join(known)}")
        super().__post_init__()

    @property
    def stage_names(self) -> tuple[str, ...]:
        blocks = (f"block_{i:02d}_{part}" for i in range(self.depth) for part in ("attn", "mlp"))
        return ("embed", *blocks, "norm", "head")

    def stage(self, name: str, train: bool) -> Stage:
        if name == "embed":
            return Embed(
                self.image_size,
                self.patch_size,
                self.width,
                cls_token=self.pool == "cls",
                dtype=self.dtype,
                name=name,
            )
        if name == "norm":
            norm = layer_norm(name, self.norm_eps, jnp.float32)
            return norm if self.pool == "cls" else lambda x: norm(x).mean(axis=1)
        if name == "head":
            return nn.Dense(self.num_classes, name=name)
        if name.endswith("_mlp"):
            return MlpBlock(self.mlp_dim, self.norm_eps, self.gelu, self.dtype, name=name)
        return AttentionBlock(
            self.num_heads,
            self.norm_eps,
            self.qkv_bias,
            self.attention_scale,
            cls_only=self.pool == "cls" and name == f"block_{self.depth - 1:02d}_attn",
            dtype=self.dtype,
            name=name,
        )

    def freeable(self) -> tuple[tuple[str, ...], ...]:
        groups: list[tuple[str, ...]] = [("norm",)]
        for i in reversed(range(self.depth)):
            mlp, attn = f"block_{i:02d}_mlp", f"block_{i:02d}_attn"
            groups += [(f"{mlp}/fc2",), (f"{mlp}/fc1",), (f"{mlp}/norm",), (f"{attn}/out",)]
            groups += [tuple(f"{attn}/{part}" for part in ("query", "key", "value"))]
            groups += [(f"{attn}/norm",)]
        return tuple(groups)
