"""A folder of images, `train/CLASS/*` and `val/CLASS/*`, checked image by image before use.

Names that begin with a dot are left out; other files that are not images are counted and told.
"""

import collections
import concurrent.futures
import json
import os
from collections.abc import Callable, Mapping, Sequence

import ml_collections
import numpy as np
import tqdm
from etils import epath

from robust_jax import writers
from robust_jax.data.images import decode_image
from robust_jax.data.sources import SPLITS, Source, fingerprint

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp")

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
        name=f"{root.name or root} {split}",
        verify=data.verify,
        max_bad_images=data.max_bad_images,
        index_dir=index_dir,
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

    Raises:
      ValueError: for a class directory without images, and for too many unreadable ones.
    """
    files, numbers = _list_images(directory, labels)
    relative = [file for file, _, _ in files]
    bad: list[str] = []
    if verify:
        bad = _unreadable(directory, files, index_dir)
        _check_bad(directory, bad, max_bad_images)
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
    )


def _classes(root: epath.Path, split: str) -> list[str]:
    directory = root / split
    if not directory.is_dir():
        found = sorted(path.name for path in root.iterdir() if path.is_dir())
        raise ValueError(
            f"{root} has no directory {split}; got {', '.join(found[:10]) or 'no directories'}; "
            "lay the images out as train/CLASS/* and val/CLASS/*"
        )
    return class_directories(directory)


def class_directories(directory: epath.Path) -> list[str]:
    """Returns the names of the class directories in order, that of numbers where all are numbers.

    Raises:
      ValueError: where there is none.
    """
    names = sorted(p.name for p in directory.iterdir() if p.name[0] != "." and p.is_dir())
    if not names:
        raise ValueError(
            f"{directory} has no class directories; got none; put the images of each class in "
            f"{directory}/CLASS/"
        )
    return sorted(names, key=int) if all(name.isdecimal() for name in names) else names


def _list_files(directory: epath.Path) -> list[tuple[str, int, int]]:
    """Returns (name, bytes, time of change) of each file, sorted by name."""
    if os.path.isdir(directory):  # os.scandir is five times faster than epath
        with os.scandir(directory) as entries:
            files = [(e.name, e.stat()) for e in entries if e.name[0] != "." and e.is_file()]
        return sorted((name, stat.st_size, stat.st_mtime_ns) for name, stat in files)
    stats = [(path.name, path.stat()) for path in directory.iterdir() if path.name[0] != "."]
    return sorted((name, s.length, s.mtime) for name, s in stats if not s.is_directory)


def _is_image(name: str) -> bool:
    return name.lower().endswith(EXTENSIONS)


def _list_images(
    directory: epath.Path, label_of: Mapping[str, int]
) -> tuple[list[tuple[str, int, int]], np.ndarray]:
    """Returns (relative path, bytes, time of change) and the label of each image."""
    images, labels, others = [], [], []
    for name, label in label_of.items():
        files = _list_files(directory / name)
        chosen = [file for file in files if _is_image(file[0])]
        others += [f"{name}/{file[0]}" for file in files if not _is_image(file[0])]
        if not chosen:
            raise ValueError(
                f"no readable image in {directory / name}; got {len(files)} other files; put "
                f"{', '.join(EXTENSIONS)} files in it or remove it"
            )
        images += [(f"{name}/{file}", size, changed) for file, size, changed in chosen]
        labels += [label] * len(chosen)
    if others:
        print(f"{directory}: left out {len(others)} files that are not images, e.g. {others[0]}")
    return images, np.array(labels, np.int32)


def _reader(directory: epath.Path, relative: Sequence[str]) -> Callable[[int], bytes]:
    if os.path.isdir(directory):
        prefix = os.fspath(directory)

        def read(i: int) -> bytes:
            with open(f"{prefix}/{relative[i]}", "rb", buffering=0) as file:
                return file.read()

        return read
    return lambda i: (directory / relative[i]).read_bytes()


def _unreadable(
    directory: epath.Path, files: Sequence[tuple[str, int, int]], index_dir: epath.Path | None
) -> list[str]:
    """Returns the relative paths that do not decode, from the index if it knows these files."""
    index = index_dir / f"images_{fingerprint(files)}.json" if index_dir else None
    if index and index.exists():
        return json.loads(index.read_text())["unreadable"]
    relative = [name for name, _, _ in files]
    read = _reader(directory, relative)

    def failures(numbers: Sequence[int]) -> list[str]:
        return [relative[i] for i in numbers if not _decodes(read, i)]

    bad: list[str] = []
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
        for chunk, found in zip(chunks, pool.map(failures, chunks), strict=True):
            bad += found
            bar.update(len(chunk))
    if index:
        writers.write_json(index, {"unreadable": bad})
    return bad


def _decodes(read: Callable[[int], bytes], number: int) -> bool:
    try:
        decode_image(read(number))
    except (ValueError, OSError):
        return False
    return True


def _check_bad(directory: epath.Path, bad: Sequence[str], allowed: int) -> None:
    if not bad:
        return
    shown = ", ".join(bad[:_SHOWN]) + (", ..." if len(bad) > _SHOWN else "")
    if len(bad) > allowed:
        raise ValueError(
            f"{len(bad)} images of {directory} cannot be read; got {shown}; replace or delete "
            f"them, or set data.max_bad_images={len(bad)} to leave them out"
        )
    print(f"{directory}: left out {len(bad)} images that cannot be read: {shown}")


def _check_left(directory: epath.Path, relative: Sequence[str], bad: Sequence[str]) -> None:
    count = collections.Counter(name.split("/")[0] for name in relative)
    count.subtract(name.split("/")[0] for name in bad)
    if empty := [name for name, left in count.items() if not left]:
        raise ValueError(
            f"no readable image in {directory / empty[0]}; got corrupt files only; replace them "
            "or remove the directory"
        )
