"""Folders, model tables and heads from anybody: what they say is checked before it is used."""

import json
import os

import numpy as np
import pytest

from robust_jax import models, writers
from robust_jax.weights import files, native, network
from robust_jax.zero_shot import ZeroShotHead, head


def folder(path, **texts):
    files.write_safetensors(path / "model.safetensors", {"a": np.ones(3, np.float32)})
    for name, text in texts.items():
        (path / f"{name}.json").write_text(text if isinstance(text, str) else json.dumps(text))
    return path


def huge(path):
    folder(path)
    with (path / "config.json").open("wb") as file:
        file.truncate(65 * 2**20)


def pipe(path):
    os.mkfifo(path / "model.safetensors")


def endless(path):
    (path / "model.safetensors").symlink_to(path / "model.safetensors")


def in_index(shard):
    def make(path):
        weight_map = {"weight_map": {"a": shard}}
        (path / "model.safetensors.index.json").write_text(json.dumps(weight_map))
        files.write_safetensors(path.parent / "outside.safetensors", {"a": np.ones(1)})

    return make


FOLDERS = {
    "a huge config.json": (huge, "cannot read this JSON file .it has 68157440 bytes"),
    "a pipe": (pipe, "no weights in this directory"),
    "a link to itself": (endless, "no weights in this directory"),
    "a folder as weights": (lambda p: (p / "model.safetensors").mkdir(), "no weights in this"),
    "a shard below": (in_index("sub/x.safetensors"), "points out of its directory"),
    "a shard above": (in_index("sub/../../outside.safetensors"), "points out of its directory"),
    "a shard by address": (in_index("https://x/y.safetensors"), "points out of its directory"),
    "a shard that no file can be": (in_index("a\0.safetensors"), "a shard is missing"),
    "a shard of a long name": (in_index("a" * 5000), "a shard is missing"),
    "the index as its shard": (in_index("model.safetensors.index.json"), "unknown kind of weight"),
}


@pytest.mark.parametrize("case", FOLDERS)
def test_folders(tmp_path, case):
    make, message = FOLDERS[case]
    path = tmp_path / "net"
    path.mkdir()
    make(path)
    with pytest.raises(ValueError, match=message) as caught:
        files.read(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("name", ["a.safetensors", "a.npz", "a.pt"])
def test_a_pipe_is_not_waited_for(tmp_path, name):
    os.mkfifo(tmp_path / name)
    with pytest.raises(ValueError, match="not a file; got"):
        files.read(tmp_path / name)


def test_links_are_read_and_not_written_through(tmp_path):
    """The cache of the Hugging Face Hub is links; to read through one is no more than to read."""
    target = folder(tmp_path / "blobs") / "model.safetensors"
    before = target.read_bytes()
    link = tmp_path / "snapshot" / "model.safetensors"
    link.parent.mkdir()
    link.symlink_to(target)
    np.testing.assert_array_equal(files.read(link.parent).tensors["a"], np.ones(3))
    files.write_safetensors(link, {"b": np.zeros(1)})
    assert target.read_bytes() == before and not link.is_symlink()


WRONG = {
    "hidden_act": [1, ["gelu"], {}],
    "layer_norm_eps": ["1e-6", -1, True, [1e-6], 10**400],
    "num_attention_heads": [0, -1, 1.5, "12", [12], 10**9, True],
    "window_size": [0, "7", 7.0],
    "qkv_bias": [1, "true"],
    "id2label": [["a"], {"a": "b"}, {"0": 1}, {"-1": "a"}, {"9" * 5000: "a"}, "a"],
    "image_mean": [0.5, [0.5], [0.5, 0.5, "0.5"], [0.5, 0.5, True], {}, [1e400, 0, 0]],
    "image_std": [[0, 0, 0], [0.5, -0.5, 0.5], [float("nan")] * 3],
    "resample": ["bicubic", [3], 9, -1, 3.0],
    "vision_config": [[], "a", 3],
    "model_cfg": [[], {"vision_cfg": []}, {"quick_gelu": "yes"}],
    "preprocess_cfg": [[0.5], {"mean": "a"}, {"std": [0, 0, 0]}],
}
VALUES = [(key, value) for key, values in WRONG.items() for value in values]


@pytest.mark.parametrize(("key", "value"), VALUES, ids=lambda v: str(v)[:20])
def test_values_that_cannot_be(tmp_path, key, value):
    folder(tmp_path, preprocessor_config={key: value})
    with pytest.raises(ValueError, match=r"a value that cannot be; got .*; it must be ") as caught:
        files.read(tmp_path)
    assert "preprocessor_config.json" in str(caught.value)


def test_values_that_are_left_out(tmp_path):
    said = {"hidden_act": None, "id2label": None, "image_mean": None, "other": None}
    found = files.read(folder(tmp_path, config=said, preprocessor_config=said))
    assert found.config == found.preprocessor == {"other": None}


VIT = models.entry_to_json(models.entry("vit_tiny8"))
ABOUT = native.describe(models.entry("vit_tiny8"), models.build("vit_tiny8", 2), ("ant", "bee"))


def said(**changes):
    return ABOUT | {"entry": json.dumps({**VIT, **changes})}


def without(key):
    return {name: text for name, text in ABOUT.items() if name != key}


DESCRIBED = {
    "no version": without("version"),
    "no entry": without("entry"),
    "no size": without("image_size"),
    "no head": without("head"),
    "no model": without("model"),
    "no class names": without("class_names"),
    "an entry that is no JSON": ABOUT | {"entry": "{"},
    "an entry without end": ABOUT | {"entry": "[" * 99_999},
    "an entry of a list": ABOUT | {"entry": "[1]"},
    "an unknown field": said(evil=1),
    "an unknown family": said(family="os"),
    "a module to import": said(naming="../../os"),
    "a module that there is": said(naming="hf_student", weights=["huggingface"]),
    "a format that there is not": said(weights=["x"]),
    "a network without end": said(kwargs={**VIT["kwargs"], "depth": 10**9}),
    "a wide network": said(kwargs={**VIT["kwargs"], "width": 10**12}),
    "a network of text": said(kwargs={**VIT["kwargs"], "width": "x"}),
    "a field of another network": said(kwargs={**VIT["kwargs"], "block": "x"}),
    "fields of a list": said(kwargs=[1]),
    "colours of no numbers": said(mean=["a", "b", "c"]),
    "two colours": said(std=[1, 1]),
    "a deviation of 0": said(std=[0, 0, 0]),
    "a size of text": ABOUT | {"image_size": "x"},
    "a size of 0": ABOUT | {"image_size": "0"},
    "a huge size": ABOUT | {"image_size": str(10**12)},
    "a head of no kind": ABOUT | {"head": "x"},
    "another model": ABOUT | {"model": "vit_b16"},
    "class names that are no list": ABOUT | {"class_names": '"ab"'},
    "class names of numbers": ABOUT | {"class_names": "[1, 2]"},
}


@pytest.mark.parametrize("case", DESCRIBED)
def test_files_of_our_own_that_say_anything(tmp_path, case):
    path = tmp_path / "net.safetensors"
    files.write_safetensors(path, {"a": np.ones(1)}, DESCRIBED[case])
    with pytest.raises(ValueError, match=r"; got .+; "):
        network.read(str(path))


HEADS = {
    "nothing": "{}",
    "no JSON": "{",
    "a list": "[]",
    "no heads": json.dumps({"share": "tail", "plan": {"freed": []}}),
    "copies": json.dumps({"share": "none", "plan": {"freed": []}}),
}


@pytest.mark.parametrize("case", HEADS)
def test_heads_of_a_student_that_say_anything(tmp_path, case):
    path = tmp_path / "heads.safetensors"
    about = {"format": "robust_jax_heads", "version": native.VERSION, "about": HEADS[case]}
    files.write_safetensors(path, {"a": np.ones(1), "a/b": np.ones(1)}, about)
    with pytest.raises(ValueError, match=r"damaged heads of a student .*heads\.safetensors"):
        native.Heads.load(path)


def written(path, kernel, names, provenance):
    """A zero-shot head with the checksum of its content."""
    arrays = {
        "kernel": kernel,
        "class_names": np.array(names),
        "provenance": np.array(provenance),
        "sha256": np.array(head._checksum(kernel, names, provenance)),
    }
    writers.write_arrays(path, arrays)
    return path


KERNEL = np.ones((3, 2), np.float32)
ZERO_SHOT = {
    "a kernel that is not finite": (KERNEL * np.nan, "{}", "its kernel is not finite"),
    "provenance that is no JSON": (KERNEL, "{", "its provenance: "),
    "provenance without end": (KERNEL, "[" * 99_999, "its provenance: "),
    "provenance of a list": (KERNEL, "[]", "its provenance is a list"),
}


@pytest.mark.parametrize("case", ZERO_SHOT)
def test_zero_shot_heads_whose_checksum_is_right(tmp_path, case):
    kernel, provenance, message = ZERO_SHOT[case]
    path = written(tmp_path / "head.npz", kernel, ("ant", "bee"), provenance)
    with pytest.raises(ValueError, match=f"not a zero-shot head.*{message}"):
        ZeroShotHead.load(path)
    assert ZeroShotHead.load(written(path, KERNEL, ("ant", "bee"), "{}")).class_names[0] == "ant"
