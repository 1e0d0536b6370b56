"""Zip archives from anywhere: their members are checked before any is read, none is unpacked.

Needs NumPy only, so that whatever stores arrays can read them with it.
"""

import math
import os
import stat
import zipfile
from typing import IO, Any

import numpy as np

_START = (b"PK\x03\x04", b"PK\x05\x06")
_PLAIN = "biufcUSV"  # kinds of dtypes; V, raw bytes, is what numpy makes of bfloat16
# Compressed arrays may unfold to so many bytes, or to so many times the size of their file.
_UNFOLDED_BYTES, _UNFOLDED_TIMES = 2**28, 100


def read_npz(file: IO[bytes]) -> dict[str, np.ndarray]:
    """Returns every array of an npz file: numbers, truth values and text, but no objects.

    Args:
      file: open and seekable; the names in it may hold slashes.

    Raises:
      ValueError: what is wrong; the caller says in which file.
    """
    try:
        if not file.read(4).startswith(_START):
            raise ValueError("it does not start as an npz does")
        size = file.seek(0, os.SEEK_END) or file.tell()
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            check_names(members)
            unfolded = sum(member.file_size for member in members)
            if unfolded > max(_UNFOLDED_BYTES, _UNFOLDED_TIMES * size):
                raise ValueError(f"its {size} bytes would unfold to {unfolded}: a zip bomb")
            return {m.filename.removesuffix(".npy"): _array(archive, m) for m in members}
    # What zipfile, numpy and their decompressors raise depends on where the damage is.
    except Exception as error:
        raise ValueError(str(error) or type(error).__name__) from error


def check_names(members: list[zipfile.ZipInfo]) -> None:
    """Raises a ValueError for names that lead out of an archive or come twice, and for links."""
    seen = set()
    for member in members:
        name = member.filename
        if name.startswith("/") or "\\" in name or ".." in name.split("/") or name[1:2] == ":":
            raise ValueError(f"a member of it leads out of it: {name!r}")
        if stat.S_ISLNK(member.external_attr >> 16):
            raise ValueError(f"a member of it is a link: {name!r}")
        if name in seen:
            raise ValueError(f"it holds a name twice: {name!r}")
        seen.add(name)


def check_stored(members: list[zipfile.ZipInfo], size: int) -> None:
    """Raises a ValueError for members that are compressed, or more than a file of `size` holds."""
    for member in members:
        if member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size:
            raise ValueError(f"{member.filename!r} is compressed")
    if (total := sum(member.file_size for member in members)) > size:
        raise ValueError(f"its members claim {total} bytes of a file of {size}")


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    name = member.filename.removesuffix(".npy")
    if name == member.filename:
        raise ValueError(f"{name!r} is not an array")
    # The header first: numpy would make room for whatever it says.
    with archive.open(member) as stream:
        shape, dtype = _header(stream)
        if dtype.hasobject:
            raise ValueError(f"Object arrays cannot be loaded: {name} is a pickle")
        if dtype.kind not in _PLAIN or not dtype.itemsize:
            raise ValueError(f"{name} has dtype {dtype}")
        left = member.file_size - stream.tell()
        if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != left:
            raise ValueError(f"{name} has {left} bytes, not those of {dtype}{list(shape)}")
    with archive.open(member) as stream:
        return np.lib.format.read_array(stream, allow_pickle=False)


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], Any]:
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
    elif version == (2, 0):
        shape, _, dtype = np.lib.format.read_array_header_2_0(stream)
    else:
        raise ValueError(f"an array of version {version}")
    return shape, dtype
