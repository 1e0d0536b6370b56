import json

import numpy as np
import pytest

from robust_jax.weights import files

CONFIG = {"hidden_act": "quick_gelu", "id2label": {"0": "crane"}}


@pytest.mark.parametrize(
    "name", ["model.safetensors", "open_clip_model.safetensors", "pytorch_model.bin"]
)
def test_directories(tmp_path, name):
    array = np.arange(3, dtype=np.float32)
    if name.endswith(".bin"):
        torch = pytest.importorskip("torch")
        torch.save({"a": torch.from_numpy(array)}, tmp_path / name)
    else:
        files.write_safetensors(tmp_path / name, {"a": array})
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    (tmp_path / "preprocessor_config.json").write_text('{"crop_size": 224}')
    for path in (tmp_path, tmp_path / name):
        weights = files.read(path)
        np.testing.assert_equal(weights.tensors, {"a": array})
        assert weights.path == str(path)
        assert weights.config == CONFIG and weights.preprocessor == {"crop_size": 224}


def test_the_first_of_several(tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"never read")
    (tmp_path / "open_clip_model.safetensors").write_bytes(b"never read")
    files.write_safetensors(tmp_path / "model.safetensors", {"a": np.ones(1)})
    assert list(files.read(str(tmp_path)).tensors) == ["a"]


def test_directory_without_weights(tmp_path):
    for name in ["config.json", "flax_model.msgpack"]:
        (tmp_path / name).write_text("{}")
    with pytest.raises(ValueError, match=r"no weights .*config.json, flax_model.msgpack; give"):
        files.read(str(tmp_path))


@pytest.mark.parametrize("text", ["{", "[1]", "\ud800", "[" * 99999])
def test_bad_config(tmp_path, text):
    files.write_safetensors(tmp_path / "model.safetensors", {"a": np.ones(1)})
    (tmp_path / "config.json").write_text(text, "utf-8", errors="surrogatepass")
    with pytest.raises(ValueError, match="cannot read this JSON file"):
        files.read(str(tmp_path))


def write_shards(folder, shards, places=None):
    for name, tensors in shards.items():
        files.write_safetensors(folder / name, tensors)
    if places is None:
        places = {key: name for name, tensors in shards.items() for key in tensors}
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": places}))
    return index


ONE, TWO = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
SHARDS = {ONE: {"a": np.ones(1)}, TWO: {"b": np.zeros(2), "c": np.ones(3)}}


def test_shards(tmp_path):
    index = write_shards(tmp_path, SHARDS)
    for path in (tmp_path, index):
        np.testing.assert_equal(files.read(path).tensors, SHARDS[ONE] | SHARDS[TWO])


def test_shards_as_transformers_writes_them(tmp_path):
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("torch")
    config = transformers.ViTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64
    )
    model = transformers.ViTModel(config, add_pooling_layer=False)
    model.save_pretrained(tmp_path, max_shard_size="100kB")
    assert (tmp_path / "model.safetensors.index.json").exists()
    weights = files.read(tmp_path)
    assert weights.config["hidden_size"] == 32
    assert sum(t.size for t in weights.tensors.values()) == model.num_parameters()


@pytest.mark.parametrize("shard", ["../x.safetensors", "/etc/x.safetensors", "", "..", "a\\b"])
def test_index_out_of_the_directory(tmp_path, shard):
    folder = tmp_path / "model"
    files.write_safetensors(tmp_path / "x.safetensors", {"b": np.ones(1)})
    write_shards(folder, {ONE: {"a": np.ones(1)}}, {"a": ONE, "b": shard})
    with pytest.raises(ValueError, match=r"points out of its directory; got .*do not use"):
        files.read(str(folder))


def test_bad_shards(tmp_path):
    index = write_shards(tmp_path, {ONE: {"a": np.ones(1)}}, {"a": ONE, "b": TWO})
    with pytest.raises(ValueError, match=f"a shard is missing; got {TWO!r}"):
        files.read(str(tmp_path))
    files.write_safetensors(tmp_path / TWO, {"a": np.ones(1), "b": np.ones(1)})
    with pytest.raises(ValueError, match=f"more than one shard; got a in {TWO!r}"):
        files.read(str(tmp_path))
    files.write_safetensors(tmp_path / TWO, {"c": np.ones(1)})
    with pytest.raises(ValueError, match=r"differs from its index; .*disagree on b, c"):
        files.read(str(tmp_path))
    (tmp_path / TWO).write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(ValueError, match="git lfs pull"):
        files.read(str(tmp_path))
    index.write_text(f'{{"weight_map": {{"a": "{ONE}", "a": "{TWO}"}}}}')
    with pytest.raises(ValueError, match="twice in it: a"):
        files.read(str(tmp_path))
    for text in [
        "{}",
        '{"weight_map": {}}',
        '{"weight_map": ["a"]}',
        '{"weight_map": {"a": ["b"]}}',
    ]:
        index.write_text(text)
        with pytest.raises(ValueError, match="without its weight_map"):
            files.read(str(tmp_path))
