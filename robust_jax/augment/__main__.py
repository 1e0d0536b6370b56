"""Shows what the augmentations do: `python -m robust_jax.augment --contact_sheet OUT.png`."""

import argparse
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from robust_jax import contact_sheet as sheets
from robust_jax.augment.augmix import Draws, draw, mix
from robust_jax.augment.augmix_ops import OPS, OVERLAPPING_OPS
from robust_jax.augment.noise2net import noise2net_pixels

_SEVERITIES = (1, 3)


def _one_op(images: jax.Array, draws: Draws, op: jax.Array) -> jax.Array:
    """Applies one operation alone, at the level and in the direction of the first step drawn."""
    alone = draws._replace(ops=jnp.full_like(draws.ops, op), mixing=jnp.ones_like(draws.mixing))
    return mix(images, alone, all_ops=True)


def rows(images: np.ndarray, keys: jax.Array) -> Iterator[tuple[str, np.ndarray, list[str]]]:
    """Yields the name, the images and their captions, of every augmentation.

    Args:
      images: uint8[b, h, w, 3].
      keys: typed keys [b].

    Returns:
      Iterator of (name, uint8[b, h, w, 3], b captions).
    """
    captions = [""] * len(images)
    yield "original", images, captions
    one_op, compiled_mix = jax.jit(_one_op), jax.jit(mix)
    for severity in _SEVERITIES:
        draws = draw(keys, severity=severity, width=1, depth=1)
        steps = zip(draws.levels.ravel(), draws.signs.ravel(), strict=True)
        levels = [f"L {level:.2f} {'+' if sign > 0 else '-'}" for level, sign in steps]
        for op, name in enumerate(OPS + OVERLAPPING_OPS):
            yield f"{name}\nseverity {severity}", np.asarray(one_op(images, draws, op)), levels
    for severity in _SEVERITIES:
        mixed = compiled_mix(images, draw(keys, severity=severity))
        yield f"AugMix\nseverity {severity}", np.asarray(mixed), captions
    yield "Noise2Net", np.asarray(jax.jit(noise2net_pixels)(images, keys)), captions


def contact_sheet(images: np.ndarray, path: str, seeds: int = 3) -> None:
    """Draws one row for each augmentation; in it, each image for a few seeds.

    Args:
      images: uint8[n, h, w, 3].
      path: of the PNG to write.
      seeds: how many.
    """
    shown = np.repeat(images, seeds, axis=0)
    keys = jax.random.split(jax.random.key(0), len(shown))
    sheets.write(list(rows(shown, keys)), path)


def main() -> None:
    """Reads the arguments and writes the contact sheet."""
    parser = argparse.ArgumentParser(prog="python -m robust_jax.augment", description=__doc__)
    parser.add_argument("--contact_sheet", required=True, metavar="OUT.png")
    parser.add_argument(
        "--image", nargs="+", type=Path, default=[], metavar="FILE", help="default: a photograph"
    )
    parser.add_argument("--size", type=int, default=224, help="side of the images in pixels")
    parser.add_argument("--seeds", type=int, default=3, help="columns for each image")
    args = parser.parse_args()
    images = sheets.photographs(args.image, args.size)
    contact_sheet(images, args.contact_sheet, args.seeds)


if __name__ == "__main__":
    main()
