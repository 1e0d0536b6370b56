import sys
import zipfile

import ml_dtypes
import numpy as np
import pytest
from made_files import module, tensor, whole, write_script

from robust_jax.weights import files, torchscript

NONE, TRUE = b"N", b"\x88"


@pytest.fixture(autouse=True)
def no_torch(request, monkeypatch):
    """What is not about torch must work where it is missing."""
    if "torch" not in request.fixturenames:
        monkeypatch.setitem(sys.modules, "torch", None)


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


def read(path):
    return files.read(str(path)).tensors


def test_tensors_of_every_kind(tmp_path):
    half = np.arange(6, dtype=np.float16)
    brain = np.array([1.5, -2], ml_dtypes.bfloat16)
    content = module(
        training=TRUE,
        _is_full_backward_hook=NONE,
        width=whole(7),
        input_resolution=tensor("1", b"LongStorage", 1),
        visual=module(
            b"__torch__.torch.nn.modules.container\nSequential",
            **{"0": module(weight=tensor("0", b"HalfStorage", 6, (2, 3), (3, 1)))},
        ),
        transposed=tensor("0", b"HalfStorage", 6, (3, 2), (1, 3)),
        tail=tensor("0", b"HalfStorage", 6, (2,), (1,), 4),
        brain=tensor("2", b"BFloat16Storage", 2, (2,), (1,)),
        mask=tensor("3", b"BoolStorage", 2, (2,), (1,)),
        empty=tensor("4", b"FloatStorage", 0, (0, 3), (3, 1)),
        sizes=b"ctorch.jit._pickle\nbuild_intlist\n(](J\1\0\0\0etR",
    )
    storages = {
        "0": half.tobytes(),
        "1": np.int64(224).tobytes(),
        "2": brain.tobytes(),
        "3": b"\1\0",
        "4": b"",
    }
    tensors = read(write_script(tmp_path / "net.pt", content, storages))
    expected = {
        "input_resolution": np.array(224),
        "visual.0.weight": half.reshape(2, 3),
        "transposed": half.reshape(2, 3).T,
        "tail": half[4:],
        "brain": brain,
        "mask": np.array([True, False]),
        "empty": np.zeros((0, 3), np.float32),
    }
    assert list(tensors) == list(expected)
    for name, array in expected.items():
        assert tensors[name].dtype == array.dtype, name
        np.testing.assert_array_equal(tensors[name], array, err_msg=name)


@pytest.mark.parametrize("order", ["<", ">"])
def test_byte_order(tmp_path, order):
    values = np.array([1, 2, 300], f"{order}i4")
    member = b"little" if order == "<" else b"big"
    content = module(a=tensor("0", b"IntStorage", 3, (3,), (1,)))
    path = write_script(tmp_path / "net.pt", content, {"0": values.tobytes()}, byteorder=member)
    got = read(path)["a"]
    assert got.dtype == np.int32 and got.tolist() == [1, 2, 300]


def test_reading_another_zip_as_an_archive(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive:
        archive.writestr("net/data.pkl", b"")
    assert not torchscript.is_archive(tmp_path / "a.pt")
    with pytest.raises(ValueError, match=r"no data\.pkl, constants\.pkl and code"):
        torchscript.read(tmp_path / "a.pt")


def small_net(torch):
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.visual = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 2), torch.nn.LayerNorm(3))
            self.register_buffer("input_resolution", torch.tensor(224))
            self.register_buffer("mask", torch.ones(2, dtype=torch.bool), persistent=False)
            self.transposed = torch.nn.Parameter(torch.arange(6.0).reshape(2, 3).t())
            self.logit_scale = torch.nn.Parameter(torch.tensor(4.6))
            self.sizes = [1, 2]

        def forward(self, x):
            return self.visual(x) * self.logit_scale

    return Net().eval()


@pytest.mark.parametrize("how", ["script", "trace"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_real_archives(tmp_path, torch, how, dtype):
    net = small_net(torch).to(getattr(torch, dtype))
    images = torch.ones(1, 3, 4, 4, dtype=getattr(torch, dtype))
    script = torch.jit.script(net) if how == "script" else torch.jit.trace(net, images)
    path = str(tmp_path / "net.pt")
    torch.jit.save(script, path)
    expected = torch.jit.load(path, "cpu").state_dict()
    tensors = read(path)
    assert sorted(tensors) == sorted(expected) and len(tensors) >= 7
    for name, value in expected.items():
        assert str(tensors[name].dtype) == str(value.dtype).removeprefix("torch."), name
        np.testing.assert_array_equal(
            tensors[name].astype(np.float32), value.float().numpy(), err_msg=name
        )
