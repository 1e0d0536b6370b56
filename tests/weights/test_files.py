import pickle
import subprocess
import sys
import zipfile

import ml_dtypes
import numpy as np
import pytest

from robust_jax.weights import files

TENSORS = {
    "half": np.arange(6, dtype=np.float16).reshape(2, 3),
    "brain": np.array([1.5, -2], ml_dtypes.bfloat16),
    "transposed": np.arange(6, dtype=np.float32).reshape(2, 3).T,
    "strided": np.arange(6, dtype=np.int32)[::2],
    "scalar": np.array(7),
    "empty": np.zeros((0, 3), np.uint8),
    "flag": np.array([True, False]),
    "big_endian": np.arange(3, dtype=">f4"),
}


def same(got, expected):
    assert got.keys() == expected.keys()
    for name, array in expected.items():
        assert got[name].dtype == array.dtype.newbyteorder("="), name
        assert got[name].shape == array.shape, name
        np.testing.assert_array_equal(got[name], array, err_msg=name)


def test_safetensors_round_trip(tmp_path):
    path = tmp_path / "new" / "a.safetensors"
    files.write_safetensors(path, TENSORS, {"format": "np"})
    weights = files.read(str(path))
    same(weights.tensors, TENSORS)
    assert (weights.path, weights.config, weights.preprocessor) == (str(path), {}, {})
    assert list(path.parent.iterdir()) == [path]


def test_safetensors_as_torch_reads_them(tmp_path):
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file, safe_open

    path = tmp_path / "a.safetensors"
    files.write_safetensors(path, TENSORS, {"model": "vit"})
    for name, tensor in load_file(path).items():
        np.testing.assert_array_equal(tensor.to(torch.float32), TENSORS[name].astype(np.float32))
    with safe_open(path, "np") as file:
        assert file.metadata() == {"model": "vit"}


def test_a_write_that_fails_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "a.safetensors"
    files.write_safetensors(path, {"a": np.ones(2)})
    before = path.read_bytes()

    def half(tensors, name, metadata):
        name.write_bytes(before[:20])
        raise OSError("disk full")

    monkeypatch.setattr(files.safetensors.numpy, "save_file", half)
    with pytest.raises(OSError, match="disk full"):
        files.write_safetensors(path, {"a": np.zeros(200)})
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("tensors", "metadata", "message"),
    [
        ({"a": np.array(["x"])}, {}, "cannot write this as safetensors"),
        ({"a": np.array([object()])}, {}, "with dtypes object"),
        ({"a": np.ones(2, np.complex128)}, {}, "with dtypes complex128"),
        ({"a": np.ones(2)}, {"step": 3}, "strings for the metadata"),
        ({"__metadata__": np.ones(2)}, {}, "a name that safetensors keeps for itself"),
    ],
)
def test_what_cannot_be_written(tmp_path, tensors, metadata, message):
    with pytest.raises(ValueError, match=message):
        files.write_safetensors(tmp_path / "a.safetensors", tensors, metadata)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("path", ["gs://bucket/a.safetensors", "a.npz", "a"])
def test_where_it_cannot_be_written(path):
    with pytest.raises(ValueError, match=r"not a local \.safetensors path"):
        files.write_safetensors(path, {"a": np.ones(2)})


def test_npz_of_big_vision(tmp_path):
    names = {f"params/img/{name}": array for name, array in TENSORS.items()}
    np.savez(tmp_path / "a.npz", **names)
    with np.load(tmp_path / "a.npz") as raw:
        assert raw["params/img/brain"].dtype == "V2"  # what numpy makes of bfloat16
    same(files.read(str(tmp_path / "a.npz")).tensors, names)
    np.savez_compressed(tmp_path / "a.npz", **names)
    same(files.read(str(tmp_path / "a.npz")).tensors, names)


def twice(path):
    with zipfile.ZipFile(path, "w") as archive, pytest.warns(UserWarning, match="Duplicate"):
        for _ in range(2):
            with archive.open("a.npy", "w") as member:
                np.save(member, np.ones(2))


def one_array(path):
    with path.open("wb") as file:
        np.save(file, np.ones(2))


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda p: np.savez(p, a=np.array([{}], object)), "Object arrays cannot be loaded"),
        (lambda p: np.savez(p, a=np.array(["x"])), "a has dtype <U1"),
        (lambda p: np.savez(p, a=np.zeros(2, "f4,i4")), "a has dtype"),
        (lambda p: p.write_bytes(pickle.dumps({"a": 1})), "does not start as"),
        (one_array, "does not start as"),
        (twice, "a name twice"),
    ],
)
def test_npz_with_something_else(tmp_path, write, message):
    path = tmp_path / "a.npz"
    write(path)
    with pytest.raises(ValueError, match=rf"cannot read this npz file \(.*{message}") as caught:
        files.read(str(path))
    assert "can hold code" in str(caught.value)


@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
def test_cut_off(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    if suffix == ".npz":
        np.savez(path, a=np.arange(500.0), b=np.ones(3))
    else:
        files.write_safetensors(path, {"a": np.arange(500.0), "b": np.ones(3)})
    data = path.read_bytes()
    for part in [1, 7, 40, 100, 1000, len(data) - 1]:
        path.write_bytes(data[:part])
        with pytest.raises(ValueError, match=r"cannot read this .* cut off") as caught:
            files.read(str(path))
        assert repr(str(path)) in str(caught.value)


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 346293852\n"


@pytest.mark.parametrize("suffix", [".safetensors", ".npz", ".pt", ".pth", ".bin", ".state"])
@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "an empty file; got .*download it again"),
        (LFS, "git-LFS pointer instead of the weights; got .*git lfs pull"),
        (b"<!DOCTYPE html><html>", "a web page instead of the weights"),
        (b"\xef\xbb\xbf\n <HTML lang=en>", "a web page instead of the weights"),
    ],
)
def test_what_stands_in_for_weights(tmp_path, suffix, data, message):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=message):
        files.read(str(path))


@pytest.mark.parametrize("zipped", [True, False])
def test_state_is_what_pt_is(tmp_path, zipped):
    torch = pytest.importorskip("torch")
    tensors = {"e_conv_1.1.weight": np.ones((2, 3), np.float32), "e_conv_1.1.bias": np.arange(2.0)}
    named = {name: torch.tensor(array) for name, array in tensors.items()}
    path = tmp_path / "model_final.state"  # the name of DeepAugment's autoencoder
    torch.save(named, path, _use_new_zipfile_serialization=zipped)
    same(files.read(path).tensors, tensors)


@pytest.mark.parametrize("name", ["a.h5", "a", "a.ckpt", "a.SAFETENSORS"])
def test_unknown_suffix(tmp_path, name):
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(ValueError, match=r"unknown kind .*ends in one of \.safetensors, \.npz"):
        files.read(str(tmp_path / name))


def test_imports_neither_torch_nor_the_hub():
    code = (
        "import sys, robust_jax.weights.files\n"
        "print({'torch', 'huggingface_hub', 'tensorflow'} & set(sys.modules))"
    )
    printed = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert printed == "set()\n"
