"""Distorted copies of a source's images: an image folder for each copy, and a manifest of them all.

`DIR/COPY/CLASS/RECORD.jpg`, so that a copy is also a dataset for any program that reads folders.
DeepAugment was published so: distorted beforehand, then trained on beside the images themselves.
"""

import dataclasses
import functools
import io
import json
import re
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from etils import epath
from PIL import Image

from robust_jax import writers
from robust_jax.config import differing
from robust_jax.data.sources import Source, fingerprint

DEEPAUGMENT = ("cae", "edsr")
NOISE2NET = "noise2net"
KINDS = (*DEEPAUGMENT, NOISE2NET)
JPEG = {"quality": 95, "subsampling": 0}  # nothing of it is seen in the images
MANIFEST = "manifest.json"

Distort = Callable[[np.ndarray, np.ndarray], Any]


def copy_names(kinds: Sequence[str], count: int) -> tuple[str, ...]:
    """Returns the names of `count` copies by each kind of network, in the order of `KINDS`."""
    return tuple(f"{kind}_{i}" for kind in KINDS if kind in kinds for i in range(count))


def kind_of(name: str) -> str:
    """Returns the kind of network that made a copy."""
    return name.rpartition("_")[0]


@dataclasses.dataclass(frozen=True, eq=False)
class Copies:
    """Where the distorted copies of a source's images lie; they need not be there yet.

    Attributes:
      directory: holds one folder for each copy.
      names: of the copies; `read` counts in this order.
      files: CLASS/RECORD.jpg for each record.
    """

    directory: epath.Path
    names: tuple[str, ...]
    files: tuple[str, ...]

    @classmethod
    def of(cls, directory: epath.PathLike, names: Sequence[str], source: Source) -> "Copies":
        """Returns the place of the copies of a whole source."""
        folders = _folders(source.class_names)
        files = tuple(f"{folders[k]}/{i:08d}.jpg" for i, k in enumerate(source.labels))
        return cls(epath.Path(directory), tuple(names), files)

    def subset(self, indices: Sequence[int] | np.ndarray) -> "Copies":
        """Returns the copies of the given records only, as `Source.subset` does."""
        return dataclasses.replace(self, files=tuple(self.files[i] for i in indices))

    def read(self, record: int, copy: int) -> bytes:
        """Returns a copy of a record as a JPEG.

        Raises:
          ValueError: when it is not there.
        """
        path = self.directory / self.names[copy] / self.files[record]
        try:
            return path.read_bytes()
        except FileNotFoundError as error:
            raise ValueError(
                f"a distorted copy is missing; got no file {path}; run the stage distort again "
                "with --rerun=distort"
            ) from error

    @functools.cached_property
    def fingerprint(self) -> str:
        """What made the copies that are used, and which records they are of."""
        manifest = read_manifest(self.directory)
        made = [manifest["made_from"], [manifest["copies"][name] for name in self.names]]
        return fingerprint(json.dumps(made, sort_keys=True), self.files)


def read_manifest(directory: epath.Path) -> dict[str, Any]:
    """Returns the manifest of finished copies.

    Raises:
      ValueError: when there are none, or only a part of them.
    """
    manifest, (done, _) = writers.read_json(directory / MANIFEST), _progress(directory)
    if manifest is None or done < manifest["made_from"]["records"]:
        raise ValueError(
            f"no finished copies in this directory; got {done} records in {directory}; run the "
            "stage distort, or python -m robust_jax.distort, to its end"
        )
    return manifest


def check(copies: Copies, source: Source) -> None:
    """Checks that finished copies are of this source and that those which are wanted are there.

    Raises:
      ValueError: what differs.
    """
    manifest = read_manifest(copies.directory)
    found, wanted = manifest["made_from"]["source"], source.fingerprint
    if found != wanted:
        raise ValueError(
            f"the copies were made from other images; got {found} in {copies.directory} and "
            f"{wanted} for {source.name}; make them from the same folder, or leave distort.dir out"
        )
    if missing := [name for name in copies.names if name not in manifest["copies"]]:
        raise ValueError(
            f"copies are missing; got {sorted(manifest['copies'])} in {copies.directory}, without "
            f"{', '.join(missing)}; make them too, or lower distort.networks or distort.copies"
        )


def write(
    copies: Copies,
    source: Source,
    ops: str,
    distortions: Mapping[str, tuple[Distort, dict[str, Any]]],
    *,
    seed: int,
    batch_size: int,
) -> float:
    """Writes every copy of every record, behind what an interrupted call has written.

    Args:
      copies: of the whole source.
      source: of the images.
      ops: make the image that is distorted, uint8[h, w, 3] of one size.
      distortions: kind -> (images uint8[b, h, w, 3], seeds int32[b, 2]) -> uint8[b, h, w, 3], and
        what determines it, as plain values.
      seed: with the name of a copy and the number of a record, it decides the distortion.
      batch_size: of the calls.

    Returns:
      Seconds that it took, earlier calls included.

    Raises:
      ValueError: when the directory holds copies made in another way.
    """
    from robust_jax.data.pipeline import Elements, ordered_batches

    _begin(copies, source, ops, distortions, seed)
    total, (done, seconds) = len(source), _progress(copies.directory)
    earlier, began = seconds, time.perf_counter()
    elements = Elements(source, ops, {"image": ""}, seed=seed)

    def save(name: str, file: str, image: np.ndarray) -> None:
        writers.write_bytes(copies.directory / name / file, encode(image))

    with (
        ThreadPoolExecutor(8) as pool,
        writers.Progress("distort", total, done, unit="image") as progress,
    ):
        if done < total:
            _make_folders(copies)
        for batch in ordered_batches(elements, batch_size=batch_size, start=done):
            count = int(batch["mask"].sum())
            for name in copies.names:
                run, _ = distortions[kind_of(name)]
                seeds = np.stack([np.full_like(batch["id"], _stream(seed, name)), batch["id"]], 1)
                images = np.asarray(run(batch["image"], seeds))[:count]
                files = copies.files[done : done + count]
                list(pool.map(save, [name] * count, files, images))
            done += count
            seconds = earlier + time.perf_counter() - began
            writers.write_json(
                copies.directory / "done.json", {"records": done, "seconds": seconds}
            )
            progress.advance(count)
    return seconds


def encode(image: np.ndarray) -> bytes:
    """Returns uint8[h, w, 3] as a JPEG."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", **JPEG)
    return buffer.getvalue()


def _begin(
    copies: Copies,
    source: Source,
    ops: str,
    distortions: Mapping[str, tuple[Distort, dict[str, Any]]],
    seed: int,
) -> None:
    wanted = {
        "made_from": {
            "source": source.fingerprint,
            "records": len(source),
            "classes": list(source.class_names),
            "ops": ops,
            "seed": seed,
            "jpeg": JPEG,
        },
        "copies": {name: distortions[kind_of(name)][1] for name in copies.names},
    }
    wanted = json.loads(json.dumps(wanted))  # tuples as they are read back
    found = writers.read_json(copies.directory / MANIFEST)
    if found is None:
        writers.write_json(copies.directory / MANIFEST, wanted)
    elif found != wanted:
        keys = [f"{part}.{key}" for part in wanted for key in differing(found[part], wanted[part])]
        raise ValueError(
            f"the directory holds copies that were made in another way; got another {keys[0]} in "
            f"{copies.directory}; give an empty directory, or remove this one"
        )


def _make_folders(copies: Copies) -> None:
    for name in copies.names:
        for folder in sorted({file.partition("/")[0] for file in copies.files}):
            (copies.directory / name / folder).mkdir(parents=True, exist_ok=True)


def _folders(class_names: Sequence[str]) -> list[str]:
    """The names of the classes where every file system takes them, else their numbers."""
    plain = all(
        re.fullmatch(r"\w[\w .,'()+-]*", name) and len(name.encode()) <= 200 for name in class_names
    )
    distinct = len({name.lower() for name in class_names}) == len(class_names)
    return list(class_names) if plain and distinct else list(map(str, range(len(class_names))))


def _stream(seed: int, name: str) -> int:
    return zlib.crc32(f"{seed} {name}".encode()) % 2**31


def _progress(directory: epath.Path) -> tuple[int, float]:
    done = writers.read_json(directory / "done.json")
    return (done["records"], done["seconds"]) if done else (0, 0.0)
