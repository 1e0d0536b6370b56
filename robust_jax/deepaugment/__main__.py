"""Shows what DeepAugment does: fits a small network to images, and draws each perturbation.

`python -m robust_jax.deepaugment --contact_sheet OUT.png [--kind edsr] [--images DIR]`
"""

import argparse
import dataclasses
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from robust_jax.deepaugment import published
from robust_jax.deepaugment.cae import CAE
from robust_jax.deepaugment.contact_sheet import contact_sheet
from robust_jax.deepaugment.edsr import EDSR
from robust_jax.deepaugment.fit import RECIPES, fit
from robust_jax.weights import files

SUFFIXES = (".jpg", ".jpeg", ".png")


def photos(directory: str | None, limit: int) -> list[np.ndarray]:
    """Reads up to `limit` images under a directory, spread over it, or two of scikit-learn."""
    if directory is None:
        from sklearn.datasets import load_sample_images

        return list(load_sample_images().images)
    paths = sorted(p for p in Path(directory).rglob("*") if p.suffix.lower() in SUFFIXES)
    if not paths:
        raise ValueError(f"no images; got {directory!r}; give a folder with {', '.join(SUFFIXES)}")
    picked = paths[:: max(1, len(paths) // limit)][:limit]
    return [np.asarray(Image.open(path).convert("RGB")) for path in picked]


def square(photo: np.ndarray, size: int) -> np.ndarray:
    """Returns the middle of a photo, resized, uint8[size, size, 3]."""
    side = min(photo.shape[:2])
    top, left = ((length - side) // 2 for length in photo.shape[:2])
    middle = Image.fromarray(photo[top : top + side, left : left + side])
    return np.asarray(middle.resize((size, size), Image.Resampling.BICUBIC))


def tiles(photo: np.ndarray, size: int) -> list[np.ndarray]:
    """Cuts a photo into overlapping tiles, each uint8[size, size, 3]; a small one is resized."""
    if min(photo.shape[:2]) < 2 * size:
        return [square(photo, size)]
    starts = [range(0, length - size + 1, size // 2) for length in photo.shape[:2]]
    return [photo[i : i + size, j : j + size] for i in starts[0] for j in starts[1]]


def main() -> None:
    """Reads the arguments and writes the contact sheet."""
    parser = argparse.ArgumentParser(description="Shows what DeepAugment does to images.")
    parser.add_argument("--contact_sheet", required=True, metavar="OUT.png")
    parser.add_argument("--kind", choices=list(RECIPES), default="cae")
    parser.add_argument("--images", metavar="DIR", help="default: two photos of scikit-learn")
    parser.add_argument("--size", type=int, default=64, help="sides of the images drawn")
    parser.add_argument("--count", type=int, default=6, help="number of images drawn")
    parser.add_argument("--steps", type=int, help="of training; default: those of the recipe")
    parser.add_argument(
        "--weights", metavar="FILE", help="a published network (.pt), instead of training"
    )
    parser.add_argument("--faithful", action="store_true", help="repeat the published code's bugs")
    args = parser.parse_args()
    found = photos(args.images, 500)
    if args.weights:
        model = CAE() if args.kind == "cae" else EDSR()
        params = published.load(model, files.read(args.weights).tensors)
    else:
        recipe = RECIPES[args.kind]
        recipe = dataclasses.replace(recipe, total_steps=args.steps or recipe.total_steps)
        model = recipe.model
        training = np.stack([tile for photo in found for tile in tiles(photo, args.size)])
        with tempfile.TemporaryDirectory() as workdir:
            params, facts = fit(args.kind, training, recipe=recipe, seed=0, workdir=workdir)
        print(
            f"{args.kind}: {facts['psnr']:.2f} dB on images kept aside, "
            f"{facts['psnr_trivial']:.2f} dB by interpolation, {facts['seconds']:.0f} s"
        )
    pictures = [square(photo, args.size) for photo in found[:: max(1, len(found) // args.count)]]
    drawn = np.stack(pictures[: args.count])
    contact_sheet(args.kind, model, params, drawn, args.contact_sheet, faithful=args.faithful)


if __name__ == "__main__":
    main()
