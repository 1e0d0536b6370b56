"""Writes the -C and the -P of a folder of images: ROOT/SET/CLASS/NAME, one file an image.

A set is written below ROOT/.unfinished and moved to its place once it is whole, so that no reader
takes a part for the whole. What is there already is not made again.
"""

import dataclasses
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from etils import epath
from PIL import Image

from robust_jax import writers
from robust_jax.corruptions import sequences
from robust_jax.corruptions.constants import STORED_JPEG_QUALITY
from robust_jax.data.sources import Source
from robust_jax.evals import corruption
from robust_jax.evals.classification import EvalSet

MANIFEST = "manifest.json"
# Below the root. Six sequences have the name of a corruption, which is why they lie apart.
SEQUENCES = "perturbations"
UNFINISHED = ".unfinished"


@dataclasses.dataclass(frozen=True)
class WrittenSet:
    """A set to be written.

    Attributes:
      place: of its directory below the root.
      make: (images u8[b, h, w, 3], their numbers i[b]) -> u8[b, ...], a row for each file.
      suffix: of the files: .JPEG or .png of images, .npy of frames.
    """

    place: str
    make: corruption.Transform
    suffix: str


def corrupted(name: str, severity: int, *, seed: int, png: bool) -> WrittenSet:
    """Returns the set of a corruption at a severity: CORRUPTION/SEVERITY."""
    transform = corruption.transform(name, severity, seed)
    return WrittenSet(f"{name}/{severity}", transform, ".png" if png else ".JPEG")


def perturbed(name: str, *, crop: int | None, seed: int) -> WrittenSet:
    """Returns the set of a perturbation: its sequences, whole frames where crop is None."""

    def frames(images: np.ndarray, ids: np.ndarray) -> np.ndarray:
        return sequences.perturb(images, name, ids=ids, seed=seed, crop=crop)

    return WrittenSet(f"{SEQUENCES}/{name}", frames, ".npy")


def cut_size(root: epath.Path) -> int | None:
    """Returns the side that images were cut to; None where they were not, or are not of ours."""
    manifest = writers.read_json(root / MANIFEST)
    return manifest.get("size") if isinstance(manifest, dict) else None


def gigabytes(names: Sequence[str], count: int, height: int, width: int) -> float:
    """Returns the size of the sequences of so many images, in 10^9 bytes."""
    frames = sum(sequences.frames(name, max(height, width)) for name in names)
    return frames * count * height * width * 3 / 1e9


def begin(root: Path, source: Source, settings: Mapping[str, Any]) -> None:
    """Writes the manifest of a root, or compares with the one that is there.

    Args:
      root: of the sets.
      source: of the images.
      settings: what determines the files, beside the images; plain values.

    Raises:
      ValueError: what differs.
    """
    wanted = {"images": len(source), "source": source.fingerprint, **settings}
    found = writers.read_json(root / MANIFEST)
    if found is None:
        writers.write_json(root / MANIFEST, wanted)
    elif found.keys() != wanted.keys():
        raise ValueError(
            f"DST was made by another program; got {MANIFEST} with {', '.join(found)} in '{root}'; "
            "give a new or empty directory"
        )
    elif found != wanted:
        differences = [
            f"{key} {found[key]} there and {value} here"
            for key, value in wanted.items()
            if found[key] != value
        ]
        raise ValueError(
            f"DST was made of other images or with other settings; got {', '.join(differences)} "
            f"for '{root}'; repeat those, or give another DST"
        )


def file_names(source: Source) -> list[str]:
    """Returns CLASS/NAME of each image of a folder, without the ending.

    Raises:
      ValueError: where two images would have the same.
    """
    taken: dict[str, str] = {}
    for file in source.files:
        name, _ = os.path.splitext(file)
        if name in taken:
            raise ValueError(
                f"two images have one name; got {taken[name]} and {file} in {source.name}, whose "
                "results would be one file; rename one of them"
            )
        taken[name] = file
    return list(taken)


def write(
    root: Path,
    source: Source,
    ops: str,
    written: Sequence[WrittenSet],
    *,
    batch_size: int,
    what: str,
) -> int:
    """Writes what is missing of some sets.

    Args:
      root: of the sets.
      source: a folder's images; their numbers are places in it.
      ops: for the images before the sets are made; images of one size come out.
      written: the sets.
      batch_size: images at a time; each is read once for all sets.
      what: for the progress line.

    Returns:
      The number of files that were missing.
    """
    names = file_names(source)
    missing = np.array([_missing(root, one, names) for one in written], bool)
    count, numbers = int(missing.sum()), np.flatnonzero(missing.any(0))
    with (
        ThreadPoolExecutor(os.cpu_count()) as pool,
        writers.Progress(what, missing.size, missing.size - count, unit="file") as progress,
    ):
        for images, ids in _batches(source, ops, numbers, batch_size):
            for one, lacking in zip(written, missing[:, ids], strict=True):
                if lacking.any():
                    results = one.make(images[lacking], ids[lacking])
                    directory = _directory(root, one)
                    files = [directory / f"{names[i]}{one.suffix}" for i in ids[lacking]]
                    list(pool.map(_save, files, results))
                    progress.advance(len(files))
    for one in written:
        if (directory := _directory(root, one)) != root / one.place:
            os.renames(directory, root / one.place)
    return count


def _batches(
    source: Source, ops: str, numbers: np.ndarray, batch_size: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    if len(numbers):
        images = EvalSet(source.subset(numbers), ops, keep=False)
        for batch, ids in images.batches(batch_size):
            yield batch, numbers[ids]


def _directory(root: Path, one: WrittenSet) -> Path:
    place = root / one.place
    return place if place.is_dir() else root / UNFINISHED / one.place


def _missing(root: Path, one: WrittenSet, names: Sequence[str]) -> list[bool]:
    directory, folders = _directory(root, one), {os.path.dirname(name) for name in names}
    found = {
        f"{folder}/{file}"
        for folder in folders
        if (directory / folder).is_dir()
        for file in os.listdir(directory / folder)
    }
    return [f"{name}{one.suffix}" not in found for name in names]


def _save(path: Path, values: np.ndarray) -> None:
    buffer = io.BytesIO()
    if path.suffix == ".npy":
        np.save(buffer, values)
    elif path.suffix == ".png":
        Image.fromarray(values).save(buffer, "PNG")
    else:
        Image.fromarray(values).save(buffer, "JPEG", quality=STORED_JPEG_QUALITY)
    writers.write_bytes(path, buffer.getvalue())
