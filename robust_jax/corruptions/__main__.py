"""Shows what the corruptions and sequences do to a photograph.

`python -m robust_jax.corruptions --contact_sheet OUT.png [--sequences OUT.png] [--image FILE]`
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import ImageOps

from robust_jax import contact_sheet
from robust_jax.corruptions import CORRUPTIONS, EXTRA_CORRUPTIONS, SEVERITIES, corrupt
from robust_jax.corruptions.constants import benchmark_for
from robust_jax.corruptions.sequences import EXTRA_SEQUENCES, SEQUENCES, perturb

_FRAMES = 7  # shown of each sequence


def corruption_rows(image: np.ndarray) -> Iterator[contact_sheet.Row]:
    """Yields the row of each corruption: u8[h, w, 3] as it is and at severities 1 to 5."""
    captions = ["clean", *(f"severity {severity}" for severity in SEVERITIES)]
    for name in CORRUPTIONS + EXTRA_CORRUPTIONS:
        corrupted = [corrupt(image[None], name, severity, ids=[0])[0] for severity in SEVERITIES]
        yield name, np.stack([image, *corrupted]), captions


def sequence_rows(image: np.ndarray, crop: int) -> Iterator[contact_sheet.Row]:
    """Yields the row of each sequence of u8[h, w, 3]: some of its frames, evenly spaced."""
    for name in SEQUENCES + EXTRA_SEQUENCES:
        frames = perturb(image[None], name, ids=[0], crop=crop)[0]
        shown = np.linspace(0, len(frames) - 1, _FRAMES).round().astype(int)
        yield name, frames[shown], [f"frame {i + 1} of {len(frames)}" for i in shown]


def main() -> None:
    """Reads the arguments and writes the contact sheets."""
    parser = argparse.ArgumentParser(prog="python -m robust_jax.corruptions", description=__doc__)
    parser.add_argument("--image", type=Path, metavar="FILE", help="default: a photograph")
    parser.add_argument("--contact_sheet", metavar="OUT.png", help="of the 15 and 4 corruptions")
    parser.add_argument("--sequences", metavar="OUT.png", help="of the 10 and 4 sequences")
    parser.add_argument("--size", type=int, default=224, help="side of the images in pixels")
    args = parser.parse_args()
    if not (args.contact_sheet or args.sequences):
        parser.error("nothing to write; give --contact_sheet OUT.png or --sequences OUT.png")
    files = [args.image] if args.image else []
    image = contact_sheet.photographs(files, args.size)[0]
    if args.contact_sheet:
        contact_sheet.write(list(corruption_rows(image)), args.contact_sheet)
    if args.sequences:
        if benchmark_for(args.size, args.size) == "imagenet":
            # ImageNet-P perturbs a whole image whose shorter side is 256 px, then crops 224.
            side = args.size * 8 // 7
            image = np.asarray(ImageOps.cover(contact_sheet.opened(files)[0], (side, side)))
        contact_sheet.write(list(sequence_rows(image, args.size)), args.sequences)


if __name__ == "__main__":
    main()
