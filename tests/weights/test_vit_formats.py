"""Spellings of ViT's files, what they need of the network, and what is refused."""

import math

import cases_vit
import flax.traverse_util
import jax
import numpy as np
import pytest
import transformers_files
from vit_names import DEPTH, HEADS, WIDTH

from robust_jax import models
from robust_jax.models.resnet import ResNet
from robust_jax.weights import loading
from robust_jax.weights.mapping import LAYOUTS
from robust_jax.weights.vit import FORMATS


def filled(model):
    shapes = jax.eval_shape(model.init, jax.random.key(0), model.example_input())
    rng = np.random.default_rng(2)
    return jax.tree.map(lambda s: rng.standard_normal(s.shape).astype(np.float32), shapes)


def augreg(tensors):
    """big_vision's names of before 2022."""
    old = (
        ("MultiHeadDotProductAttention_0", "MultiHeadDotProductAttention_1"),
        ("LayerNorm_1", "LayerNorm_2"),
        ("MlpBlock_0", "MlpBlock_3"),
        ("pos_embedding", "Transformer/posembed_input/pos_embedding"),
    )
    spelled = {}
    for name, tensor in tensors.items():
        for new, before in old:
            name = name.replace(new, before)
        spelled[name] = tensor
    return spelled


def scanned(tensors):
    """One block with a leading axis for the depth."""
    stacked, first = {}, "Transformer/encoderblock_0/"
    for name in tensors:
        if name.startswith(first):
            rest = name.removeprefix(first)
            blocks = [tensors[f"Transformer/encoderblock_{i}/{rest}"] for i in range(DEPTH)]
            stacked[f"Transformer/encoderblock/{rest}"] = np.stack(blocks)
        elif "encoderblock_" not in name:
            stacked[name] = tensors[name]
    return stacked


SPELLINGS = {
    "today": lambda t: t,
    "augreg": augreg,
    "before 2022": lambda t: {n.replace("posembed_input/", ""): a for n, a in augreg(t).items()},
    "scanned": scanned,
    "checkpoint": lambda t: {
        "opt/0/mu/cls": t["embedding/bias"],
        **{f"params/{name}": tensor for name, tensor in scanned(t).items()},
    },
    "old checkpoint": lambda t: {
        "opt/state/step": np.ones(()),
        **{f"opt/target/{name}": tensor for name, tensor in augreg(t).items()},
    },
}


@pytest.mark.parametrize("pool", ["cls", "gap"])
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_of_big_vision_gives_back_the_network(spelling, pool):
    model, fmt = cases_vit.vit(32, pool=pool), FORMATS["big_vision"]
    variables = filled(model)
    tensors = SPELLINGS[spelling](loading.to_tensors(variables, fmt, model))
    got, report = loading.load_tensors(tensors, fmt, model)
    jax.tree.map(np.testing.assert_array_equal, got, variables)
    assert not report.left


@pytest.mark.parametrize("spell", [lambda t: t, scanned], ids=["today", "scanned"])
def test_a_cls_token_without_a_position_is_the_same_network(spell):
    model, fmt = cases_vit.vit(32), FORMATS["big_vision"]
    variables = filled(model)
    tensors = loading.to_tensors(variables, fmt, model)
    # What big_vision itself makes of an older file.
    position, tensors["pos_embedding"] = np.split(tensors["pos_embedding"], [1], axis=1)
    tensors["cls"] = tensors["cls"] + position
    got, _ = loading.load_tensors(spell(tensors), fmt, model)
    assert not got["params"]["embed"]["pos"][0, 0].any()
    x = jax.random.normal(jax.random.key(1), (2, 32, 32, 3))
    tokens = [model.apply(v, x, stop="block_00_attn") for v in (got, variables)]
    np.testing.assert_allclose(tokens[0], tokens[1], atol=1e-6)
    again = loading.to_tensors(got, fmt, model)
    jax.tree.map(np.testing.assert_array_equal, loading.load_tensors(again, fmt, model)[0], got)


def test_the_first_files_of_timm_hold_patches_as_a_linear_map():
    model, fmt = cases_vit.vit(32, **cases_vit.LEGACY), FORMATS["timm"]
    variables = filled(model)
    tensors = loading.to_tensors(variables, fmt, model)
    assert "blocks.0.attn.qkv.bias" not in tensors
    weight = tensors["patch_embed.proj.weight"]
    tensors["patch_embed.proj.weight"] = weight.reshape(WIDTH, -1)
    got, _ = loading.load_tensors(tensors, fmt, model)
    jax.tree.map(np.testing.assert_array_equal, got, variables)


@pytest.mark.parametrize("name", ["timm", "huggingface"])
def test_a_dinov2_file_is_read_without_what_is_not_the_network(name):
    model, fmt = cases_vit.vit(32, layer_scale=True), FORMATS[name]
    variables = filled(model)
    if name == "huggingface":
        del variables["params"]["head"]
    tensors = loading.to_tensors(variables, fmt, model)
    if name == "huggingface":
        tensors["classifier.weight"] = np.zeros((10, 2 * WIDTH), np.float32)
        tensors["dinov2.embeddings.mask_token"] = np.zeros((1, WIDTH), np.float32)
    else:
        tensors["mask_token"] = np.zeros((1, WIDTH), np.float32)
    bare = {n.removeprefix("dinov2."): tensor for n, tensor in tensors.items()}
    for spelled in (tensors, bare):
        got, report = loading.load_tensors(spelled, fmt, model, classifier="new")
        del got["params"]["head"]
        want = {"params": {k: v for k, v in variables["params"].items() if k != "head"}}
        jax.tree.map(np.testing.assert_array_equal, got, want)
        assert set(report.left) == ({"head.bias", "head.weight"} if name == "timm" else set())


def test_huggingface_files_of_the_network_alone_are_read():
    model, fmt = cases_vit.vit(32), FORMATS["huggingface"]
    variables = filled(model)
    tensors = loading.to_tensors(variables, fmt, model)
    tensors = {n.removeprefix("vit."): a for n, a in tensors.items() if "classifier" not in n}
    tensors["pooler.dense.weight"] = np.zeros((WIDTH, WIDTH), np.float32)
    got, report = loading.load_tensors(tensors, fmt, model, classifier="new")
    variables["params"]["head"] = jax.tree.map(np.zeros_like, variables["params"]["head"])
    jax.tree.map(np.testing.assert_array_equal, got, variables)
    assert not report.left


@pytest.mark.parametrize("make", ["ViTForImageClassification", "ViTModel"])
def test_the_names_are_those_that_transformers_writes(make):
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("torch")
    whole = transformers_files.written(getattr(transformers, make)(cases_vit.vit_model(32).config))
    model, fmt = cases_vit.vit(32), FORMATS["huggingface"]
    rows = {row.name for row in fmt.tensors(model)}
    if make == "ViTModel":
        assert {name.removeprefix("vit.") for name in rows} - whole.keys() == {
            "classifier.weight",
            "classifier.bias",
        }
        assert all(name in rows or f"vit.{name}" in rows or "pooler" in name for name in whole)
    else:
        assert rows == whole.keys()


@pytest.mark.parametrize("make", ["Dinov2ForImageClassification", "Dinov2Model"])
def test_the_names_of_dinov2_are_those_that_transformers_writes(make):
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("torch")
    whole = transformers_files.written(
        getattr(transformers, make)(cases_vit.dinov2_model(32).config)
    )
    model, fmt = cases_vit.vit(32, layer_scale=True), FORMATS["huggingface"]
    zeros = {name: np.zeros(shape, np.float32) for name, shape in whole.items()}
    spelled = fmt.rename(zeros).keys()
    more = {"dinov2.embeddings.mask_token"}
    if make == "Dinov2ForImageClassification":
        more |= {"dinov2.classifier.weight", "dinov2.classifier.bias"}
    assert spelled == {row.name for row in fmt.tensors(model)} | more
    loading.load_tensors(zeros, fmt, model, classifier="new")
    with pytest.raises(ValueError, match=r"these weights hold no classifier"):
        loading.load_tensors(zeros, fmt, model)


@pytest.mark.parametrize("name", ["head_dist.weight", "dist_token", "reg_token", "fc_norm.weight"])
def test_parts_that_the_network_lacks_are_refused(name):
    model, fmt = cases_vit.vit(32), FORMATS["timm"]
    tensors = loading.to_tensors(filled(model), fmt, model)
    with pytest.raises(ValueError, match=rf"0 missing .* 1 additional ones \({name}\)"):
        loading.load_tensors({**tensors, name: np.zeros(1)}, fmt, model)


def test_what_files_need_of_the_network():
    assert FORMATS["big_vision"].overrides({}) == {"gelu": "tanh", "norm_eps": 1e-6}
    assert FORMATS["timm"].overrides({}) == {}
    overrides = FORMATS["huggingface"].overrides
    assert overrides({}) == {}
    config = {"hidden_act": "gelu", "layer_norm_eps": 1e-12, "num_attention_heads": HEADS}
    expected = {"gelu": "erf", "norm_eps": 1e-12, "num_heads": HEADS, "qkv_bias": False}
    assert overrides({**config, "qkv_bias": False}) == expected
    for name, ours in (
        ("gelu_new", "tanh"),
        ("gelu_pytorch_tanh", "tanh"),
        ("quick_gelu", "quick"),
    ):
        assert overrides({"hidden_act": name}) == {"gelu": ours}
    with pytest.raises(ValueError, match=r"no such activation; got hidden_act='relu'"):
        overrides({"hidden_act": "relu"})


def test_other_networks_are_refused():
    resnet = ResNet(10, 32, (1, 1), "basic")
    dino, gap = cases_vit.vit(32, layer_scale=True), cases_vit.vit(32, pool="gap")
    clip = cases_vit.vit(32, pre_norm=True)
    for fmt in FORMATS.values():
        with pytest.raises(ValueError, match=r"these weights are a ViT's; got a ResNet"):
            fmt.tensors(resnet)
        with pytest.raises(ValueError, match=r"hold no such ViT; got pre_norm=True; use False"):
            fmt.tensors(clip)
    with pytest.raises(ValueError, match=r"big_vision files .* got layer_scale=True"):
        FORMATS["big_vision"].tensors(dino)
    with pytest.raises(ValueError, match=r"hold no such ViT; got pool='gap'; use 'cls'"):
        FORMATS["huggingface"].tensors(gap)


@pytest.mark.parametrize(
    ("name", "fmt", "total"),
    [
        ("vit_b16", "big_vision", 86_567_656),
        ("vit_s16", "huggingface", 22_050_664),
        ("vit_small_legacy48m", "timm", 48_754_408),
        ("dinov2_vits14", "huggingface", 22_056_192),
    ],
)
def test_a_file_has_the_published_size(name, fmt, total):
    size = 518 if name.startswith("dinov2") else 224
    model = models.build(name, 1000, image_size=size)
    shapes = jax.eval_shape(model.init, jax.random.key(0), model.example_input())
    shapes = flax.traverse_util.flatten_dict(shapes, sep="/")
    rows = FORMATS[fmt].tensors(model)
    stored = [jax.eval_shape(LAYOUTS[r.layout].store, shapes[r.path]).shape for r in rows]
    assert sum(map(math.prod, stored)) == total
