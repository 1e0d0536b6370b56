"""Reads an npz file of plain arrays; pickles and object arrays are refused."""

import os
import zipfile
import zlib

import ml_dtypes
import numpy as np

_ZIP = (b"PK\x03\x04", b"PK\x05\x06")


def read(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Reads every array of the file.

    Args:
      path: a local file; the names in it may hold slashes (big_vision).
    """
    try:
        with open(path, "rb") as file:
            if not file.read(4).startswith(_ZIP):
                raise ValueError("it does not start as an npz does")
            file.seek(0)
            archive = np.load(file, allow_pickle=False)
            if len(set(archive.files)) < len(archive.files):
                raise ValueError("it holds a name twice")
            return {name: _numbers(name, archive[name]) for name in archive.files}
    except (
        ValueError,
        KeyError,
        RuntimeError,
        EOFError,
        OSError,
        MemoryError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise ValueError(
            f"cannot read this npz file ({error}); got {os.fspath(path)!r}; it is cut off, or not "
            "an npz of plain arrays: pickles and object arrays are not read, for they can hold code"
        ) from error


def _numbers(name: str, array: np.ndarray) -> np.ndarray:
    if array.dtype == np.dtype("V2"):  # how numpy stores the bfloat16 of big_vision
        return array.view(ml_dtypes.bfloat16)
    if array.dtype.kind not in "biufc":
        raise ValueError(f"{name} has dtype {array.dtype}")
    return array.astype(array.dtype.newbyteorder("="), copy=False)
