"""Writing when the disk is full: what was being written, and how much is missing."""

import contextlib
import errno
import shutil
from collections.abc import Iterator

from etils import epath

_FULL = (errno.ENOSPC, errno.EDQUOT)
_SAID = ("No space left on device", "Disk quota exceeded")
_MARGIN = 1 << 20  # bytes, of directories and descriptions beside the arrays


class DiskFull(OSError):
    """A disk has too little space; the message says for what, and how much is missing."""


@contextlib.contextmanager
def writing(path: epath.PathLike, what: str, needed: int = 0) -> Iterator[None]:
    """Says what could not be written where the disk is full, before or within.

    Args:
      path: below which something is written; remote ones are not asked for space.
      what: is being written.
      needed: bytes of it; 0 for little.

    Raises:
      DiskFull: at once where there is less space than `needed`, and in place of the errors that a
        full disk causes.
    """
    free = _free(path)
    if free is not None and needed and free < needed + _MARGIN:
        raise _full(path, what, free, needed)
    try:
        yield
    except Exception as error:
        code = getattr(error, "errno", None)
        if isinstance(error, DiskFull) or not (
            code in _FULL or any(said in str(error) for said in _SAID)
        ):
            raise
        free = _free(path)
        raise _full(path, what, 0 if free is None else free, needed) from error


def _free(path: epath.PathLike) -> int | None:
    """Returns the bytes that are free where `path` lies, or will; None if remote."""
    place = epath.Path(path)
    if "://" in str(place):
        return None
    while not place.exists() and place != place.parent:
        place = place.parent
    return shutil.disk_usage(place).free


def _full(path: epath.PathLike, what: str, free: int, needed: int) -> DiskFull:
    missing = max(needed + _MARGIN - free, 0) if needed else _MARGIN
    return DiskFull(
        errno.ENOSPC,
        f"the disk is full while writing {what} to {path}; got {free / 1e6:.1f} MB free of "
        f"{max(needed, 1) / 1e6:.1f} MB needed, so at least {missing / 1e6:.1f} MB are missing; "
        "free some and run the same command again: it goes on from what was written before",
    )
