"""Weight files that say anything: arrays no larger than the file, or an error that names it."""

import io
import json
import pickle
import warnings
import zipfile

import hypothesis.strategies as st
import numpy as np
import pytest
from fuzzing import ANYTHING, JSON, fuzz, only_house_errors

from robust_jax import writers
from robust_jax.weights import files, native
from robust_jax.zero_shot import ZeroShotHead

SIZES = st.one_of(st.integers(0, 9), st.sampled_from([-1, 2**31, 2**63, 2**64, 10**30, 1.5, None]))
NAMES = st.one_of(
    st.sampled_from(["a", "b", "params/a", "../a", "/a", "a\\b", "", ".", "\0", "__metadata__"]),
    st.text(max_size=5),
)


def read(path, data):
    """Reads these bytes; whatever comes back must be plain and no larger than they can hold."""
    path.write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy's and Python's own, of what they parse
        try:
            found = files.read(path).tensors
        except ValueError as error:
            assert str(path) in str(error) and "; got " in str(error), str(error)
            return None
    assert sum(array.nbytes for array in found.values()) <= max(10 * len(data), 2**26)
    assert all(
        isinstance(array, np.ndarray) and not array.dtype.hasobject for array in found.values()
    )
    return found


def changed(data, changes):
    """Bytes with some overwritten, then cut off."""
    data = bytearray(data)
    for place, value in changes[:-1]:
        data[place % len(data)] = value
    cut = changes[-1][0] if changes else len(data)
    return bytes(data[: cut % (2 * len(data)) + 1])


CHANGES = st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=4)
DTYPES = ["F32", "F16", "BF16", "F64", "I64", "U8", "BOOL", "F8_E4M3", "F4", "C64", "X", "", 3]
ENTRIES = st.one_of(
    st.fixed_dictionaries(
        {
            "dtype": st.sampled_from(DTYPES),
            "shape": st.lists(SIZES, max_size=3) | JSON,
            "data_offsets": st.lists(SIZES | st.sampled_from([4, 8, 16]), min_size=2, max_size=2)
            | JSON,
        }
    ),
    JSON,
)
HEADERS = st.one_of(
    st.lists(st.tuples(NAMES, ENTRIES), max_size=3).map(
        lambda pairs: "{" + ",".join(f"{json.dumps(n)}:{json.dumps(e)}" for n, e in pairs) + "}"
    ),
    JSON.map(json.dumps),
    st.text(max_size=30),
    st.integers(1, 5000).map(lambda n: '{"a":' * n),
)


@fuzz(
    st.tuples(
        HEADERS, st.none() | st.integers(0, 2**64 - 1) | st.integers(0, 200), st.binary(max_size=20)
    )
)
def test_safetensors_headers(case, folder):
    text, length, data = case
    header = text.encode("utf-8", "surrogatepass")
    claimed = len(header) if length is None else length
    path = folder / "model.safetensors"
    whole = claimed.to_bytes(8, "little") + header + data
    read(path, whole)
    only_house_errors(native.metadata, path)


@fuzz(CHANGES)
def test_damaged_safetensors(changes, folder):
    files.write_safetensors(folder / "whole.safetensors", {"a": np.ones(3), "b": np.arange(4)})
    read(folder / "a.safetensors", changed((folder / "whole.safetensors").read_bytes(), changes))


DESCR = st.one_of(
    st.sampled_from(
        ["<f4", "|O", ">i8", "|V2", "|S3", "<U4", "<U0", "<M8[s]", "f4,i4", "", "x", [("a", "|O")]]
    ),
    st.text(max_size=6),
    ANYTHING,
)
NPY_HEADERS = st.one_of(
    st.fixed_dictionaries(
        {
            "descr": DESCR,
            "fortran_order": st.booleans() | ANYTHING,
            "shape": st.lists(st.integers(0, 4) | SIZES, max_size=3).map(tuple) | ANYTHING,
        }
    ).map(repr),
    st.text(alphabet="{}()[]'\",:0123456789defscrhaptuonl_ \\\n#\0", max_size=60),
    st.integers(1, 9000).map(lambda n: "(" * n),
    ANYTHING.map(repr),
)
MEMBERS = st.one_of(
    st.tuples(NPY_HEADERS, st.integers(0, 4), st.binary(max_size=40)).map(
        lambda parts: (
            b"\x93NUMPY"
            + bytes([parts[1], 0])
            + len(header := parts[0].encode("latin1", "replace")).to_bytes(
                2 if parts[1] < 2 else 4, "little"
            )
            + header
            + parts[2]
        )
    ),
    st.binary(max_size=40),
    ANYTHING.map(pickle.dumps),
)
METHODS = [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
ARCHIVES = st.tuples(
    st.lists(
        st.tuples(NAMES, st.sampled_from([".npy", "", ".npy/"]), st.sampled_from(METHODS), MEMBERS),
        max_size=3,
    ),
    CHANGES,
)


def zipped(members, changes):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names that come twice
        for name, suffix, method, data in members:
            # Python's own writer cannot write what is nothing before its first zero.
            plain = name.encode("utf-8", "replace").decode().replace("\0", "0")
            archive.writestr(f"{plain}{suffix}" or "0", data, method)
    data = buffer.getvalue()
    return changed(data, changes) if len(changes) > 1 else data


@fuzz(ARCHIVES)
def test_npz_headers(case, folder):
    data = zipped(*case)
    read(folder / "a.npz", data)
    (folder / "a.npz").write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        only_house_errors(writers.read_arrays, folder / "a.npz")
        only_house_errors(ZeroShotHead.load, folder / "a.npz")


@fuzz(st.tuples(CHANGES, st.booleans()))
def test_damaged_npz(case, folder):
    changes, packed = case
    (np.savez_compressed if packed else np.savez)(
        folder / "whole.npz", a=np.ones(30), b=np.arange(4)
    )
    read(folder / "a.npz", changed((folder / "whole.npz").read_bytes(), changes))


@fuzz(st.tuples(CHANGES, st.booleans(), st.sampled_from([".pt", ".bin", ".state"])))
def test_damaged_torch_files(case, folder):
    torch = pytest.importorskip("torch")
    changes, new, suffix = case
    whole = folder / f"whole{new}"
    if not whole.exists():
        tensors = {
            "a": torch.ones(3),
            "b": torch.arange(4),
            "c": torch.ones(2, dtype=torch.bfloat16),
        }
        torch.save(tensors, whole, _use_new_zipfile_serialization=new)
    read(folder / f"a{suffix}", changed(whole.read_bytes(), changes))


PICKLES = st.one_of(
    ANYTHING.map(lambda value: pickle.dumps(value, 2)),
    ANYTHING.map(pickle.dumps),
    st.binary(max_size=60),
    st.lists(
        st.sampled_from(
            [
                b"(",
                b"t",
                b"}",
                b"]",
                b"0",
                b"u",
                b"R",
                b"Q",
                b"b",
                b"N",
                b".",
                b"cos\nsystem\n",
                b"ctorch\nFloatStorage\n",
                b"ctorch._utils\n_rebuild_tensor_v2\n",
                b"X\1\0\0\0a",
                b"K\1",
                b"q\0",
                b"h\0",
            ]
        ),
        max_size=30,
    ).map(b"".join),
)
TORCH_NAMES = [
    "net/data.pkl",
    "net/version",
    "net/data/0",
    "net/constants.pkl",
    "net/code/a.py",
    "../x",
    "net/../x",
]


@fuzz(
    st.tuples(
        st.dictionaries(st.sampled_from(TORCH_NAMES), PICKLES, max_size=6), PICKLES, st.booleans()
    )
)
def test_torch_archives_and_pickles(case, folder):
    members, bare, packed = case
    rows = [(name, "", METHODS[packed], data) for name, data in members.items()]
    read(folder / "a.pt", zipped(rows, []))
    read(folder / "a.pth", bare)
