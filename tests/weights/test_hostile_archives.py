import os
import pickle
import sys
import zipfile

import made_files
import numpy as np
import pytest
from made_files import module, tensor, text, write_script

from robust_jax.weights import files

NONE = b"N"


@pytest.fixture(autouse=True)
def no_torch(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)


def read(path):
    return files.read(str(path)).tensors


class Evil:
    def __init__(self, call, *args):
        self.call = (call, args)

    def __reduce__(self):
        return self.call


def opcodes(value):
    return pickle.dumps(value, 2)[2:-1]


def test_code_is_named_and_not_run(tmp_path):
    mark = tmp_path / "mark"
    content = module(a=opcodes(Evil(os.system, f"touch {mark}")))
    with pytest.raises(ValueError, match=f"code in it: it names {os.name}.system"):
        read(write_script(tmp_path / "net.pt", content))
    assert not mark.exists()


OTHER_NAMES = """builtins eval
__builtin__ eval
torch load
torch.nn Module
torch.jit _pickle
torch._utils _rebuild_tensor
torch FloatStorage.__init__
__torch__x Net
collections OrderedDict.fromkeys
robust_jax.weights.torchscript os"""


@pytest.mark.parametrize("name", OTHER_NAMES.splitlines())
def test_other_names_are_refused(tmp_path, name):
    reference = b"c" + name.replace(" ", "\n").encode() + b"\n"
    with pytest.raises(ValueError, match=f"code in it: it names {name.replace(' ', '.')}"):
        read(write_script(tmp_path / "net.pt", module(a=reference)))


FLOATS = np.ones(4, np.float32).tobytes()
STORAGE = made_files.storage("0", b"FloatStorage", 4)
REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n"


def floats(shape=(4,), stride=(1,), offset=0, key="0", kind=b"FloatStorage", size=4):
    return module(a=tensor(key, kind, size, shape, stride, offset))


def doubled(levels):
    """Modules that hold the one below twice: 2 ** levels names."""
    content = floats()
    for i in range(levels):
        content = module(a=content + b"q" + bytes([i]), b=b"h" + bytes([i]))
    return content


HOSTILE = {
    "not a module": (tensor("0", b"FloatStorage", 4, (4,), (1,)), "not a module"),
    "stack global": (module(a=b"\x8c\2os\x8c\6system\x93"), "opcode SHORT_BINUNICODE"),
    "instance": (module(a=b"(ios\nsystem\n"), "opcode INST"),
    "memo": (module(a=NONE + b"r\xff\xff\xff\x7f"), "memo entry"),
    "changed function": (module(a=REBUILD + b"}(" + text("x") + b"Nub"), "changes a function"),
    "changed storage": (module(a=STORAGE + b"}(" + text("size") + b"Nub"), "attribute"),
    "changed class": (module(a=b"c__torch__\nNet\n}b"), "__setstate__"),
    "endless": (b"c__torch__\nNet\n)\x81q\0}(" + text("a") + b"h\0ub", "without end"),
    "doubling": (doubled(30), "without end"),
    "expanded": (floats((9999, 9999), (0, 0)), "larger than"),
    "outside": (floats((2,), (1,), 3), "strides"),
    "before": (floats((2,), (1,), -1), "strides"),
    "negative": (floats((-2, -2), (1, 1)), "negative"),
    "strides": (floats((2, 2), (2,)), "strides"),
    "size": (floats(size=5), "has 16 bytes"),
    "no storage": (floats(key="../data.pkl"), "no item named"),
    "storage class": (floats(kind=b"QInt8Storage"), "names torch.QInt8Storage"),
    "persistent id": (module(a=text("module") + b"Q"), "unknown kind of storage"),
    "few arguments": (module(a=REBUILD + b")R"), "missing"),
    "attributes": (b"c__torch__\nNet\n)\x81" + text("state") + b"b", "without named attributes"),
    "cut off": (b"c__torch__\nNe", "cannot read"),
    "nothing": (b"", "cannot read"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_archives(tmp_path, case):
    content, message = HOSTILE[case]
    path = write_script(tmp_path / "net.pt", content, {"0": FLOATS})
    with pytest.raises(ValueError, match=r"cannot read this TorchScript archive \(") as caught:
        read(path)
    assert message in str(caught.value) and str(path) in str(caught.value)


def test_a_hostile_archive_changes_nothing_for_the_next(tmp_path):
    for case, (content, _) in HOSTILE.items():
        with pytest.raises(ValueError):
            read(write_script(tmp_path / f"{case}.pt", content, {"0": FLOATS}))
    assert read(write_script(tmp_path / "net.pt", floats(), {"0": FLOATS}))["a"].tolist() == [1] * 4


def test_a_zip_bomb(tmp_path):
    storages = {"0": bytes(4 * 10**6)}
    path = tmp_path / "net.pt"
    write_script(path, floats(size=10**6), storages, zipfile.ZIP_DEFLATED)
    with pytest.raises(ValueError, match="not stored as torch stores it"):
        read(path)


def test_damage_anywhere_is_a_value_error(tmp_path):
    path = write_script(tmp_path / "net.pt", doubled(3), {"0": FLOATS})
    whole_file = path.read_bytes()
    random = np.random.RandomState(0)
    failed = 0
    for i in range(300):
        data = bytearray(whole_file)
        if i % 2:
            data = data[: random.randint(4, len(data))]
        else:
            data[random.randint(4, len(data))] = random.randint(256)
        path.write_bytes(data)
        try:
            read(path)
        except ValueError as error:
            failed += 1
            assert str(path) in str(error)
    assert failed > 200


@pytest.mark.filterwarnings("ignore:invalid escape:DeprecationWarning")
def test_damage_of_the_pickle_alone_is_a_value_error(tmp_path):
    # The archive's checksum would catch these first.
    content = doubled(3)
    random = np.random.RandomState(0)
    for _ in range(500):
        data = bytearray(content)
        data[random.randint(len(data))] = random.randint(256)
        try:
            read(write_script(tmp_path / "net.pt", bytes(data), {"0": FLOATS}))
        except ValueError as error:
            assert "net.pt" in str(error)
