"""Recognising a weight file, and refusing what does not fit; nothing is skipped."""

import json

import jax
import numpy as np
import pytest

from robust_jax import models, weights
from robust_jax.weights import export, files, loading, network


@pytest.fixture(scope="module")
def resnet(tmp_path_factory):
    """A file of random ResNet-18 weights in torchvision's names, and its tensors."""
    model = models.build("resnet18", 7)
    shapes = jax.eval_shape(model.init, jax.random.key(0), model.example_input())
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda s: rng.standard_normal(s.shape).astype(np.float32), shapes)
    fmt = weights.formats(models.entry("resnet18"))["timm"]
    tensors = loading.to_tensors(variables, fmt, model)
    tensors["bn1.num_batches_tracked"] = np.array(5)
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    files.write_safetensors(path, tensors)
    return path, tensors, variables


def changed(tmp_path, tensors, without=(), **more):
    path = tmp_path / "changed.safetensors"
    files.write_safetensors(path, {n: t for n, t in tensors.items() if n not in without} | more)
    return str(path)


def test_the_format_is_recognised_and_everything_loads(resnet):
    path, _, variables = resnet
    found = weights.find(str(path), "resnet18")
    assert (found.format, found.num_classes) == ("timm", 7)
    got, report = found.load(models.build(found.entry, 7))
    jax.tree.map(np.testing.assert_array_equal, got, variables)
    assert len(report.loaded) == len(jax.tree.leaves(variables))
    assert not report.left and not report.initialised and not report.resized


def test_another_family(resnet):
    message = r"not of this model; got .*model\.safetensors.*bn1\.bias.*for 'vit_b16'; name the"
    with pytest.raises(ValueError, match=message):
        weights.find(str(resnet[0]), "vit_b16")


def test_a_larger_network_of_the_family_lacks_tensors(resnet):
    found = weights.find(str(resnet[0]), "resnet34")
    with pytest.raises(ValueError, match=r"as resnet34: .* got 80 missing tensors \(layer1\.2\."):
        found.load(models.build(found.entry, 7))


def test_a_smaller_network_of_the_family_has_additional_ones(resnet, tmp_path):
    path = changed(tmp_path, resnet[1], **{"layer1.9.conv1.weight": np.zeros((1, 1), np.float32)})
    found = weights.find(path, "resnet18")
    with pytest.raises(ValueError, match=r"0 missing .* 1 additional ones \(layer1\.9\.conv1\.w"):
        found.load(models.build(found.entry, 7))


def test_missing_and_additional_are_listed_together(resnet, tmp_path):
    path = changed(tmp_path, resnet[1], ("fc.bias",), **{"fc.biass": resnet[1]["fc.bias"]})
    found = weights.find(path, "resnet18")
    with pytest.raises(ValueError, match=r"1 missing tensors \(fc\.bias\) and 1 .* \(fc\.biass\)"):
        found.load(models.build(found.entry, 7))


def test_another_shape(resnet, tmp_path):
    path = changed(tmp_path, resnet[1], **{"conv1.weight": np.zeros((64, 3, 3, 3), np.float32)})
    found = weights.find(path, "resnet18")
    message = (
        r"1 tensors have another shape .* conv1\.weight is \[64, 3, 3, 3\], not \[64, 3, 7, 7\]"
    )
    with pytest.raises(ValueError, match=message):
        found.load(models.build(found.entry, 7))


def test_another_number_of_classes(resnet):
    found = weights.find(str(resnet[0]), "resnet18")
    with pytest.raises(ValueError, match=r"fc\.bias is \[7\], not \[10\].* number of classes"):
        found.load(models.build(found.entry, 10))
    variables, report = found.load(models.build(found.entry, 10), classifier="new")
    assert not variables["params"]["head"]["kernel"].any()
    assert report.left == ("fc.bias", "fc.weight")
    assert report.initialised == ("params/head/bias", "params/head/kernel")


def test_a_position_table_of_another_width_is_not_resized(tmp_path):
    small, wide = (
        models.build("vit_ti16", 3, image_size=32, depth=1, width=width, num_heads=2, mlp_dim=8)
        for width in (8, 16)
    )
    fmt = weights.formats(models.entry("vit_ti16"))["timm"]
    trees = [m.init(jax.random.key(0), m.example_input()) for m in (small, wide)]
    tensors, other = (
        loading.to_tensors(t, fmt, m) for t, m in zip(trees, (small, wide), strict=True)
    )
    tensors["pos_embed"] = other["pos_embed"]
    with pytest.raises(ValueError, match=r"pos_embed is \[1, 5, 16\], for \[1, 5, 8\]"):
        loading.load_tensors(tensors, fmt, small)


def test_what_lies_beside_the_file_decides_preprocessing_and_network(tmp_path):
    model = models.build("vit_ti16", 3, image_size=32)
    variables = model.init(jax.random.key(0), model.example_input())
    fmt = weights.formats(models.entry("vit_ti16"))["huggingface"]
    tensors = loading.to_tensors(variables, fmt, model)
    files.write_safetensors(tmp_path / "model.safetensors", tensors)
    config = {"layer_norm_eps": 1e-12, "hidden_act": "gelu_new", "qkv_bias": True}
    (tmp_path / "config.json").write_text(json.dumps(config))
    preprocessor = {"image_mean": [0.1, 0.2, 0.3], "image_std": [1, 2, 3], "resample": 2}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    row = weights.find(str(tmp_path), "vit_ti16").entry
    assert (row.mean, row.std, row.interpolation) == ((0.1, 0.2, 0.3), (1, 2, 3), "bilinear")
    assert (row.kwargs["norm_eps"], row.kwargs["gelu"]) == (1e-12, "tanh")
    assert models.entry_from_json(json.loads(json.dumps(models.entry_to_json(row)))) == row
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"resample": 1}))
    with pytest.raises(ValueError, match=r"not supported; got resample=1 in"):
        weights.find(str(tmp_path), "vit_ti16")


def test_files_of_our_own_are_weights_too(tmp_path):
    model = models.build("resnet20", 5, image_size=24)
    variables = jax.device_get(model.init(jax.random.key(0), model.example_input()))
    row = models.entry("resnet20")
    export.write(tmp_path / "own", network.Network(row, model, variables), "robust_jax")
    found = weights.find(str(tmp_path / "own"), "resnet20")
    assert (found.entry, found.format, found.num_classes) == (row, "robust_jax", 5)
    got, _ = found.load(models.build(found.entry, 5))
    jax.tree.map(np.testing.assert_array_equal, got, variables)
    with pytest.raises(ValueError, match=r"another model; got .*own', of 'resnet20', for 'resnet1"):
        weights.find(str(tmp_path / "own"), "resnet18")


def test_models_without_weights():
    with pytest.raises(ValueError, match=r"no weights for this model; got 'x' for 'vit_tiny'"):
        weights.find("x", "vit_tiny")
    with pytest.raises(ValueError, match=r"no package holds weights .* got weights='pretrained'"):
        weights.find("pretrained", "resnet50")
