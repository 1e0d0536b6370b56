"""The text tower of LiT: BERT, a post-norm transformer whose feature is that of the first token."""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from robust_jax.models.attention import GELU, attend, check_heads, layer_norm
from robust_jax.models.text import check_tokens

SEGMENTS = 2  # Devlin et al. 2019; LiT's texts are all of the first one
INIT = nn.initializers.truncated_normal(0.02)  # likewise


class BertLayer(nn.Module):
    """Attention and MLP, each added to its input and then normalised: [b, n, d] -> [b, n, d].

    Args:
      num_heads: h, a divisor of d.
      mlp_dim: width of the MLP.
      norm_eps: of the layer norms.
      dtype: of activations and products.
    """

    num_heads: int
    mlp_dim: int
    norm_eps: float
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array) -> jax.Array:
        """Maps tokens [b, n, d]; mask bool[b, 1, 1, n] is True where there is a token."""
        width = x.shape[-1]
        head_width = width // self.num_heads

        def dense(features: int, name: str, tokens: jax.Array) -> jax.Array:
            return nn.Dense(features, kernel_init=INIT, dtype=self.dtype, name=name)(tokens)

        def heads(name: str) -> jax.Array:
            return dense(width, name, x).reshape(*x.shape[:2], self.num_heads, head_width)

        y = attend(heads("query"), heads("key"), heads("value"), head_width**-0.5, mask)
        y = dense(width, "out", y.reshape(x.shape))
        x = layer_norm("attn_norm", self.norm_eps, self.dtype)(x + y)
        y = GELU["tanh"](dense(self.mlp_dim, "fc1", x))
        y = dense(width, "fc2", y)
        return layer_norm("mlp_norm", self.norm_eps, self.dtype)(x + y)


class Bert(nn.Module):
    """Token ids int32[b, n] to text embeddings f32[b, e], not normalised (Zhai et al. 2022).

    BERT (Devlin et al. 2019; by default its base size) without its pooler, and LiT's dense layer on
    the first token.
    `logit_scale`, the logarithm of what multiplies the cosine of a text and an image, is a
    parameter here because the released files keep one for each pair of towers.

    Args:
      width: d of the tokens.
      num_heads: a divisor of the width.
      mlp_dim: width of the MLPs.
      embed_dim: e of the embeddings, that of the image tower.
      vocab_size: of the tokenizer.
      context: number of tokens that texts are cut to.
      max_len: rows of the position embedding.
      norm_eps: of the layer norms.
      dtype: of activations and products; parameters, softmax and embeddings are f32.
    """

    width: int = 768
    depth: int = 12
    num_heads: int = 12
    mlp_dim: int = 3072
    embed_dim: int = 768
    vocab_size: int = 30522
    context: int = 16
    max_len: int = 512
    norm_eps: float = 1e-12
    dtype: Any = jnp.float32

    def __post_init__(self) -> None:
        check_heads(self.width, self.num_heads)
        if not 0 < self.context <= self.max_len:
            raise ValueError(
                f"the context must have positions; got context={self.context}, "
                f"max_len={self.max_len}; use 1 to {self.max_len}"
            )
        super().__post_init__()

    def example_input(self) -> jax.Array:
        """Zeros int32[1, n] to initialise the tower with."""
        return jnp.zeros((1, self.context), jnp.int32)

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        """Embeds texts.

        Args:
          tokens: int32[b, n], n <= max_len, [CLS] first; 0 pads a text and is not looked at.

        Returns:
          f32[b, e].
        """
        check_tokens(tokens, self.max_len)
        length = tokens.shape[1]
        self.param("logit_scale", nn.initializers.constant(math.log(10)), ())  # big_vision's
        pos = self.param("pos", INIT, (self.max_len, self.width))
        segment = self.param("segment", INIT, (SEGMENTS, self.width))
        embed = nn.Embed(self.vocab_size, self.width, embedding_init=INIT, name="token")

        x = embed(tokens) + pos[:length] + segment[0]
        x = layer_norm("norm", self.norm_eps, self.dtype)(x)
        # A softmax over nothing is not a number, so a text of padding alone looks at its first.
        mask = (tokens != 0).at[:, 0].set(True)[:, None, None]
        for i in range(self.depth):
            layer = BertLayer(
                self.num_heads, self.mlp_dim, self.norm_eps, self.dtype, name=f"layer_{i:02d}"
            )
            x = layer(x, mask)
        x = x[:, 0].astype(jnp.float32)
        return nn.Dense(self.embed_dim, kernel_init=INIT, name="head")(x)
