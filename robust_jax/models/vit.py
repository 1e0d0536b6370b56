"""Vision Transformer: pre-norm blocks, learned position embedding, CLS token or average pooling."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from robust_jax.models.attention import GELU, AttentionBlock, MlpBlock, check_heads, layer_norm
from robust_jax.models.classifier import check_head, classifier
from robust_jax.models.stages import Stage, StagedModel, check_choice

POOLS = ("cls", "gap")


def _product_of_patches(x: jax.Array, kernel: jax.Array, *rest: Any, **names: Any) -> jax.Array:
    """The convolution of [b, h, w, c] by [p, p, c, d] with strides of p, as one matrix product."""
    del rest, names  # strides and the like
    b, h, w, c = x.shape
    p, _, _, d = kernel.shape
    patches = x.reshape(b, h // p, p, w // p, p, c).swapaxes(2, 3)
    return patches.reshape(b, h // p, w // p, -1) @ kernel.reshape(-1, d)


class Embed(nn.Module):
    """Images f32[b, h, w, 3] to tokens [b, n, d]: patches, CLS token if asked, positions."""

    image_size: int
    patch_size: int
    width: int
    cls_token: bool
    patch_bias: bool
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        size, patch = self.image_size, self.patch_size
        if x.shape[1:] != (size, size, 3):
            raise ValueError(
                f"the model was built for images [b, {size}, {size}, 3]; got {list(x.shape)}; "
                "resize them, or build the model with another image_size"
            )
        no_padding, half = ((0, 0), (0, 0)), jnp.dtype(self.dtype).itemsize < 4
        x = nn.Conv(
            self.width,
            (patch, patch),
            (patch, patch),
            no_padding,
            use_bias=self.patch_bias,
            dtype=self.dtype,
            # As a convolution it takes a GPU 7 % of a ViT-B/16's forward pass longer.
            conv_general_dilated=_product_of_patches if half else None,
            name="patch",
        )(x)
        x = x.reshape(x.shape[0], -1, self.width)
        if self.cls_token:
            cls = self.param("cls", nn.initializers.zeros, (1, 1, self.width))
            cls = jnp.broadcast_to(cls.astype(self.dtype), (x.shape[0], 1, self.width))
            x = jnp.concatenate([cls, x], axis=1)
        # The standard deviation is big_vision's: unit norm for each token's embedding.
        init = nn.initializers.normal(self.width**-0.5)
        return x + self.param("pos", init, (1, *x.shape[1:])).astype(self.dtype)


class ViT(StagedModel):
    """Vision Transformer (Dosovitskiy et al. 2021) as stages.

    Stages: embed, [pre_norm], block_00_attn, block_00_mlp, ..., norm, [proj], head. With pool="cls"
    the last attention asks for the CLS token alone, so every later stage works on [b, d]; no other
    token reaches the logits. With pool="gap" the norm stage ends with the mean over tokens.

    Args:
      num_classes: k of the logits f32[b, k].
      image_size: side of the images, a multiple of `patch_size`.
      width: d of the tokens.
      attention_scale: replaces head_width**-0.5.
      layer_scale: multiply every branch by a learned vector, as in DINOv2.
      pre_norm: normalise the tokens before the first block too, as in CLIP.
      patch_bias: whether the patch convolution has a bias; CLIP's has none.
      projection: width of a last linear map of the pooled feature, as in CLIP and LiT; None: none.
      projection_bias: whether that map has a bias.
      head: "linear" or "cosine", see `classifier`.
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
    layer_scale: bool = False
    pre_norm: bool = False
    patch_bias: bool = True
    projection: int | None = None
    projection_bias: bool = False
    head: str = "linear"
    dtype: Any = jnp.float32

    def __post_init__(self) -> None:
        size, patch = self.image_size, self.patch_size
        if size < patch or size % patch:
            nearest = max(1, size // patch) * patch
            raise ValueError(
                f"the image must hold whole patches; got image_size={size} with patches of "
                f"{patch}x{patch}; use a multiple of {patch}, such as {nearest}"
            )
        check_heads(self.width, self.num_heads)
        if self.depth < 1:
            raise ValueError(f"a ViT needs a block; got depth={self.depth}; use 1 or more")
        check_choice("pool", self.pool, POOLS)
        check_choice("gelu", self.gelu, GELU)
        check_head(self.head)
        super().__post_init__()

    @property
    def feature_width(self) -> int:
        """d of the feature f32[b, d] that enters the head."""
        return self.projection or self.width

    @property
    def stage_names(self) -> tuple[str, ...]:
        blocks = (f"block_{i:02d}_{part}" for i in range(self.depth) for part in ("attn", "mlp"))
        before = ("pre_norm",) if self.pre_norm else ()
        after = ("proj",) if self.projection else ()
        return ("embed", *before, *blocks, "norm", *after, "head")

    def stage(self, name: str, train: bool) -> Stage:
        if name == "embed":
            return Embed(
                self.image_size,
                self.patch_size,
                self.width,
                cls_token=self.pool == "cls",
                patch_bias=self.patch_bias,
                dtype=self.dtype,
                name=name,
            )
        if name == "norm":
            norm = layer_norm(name, self.norm_eps, jnp.float32)
            return norm if self.pool == "cls" else lambda x: norm(x).mean(axis=1)
        if name == "pre_norm":
            return layer_norm(name, self.norm_eps, self.dtype)
        if name == "proj":
            return nn.Dense(self.projection or 0, use_bias=self.projection_bias, name=name)
        if name == "head":
            return classifier(self.head, self.num_classes, name)
        if name.endswith("_mlp"):
            return MlpBlock(
                self.mlp_dim, self.norm_eps, self.gelu, self.dtype, self.layer_scale, name=name
            )
        return AttentionBlock(
            self.num_heads,
            self.norm_eps,
            self.qkv_bias,
            self.attention_scale,
            cls_only=self.pool == "cls" and name == f"block_{self.depth - 1:02d}_attn",
            dtype=self.dtype,
            layer_scale=self.layer_scale,
            name=name,
        )

    def freeable(self) -> tuple[tuple[str, ...], ...]:
        groups: list[tuple[str, ...]] = [("proj",)] if self.projection else []
        groups.append(("norm",))
        for i in reversed(range(self.depth)):
            mlp, attn = f"block_{i:02d}_mlp", f"block_{i:02d}_attn"
            last, out = [f"{mlp}/fc2"], [f"{attn}/out"]
            if self.layer_scale:
                last, out = [*last, f"{mlp}/layer_scale"], [*out, f"{attn}/layer_scale"]
            groups += [tuple(last), (f"{mlp}/fc1",), (f"{mlp}/norm",), tuple(out)]
            groups += [tuple(f"{attn}/{part}" for part in ("query", "key", "value"))]
            groups += [(f"{attn}/norm",)]
        return (*groups, ("pre_norm",)) if self.pre_norm else tuple(groups)
