"""Weight files from anybody: what is in them is never executed, unfolded or followed.

The fuzz tests say anything at random; here are the attacks that have a name.
"""

import io
import json
import pickle
import stat
import zipfile

import numpy as np
import pytest

from robust_jax import writers
from robust_jax.weights import files
from robust_jax.zero_shot import ZeroShotHead


def safetensors(header, data=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def entry(shape=(1,), start=0, end=4, dtype="F32"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}


ONE = json.dumps(entry())
SAFETENSORS = {
    "a header without end": safetensors({"a": entry()}, b"1234", 2**63),
    "a header of more than 100 MB": safetensors(b" " * 99, b"", 100_000_001),
    "a header beyond the file": safetensors({"a": entry()}, b"1234", 500),
    "no header": safetensors(b"", b"1234"),
    "a header that is no JSON": safetensors(b"{'a'}", b"1234"),
    "a header that is no UTF-8": safetensors(b'{"\xff": 1}', b"1234"),
    "a header that is a list": safetensors([entry()], b"1234"),
    "a deep header": safetensors(b'{"a":' * 99_999, b"1234"),
    "a deep list": safetensors(b'{"a":' + b"[" * 99_999, b"1234"),
    "a name twice": safetensors(f'{{"a":{ONE},"a":{ONE}}}'.encode(), b"1234"),
    "a field twice": safetensors(f'{{"a":{ONE[:-1]},"shape":[1]}}}}'.encode(), b"1234"),
    "overlapping tensors": safetensors({"a": entry(), "b": entry((1,), 2, 6)}, b"123456"),
    "the same bytes twice": safetensors({"a": entry(), "b": entry()}, b"1234"),
    "a gap between tensors": safetensors({"a": entry(), "b": entry((1,), 6, 10)}, bytes(10)),
    "bytes of no tensor": safetensors({"a": entry()}, b"12345678"),
    "offsets beyond the file": safetensors({"a": entry((2,), 0, 8)}, b"1234"),
    "offsets that run backwards": safetensors({"a": entry((1,), 4, 0)}, b"1234"),
    "negative offsets": safetensors({"a": entry((1,), -4, 0)}, b"1234"),
    "three offsets": safetensors({"a": entry() | {"data_offsets": [0, 2, 4]}}, b"1234"),
    "an unknown dtype": safetensors({"a": entry(dtype="F31")}, b"1234"),
    "a dtype that numpy lacks": safetensors({"a": entry((4,), dtype="F8_E4M3")}, b"1234"),
    "a shape of more numbers": safetensors({"a": entry((2,))}, b"1234"),
    "a shape of fewer numbers": safetensors({"a": entry((2,), 0, 16)}, bytes(16)),
    "a shape without end": safetensors({"a": entry((2**62, 4))}, b"1234"),
    "a negative shape": safetensors({"a": entry((-1, -1))}, b"1234"),
    "a shape of text": safetensors({"a": entry("1")}, b"1234"),
    "metadata of numbers": safetensors({"__metadata__": {"a": 1}, "a": entry()}, b"1234"),
}


@pytest.mark.parametrize("case", SAFETENSORS)
def test_safetensors_headers(tmp_path, case):
    path = tmp_path / "model.safetensors"
    path.write_bytes(SAFETENSORS[case])
    with pytest.raises(ValueError, match="cannot read this safetensors file") as caught:
        files.read(path)
    assert repr(str(path)) in str(caught.value)


def npy(array=None, header=None):
    buffer = io.BytesIO()
    if header is None:
        np.save(buffer, array, allow_pickle=True)
        return buffer.getvalue()
    text = repr(header).encode()
    return b"\x93NUMPY\1\0" + len(text).to_bytes(2, "little") + text + bytes(8)


def shaped(descr, *shape):
    return npy(header={"descr": descr, "fortran_order": False, "shape": shape})


def link(name):
    info = zipfile.ZipInfo(name)
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


GOOD = npy(np.ones(2))
NPZ = {
    "an object array": ({"a.npy": npy(np.array([{}, None], object))}, "Object arrays cannot be"),
    "objects in a structure": ({"a.npy": shaped([("x", "|O")], 1)}, "Object arrays cannot be"),
    "a name above": ({"../a.npy": GOOD}, "leads out of it"),
    "a name above, inside": ({"b/../../a.npy": GOOD}, "leads out of it"),
    "an absolute name": ({"/etc/a.npy": GOOD}, "leads out of it"),
    "a name of Windows": ({"c:a.npy": GOOD}, "leads out of it"),
    "backslashes": ({"..\\a.npy": GOOD}, "leads out of it"),
    "a link": ({link("a.npy"): b"/etc/passwd"}, "is a link"),
    "a member that is no array": ({"a.txt": b"text"}, "is not an array"),
    "a pickle": ({"a.npy": pickle.dumps(list("pickle"))}, "magic string is not correct"),
    "a shape beyond the data": ({"a.npy": shaped("<f8", 10**12)}, "has 8 bytes, not those of"),
    "a shape without end": ({"a.npy": shaped("<f8", 2**62, 2**62)}, "not those of"),
    "a negative shape": ({"a.npy": shaped("<f8", -1, -1)}, "not those of"),
    "numbers of no bytes": ({"a.npy": shaped("<U0", 10**12)}, "has dtype"),
    "dates": ({"a.npy": shaped("<M8[s]", 1)}, "has dtype"),
    "a header of code": ({"a.npy": npy(header="__import__('os')")}, ""),
    "a deep header": ({"a.npy": b"\x93NUMPY\1\0\xe8\3" + b"(" * 1000}, ""),
    "a header of a later version": ({"a.npy": b"\x93NUMPY\3\0" + GOOD[8:]}, "version"),
}


@pytest.mark.parametrize("case", NPZ)
def test_npz_members(tmp_path, case):
    members, message = NPZ[case]
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    for reader in (files.read, writers.read_arrays):
        with pytest.raises(ValueError, match=r"cannot read this npz file \(") as caught:
            reader(path)
        assert message in str(caught.value) and str(path) in str(caught.value)
    with pytest.raises(ValueError, match="not a zero-shot head, or a damaged one"):
        ZeroShotHead.load(path)


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_damage_of_compressed_members(tmp_path, method):
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("a.npy", npy(np.random.default_rng(0).random(500)))
    data = bytearray(path.read_bytes())
    data[100:200] = b"\xff" * 100
    path.write_bytes(data)
    for reader in (files.read, writers.read_arrays):
        with pytest.raises(ValueError, match=r"cannot read this npz file \("):
            reader(path)
