"""Images that are in train and in val, which makes an evaluation look better than it is."""

import concurrent.futures
import hashlib
import os
from collections.abc import Callable, Iterable

import numpy as np
import tqdm
from etils import epath

from robust_jax.data import index
from robust_jax.data.listing import shown
from robust_jax.data.sources import Source, fingerprint

# Encoded images that are no files have no sizes to compare, so that all of them are read.
MOST_READ = 200_000
_BAR_FROM = 2000  # images
_SHOWN = 2
_CHUNK = 64  # images that a thread takes at a time


def shared_images(
    train: Source, val: Source, index_dir: epath.PathLike | None = None
) -> list[tuple[str, str]]:
    """Finds the images of val that are in train too, byte by byte the same.

    Of files only those are read whose size occurs in both. Sets without files (TFDS) that have more
    than `MOST_READ` images are not compared.

    Args:
      train: of one dataset.
      val: of the same.
      index_dir: where the outcome is kept, so that it is found out once.

    Returns:
      (in train, in val) by name, one for each such image of val; "3" is the fourth image of a
      source without file names.
    """
    return _shared(train, val, index_dir) if _are_compared(train, val) else []


def _shared(train: Source, val: Source, index_dir: epath.PathLike | None) -> list[tuple[str, str]]:
    mark = fingerprint(*(part for source in (train, val) for part in _marks(source)))
    place = epath.Path(index_dir) / f"shared_{mark}.json" if index_dir else None
    if place and (known := index.kept(place)) is not None:
        return [(one, other) for one, other in known]
    pairs = _pairs(train, val)
    if place:
        index.keep(place, pairs)
    return pairs


def tell(train: Source, val: Source, index_dir: epath.PathLike | None = None) -> int | None:
    """Prints how many images `shared_images` finds, and some of them.

    Returns:
      Their number; None where they were not compared.
    """
    if not _are_compared(train, val):
        if not (train.absent or val.absent):
            print(
                f"data: {len(train):,} images of train and {len(val):,} of val were not searched "
                "for common ones, which takes files"
            )
        return None
    if pairs := _shared(train, val, index_dir):
        some = "; ".join(
            f"train {shown(one)} = val {shown(other)}" for one, other in pairs[:_SHOWN]
        )
        print(
            f"data: {len(pairs):,} of {len(val):,} images of val are in train, too ({some}"
            f"{'; ...' if len(pairs) > _SHOWN else ''}): the evaluation is optimistic"
        )
    return len(pairs)


def _are_compared(train: Source, val: Source) -> bool:
    if train.absent or val.absent:
        return False
    cheap = all(_has_sizes(source) or _is_pixels(source) for source in (train, val))
    return cheap or len(train) + len(val) <= MOST_READ


def _has_sizes(source: Source) -> bool:
    return source.stats is not None


def _is_pixels(source: Source) -> bool:
    return isinstance(source.read(0), np.ndarray)


def _marks(source: Source) -> tuple[object, ...]:
    return source.fingerprint, source.stats if source.stats is not None else ""


def _pairs(train: Source, val: Source) -> list[tuple[str, str]]:
    chosen = [np.arange(len(source)) for source in (train, val)]
    if train.stats is not None and val.stats is not None:
        sizes = train.stats[:, 0], val.stats[:, 0]
        common = np.intersect1d(*sizes)
        chosen = [np.flatnonzero(np.isin(size, common)) for size in sizes]
    read = sum(map(len, chosen))
    with (
        concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool,
        tqdm.tqdm(
            total=read,
            desc="comparing train and val",
            unit="image",
            disable=read <= _BAR_FROM,
        ) as bar,
    ):
        found = [
            _digests(pool, source.read, numbers, bar)
            for source, numbers in zip((train, val), chosen, strict=True)
        ]
    first: dict[bytes, int] = {}
    for number, digest in zip(chosen[0].tolist(), found[0], strict=True):
        first.setdefault(digest, number)
    return [
        (_name(train, first[digest]), _name(val, number))
        for number, digest in zip(chosen[1].tolist(), found[1], strict=True)
        if digest in first
    ]


def _digests(
    pool: concurrent.futures.Executor,
    read: Callable[[int], bytes | np.ndarray],
    numbers: np.ndarray,
    bar: tqdm.tqdm,
) -> list[bytes]:
    def of_chunk(chunk: Iterable[int]) -> list[bytes]:
        return [_digest(read(number)) for number in chunk]

    chunks = [numbers[i : i + _CHUNK].tolist() for i in range(0, len(numbers), _CHUNK)]
    digests: list[bytes] = []
    for some in pool.map(of_chunk, chunks):
        digests += some
        bar.update(len(some))
    return digests


def _digest(image: bytes | np.ndarray) -> bytes:
    if isinstance(image, bytes):
        return hashlib.blake2b(image, digest_size=16).digest()
    digest = hashlib.blake2b(repr(image.shape).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(image).data)
    return digest.digest()


def _name(source: Source, number: int) -> str:
    return source.files[number] if source.files else str(number)
