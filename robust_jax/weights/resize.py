"""Resizes position embeddings, each in the way of the project whose weights they are."""

from collections.abc import Callable

import numpy as np
import scipy.ndimage

Resize = Callable[[np.ndarray, tuple[int, ...]], np.ndarray]


def _grid(table: np.ndarray, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray, int]:
    """Splits [1, n, d] into rows without a place in the grid, the grid [g, g, d], and the new g."""
    for cls in (1, 0):
        old, new = round((table.shape[1] - cls) ** 0.5), round((shape[1] - cls) ** 0.5)
        if old**2 + cls == table.shape[1] and new**2 + cls == shape[1]:
            return table[:, :cls], table[0, cls:].reshape(old, old, -1), new
    raise ValueError(
        f"position embeddings must lie on a square grid, both with a row for the CLS token or "
        f"neither; got {list(table.shape)} for {list(shape)}; use a square image, and the model "
        "that the file was made for"
    )


def _cubic(distance: np.ndarray, a: float) -> np.ndarray:
    """The cubic convolution kernel of Keys 1981."""
    x = np.abs(distance)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))


def _torch_matrix(old: int, new: int) -> np.ndarray:
    """Rows that interpolate as torch's bicubic without antialias: a = -0.75, edges repeated."""
    centres = (np.arange(new) + 0.5) * old / new - 0.5
    first = np.floor(centres).astype(int)
    rows = np.zeros((new, old))
    for offset in (-1, 0, 1, 2):
        column = np.clip(first + offset, 0, old - 1)
        np.add.at(rows, (np.arange(new), column), _cubic(centres - (first + offset), -0.75))
    return rows


def _antialias_matrix(old: int, new: int) -> np.ndarray:
    """Rows that interpolate as torch's antialiased bicubic and Pillow do: a = -0.5."""
    scale = max(old / new, 1.0)
    centres = (np.arange(new) + 0.5) * old / new
    distance = (np.arange(old) + 0.5 - centres[:, None]) / scale
    rows = _cubic(distance, -0.5)
    return rows / rows.sum(axis=1, keepdims=True)


def _separable(matrix: Callable[[int, int], np.ndarray]) -> Resize:
    def resize(table: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        kept, grid, new = _grid(table, shape)
        rows = matrix(len(grid), new)
        grid = np.einsum("ph,qw,hwd->pqd", rows, rows, grid.astype(np.float64))
        resized = grid.reshape(1, new * new, -1).astype(np.float32)
        return np.concatenate([kept, resized], axis=1)

    return resize


def _zoom(table: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    kept, grid, new = _grid(table, shape)
    grid = scipy.ndimage.zoom(grid, (new / len(grid), new / len(grid), 1), order=1)
    return np.concatenate([kept, grid.reshape(1, new * new, -1)], axis=1)


# Each takes a table f32[1, n, d] (a row for the CLS token first, if there is one) and the shape
# wanted: "torch_bicubic" is Hugging Face's, "antialias_bicubic" timm's and open_clip's,
# "corner_linear" big_vision's, whose grid has its outermost points at the corners.
RESIZES: dict[str, Resize] = {
    "torch_bicubic": _separable(_torch_matrix),
    "antialias_bicubic": _separable(_antialias_matrix),
    "corner_linear": _zoom,
}
