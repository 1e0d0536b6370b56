"""EDSR baseline x4 (Lim et al. 2017), the super-resolution network of DeepAugment."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

SCALE = 4
RGB_MEAN = (0.4488, 0.4371, 0.4040)  # of DIV2K, of 255
PUBLISHED_BLOCKS, PUBLISHED_CUT = 16, 5

Change = Callable[[jax.Array], jax.Array]

# torch's default for convolutions, Kaiming uniform with a = sqrt(5): a variance of 1 / (3 fan_in).
# The residual sums, which nothing normalises, do not blow up under it.
_INIT = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform", batch_axis=(0, 1))


class Body(nn.Module):
    """The parameters of the residual blocks, stacked so that a block can be picked by number.

    Attributes:
      width: channels.
      blocks: number of blocks, n; each has two convolutions.
    """

    width: int
    blocks: int

    @nn.compact
    def __call__(self) -> tuple[jax.Array, jax.Array]:
        """Returns kernels f32[n, 2, 3, 3, c, c] and biases f32[n, 2, c]."""
        n, c = self.blocks, self.width
        kernel = self.param("kernel", _INIT, (n, 2, 3, 3, c, c))
        return kernel, self.param("bias", nn.initializers.zeros, (n, 2, c))


class EDSR(nn.Module):
    """Image -> image of four times its sides.

    Attributes:
      width: 64 as published.
      blocks: residual blocks, 16 as published.
    """

    width: int = 64
    blocks: int = 16

    @property
    def cut(self) -> int:
        """Number of blocks before the place where the body is distorted, 5 as published."""
        return max(1, self.blocks * PUBLISHED_CUT // PUBLISHED_BLOCKS)

    @nn.compact
    def __call__(
        self,
        images: jax.Array,
        *,
        before: Change | None = None,
        middle: Change | None = None,
        keep: jax.Array | None = None,
        chained: jax.Array | bool = True,
    ) -> jax.Array:
        """Returns the enlarged images; the keywords distort on the way.

        Args:
          images: f32[b, h, w, 3] in [0, 255].
          before: changes the features f32[b, h, w, c] that enter the body and its skip connection.
          middle: changes the features after `cut` blocks.
          keep: bool[blocks + 1], the modules of the body that are not left out; its last one is the
            closing convolution.
          chained: whether a module reads what the last one gave, or else the input of the body.

        Returns:
          f32[b, 4h, 4w, 3], about [0, 255].
        """
        mean = 255 * jnp.asarray(RGB_MEAN)
        x = self._conv("head", self.width, images - mean)
        x = before(x) if before else x
        kernel, bias = Body(self.width, self.blocks, name="body")()
        y = x
        for i in range(self.blocks + 1):
            y = middle(y) if middle and i == self.cut else y
            source = y if chained is True else jnp.where(chained, y, x)
            if i < self.blocks:
                made = source + convolve(
                    nn.relu(convolve(source, kernel[i, 0]) + bias[i, 0]), kernel[i, 1]
                )
                made += bias[i, 1]
            else:
                made = self._conv("body_end", self.width, source)
            y = made if keep is None else jnp.where(keep[i], made, y)
        x = x + y
        for name in ("up_1", "up_2"):
            x = pixel_shuffle(self._conv(name, 4 * self.width, x))
        return self._conv("tail", 3, x) + mean

    def _conv(self, name: str, features: int, x: jax.Array) -> jax.Array:
        init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
        return nn.Conv(features, (3, 3), padding=1, kernel_init=init, name=name)(x)


def convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolves f32[b, h, w, i] with f32[3, 3, i, o], zeros around it."""
    layout = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), ((1, 1), (1, 1)), dimension_numbers=layout
    )


def pixel_shuffle(x: jax.Array) -> jax.Array:
    """Moves channels into space, f32[b, h, w, 4c] -> f32[b, 2h, 2w, c], as torch's PixelShuffle."""
    b, h, w, c = x.shape
    spread = x.reshape(b, h, w, c // 4, 2, 2).transpose(0, 1, 4, 2, 5, 3)
    return spread.reshape(b, 2 * h, 2 * w, c // 4)
