import os
import sys

import ml_dtypes
import numpy as np
import pytest

from robust_jax.weights import files

torch = pytest.importorskip("torch")


def save(path, content, **options):
    torch.save(content, path, **options)
    return str(path)


def state():
    return {
        "half": torch.arange(4, dtype=torch.float16).reshape(2, 2).t(),
        "brain": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
        "scalar": torch.tensor(7),
        "param": torch.nn.Parameter(torch.ones(2)),
    }


def check(tensors):
    assert list(tensors) == ["half", "brain", "scalar", "param"]
    assert [t.dtype for t in tensors.values()] == [
        np.float16,
        ml_dtypes.bfloat16,
        np.int64,
        np.float32,
    ]
    assert tensors["half"].tolist() == [[0, 2], [1, 3]]
    assert tensors["brain"].astype(float).tolist() == [1.5, -2]
    assert tensors["scalar"].shape == () and tensors["scalar"] == 7


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin"])
@pytest.mark.parametrize("zipped", [True, False])
def test_plain_state_dict(tmp_path, suffix, zipped, capsys):
    path = save(tmp_path / f"a{suffix}", state(), _use_new_zipfile_serialization=zipped)
    check(files.read(path).tensors)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("key", ["model", "state_dict", "model_state"])
def test_containers_are_opened_and_the_rest_is_named(tmp_path, key, capsys):
    path = save(tmp_path / "a.pt", {"epoch": 3, key: state(), "optimizer": {"lr": 0.1}})
    check(files.read(path).tensors)
    assert capsys.readouterr().out == (
        f"{path}: took the weights under {key!r}, left out epoch, optimizer\n"
    )


def test_one_level_only(tmp_path):
    path = save(tmp_path / "a.pt", {"model": {"state_dict": state()}})
    with pytest.raises(ValueError, match=r"not plain tensors; got state_dict \(dict\)"):
        files.read(path)


def test_the_prefix_of_data_parallel(tmp_path):
    names = {f"module.{name}": tensor for name, tensor in state().items()}
    check(files.read(save(tmp_path / "a.pt", {"state_dict": names})).tensors)
    mixed = {"module.a": torch.ones(1), "b": torch.ones(1)}
    assert list(files.read(save(tmp_path / "b.pt", mixed)).tensors) == ["module.a", "b"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"a": torch.ones(1), "epoch": 3}, r"not plain tensors; got epoch \(int\)"),
        ({"a": torch.ones(2).to_sparse()}, r"not plain tensors; got a \(Tensor\)"),
        ({1: torch.ones(1)}, r"not plain tensors; got 1 \(Tensor\)"),
        ({"a": torch.ones(1).to(torch.float8_e5m2)}, "numpy lacks; got torch.float8_e5m2"),
        ({"model": {"a": 1}, "state_dict": {"a": 2}}, "several containers.*model, state_dict"),
        ({}, "no state dict in this file; got dict"),
        ({"model": {}}, "no state dict in this file; got dict"),
        (torch.ones(2), "no state dict in this file; got Tensor"),
        ([torch.ones(2)], "no state dict in this file; got list"),
    ],
)
def test_what_is_no_state_dict(tmp_path, content, message):
    with pytest.raises(ValueError, match=message):
        files.read(save(tmp_path / "a.pt", content))


class Evil:
    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_is_named_and_not_run(tmp_path, zipped):
    mark = tmp_path / "mark"
    content = {"a": torch.ones(1), "b": Evil(f"touch {mark}")}
    path = save(tmp_path / "a.pt", content, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match=f"a pickle with code in it.*{os.name}.system") as caught:
        files.read(path)
    assert not mark.exists()
    assert "weights_only" not in str(caught.value)  # torch's advice to switch the check off


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("part", [0.1, 0.5, 0.95])
def test_cut_off(tmp_path, zipped, part):
    path = tmp_path / "a.pt"
    save(path, {"a": torch.ones(2000)}, _use_new_zipfile_serialization=zipped)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * part)])
    with pytest.raises(ValueError, match=r"cut off|damaged|cannot read") as caught:
        files.read(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("data", [b"hello", b"\x80\x02garbage", b"PK\x03\x04", bytes(500)])
def test_something_else(tmp_path, data):
    path = tmp_path / "a.bin"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"a.bin"):
        files.read(path)


def test_without_torch(tmp_path, monkeypatch):
    path = save(tmp_path / "a.pt", state())
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ValueError, match="pip install torch"):
        files.read(path)
