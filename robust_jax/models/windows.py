"""Square windows of a feature map: cutting, their relative positions, what a shift hides."""

import jax
import jax.numpy as jnp
import numpy as np


def pad_to_multiple(x: jax.Array, size: int) -> jax.Array:
    """Zeros at the bottom and the right of [b, h, w, d] until `size` divides h and w."""
    _, height, width, _ = x.shape
    return jnp.pad(x, ((0, 0), (0, -height % size), (0, -width % size), (0, 0)))


def to_windows(x: jax.Array, window: int) -> jax.Array:
    """[b, h, w, d] to [b, m, window², d], its m windows row by row."""
    b, height, width, d = x.shape
    x = x.reshape(b, height // window, window, width // window, window, d)
    return x.swapaxes(2, 3).reshape(b, -1, window**2, d)


def from_windows(x: jax.Array, window: int, height: int, width: int) -> jax.Array:
    """The inverse of `to_windows`."""
    x = x.reshape(x.shape[0], height // window, width // window, window, window, -1)
    return x.swapaxes(2, 3).reshape(x.shape[0], height, width, -1)


def offset_index(window: int, table_window: int) -> np.ndarray:
    """Rows of the bias table of `table_window` for each pair of tokens of a smaller window.

    Args:
      window: side of the windows attended to, at most `table_window`.
      table_window: w of the table, whose row (dy + w - 1)(2w - 1) + (dx + w - 1) holds the bias
        of a query that stands dy below and dx right of its key.

    Returns:
      int[window², window²], of query and key.
    """
    y, x = np.divmod(np.arange(window**2), window)
    rows, columns = y[:, None] - y + table_window - 1, x[:, None] - x + table_window - 1
    return rows * (2 * table_window - 1) + columns


def shift_mask(height: int, width: int, window: int, shift: int) -> np.ndarray:
    """Which tokens of a rolled map may look at each other: those that were neighbours before.

    Returns:
      bool[m, 1, window², window²], of window, head, query and key.
    """

    def region(size: int) -> np.ndarray:
        place = np.arange(size)
        return (place >= size - window).astype(int) + (place >= size - shift)

    regions = 3 * region(height)[:, None] + region(width)
    regions = regions.reshape(height // window, window, width // window, window)
    regions = regions.swapaxes(1, 2).reshape(-1, window**2)
    return (regions[:, :, None] == regions[:, None])[:, None]
