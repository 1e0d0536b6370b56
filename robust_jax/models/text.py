"""The text tower of CLIP: a causal transformer whose feature is that of the end-of-text token."""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from robust_jax.models.attention import GELU, AttentionBlock, MlpBlock, check_heads, layer_norm
from robust_jax.models.stages import check_choice

MLP_RATIO = 4


def check_tokens(tokens: jax.Array, longest: int) -> None:
    """Raises ValueError for what is not int32[b, n] with n from 1 to `longest`."""
    if tokens.ndim != 2 or not jnp.issubdtype(tokens.dtype, jnp.integer):
        raise ValueError(
            f"tokens must be int32[b, n]; got {tokens.dtype}{list(tokens.shape)}; "
            "tokenize the texts first"
        )
    if not 0 < tokens.shape[1] <= longest:
        raise ValueError(
            f"the tower reads 1 to {longest} tokens; got {tokens.shape[1]}; truncate the texts, "
            "keeping the token whose feature counts"
        )


class TextTransformer(nn.Module):
    """Token ids int32[b, n] to text embeddings f32[b, e], not normalised (Radford et al. 2021).

    `logit_scale`, the logarithm of what multiplies the cosine of a text and an image, is a
    parameter here because the released files keep one for each pair of towers.

    Args:
      width: d of the tokens.
      embed_dim: e of the embeddings, that of the image tower.
      vocab_size: of the tokenizer.
      context: largest number of tokens n.
      gelu: key of `GELU`.
      norm_eps: of the layer norms; 1e-12 in UniCL.
      dtype: of activations and products; parameters, norms, softmax and embeddings are f32.
    """

    width: int
    depth: int
    num_heads: int
    embed_dim: int
    vocab_size: int = 49408
    context: int = 77
    gelu: str = "quick"
    norm_eps: float = 1e-5
    dtype: Any = jnp.float32

    def __post_init__(self) -> None:
        check_heads(self.width, self.num_heads)
        check_choice("gelu", self.gelu, GELU)
        super().__post_init__()

    def example_input(self) -> jax.Array:
        """Zeros int32[1, n] to initialise the tower with."""
        return jnp.zeros((1, self.context), jnp.int32)

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        """Embeds texts.

        Args:
          tokens: int32[b, n], n <= context. The end-of-text token has the highest id; only the
            first one counts, so what pads a text does not matter.

        Returns:
          f32[b, e].
        """
        check_tokens(tokens, self.context)
        length = tokens.shape[1]
        # Standard deviations of the initial values: Radford et al. 2021, the released code.
        normal = nn.initializers.normal
        pos = self.param("pos", normal(0.01), (self.context, self.width))
        self.param("logit_scale", nn.initializers.constant(math.log(1 / 0.07)), ())

        embed = nn.Embed(self.vocab_size, self.width, embedding_init=normal(0.02), name="token")
        x = (embed(tokens) + pos[:length]).astype(self.dtype)
        for i in range(self.depth):
            x = AttentionBlock(
                self.num_heads,
                self.norm_eps,
                qkv_bias=True,
                scale=None,
                cls_only=False,
                dtype=self.dtype,
                causal=True,
                name=f"block_{i:02d}_attn",
            )(x)
            x = MlpBlock(
                MLP_RATIO * self.width,
                self.norm_eps,
                self.gelu,
                self.dtype,
                name=f"block_{i:02d}_mlp",
            )(x)
        x = x[jnp.arange(len(x)), tokens.argmax(axis=1)]
        x = layer_norm("norm", self.norm_eps, jnp.float32)(x)
        return nn.Dense(
            self.embed_dim, use_bias=False, kernel_init=normal(self.width**-0.5), name="proj"
        )(x)
