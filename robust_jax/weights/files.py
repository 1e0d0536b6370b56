"""Reads weight files of every kind into named arrays, and writes safetensors.

Nothing in a file is executed, and the files are not trusted: what is damaged, unsafe or something
else altogether is refused with a message.
"""

import dataclasses
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from robust_jax.weights import beside, locate, npz, safetensors_file, torch_file

_NO_METADATA: Mapping[str, str] = {}
_HTML = (b"<!doctype", b"<html", b"<?xml")
_LFS = b"version https://git-lfs.github.com/spec/"


@dataclasses.dataclass(frozen=True)
class WeightFile:
    """What a weight file holds.

    Attributes:
      path: as given.
      tensors: names as in the file; dtypes kept, bfloat16 as `ml_dtypes.bfloat16`.
      config: config.json beside it (Hugging Face), else {}.
      preprocessor: preprocessor_config.json beside it, else {}.
    """

    path: str
    tensors: dict[str, np.ndarray]
    config: dict[str, Any]
    preprocessor: dict[str, Any]


def read(path: str | os.PathLike[str]) -> WeightFile:
    """Reads a weight file or a directory of them.

    Args:
      path: a .safetensors, .npz, .pt, .pth, .bin or .state file (the last four also TorchScript),
        a directory as `save_pretrained()` or open_clip writes it, or the address of one of these:
        hf://owner/name[@revision][/file], gs://bucket/path.

    Raises:
      ValueError: when there are no weights, or they are damaged or unsafe.
    """
    found = locate.locate(path)
    directory = found if found.is_dir() else found.parent
    if found.is_dir():
        main = locate.main_file(found)
        if main is None:
            raise ValueError(
                f"no weights in this directory; got {os.fspath(path)!r} with "
                f"{_listing(os.listdir(found))}; give a weight file, or a directory with one of "
                f"{', '.join(locate.WEIGHTS)}"
            )
        found = main
    sharded = found.name.endswith(".index.json")
    config, preprocessor = beside.read(directory)
    return WeightFile(
        path=os.fspath(path),
        tensors=_read_shards(found) if sharded else _read_file(found),
        config=config,
        preprocessor=preprocessor,
    )


def write_safetensors(
    path: str | os.PathLike[str],
    tensors: Mapping[str, np.ndarray],
    metadata: Mapping[str, str] = _NO_METADATA,
) -> None:
    """Writes a safetensors file, whole or not at all.

    Args:
      path: a local path; its directory is made where it is missing.
      tensors: name -> array of numbers, bfloat16 included.
      metadata: text to store with it.
    """
    target = Path(path).expanduser()
    if "://" in os.fspath(path) or target.suffix != ".safetensors":
        raise ValueError(
            f"not a local .safetensors path; got {os.fspath(path)!r}; end it in .safetensors"
        )
    if "__metadata__" in tensors:
        raise ValueError(
            "a name that safetensors keeps for itself; got '__metadata__' for "
            f"{os.fspath(path)!r}; give the tensor another name"
        )
    # safetensors takes the memory as it lies, so transposed views would be written wrong.
    whole = {name: np.asarray(tensor, order="C") for name, tensor in tensors.items()}
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        safetensors.numpy.save_file(whole, partial, dict(metadata) or None)
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(partial, target)
    except (safetensors.SafetensorError, TypeError, KeyError) as error:
        raise ValueError(
            f"cannot write this as safetensors ({error}); got {os.fspath(path)!r} with dtypes "
            f"{_listing({str(array.dtype) for array in whole.values()})}; use numbers for the "
            "tensors and strings for the metadata"
        ) from error
    finally:
        partial.unlink(missing_ok=True)


def _listing(names: Any) -> str:
    names = sorted(names)
    return (
        ", ".join(names[:10]) + (f" and {len(names) - 10} more" if names[10:] else "") or "nothing"
    )


def _read_file(path: Path) -> dict[str, np.ndarray]:
    if path.suffix not in _READERS:
        raise ValueError(
            f"unknown kind of weight file; got {str(path)!r}; give a file that ends in one of "
            f"{', '.join(_READERS)}"
        )
    if not path.is_file():  # a pipe would be waited for
        raise ValueError(f"not a file; got {str(path)!r}; give a weight file, or its directory")
    try:
        with path.open("rb") as file:
            head = file.read(256)
    except OSError as error:
        raise ValueError(f"cannot read this file ({error}); got {str(path)!r}; check it") from error
    if not head:
        raise ValueError(f"an empty file; got {str(path)!r}; download it again")
    if head.startswith(_LFS):
        raise ValueError(
            f"a git-LFS pointer instead of the weights; got {str(path)!r}; run `git lfs pull` in "
            "its repository"
        )
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(_HTML):
        raise ValueError(
            f"a web page instead of the weights; got {str(path)!r}; the address it was downloaded "
            "from is wrong or wants a login; download it again"
        )
    return _READERS[path.suffix](path)


_READERS: dict[str, Callable[[Path], dict[str, np.ndarray]]] = {
    ".safetensors": safetensors_file.read,
    ".npz": npz.read,
    ".pt": torch_file.read,
    ".pth": torch_file.read,
    ".bin": torch_file.read,
    ".state": torch_file.read,
}


def _read_shards(index: Path) -> dict[str, np.ndarray]:
    places = beside.read_object(index, safetensors_file.unique).get("weight_map")
    if (
        not isinstance(places, dict)
        or not places
        or not all(isinstance(shard, str) for shard in places.values())
    ):
        raise ValueError(
            f"an index of shards without its weight_map; got {str(index)!r}; download it again"
        )
    for shard in sorted(set(places.values())):
        if os.path.basename(shard) != shard or shard in ("", ".", "..") or "\\" in shard:
            raise ValueError(
                f"an index that points out of its directory; got {shard!r} in {str(index)!r}; it "
                "must name files beside it; do not use files from this source"
            )
        if not os.path.isfile(index.parent / shard):  # also for names that no file can have
            raise ValueError(
                f"a shard is missing; got {shard!r} in {str(index)!r} and no such file beside it; "
                "download it, too"
            )
    tensors: dict[str, np.ndarray] = {}
    for shard in sorted(set(places.values())):
        part = _read_file(index.parent / shard)
        twice = tensors.keys() & part.keys()
        if twice:
            raise ValueError(
                f"names in more than one shard; got {_listing(twice)} in {shard!r} and before, in "
                f"{str(index.parent)!r}; save the model again"
            )
        listed = {name for name, place in places.items() if place == shard}
        if listed != part.keys():
            raise ValueError(
                f"a shard that differs from its index; got {shard!r} beside {str(index)!r}, which "
                f"disagree on {_listing(listed ^ part.keys())}; download both again"
            )
        tensors |= part
    return tensors
