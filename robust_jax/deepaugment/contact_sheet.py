"""Draws every perturbation of a network on a few images."""

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import numpy as np

from robust_jax.deepaugment.distort import (
    ACTIVATION_CHANGES,
    DRAWN,
    NONE,
    WEIGHT_CHANGES,
    distort,
)


def rows(kind: str) -> list[tuple[str, str, str]]:
    """Returns (title, weights, activations) of each row below the images themselves."""
    return [
        ("no perturbation", NONE, NONE),
        *((f"weights: {name}", name, NONE) for name in WEIGHT_CHANGES[kind]),
        *((f"activations: {name}", NONE, name) for name in ACTIVATION_CHANGES[kind]),
        *((f"as drawn, {i}", DRAWN, DRAWN) for i in range(1, 5)),
    ]


def contact_sheet(
    kind: str,
    model: nn.Module,
    params: Mapping[str, Any],
    images: np.ndarray,
    path: str,
    *,
    faithful: bool = False,
    columns: Sequence[str] = (),
) -> None:
    """Writes a PNG with one row for each perturbation and one column for each image.

    Args:
      kind: "cae" or "edsr".
      model: of that kind.
      params: of the model.
      images: uint8[b, h, w, 3].
      path: of the PNG.
      faithful: as in `distort`.
      columns: titles of the images.
    """
    from matplotlib.figure import Figure

    shown = [("images", images)]
    for number, (title, weights, activations) in enumerate(rows(kind)):
        seeds = np.stack([np.full(len(images), number), np.arange(len(images))], 1)
        found = distort(
            kind,
            model,
            params,
            images,
            seeds.astype(np.int32),
            faithful=faithful,
            weights=weights,
            activations=activations,
        )
        shown.append((title, np.asarray(found)))
    figure = Figure(figsize=(1.3 * len(images) + 2.6, 1.3 * len(shown)), layout="constrained")
    axes = figure.subplots(len(shown), len(images), squeeze=False)
    for row, (title, pictures) in zip(axes, shown, strict=True):
        for axis, picture in zip(row, pictures, strict=True):
            axis.imshow(picture)
            axis.set(xticks=[], yticks=[])
        row[0].set_ylabel(title, rotation=0, ha="right", va="center", fontsize=9, parse_math=False)
    for axis, name in zip(axes[0], columns, strict=False):
        axis.set_title(name, fontsize=9, parse_math=False)
    figure.savefig(path, dpi=100)
