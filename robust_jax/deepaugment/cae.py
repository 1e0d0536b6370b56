"""The compressive autoencoder of DeepAugment: 21 convolutions around a binary code.

Source: `DeepAugment/CAE_Model` of Hendrycks et al. 2021, "The Many Faces of Robustness".
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

STRIDE = 4  # sides of the images are a multiple of it
_HALVE = ((1, 2), (1, 2))  # zeros around a 5x5 convolution of stride 2, as ZeroPad2d((1, 2, 1, 2))
_SLOPE = 0.01  # of torch's LeakyReLU

Padding = tuple[tuple[int, int], tuple[int, int]]


class Layer(NamedTuple):
    """One convolution."""

    name: str  # e_block_1_4 is e_block_1.4 of the published file
    features: int
    size: int
    stride: int = 1
    padding: Padding = ((0, 0), (0, 0))
    transposed: bool = False  # doubles the sides; its kernel is [2, 2, out, in]


class Double(nn.Module):
    """A transposed convolution, 2x2 with stride 2: torch's ConvTranspose2d(in, out, 2, 2)."""

    features: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Args: x: f32[b, h, w, c]. Returns: f32[b, 2h, 2w, features]."""
        init = nn.initializers.variance_scaling(1.0, "fan_in", "normal", in_axis=-1, out_axis=-2)
        kernel = self.param("kernel", init, (2, 2, self.features, x.shape[-1]))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        b, h, w, _ = x.shape
        doubled = jnp.einsum("bhwi,uvoi->bhuwvo", x, kernel)
        return doubled.reshape(b, 2 * h, 2 * w, self.features) + bias


class CAE(nn.Module):
    """Image -> code in {0, 1} -> image.

    Attributes:
      width: 64 as published; even.
      code: channels of the code, 32 as published.
      blocks: residual blocks on each side of the code, 3 as published.
      detail: channels before the last layer, 16 as published; few of them blur what comes out.
    """

    width: int = 64
    code: int = 32
    blocks: int = 3
    detail: int = 16

    def layers(self) -> list[Layer]:
        """Returns the convolutions in the published order: 0 to 20 at three blocks."""
        w, same = self.width, ((1, 1), (1, 1))
        return [
            Layer("e_conv_1_1", w, 5, 2, _HALVE),
            Layer("e_conv_2_1", 2 * w, 5, 2, _HALVE),
            *(Layer(name, 2 * w, 3, 1, same) for name in self.block_layers("e")),
            Layer("e_conv_3_0", self.code, 5, 1, ((2, 2), (2, 2))),
            Layer("d_up_conv_1_0", w, 3),
            Layer("d_up_conv_1_3", 2 * w, 2, transposed=True),
            *(Layer(name, 2 * w, 3, 1, same) for name in self.block_layers("d")),
            Layer("d_up_conv_2_0", w // 2, 3),
            Layer("d_up_conv_2_3", 4 * w, 2, transposed=True),
            Layer("d_up_conv_3_0", self.detail, 3),
            Layer("d_up_conv_3_3", 3, 3),
        ]

    def block_layers(self, side: str) -> list[str]:
        """Returns the convolutions of the residual blocks of side "e" or "d", in order."""
        return [f"{side}_block_{i}_{j}" for i in range(1, self.blocks + 1) for j in (1, 4)]

    def setup(self) -> None:
        """Makes the convolutions under their names."""
        if self.width % 2 or min(self.width, self.code, self.blocks, self.detail) < 1:
            raise ValueError(
                f"CAE sizes are out of range; got width={self.width}, code={self.code}, "
                f"blocks={self.blocks}, detail={self.detail}; use an even width, and 1 or more"
            )
        for layer in self.layers():
            side = (layer.size, layer.size)
            made = (
                Double(layer.features)
                if layer.transposed
                else nn.Conv(layer.features, side, layer.stride, padding=layer.padding)
            )
            setattr(self, layer.name, made)

    def encode(self, images: jax.Array) -> jax.Array:
        """Returns the code before it is made binary.

        Args:
          images: f32[b, h, w, 3] in [0, 1], h and w multiples of 4.

        Returns:
          f32[b, h/4, w/4, code] in [-1, 1].
        """
        x = _leaky(self._apply("e_conv_1_1", images))
        x = _leaky(self._apply("e_conv_2_1", x))
        x = self._residuals("e", x)
        return jnp.tanh(self._apply("e_conv_3_0", x))

    def decode(self, code: jax.Array) -> jax.Array:
        """Returns the images of codes.

        Args:
          code: f32[b, h/4, w/4, code] in [0, 1].

        Returns:
          f32[b, h, w, 3] in [-1, 1]; what is below 0 is to be clipped.
        """
        x = _leaky(self._apply("d_up_conv_1_0", 2 * code - 1))
        x = self._apply("d_up_conv_1_3", _pad(x, 1))
        x = self._residuals("d", x)
        x = _leaky(self._apply("d_up_conv_2_0", x))
        x = self._apply("d_up_conv_2_3", _pad(x, 1))
        x = _leaky(self._apply("d_up_conv_3_0", x))
        return jnp.tanh(self._apply("d_up_conv_3_3", _pad(x, 2, "reflect")))

    def __call__(self, images: jax.Array, key: jax.Array) -> jax.Array:
        """Returns what is left of the images behind the binary code.

        Args:
          images: f32[b, h, w, 3] in [0, 1], h and w multiples of 4.
          key: draws the bits.
        """
        return self.decode(binarise(key, self.encode(images)))

    def _apply(self, name: str, x: jax.Array) -> jax.Array:
        return getattr(self, name)(x)

    def _residuals(self, side: str, x: jax.Array) -> jax.Array:
        names = self.block_layers(side)
        for first, second in zip(names[::2], names[1::2], strict=True):
            x = self._apply(second, _leaky(self._apply(first, x))) + x
        return x


def binarise(key: jax.Array, code: jax.Array) -> jax.Array:
    """Draws bits in {0, 1} with P(1) = (1 + code) / 2; the gradient is that of the probability.

    Args:
      code: f32[...], of any range: what lies outside [-1, 1] is certain.
    """
    probability = (1 + code) / 2
    bits = (jax.random.uniform(key, code.shape) <= probability).astype(code.dtype)
    return probability + jax.lax.stop_gradient(bits - probability)


def _leaky(x: jax.Array) -> jax.Array:
    return nn.leaky_relu(x, _SLOPE)


def _pad(x: jax.Array, n: int, mode: str = "constant") -> jax.Array:
    return jnp.pad(x, ((0, 0), (n, n), (n, n), (0, 0)), mode=mode)
