"""Contact sheets: one PNG with rows of named images, and the photographs to make them of."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from robust_jax.data.images import decode_image
from robust_jax.data.listing import shown

_DPI = 100
_SMALLEST_CELL = 1.6  # inches; smaller images are enlarged

Row = tuple[str, np.ndarray, Sequence[str]]


def opened(files: Sequence[Path]) -> list[Image.Image]:
    """The images, or scikit-learn's photograph if there are none."""
    if files:
        return [_read(file) for file in files]
    from sklearn.datasets import load_sample_image

    return [Image.fromarray(load_sample_image("china.jpg"))]


def _read(file: Path) -> Image.Image:
    try:
        return Image.fromarray(decode_image(file.read_bytes()))
    except ValueError as error:
        raise ValueError(f"{shown(file)}: {error}") from error


def photographs(files: Sequence[Path], size: int) -> np.ndarray:
    """The middle squares of the `opened` images: uint8[n, size, size, 3]."""
    return np.stack([np.asarray(ImageOps.fit(image, (size, size))) for image in opened(files)])


def write(rows: Sequence[Row], path: str) -> None:
    """Draws the rows below each other.

    Args:
      rows: of (name, uint8[n, h, w, 3], n captions), n and w the same in all.
      path: of the PNG to write.
    """
    from matplotlib.figure import Figure

    columns, _, width = rows[0][1].shape[:3]
    cell = max(_SMALLEST_CELL, width / _DPI)
    size = (cell * columns + 1, (cell + 0.15) * len(rows))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(len(rows), columns, squeeze=False)
    for row_axes, (name, images, captions) in zip(axes, rows, strict=True):
        row_axes[0].set_ylabel(name, rotation=0, ha="right", va="center", parse_math=False)
        for axis, image, caption in zip(row_axes, images, captions, strict=True):
            axis.imshow(image, interpolation="nearest")
            axis.set_title(caption, fontsize=8, pad=2, parse_math=False)
            axis.set_xticks([])
            axis.set_yticks([])
    figure.savefig(path, dpi=_DPI)
