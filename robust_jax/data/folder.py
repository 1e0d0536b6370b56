"""A folder of images, `train/CLASS/*` and `val/CLASS/*`, checked image by image before use.

Names that begin with a dot are left out; other files that are not images are counted and told.
The folder itself may be a symbolic link; one in it that leads out of it is an error.
"""

import collections
import concurrent.futures
import os
from collections.abc import Callable, Mapping, Sequence

import ml_collections
import numpy as np
import tqdm
from etils import epath

from robust_jax.data import index, listing
from robust_jax.data.images import decode_image
from robust_jax.data.listing import File, shown
from robust_jax.data.sources import SPLITS, Source, fingerprint

_BAR_FROM = 2000  # images; a check of fewer is over before a bar is of use
_SHOWN = 5


def load(
    data: ml_collections.ConfigDict, split: str, index_dir: epath.Path | None = None
) -> Source:
    """Loads a split of the folder `data.dir`.

    Args:
      data: `config.data`; keys dir, verify, max_bad_images.
      split: "train" or "val".
      index_dir: where the outcome of the check of the images is kept.
    """
    root = epath.Path(data.dir or "")
    if not data.dir or not root.is_dir():
        raise ValueError(
            f"data.dir is not a directory; got {data.dir!r}; give a folder with train/CLASS/* and "
            "val/CLASS/*"
        )
    classes = {part: _classes(root, part) for part in SPLITS}
    names = classes["train"]
    if unknown := [name for name in classes["val"] if name not in names]:
        raise ValueError(
            f"val has classes that train lacks; got {', '.join(unknown)} in {root / 'val'}; add "
            f"them to {root / 'train'} or remove them"
        )
    if len(names) < 2:
        raise ValueError(f"one class only; got {names[0]} in {root}/train; give at least two")
    return of_classes(
        root / split,
        {name: names.index(name) for name in classes[split]},
        names,
        name=f"{shown(root.name or root)} {split}",
        verify=data.verify,
        max_bad_images=data.max_bad_images,
        index_dir=index_dir,
        root=root,
    )


def of_classes(
    directory: epath.Path,
    labels: Mapping[str, int],
    class_names: Sequence[str],
    *,
    name: str,
    verify: bool,
    max_bad_images: int,
    index_dir: epath.Path | None = None,
    root: epath.Path | None = None,
) -> Source:
    """Loads the images of some class directories.

    Args:
      directory: of the class directories.
      labels: class directory -> label in [0, k), in the order that the images get.
      class_names: k names.
      name: for messages and reports.
      verify: decode every image once; without it an unreadable one is an error when it is read.
      max_bad_images: so many unreadable images are left out, and told; more are an error.
      index_dir: where the outcome of the check is kept.
      root: the directory above, or this one, which no link may lead out of; None for this one.

    Raises:
      ValueError: for a class directory without images, for too many unreadable ones, and for a link
        that leads out of the root.
    """
    listing.check_link(directory, root or directory)
    files, numbers = listing.images(directory, labels, root or directory)
    relative = [file for file, _, _ in files]
    bad: list[str] = []
    if verify:
        found = _unreadable(directory, files, index_dir)
        _check_bad(directory, found, max_bad_images)
        bad = [file for file, _ in found]
        _check_left(directory, relative, bad)
    dropped = set(bad)
    kept = [i for i, file in enumerate(relative) if file not in dropped]
    # Without the time of change: copies of a folder on several hosts are the same data.
    content = [files[i][:2] for i in kept]
    return Source(
        name=name,
        class_names=tuple(class_names),
        labels=numbers[kept],
        read=_reader(directory, [relative[i] for i in kept]),
        fingerprint=fingerprint("folder", list(class_names), content),
        bad_images=tuple(f"{directory.name}/{file}" for file in bad),
        files=tuple(relative[i] for i in kept),
        stats=np.array([files[i][1:] for i in kept], np.int64),
    )


def _classes(root: epath.Path, split: str) -> list[str]:
    directory = root / split
    listing.check_link(directory, root)
    if not directory.is_dir():
        found = sorted(path.name for path in root.iterdir() if path.is_dir())
        raise ValueError(
            f"{root} has no directory {split}; got {', '.join(found[:10]) or 'no directories'}; "
            "lay the images out as train/CLASS/* and val/CLASS/*"
        )
    return class_directories(directory, root)


def class_directories(directory: epath.Path, root: epath.Path | None = None) -> list[str]:
    """Returns the names of the class directories in order, that of numbers where all are numbers.

    Args:
      directory: of the class directories.
      root: as in `of_classes`.

    Raises:
      ValueError: where there is none, and where one is a link that leads out of the root.
    """
    names = listing.subdirectories(directory, root or directory)
    if not names:
        raise ValueError(
            f"{directory} has no class directories; got none; put the images of each class in "
            f"{directory}/CLASS/"
        )
    return sorted(names, key=int) if all(name.isdecimal() for name in names) else names


def _reader(directory: epath.Path, relative: Sequence[str]) -> Callable[[int], bytes]:
    if os.path.isdir(directory):
        prefix = os.fspath(directory)

        def read(i: int) -> bytes:
            with open(f"{prefix}/{relative[i]}", "rb", buffering=0) as file:
                return file.read()

        return read
    return lambda i: (directory / relative[i]).read_bytes()


def _unreadable(
    directory: epath.Path, files: Sequence[File], index_dir: epath.Path | None
) -> list[tuple[str, str]]:
    """Returns what does not decode and why not, from the index if it knows these files."""
    place = index_dir / f"images_{fingerprint(files)}.json" if index_dir else None
    if place and (known := index.kept(place)) is not None:
        return [(file, reason) for file, reason in known]
    relative = [name for name, _, _ in files]
    read = _reader(directory, relative)

    def failures(numbers: Sequence[int]) -> list[tuple[str, str]]:
        found = [(relative[i], _failure(read, i)) for i in numbers]
        return [(file, reason) for file, reason in found if reason]

    bad: list[tuple[str, str]] = []
    with (
        concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool,
        tqdm.tqdm(
            total=len(files),
            desc=f"checking {directory.name} images",
            unit="image",
            disable=len(files) <= _BAR_FROM,
        ) as bar,
    ):
        chunks = [range(i, min(i + 64, len(files))) for i in range(0, len(files), 64)]
        for chunk, some in zip(chunks, pool.map(failures, chunks), strict=True):
            bad += some
            bar.update(len(chunk))
    if place:
        index.keep(place, bad)
    return bad


def _failure(read: Callable[[int], bytes], number: int) -> str:
    """Why an image cannot be read; "" where it can."""
    try:
        decode_image(read(number))
    except (ValueError, OSError) as error:
        return str(error) or repr(error)
    return ""


def _check_bad(directory: epath.Path, bad: Sequence[tuple[str, str]], allowed: int) -> None:
    if not bad:
        return
    some = ", ".join(shown(file) for file, _ in bad[:_SHOWN]) + (", ..." if bad[_SHOWN:] else "")
    reason = f"the first because {bad[0][1]}"
    if len(bad) > allowed:
        raise ValueError(
            f"{len(bad)} images of {shown(directory)} cannot be read; got {some}; replace or "
            f"delete them, or set data.max_bad_images={len(bad)} to leave them out ({reason})"
        )
    print(f"{shown(directory)}: left out {len(bad)} images that cannot be read: {some} ({reason})")


def _check_left(directory: epath.Path, relative: Sequence[str], bad: Sequence[str]) -> None:
    count = collections.Counter(name.split("/")[0] for name in relative)
    count.subtract(name.split("/")[0] for name in bad)
    if empty := [name for name, left in count.items() if not left]:
        raise ValueError(
            f"no readable image in {directory / empty[0]}; got corrupt files only; replace them "
            "or remove the directory"
        )
