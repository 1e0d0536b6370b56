"""Reads a safetensors file: a JSON header, which is checked first, and the numbers behind it."""

import collections
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

_MAX_HEADER_BYTES = 100_000_000  # that of the safetensors library


def read(path: Path) -> dict[str, np.ndarray]:
    """Reads the tensors of a local file; dtypes are kept, bfloat16 as `ml_dtypes.bfloat16`."""
    try:
        _check_header(path)
        return safetensors.numpy.load_file(path)
    # AttributeError and KeyError: dtypes that numpy lacks.
    except (safetensors.SafetensorError, AttributeError, KeyError, ValueError, OSError) as error:
        raise _unreadable(path, error) from error


def metadata(path: Path) -> dict[str, str]:
    """Returns the text stored in a local file."""
    try:
        _check_header(path)
        with safetensors.safe_open(path, "np") as opened:
            return dict(opened.metadata() or {})
    except (safetensors.SafetensorError, ValueError, OSError) as error:
        raise _unreadable(path, error) from error


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Makes the dictionary of a JSON object, of whose equal keys others would keep the last."""
    content = dict(pairs)
    if len(content) < len(pairs):
        counts = collections.Counter(name for name, _ in pairs)
        twice = sorted(name for name, count in counts.items() if count > 1)
        raise ValueError(f"twice in it: {', '.join(twice[:10])}")
    return content


def _check_header(path: Path) -> None:
    """The library checks lengths, dtypes, shapes and offsets, but takes the last of equal names."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > min(_MAX_HEADER_BYTES, os.fstat(file.fileno()).st_size - 8):
            raise ValueError(f"its header claims {length} bytes")
        try:
            header = json.loads(file.read(length), object_pairs_hook=unique)
        except RecursionError as error:
            raise ValueError("its header is nested without end") from error
    if not isinstance(header, dict):
        raise ValueError(f"its header holds a {type(header).__name__}")


def _unreadable(path: Path, error: Exception) -> ValueError:
    return ValueError(
        f"cannot read this safetensors file ({error}); got {str(path)!r}; it is cut off or "
        "something else; download it again, or make it again"
    )
