"""Blocks of pre-norm Transformers: attention, MLP, and the norm and activations they use."""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


def _in_f32(gelu: Callable[[jax.Array], jax.Array]) -> Callable[[jax.Array], jax.Array]:
    """Rounds the result to the dtype of the argument, and nothing before it."""
    return lambda x: gelu(x.astype(jnp.float32)).astype(x.dtype)


def _erf_gelu(x: jax.Array) -> jax.Array:
    if x.dtype == jnp.float32:
        return nn.gelu(x, approximate=False)
    # Flax takes erfc, which is exact far below 0, where half precision has nothing to show; on a
    # GPU it costs a tenth of a ViT's forward pass.
    return _in_f32(lambda y: y * (0.5 + 0.5 * jax.lax.erf(y * 0.5**0.5)))(x)


# Weights are tied to the variant they were trained with: erf in timm and Hugging Face files, tanh
# in big_vision, quick (Hendrycks & Gimpel 2016, the sigmoid form) in OpenAI's CLIP.
GELU: dict[str, Callable[[jax.Array], jax.Array]] = {
    "erf": _erf_gelu,
    "tanh": _in_f32(lambda x: nn.gelu(x, approximate=True)),
    "quick": _in_f32(lambda x: x * nn.sigmoid(1.702 * x)),
}
LAYER_SCALE = 1e-5  # initial value, CaiT (Touvron et al. 2021)


def check_heads(width: int, num_heads: int) -> None:
    """Raises ValueError where the channels cannot be shared among the heads."""
    if width % num_heads:
        raise ValueError(
            f"heads must share the width evenly; got width={width}, num_heads={num_heads}; use a "
            "divisor of the width"
        )


def layer_norm(name: str, eps: float, dtype: Any) -> nn.LayerNorm:
    """Layer norm computed in f32 and returned in `dtype`."""
    # The one-pass variance loses the small spread of activations with a large mean.
    return nn.LayerNorm(epsilon=eps, dtype=dtype, use_fast_variance=False, name=name)


def attend(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    scale: float,
    mask: jax.Array | None = None,
) -> jax.Array:
    """Softmax attention, the softmax in f32.

    Args:
      query: [b, q, h, c], the q tokens that ask.
      key: [b, n, h, c].
      value: [b, n, h, c].
      scale: multiplies the dot products.
      mask: bool, broadcast to [b, h, q, n]; True where a token may look. None: everywhere.

    Returns:
      [b, q, h, c] in the dtype of `value`.
    """
    # With one query or a mask, which cuDNN takes as a matrix, there is little to gain.
    if mask is None and query.shape[1] > 1 and has_fused_attention(query.dtype, query.shape[-1]):
        return _fused(query, key, value, scale)
    return _attend(query, key, value, scale, mask)


def has_fused_attention(dtype: Any, channels: int) -> bool:
    """Whether cuDNN has an attention that keeps no scores for these heads on JAX's first device."""
    capability = str(getattr(jax.devices()[0], "compute_capability", ""))
    major = capability.partition(".")[0]  # AMD's names are no numbers
    fits = dtype in (jnp.bfloat16, jnp.float16) and channels % 8 == 0 and channels <= 128
    return fits and major.isdigit() and int(major) >= 8


def _attend(
    query: jax.Array, key: jax.Array, value: jax.Array, scale: float, mask: jax.Array | None
) -> jax.Array:
    scores = jnp.einsum("bqhc,bnhc->bhqn", query, key, preferred_element_type=jnp.float32)
    scores = scores * scale
    if mask is not None:
        scores = jnp.where(mask, scores, -jnp.inf)
    weights = jax.nn.softmax(scores, axis=-1).astype(value.dtype)
    return jnp.einsum("bhqn,bnhc->bqhc", weights, value)


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def _fused(query: jax.Array, key: jax.Array, value: jax.Array, scale: float) -> jax.Array:
    """`_attend` by cuDNN where the program is for an NVIDIA GPU, whatever JAX's first device is."""
    return jax.lax.platform_dependent(
        query,
        key,
        value,
        cuda=partial(jax.nn.dot_product_attention, scale=scale, implementation="cudnn"),
        default=partial(_attend, scale=scale, mask=None),
    )


def _fused_forward(
    query: jax.Array, key: jax.Array, value: jax.Array, scale: float
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    return _fused(query, key, value, scale), (query, key, value)


def _fused_backward(
    scale: float, known: tuple[jax.Array, ...], cotangent: jax.Array
) -> tuple[jax.Array, ...]:
    # JAX refuses cuDNN's own for an odd number of tokens, which a CLS token makes.
    return jax.vjp(partial(_attend, scale=scale, mask=None), *known)[1](cotangent)


_fused.defvjp(_fused_forward, _fused_backward)


class AttentionBlock(nn.Module):
    """Residual self-attention [b, n, d] -> [b, n, d], or -> [b, d] for the first token alone.

    Args:
      scale: multiplies the dot products; None for head_width**-0.5.
      causal: a token sees itself and those before it.
      layer_scale: multiply the branch by a learned vector (CaiT, DINOv2).
    """

    num_heads: int
    norm_eps: float
    qkv_bias: bool
    scale: float | None
    cls_only: bool
    dtype: Any
    causal: bool = False
    layer_scale: bool = False

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
        mask = jnp.tri(asking.shape[1], y.shape[1], dtype=bool) if self.causal else None
        y = attend(project("query", asking), project("key", y), project("value", y), scale, mask)
        y = nn.DenseGeneral(width, (-2, -1), kernel_init=init, dtype=self.dtype, name="out")(y)
        if self.layer_scale:
            y = _layer_scale(self, y)
        return x[:, 0] + y[:, 0] if self.cls_only else x + y


class MlpBlock(nn.Module):
    """Residual MLP on the last axis: [..., d] -> [..., d]; `layer_scale` as in `AttentionBlock`."""

    mlp_dim: int
    norm_eps: float
    gelu: str
    dtype: Any
    layer_scale: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        init = nn.initializers.xavier_uniform()
        y = layer_norm("norm", self.norm_eps, self.dtype)(x)
        y = nn.Dense(self.mlp_dim, kernel_init=init, dtype=self.dtype, name="fc1")(y)
        y = GELU[self.gelu](y)
        y = nn.Dense(x.shape[-1], kernel_init=init, dtype=self.dtype, name="fc2")(y)
        return x + (_layer_scale(self, y) if self.layer_scale else y)


def _layer_scale(module: nn.Module, y: jax.Array) -> jax.Array:
    init = nn.initializers.constant(LAYER_SCALE)
    return y * module.param("layer_scale", init, y.shape[-1:]).astype(y.dtype)
