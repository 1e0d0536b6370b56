"""Reads the tensors of a TorchScript archive (OpenAI's CLIP files) and executes nothing in it.

The archive is a zip: `NAME/data.pkl` describes the modules, `NAME/data/N` hold the raw numbers
(format: caffe2/serialize/inline_container.h and torch/csrc/jit/serialization/pickler.cpp in
PyTorch). Torch is not needed. Attributes that are not tensors (`training`, sizes) are settings
of the script and are left out, as `ScriptModule.state_dict()` leaves them out.
"""

import io
import math
import os
import pickle
import pickletools
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

_STORAGES: dict[str, np.dtype] = {
    "DoubleStorage": np.dtype(np.float64),
    "FloatStorage": np.dtype(np.float32),
    "HalfStorage": np.dtype(np.float16),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "LongStorage": np.dtype(np.int64),
    "IntStorage": np.dtype(np.int32),
    "ShortStorage": np.dtype(np.int16),
    "CharStorage": np.dtype(np.int8),
    "ByteStorage": np.dtype(np.uint8),
    "BoolStorage": np.dtype(np.bool_),
}
# What torch's own writer emits. Anything else is not from it, and some of the rest can make the
# unpickler run or allocate what it should not.
# fmt: off
_OPCODES = frozenset((
    "PROTO", "GLOBAL", "BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET", "MARK", "STOP", "REDUCE",
    "NEWOBJ", "BUILD", "BINPERSID", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3",
    "EMPTY_LIST", "APPEND", "APPENDS", "EMPTY_DICT", "SETITEM", "SETITEMS", "NONE", "NEWTRUE",
    "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE",
))
# fmt: on
_MAX_PICKLE_BYTES = 16 * 2**20  # the largest CLIP's is below 1 MiB
_MAX_VISITS = 100_000
_MAX_DEPTH = 64


class _Storage(NamedTuple):
    key: str
    kind: str
    size: int


class _Tensor(NamedTuple):
    """The arguments of torch._utils._rebuild_tensor_v2."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    requires_grad: bool
    hooks: Any
    metadata: Any = None


class _Module:
    """Stands for every class of the script; holds attributes, has no behaviour."""

    state: dict[str, Any] = {}  # noqa: RUF012

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, dict) or not all(isinstance(key, str) for key in state):
            raise ValueError("a module without named attributes")
        self.state = state


class _Call:
    """A permitted function; the pickle can call it but cannot change it."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *args: Any) -> Any:
        return self._function(*args)

    def __setstate__(self, state: Any) -> None:
        raise ValueError("a pickle that changes a function")


_CALLS: dict[tuple[str, str], Callable[..., Any]] = {
    ("collections", "OrderedDict"): lambda: {},
    ("torch._utils", "_rebuild_tensor_v2"): _Tensor,
    ("torch.jit._pickle", "restore_type_tag"): lambda value, kind: value,
}
# Settings of the script: lists, marked with the type of their elements.
for _kind in ("int", "double", "bool", "tensor"):
    _CALLS["torch.jit._pickle", f"build_{_kind}list"] = lambda values: values


class _Unpickler(pickle.Unpickler):
    # Hands out nothing that a pickle's BUILD (it sets attributes) could alter for the rest of the
    # process: strings, calls that refuse it, named tuples, and _Module, whose BUILD is ours.

    def find_class(self, module: str, name: str, /) -> Any:
        if module == "torch" and name in _STORAGES:
            return name
        if (module, name) in _CALLS:
            return _Call(_CALLS[module, name])
        if module == "__torch__" or module.startswith("__torch__."):
            return _Module
        raise ValueError(f"a pickle with code in it: it names {module}.{name}")

    def persistent_load(self, pid: Any, /) -> _Storage:
        match pid:
            case ("storage", str(kind), str(key), _, int(size)) if kind in _STORAGES:
                return _Storage(key, kind, size)
        raise ValueError(f"an unknown kind of storage: {str(pid)[:80]}")


def is_archive(path: str | os.PathLike[str]) -> bool:
    """Tells whether a zip file is a TorchScript archive."""
    with zipfile.ZipFile(path) as archive:
        return _root(archive) is not None


def _root(archive: zipfile.ZipFile) -> str | None:
    names = set(archive.namelist())
    with_code = {root for root, found, _ in (n.partition("/code/") for n in names) if found}
    for root in with_code & {name.removesuffix("/constants.pkl") for name in names}:
        if "/" not in root and f"{root}/data.pkl" in names:
            return root
    return None


def read(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Reads every parameter and buffer, names joined by dots as in `state_dict()`.

    Args:
      path: a local TorchScript archive.

    Raises:
      ValueError: when the archive is damaged, not TorchScript, or its pickle names anything but
        tensors and the script's own modules.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            root = _root(archive)
            if root is None:
                raise ValueError("no data.pkl, constants.pkl and code")
            return _Reader(archive, root, os.path.getsize(path)).read()
    except (
        ValueError,
        TypeError,
        LookupError,
        AttributeError,
        ArithmeticError,
        EOFError,
        MemoryError,
        RuntimeError,
        OSError,
        pickle.UnpicklingError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise ValueError(
            f"cannot read this TorchScript archive ({error}); got {os.fspath(path)!r}; download it "
            "again from a source that you trust, or save its weights as safetensors"
        ) from error


class _Reader:
    def __init__(self, archive: zipfile.ZipFile, root: str, file_bytes: int) -> None:
        self._archive, self._root, self._bytes_left = archive, root, file_bytes
        self._storages: dict[tuple[str, str], bytes] = {}
        self._swap = False
        if f"{root}/byteorder" in archive.namelist():
            self._swap = self._member("byteorder") != sys.byteorder.encode()

    def read(self) -> dict[str, np.ndarray]:
        data = self._member("data.pkl", _MAX_PICKLE_BYTES)
        for opcode, arg, _ in pickletools.genops(data):
            if opcode.name not in _OPCODES:
                raise ValueError(f"a pickle that torch did not write: opcode {opcode.name}")
            if opcode.name == "LONG_BINPUT" and int(arg or 0) > len(data):
                raise ValueError(f"a pickle that torch did not write: memo entry {arg}")
        module = _Unpickler(io.BytesIO(data)).load()
        if not isinstance(module, _Module):
            raise ValueError("its content is not a module")
        return {name: self._array(name, tensor) for name, tensor in _tensors(module)}

    def _member(self, name: str, limit: int | None = None) -> bytes:
        """Torch stores its members uncompressed, so what is read is bounded by the file's size."""
        info = self._archive.getinfo(f"{self._root}/{name}")
        if info.compress_type != zipfile.ZIP_STORED or info.file_size > self._bytes_left:
            raise ValueError(f"{name} is not stored as torch stores it")
        if limit is not None and info.file_size > limit:
            raise ValueError(f"{name} has {info.file_size} bytes, more than {limit}")
        self._bytes_left -= info.file_size
        return self._archive.read(info)

    def _storage(self, storage: _Storage) -> bytes:
        key = (storage.key, storage.kind)
        if key not in self._storages:
            data = self._member(f"data/{storage.key}")
            if len(data) != storage.size * _STORAGES[storage.kind].itemsize:
                raise ValueError(
                    f"data/{storage.key} has {len(data)} bytes, not what data.pkl says"
                )
            if self._swap:
                data = (
                    np.frombuffer(data, f"u{_STORAGES[storage.kind].itemsize}").byteswap().tobytes()
                )
            self._storages[key] = data
        return self._storages[key]

    def _array(self, name: str, tensor: _Tensor) -> np.ndarray:
        dtype, data = _STORAGES[tensor.storage.kind], self._storage(tensor.storage)
        itemsize = dtype.itemsize
        # By strides of 0 a small storage could stand for a huge tensor.
        if math.prod(tensor.shape) * itemsize > len(data):
            raise ValueError(f"tensor {name} is larger than what is stored of it")
        strides = [step * itemsize for step in tensor.stride]
        return np.ndarray(tensor.shape, dtype, data, tensor.offset * itemsize, strides)


def _tensors(module: _Module) -> Iterator[tuple[str, _Tensor]]:
    # Bounded: modules can contain themselves, or each other twice over and over.
    visits = 0
    pending: list[tuple[str, int, Any]] = [("", 0, module)]
    while pending:
        name, depth, value = pending.pop()
        visits += 1
        if visits > _MAX_VISITS or depth > _MAX_DEPTH:
            raise ValueError("its modules are nested without end")
        if isinstance(value, _Tensor):
            yield name, value
        elif isinstance(value, _Module):
            inner = [
                (f"{name}.{key}" if name else key, depth + 1, part)
                for key, part in value.state.items()
                if isinstance(part, _Tensor | _Module)
            ]
            pending.extend(reversed(inner))
