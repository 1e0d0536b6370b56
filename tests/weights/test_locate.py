import os
import sys
import types
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import pytest
from etils import epath

from robust_jax.weights import files, locate


def weights(path, value=1.0):
    files.write_safetensors(path, {"a": np.full(2, value)})
    return path


def value(address):
    return files.read(address).tensors["a"][0]


def test_missing_paths(tmp_path):
    weights(tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"no such weights; .*did you mean '.*/model.safetensors'"):
        files.read(str(tmp_path / "model.safetensor"))
    with pytest.raises(ValueError, match=r"no such weights; .*; check the path"):
        files.read(str(tmp_path / "zzz"))
    with pytest.raises(ValueError, match="whose directory does not exist"):
        files.read(str(tmp_path / "no" / "a.npz"))
    with pytest.raises(ValueError, match="no path of weights"):
        files.read("")


def test_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    weights(tmp_path / "a.safetensors", 5)
    assert value("~/a.safetensors") == 5


@pytest.mark.parametrize("address", ["https://x.org/a.npz", "s3://b/a.npz", "file:///a.npz"])
def test_unknown_addresses(address):
    with pytest.raises(ValueError, match=r"unknown kind of address; .*download the file first"):
        files.read(address)


class HfHubHTTPError(Exception):
    pass


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A Hugging Face Hub with one repository, in a folder; it records what was asked for."""
    folder, snapshot = tmp_path / "remote", tmp_path / "snapshot"
    folder.mkdir()
    calls = []

    def snapshot_download(repo_id, *, revision=None, allow_patterns=None):
        calls.append((repo_id, revision))
        if repo_id != "owner/name":
            raise HfHubHTTPError("404 Client Error")
        for file in filter(Path.is_file, folder.rglob("*")):
            name = file.relative_to(folder).as_posix()
            if any(fnmatch(name, pattern) for pattern in allow_patterns):
                (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
                (snapshot / name).write_bytes(file.read_bytes())
        snapshot.mkdir(exist_ok=True)
        return str(snapshot)

    module = types.ModuleType("huggingface_hub")
    module.snapshot_download = snapshot_download
    module.errors = types.SimpleNamespace(HfHubHTTPError=HfHubHTTPError)
    monkeypatch.setitem(sys.modules, "huggingface_hub", module)
    return types.SimpleNamespace(folder=folder, snapshot=snapshot, calls=calls)


def test_hub_repository(hub):
    weights(hub.folder / "model.safetensors", 1)
    weights(hub.folder / "open_clip_model.safetensors", 2)
    (hub.folder / "pytorch_model.bin").write_bytes(b"large")
    (hub.folder / "tf_model.h5").write_bytes(b"large")
    (hub.folder / "config.json").write_text('{"hidden_act": "gelu"}')
    read = files.read("hf://owner/name")
    assert read.tensors["a"][0] == 1 and read.path == "hf://owner/name"
    assert read.config == {"hidden_act": "gelu"}
    assert sorted(os.listdir(hub.snapshot)) == ["config.json", "model.safetensors"]
    assert hub.calls == [("owner/name", None)]


def test_hub_repository_of_open_clip(hub):
    weights(hub.folder / "open_clip_model.safetensors", 2)
    assert value("hf://owner/name") == 2


def test_hub_file_and_revision(hub):
    weights(hub.folder / "sub" / "b[1].safetensors", 3)
    weights(hub.folder / "model.safetensors", 1)
    (hub.folder / "sub" / "config.json").write_text('{"depth": 2}')
    read = files.read("hf://owner/name@abc123/sub/b[1].safetensors")
    assert read.tensors["a"][0] == 3 and read.config == {"depth": 2}
    assert hub.calls == [("owner/name", "abc123")]
    assert os.listdir(hub.snapshot) == ["sub"]


def test_hub_errors(hub, monkeypatch):
    with pytest.raises(ValueError, match=r"cannot download .*404 Client Error.*hf auth login"):
        files.read("hf://owner/other")
    with pytest.raises(
        ValueError, match=r"no weights under the usual names .*hf://owner/name/FILE"
    ):
        files.read("hf://owner/name/")
    with pytest.raises(ValueError, match="no such file in this repository"):
        files.read("hf://owner/name/a.npz")
    for address in ["hf://owner", "hf://", "hf:///name", "hf://owner/@rev", "hf://o/n/../../x.npz"]:
        with pytest.raises(ValueError, match="not an address on the Hugging Face Hub"):
            files.read(address)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ValueError, match="pip install huggingface_hub"):
        files.read("hf://owner/name")


def test_the_real_hub_client_takes_these_arguments(monkeypatch, tmp_path):
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ValueError, match="cannot download from the Hugging Face Hub"):
        files.read("hf://owner/no-such-name")
    with pytest.raises(ValueError, match="cannot download from the Hugging Face Hub"):
        files.read("hf://owner/bad name/a.npz")


@pytest.fixture
def bucket(tmp_path, monkeypatch):
    """A bucket in a folder; the cache in another."""
    monkeypatch.setenv("ROBUST_JAX_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "bucket"
    folder.mkdir()

    def path(address):
        assert address.startswith("gs://bucket/")
        return epath.Path(folder / address.removeprefix("gs://bucket/"))

    monkeypatch.setattr(locate, "epath", types.SimpleNamespace(Path=path))
    return folder


def test_bucket_file(bucket, tmp_path):
    remote = weights(bucket / "vit" / "b.safetensors", 1)
    (bucket / "vit" / "config.json").write_text('{"depth": 2}')
    read = files.read("gs://bucket/vit/b.safetensors")
    assert read.tensors["a"][0] == 1 and read.config == {"depth": 2}
    copy = tmp_path / "cache" / "gs" / "bucket" / "vit" / "b.safetensors"
    made = copy.stat().st_mtime_ns
    assert value("gs://bucket/vit/b.safetensors") == 1
    assert copy.stat().st_mtime_ns == made  # not copied again
    weights(remote, 2)
    os.utime(remote, (made / 1e9 + 10, made / 1e9 + 10))
    assert value("gs://bucket/vit/b.safetensors") == 2
    assert sorted(os.listdir(copy.parent)) == ["b.safetensors", "config.json"]


def test_bucket_directory(bucket, tmp_path):
    weights(bucket / "clip" / "model.safetensors", 4)
    (bucket / "clip" / "pytorch_model.bin").write_bytes(b"large")
    (bucket / "clip" / "notes.txt").write_text("")
    assert value("gs://bucket/clip/") == 4
    copied = tmp_path / "cache" / "gs" / "bucket" / "clip"
    assert os.listdir(copied) == ["model.safetensors"]


def test_bucket_errors(bucket):
    (bucket / "none").mkdir()
    with pytest.raises(ValueError, match=r"cannot read from the bucket \(none of model.safetens"):
        files.read("gs://bucket/none")
    with pytest.raises(ValueError, match=r"cannot read from the bucket .*credentials"):
        files.read("gs://bucket/no.npz")
    for address in ["gs://", "gs://bucket/../../x.npz"]:
        with pytest.raises(ValueError, match="not an address in a bucket"):
            files.read(address)


def test_a_copy_cut_off_leaves_nothing(bucket, tmp_path, monkeypatch):
    weights(bucket / "b.safetensors")

    def cut(source, target, size):
        target.write(source.read(10))
        raise OSError("connection lost")

    monkeypatch.setattr(locate.shutil, "copyfileobj", cut)
    with pytest.raises(ValueError, match="connection lost"):
        files.read("gs://bucket/b.safetensors")
    assert not [p for p in (tmp_path / "cache").rglob("*") if p.is_file()]
