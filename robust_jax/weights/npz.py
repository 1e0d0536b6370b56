"""Reads an npz file of plain arrays; pickles and object arrays are refused."""

import os

import ml_dtypes
import numpy as np

from robust_jax import archives


def read(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Reads every array of the file.

    Args:
      path: a local file; the names in it may hold slashes (big_vision).
    """
    try:
        with open(path, "rb") as file:
            arrays = archives.read_npz(file)
        return {name: _numbers(name, array) for name, array in arrays.items()}
    except (ValueError, OSError) as error:
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
