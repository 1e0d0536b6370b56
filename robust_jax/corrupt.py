"""Makes a -C and a -P of any images: `python -m robust_jax.corrupt SRC DST`.

SRC holds CLASS/*, as the validation part of a dataset does. DST gets CORRUPTION/SEVERITY/CLASS/*
and perturbations/PERTURBATION/CLASS/*.npy: what an evaluation makes of the same images on the fly,
saved as JPEG of quality 85 like the published ones, or without loss. The same command goes on after
an interruption; more corruptions, severities and perturbations may be added to a DST.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from robust_jax.data.sources import Source

# JAX is imported where it is needed: --help must not wait for it.
IMAGES, SEQUENCES = 128, 32  # in memory at a time


class Settings(NamedTuple):
    """What determines the pixels, beside the images.

    Attributes:
      size: side of the results, or None for the images as they are, which must have one size.
      resize: what the shorter side becomes before `size` is cut out of the middle; None for 8/7 of
        the size above 96 px, as in ImageNet-C, and for the size itself below.
      interpolation: of the resize, "bilinear" or "bicubic".
      seed: of corruptions and sequences.
      png: images without loss, instead of JPEG of quality 85.
    """

    size: int | None = None
    resize: int | None = None
    interpolation: str = "bilinear"
    seed: int = 0
    png: bool = False

    def checked(self) -> "Settings":
        """Returns the same with the resize filled in.

        Raises:
          ValueError: for numbers that do not fit.
        """
        from robust_jax.corruptions.batches import SMALLEST_SIDE
        from robust_jax.corruptions.constants import benchmark_for

        if self.seed < 0:
            raise ValueError(f"--seed is negative; got {self.seed}; use 0 or more")
        if self.size is None:
            if self.resize is not None:
                raise ValueError(f"--resize needs --size; got {self.resize} alone; give both")
            return self
        if self.size < SMALLEST_SIDE:
            raise ValueError(f"--size is too small; got {self.size}; use {SMALLEST_SIDE} or more")
        large = benchmark_for(self.size, self.size) == "imagenet"
        resize = self.resize or (round(self.size * 8 / 7) if large else self.size)
        if resize < self.size:
            raise ValueError(
                f"--resize is below --size; got {resize} and {self.size}; leave --resize out, or "
                f"give {self.size} or more"
            )
        return self._replace(resize=resize)

    def ops(self, side: int | None) -> str:
        """Returns the ops before corruption, which end with a cut of `side` px."""
        if self.size is None:
            return "decode"
        return f"decode|resize_small({self.resize}, '{self.interpolation}')|central_crop({side})"


def corrupt(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    settings: Settings,
    *,
    corruptions: Sequence[str] = ("all",),
    severities: Sequence[int] = (1, 2, 3, 4, 5),
    perturbations: Sequence[str] = (),
    max_bad_images: int = 0,
) -> str:
    """Writes corrupted images and sequences of a folder, or what is missing of them.

    Args:
      source: holds CLASS/*.
      target: a directory, new or empty, or made before of the same images with the same settings.
      settings: the settings.
      corruptions, severities: of `corruption.grid`.
      perturbations: of `perturbation.names`.
      max_bad_images: so many unreadable images are left out, and told.

    Returns:
      What was written, and how it is evaluated, in words.

    Raises:
      ValueError: for unknown names, and for directories and images that do not fit.
    """
    from robust_jax.evals import corruption, perturbation, written_sets

    grid, names = corruption.grid(corruptions, severities), perturbation.names(perturbations)
    if not grid and not names:
        raise ValueError("nothing to make; got no corruption and no perturbation; name some")
    settings = settings.checked()
    root = Path(target).expanduser()
    images = _load(Path(source).expanduser(), root, max_bad_images)
    height, width = (settings.size,) * 2 if settings.size else _common_size(images)
    written_sets.begin(root, images, settings._asdict())
    seed, written, kinds = settings.seed, 0, []
    if grid:
        made = [written_sets.corrupted(*pair, seed=seed, png=settings.png) for pair in grid]
        ops = settings.ops(settings.size)
        written += written_sets.write(
            root, images, ops, made, batch_size=IMAGES, what="corruptions"
        )
        kinds.append(f"folder_c:{root}")
    if names:
        made = [written_sets.perturbed(name, crop=settings.size, seed=seed) for name in names]
        print(f"sequences take {written_sets.gigabytes(names, len(images), height, width):.3g} GB")
        ops = settings.ops(settings.resize)
        written += written_sets.write(
            root, images, ops, made, batch_size=SEQUENCES, what="perturbations"
        )
        kinds.append(f"folder_p:{root / written_sets.SEQUENCES}")
    return f"wrote {written:,} files; to be evaluated with --sets {' '.join(kinds)}"


def _load(source: Path, root: Path, max_bad_images: int) -> "Source":
    from etils import epath

    from robust_jax.data import folder
    from robust_jax.data.sources import SPLITS
    from robust_jax.evals import written_sets

    if not source.is_dir():
        raise ValueError(f"SRC is not a directory; got '{source}'; give a folder with CLASS/*")
    inner, outer = source.resolve(), root.resolve()
    if inner.is_relative_to(outer) or outer.is_relative_to(inner):
        raise ValueError(
            f"SRC and DST must not lie in each other; got '{source}' and '{root}'; write somewhere "
            "else"
        )
    if root.exists() and not root.is_dir():
        raise ValueError(f"DST is a file; got '{root}'; give a directory")
    made = (root / written_sets.MANIFEST).exists()
    # What begins with a dot an earlier call left before its manifest.
    others = [p.name for p in root.glob("*") if p.name[0] != "."]
    if others and not made:
        raise ValueError(
            f"DST holds other files; got {min(others)} in '{root}'; give a new or empty directory"
        )
    splits = [s for s in SPLITS if any(path.is_dir() for path in (source / s).glob("*"))]
    if splits:
        raise ValueError(
            f"SRC holds splits, not classes; got {', '.join(splits)} in '{source}'; give one of "
            f"them, for example '{source / splits[-1]}'"
        )
    classes = folder.class_directories(epath.Path(source))
    images = folder.of_classes(
        epath.Path(source),
        {name: number for number, name in enumerate(classes)},
        classes,
        name=str(source),
        verify=True,
        max_bad_images=max_bad_images,
        index_dir=epath.Path(root / ".index"),
    )
    written_sets.file_names(images)
    return images


def _common_size(images: "Source") -> tuple[int, int]:
    from robust_jax.corruptions.batches import SMALLEST_SIDE

    sizes = ((file, _size(images.read(number))) for number, file in enumerate(images.files))
    first, (height, width) = next(sizes)
    for file, size in sizes:
        if size != (height, width):
            raise ValueError(
                f"the images differ in size; got {width}x{height} px of {first} and "
                f"{size[1]}x{size[0]} of {file}; bring them to one, for example with --size 224"
            )
    if min(height, width) < SMALLEST_SIDE:
        raise ValueError(
            f"images must have sides of at least {SMALLEST_SIDE} px; got {width}x{height} px in "
            f"{images.name}; enlarge them, for example with --size 32"
        )
    return height, width


def _size(data: bytes | np.ndarray) -> tuple[int, int]:
    from robust_jax.data.images import decode_image

    height, width, _ = (decode_image(data) if isinstance(data, bytes) else data).shape
    return height, width


def main(argv: Sequence[str] | None = None) -> int:
    """Makes what the command line names."""
    parser = argparse.ArgumentParser(
        prog="python -m robust_jax.corrupt",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("source", metavar="SRC", help="a folder with CLASS/*")
    add("target", metavar="DST", help="a directory: new, empty, or made by this command")
    names = "%s, extra (four more) or names"
    add("--corruption", nargs="*", default=["all"], help=names % "all (the 15, the default)")
    add("--severity", nargs="+", type=int, default=[1, 2, 3, 4, 5], help="some of 1 to 5 (all)")
    add("--perturbation", nargs="*", default=[], help=names % "all (the ten)" + " (none)")
    add(
        "--size", type=int, help="side in pixels; without it images stay as they are, all of a size"
    )
    add("--resize", type=int, help="shorter side before the cut of --size (as ImageNet-C: 8/7)")
    add("--interpolation", choices=("bilinear", "bicubic"), default="bilinear", help="(bilinear)")
    add("--seed", type=int, default=0, help="of corruptions and sequences (0)")
    add("--png", action="store_true", help="images without loss, instead of JPEG of quality 85")
    add("--max_bad_images", type=int, default=0, help="unreadable ones to leave out (0)")
    args = parser.parse_args(argv)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        said = corrupt(
            args.source,
            args.target,
            Settings(args.size, args.resize, args.interpolation, args.seed, args.png),
            corruptions=args.corruption,
            severities=args.severity,
            perturbations=args.perturbation,
            max_bad_images=args.max_bad_images,
        )
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on from here", file=sys.stderr)
        return 130
    print(said)
    return 0


if __name__ == "__main__":
    sys.exit(main())
