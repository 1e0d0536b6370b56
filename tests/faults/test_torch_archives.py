"""Torch files from anybody: no code in them is run, nothing is unpacked, unfolded or followed.

Attacks on TorchScript archives are in tests/weights/test_hostile_archives.py.
"""

import io
import os
import pickle
import stat
import tarfile
import zipfile

import numpy as np
import pytest

from robust_jax.weights import files


class Evil:
    """Unpickling it makes a file."""

    def __init__(self, mark):
        self.mark = str(mark)

    def __reduce__(self):
        return os.mkdir, (self.mark,)


def link(name):
    info = zipfile.ZipInfo(name)
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


def bomb(path, name):
    """A file of about 0.3 MB with 300 MB of zeros."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("net/data.pkl", b"\x80\x02}.", zipfile.ZIP_STORED)
        with archive.open(name, "w", force_zip64=True) as member:
            for _ in range(300):
                member.write(bytes(10**6))


@pytest.mark.parametrize(
    ("name", "message"),
    [("a.npz", "would unfold to .*: a zip bomb"), ("a.pt", "'net/data/0' is compressed")],
)
def test_zip_bombs(tmp_path, name, message):
    bomb(tmp_path / name, "net/data/0")
    assert (tmp_path / name).stat().st_size < 3 * 10**6
    with pytest.raises(ValueError, match=message):
        files.read(tmp_path / name)


SUFFIXES = [".pt", ".pth", ".bin", ".state"]


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    "how", ["bare", "zipped", "protocol 4", "in a container", "beside tensors"]
)
def test_pickles_are_refused_and_not_run(tmp_path, suffix, how):
    torch = pytest.importorskip("torch")
    path, evil = tmp_path / f"net{suffix}", Evil(tmp_path / "mark")
    if how == "bare":
        path.write_bytes(pickle.dumps(evil, 2))
    elif how == "protocol 4":
        path.write_bytes(pickle.dumps({"a": evil}, 4))
    else:
        content = {"zipped": evil, "in a container": {"state_dict": {"a": evil}}}
        torch.save(content.get(how, {"a": torch.ones(1), "b": evil}), path)
    with pytest.raises(ValueError) as caught:
        files.read(path)
    assert str(path) in str(caught.value)
    assert not (tmp_path / "mark").exists()


def members(path, **changes):
    """Rewrites a zip file with other or further members."""
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in (content | changes).items():
            archive.writestr(name, data)


@pytest.mark.parametrize("name", ["../mark", "/mark", "net/../../mark", "net\\..\\mark"])
def test_names_that_lead_out_of_a_torch_archive(tmp_path, name):
    torch = pytest.importorskip("torch")
    path = tmp_path / "net.pt"
    torch.save({"a": torch.ones(1)}, path)
    members(path, **{name: b"text"})
    with pytest.raises(ValueError, match="a member of it leads out of it") as caught:
        files.read(path)
    assert str(path) in str(caught.value)


def test_a_link_in_a_torch_archive(tmp_path):
    torch = pytest.importorskip("torch")
    path = tmp_path / "net.pt"
    torch.save({"a": torch.ones(1)}, path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(link("net/data/1"), "/etc/passwd")
    with pytest.raises(ValueError, match="a member of it is a link: 'net/data/1'"):
        files.read(path)


def test_members_that_share_their_bytes(tmp_path):
    path = tmp_path / "net.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("net/data.pkl", b"\x80\x02}.")
        archive.writestr("net/data/0", bytes(10_000))
        info = archive.getinfo("net/data/0")
        for i in range(1, 9):  # all of them at the place of the first
            copy = zipfile.ZipInfo(f"net/data/{i}")
            copy.header_offset, copy.CRC = info.header_offset, info.CRC
            copy.file_size = copy.compress_size = 10_000
            archive.filelist.append(copy)
    with pytest.raises(ValueError, match="its members claim 90004 bytes of a file of"):
        files.read(path)


def test_the_tar_files_of_old_torch_are_not_unpacked(tmp_path):
    pytest.importorskip("torch")
    path = tmp_path / "net.pt"
    with tarfile.open(path, "w") as archive:
        for name in ("storages", "tensors", "pickle", "../mark"):
            info = tarfile.TarInfo(name)
            info.size = 4
            archive.addfile(info, io.BytesIO(b"\x80\x02N."))
    with pytest.raises(ValueError, match=r"net\.pt"):
        files.read(path)
    assert os.listdir(tmp_path) == ["net.pt"]


def test_tensors_larger_than_what_is_stored_of_them(tmp_path):
    torch = pytest.importorskip("torch")
    for dtype in (torch.float32, torch.bfloat16):
        torch.save({"a": torch.ones(1, dtype=dtype).expand(10**6, 10**6)}, tmp_path / "net.pt")
        with pytest.raises(ValueError, match="larger than what is stored of it; got"):
            files.read(tmp_path / "net.pt")
    torch.save({"a": torch.ones(1).expand(3)}, tmp_path / "net.pt")
    np.testing.assert_array_equal(files.read(tmp_path / "net.pt").tensors["a"], np.ones(3))


def test_tensors_without_numbers(tmp_path):
    torch = pytest.importorskip("torch")
    torch.save({"a": torch.ones(3, device="meta")}, tmp_path / "net.pt")
    with pytest.raises(ValueError, match="entries that are not plain tensors; got a"):
        files.read(tmp_path / "net.pt")
