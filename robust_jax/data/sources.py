"""Sources of labelled images with random access: digits, arrays, folders, TFDS.

Imports no TensorFlow; TFDS is imported when a TFDS source is loaded.
"""

import dataclasses
import difflib
import hashlib
import os
from collections.abc import Callable, Sequence
from typing import Any

import ml_collections
import numpy as np
from etils import epath

from robust_jax.data.labels import numbered_classes, to_labels
from robust_jax.data.listing import is_text

SPLITS = ("train", "val")


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
    """Labelled images, read one by one by number.

    Attributes:
      name: for messages and reports.
      class_names: k names.
      labels: int32[n] in [0, k).
      read: number -> encoded bytes or uint8[h, w, 3]; called from several threads.
      fingerprint: hash of what determines the content.
      bad_images: unreadable images that were left out.
      files: CLASS/NAME of each image of a folder; other sources have none.
      stats: int64[n, 2], bytes and time of change of each file; None of other sources.
      absent: the images are not on this machine, and `labels` and `read` make them up; for plans.
    """

    name: str
    class_names: tuple[str, ...]
    labels: np.ndarray
    read: Callable[[int], bytes | np.ndarray]
    fingerprint: str
    bad_images: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    stats: np.ndarray | None = None
    absent: bool = False

    def __post_init__(self) -> None:
        if len(self.class_names) < 2:
            raise ValueError(
                f"{self.name} has one class only; got {list(self.class_names)}; give at least two"
            )
        if wrong := [name for name in self.class_names if not is_text(name)]:
            raise ValueError(
                f"the name of a class is not UTF-8; got {wrong[0]!r} in {self.name}; rename it"
            )
        if not len(self.labels):
            raise ValueError(f"{self.name} has no images; got 0 labels; give at least one image")
        to_labels(self.labels, len(self.class_names), self.name)

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, indices: Sequence[int] | np.ndarray) -> "Source":
        """Returns a source of the given images only, in the given order.

        Args:
          indices: int[m] in [0, n).
        """
        chosen = np.asarray(indices, np.int64)
        if chosen.ndim != 1 or not len(chosen) or chosen.min() < 0 or chosen.max() >= len(self):
            raise ValueError(
                f"no such subset of {self.name}; got indices of shape {list(chosen.shape)}; give "
                f"one or more whole numbers from 0 to {len(self) - 1}"
            )
        return dataclasses.replace(
            self,
            labels=self.labels[chosen],
            read=lambda i: self.read(int(chosen[i])),
            fingerprint=fingerprint(self.fingerprint, chosen),
            files=tuple(self.files[i] for i in chosen) if self.files else (),
            stats=None if self.stats is None else self.stats[chosen],
        )

    def of_classes(self, names: Sequence[str]) -> "Source":
        """Returns a source of the images of some classes, whose labels count in `names`.

        Raises:
          ValueError: for a name that is not a class, and for one that is given twice.
        """
        if len(set(names)) < len(names):
            raise ValueError(f"data.classes names a class twice; got {names}; name each once")
        if unknown := [name for name in names if name not in self.class_names]:
            raise ValueError(
                f"data.classes names a class that {self.name} lacks; got {unknown[0]!r}; its "
                f"classes are {', '.join(self.class_names[:20])}"
            )
        number = np.full(len(self.class_names), -1, np.int32)
        number[[self.class_names.index(name) for name in names]] = np.arange(len(names))
        chosen = self.subset(np.flatnonzero(number[self.labels] >= 0))
        return dataclasses.replace(
            chosen,
            class_names=tuple(names),
            labels=number[chosen.labels],
            fingerprint=fingerprint(chosen.fingerprint, tuple(names)),
        )


def fingerprint(*parts: Any) -> str:
    """Hashes strings and arrays to 32 hexadecimal digits."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        if isinstance(part, np.ndarray):
            digest.update(f"{part.dtype}{part.shape}".encode())
            digest.update(np.ascontiguousarray(part).data)
        else:
            digest.update(repr(part).encode())
    return digest.hexdigest()


def file_mark(path: str | os.PathLike[str]) -> tuple[str, int, int]:
    """Returns what tells a local file from other versions of it: place, bytes, time of change."""
    found = os.stat(path)
    return os.path.realpath(path), found.st_size, found.st_mtime_ns


def from_arrays(
    images: np.ndarray,
    labels: np.ndarray,
    class_names: Sequence[str] | None = None,
    name: str = "arrays",
) -> Source:
    """Makes a source of images in memory.

    Args:
      images: uint8[n, h, w, 3].
      labels: int[n] in [0, k).
      class_names: k names; None for "0", "1", ...
      name: for messages and reports.
    """
    images, labels = np.asarray(images), np.asarray(labels)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3:
        raise ValueError(
            f"images of {name} have the wrong form; got {images.dtype}{list(images.shape)}; give "
            "uint8[n, h, w, 3] with values from 0 to 255"
        )
    if not np.issubdtype(labels.dtype, np.integer) or labels.shape != images.shape[:1]:
        raise ValueError(
            f"labels of {name} have the wrong form; got {labels.dtype}{list(labels.shape)}; give "
            f"one whole number for each of the {len(images)} images"
        )
    if class_names is None:
        class_names = numbered_classes(name, labels)
    names = tuple(map(str, class_names))
    known = to_labels(labels, max(len(names), 2), name)  # one class is told of by `Source`
    return Source(name, names, known, images.__getitem__, fingerprint(images, known, names))


def load(
    data: ml_collections.ConfigDict,
    split: str,
    *,
    index_dir: epath.PathLike | None = None,
    prepare: bool = True,
) -> Source:
    """Loads a split of the source that a config names.

    Args:
      data: `config.data`; key `source` is one of digits, folder, tfds, arrays.
      split: "train" or "val".
      index_dir: where to keep what is slow to find out about a source (which images of a folder
        are readable, the labels of a TFDS split), so that a restart need not do so again.
      prepare: download and prepare a TFDS set where that was not done; otherwise the source of
        such a set is `absent`.
    """
    if split not in SPLITS:
        raise ValueError(f"unknown split; got {split!r}; use one of {', '.join(SPLITS)}")
    if data.source not in _LOADERS:
        near = difflib.get_close_matches(str(data.source), _LOADERS, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(
            f"unknown data.source; got {data.source!r}; {hint}use one of {', '.join(_LOADERS)}"
        )
    index = epath.Path(index_dir) if index_dir else None
    whole = _LOADERS[data.source](data, split, index, prepare)
    chosen = whole.of_classes(data.classes) if data.classes else whole
    if split == "train" and (chosen.labels == chosen.labels[0]).all():
        raise ValueError(
            f"{chosen.name} has images of one class only; got {len(chosen)} of "
            f"{chosen.class_names[chosen.labels[0]]!r} and none of the other "
            f"{len(chosen.class_names) - 1}; train on at least two"
        )
    return chosen


def _digits(data: ml_collections.ConfigDict, split: str, *_: Any) -> Source:
    from robust_jax.data import in_memory

    return in_memory.digits(split)


def _arrays(data: ml_collections.ConfigDict, split: str, *_: Any) -> Source:
    from robust_jax.data import in_memory

    return in_memory.arrays(data.file, split)


def _folder(
    data: ml_collections.ConfigDict, split: str, index_dir: epath.Path | None, *_: Any
) -> Source:
    from robust_jax.data import folder

    return folder.load(data, split, index_dir)


def _tfds(
    data: ml_collections.ConfigDict, split: str, index_dir: epath.Path | None, prepare: bool
) -> Source:
    from robust_jax.data import tfds_source

    if not prepare and not tfds_source.is_prepared(data.name, data.dir):
        return tfds_source.outline(data, split)
    return tfds_source.load(data, split, index_dir)


_LOADERS = {"digits": _digits, "folder": _folder, "tfds": _tfds, "arrays": _arrays}
