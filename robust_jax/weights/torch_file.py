"""Reads a .pt, .pth, .bin or .state file: a state dict (torch's safe reader) or TorchScript."""

import os
import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from robust_jax import archives
from robust_jax.weights import torchscript

_CONTAINERS = ("model", "state_dict", "model_state")
_PARALLEL = "module."  # what torch.nn.DataParallel puts before every name
_EXPANDED_BYTES = 2**26  # of a tensor that by strides of 0 is larger than what is stored of it


def read(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Reads the tensors of a state dict.

    A state dict inside a container ({"model": ...}, {"state_dict": ...}, {"model_state": ...}) is
    taken out, and a printed line names what else the container had. A TorchScript archive is read
    without torch.

    Args:
      path: a local file.
    """
    path = Path(path)
    with path.open("rb") as file:
        zipped = file.read(4) == b"PK\x03\x04"
    try:
        scripted = zipped and torchscript.is_archive(path)
        if zipped and not scripted:
            _check_members(path)
    # What zipfile raises depends on where the damage is.
    except Exception as error:
        raise ValueError(
            f"the file is cut off or damaged ({_one_line(error)}); got {str(path)!r}; download it "
            "again"
        ) from error
    if scripted:
        return torchscript.read(path)
    return _without_prefix(_state_dict(_load(path), path))


def _check_members(path: Path) -> None:
    """Torch stores what it writes uncompressed; its reader would unfold a zip bomb."""
    with zipfile.ZipFile(path) as archive:
        archives.check_names(archive.infolist())
        archives.check_stored(archive.infolist(), path.stat().st_size)


def _load(path: Path) -> Any:
    try:
        import torch
    except ImportError as error:
        raise ValueError(
            f"reading this file needs torch; got {str(path)!r}; run `pip install torch`, or save "
            "the weights as safetensors"
        ) from error
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"a pickle with code in it, or a damaged one ({_refused(error)}); got "
            f"{str(path)!r}; get these weights as safetensors, or as a plain state dict of tensors"
        ) from error
    except Exception as error:  # of many kinds, for its reader trusts what it reads
        raise ValueError(
            f"cannot read this torch file ({_one_line(error)}); got {str(path)!r}; download it "
            "again, or save the weights as safetensors"
        ) from error


def _refused(error: Exception) -> str:
    # Torch's own message goes on to advise loading without the check.
    found = re.search(r"unsupported [^\n]*?(?= was not| whose|$)", str(error), re.I | re.M)
    return found[0] if found else "torch does not say what"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def _state_dict(content: Any, path: Path) -> dict[str, np.ndarray]:
    if isinstance(content, Mapping):
        inside = [key for key in _CONTAINERS if isinstance(content.get(key), Mapping)]
        if len(inside) > 1:
            raise ValueError(
                f"several containers in one file; got {', '.join(inside)} in {str(path)!r}; save "
                "the one that holds the weights by itself"
            )
        if inside:
            others = [str(key) for key in content if key != inside[0]]
            if others:
                print(
                    f"{path}: took the weights under {inside[0]!r}, left out {', '.join(others)}",
                    flush=True,
                )
            content = content[inside[0]]
    import torch

    if not isinstance(content, Mapping) or not content:
        raise ValueError(
            f"no state dict in this file; got {type(content).__name__} in {str(path)!r}; save "
            "model.state_dict(), with at least one tensor"
        )
    wrong = [
        f"{key} ({type(value).__name__})"
        for key, value in content.items()
        if not isinstance(key, str)
        or not isinstance(value, torch.Tensor)
        or value.layout != torch.strided
        or value.is_quantized
        or value.device.type != "cpu"
    ]
    if wrong:
        raise ValueError(
            f"a state dict with entries that are not plain tensors; got {', '.join(wrong[:10])} in "
            f"{str(path)!r}; save model.state_dict() alone"
        )
    return {name: _to_numpy(tensor) for name, tensor in content.items()}


def _to_numpy(tensor: Any) -> np.ndarray:
    import torch

    size = tensor.numel() * tensor.element_size()
    if size > max(_EXPANDED_BYTES, tensor.untyped_storage().nbytes()):
        raise ValueError(
            f"a tensor that is larger than what is stored of it; got {list(tensor.shape)}; save a "
            "copy of it (tensor.contiguous())"
        )
    tensor = tensor.detach().resolve_conj().resolve_neg()
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    try:
        return tensor.numpy()
    except TypeError as error:
        raise ValueError(
            f"a tensor of a dtype that numpy lacks; got {tensor.dtype}; convert it to float32"
        ) from error


def _without_prefix(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    if all(name.startswith(_PARALLEL) for name in tensors):
        return {name.removeprefix(_PARALLEL): tensor for name, tensor in tensors.items()}
    return tensors
