import math

import flax.traverse_util
import jax
import numpy as np
import pytest

from robust_jax.models.swin import Swin
from robust_jax.models.text import TextTransformer
from robust_jax.models.vit import ViT
from robust_jax.weights import loading
from robust_jax.weights.mapping import LAYOUTS
from robust_jax.weights.swin import FORMATS

TINY = {"embed_dim": 8, "depths": (2, 1), "num_heads": (1, 2), "window": 3}


def tiny(**fields):
    return Swin(**{"num_classes": 5, "image_size": 24, **TINY, **fields})


def filled(model):
    shapes = jax.eval_shape(model.init, jax.random.key(0), model.example_input())
    rng = np.random.default_rng(2)
    return jax.tree.map(lambda s: rng.standard_normal(s.shape).astype(np.float32), shapes)


@pytest.mark.parametrize("spelling", ["timm", "microsoft", "huggingface", "headless"])
def test_every_spelling_of_a_file_gives_back_the_network(spelling):
    model, name = tiny(), "timm" if spelling in ("timm", "microsoft") else "huggingface"
    variables, fmt = filled(model), FORMATS[name]
    tensors = loading.to_tensors(variables, fmt, model)
    classifier = "new" if spelling == "headless" else "load"
    if spelling == "microsoft":
        spell = {"head.fc.weight": "head.weight", "head.fc.bias": "head.bias"}
        for part in ("norm.weight", "norm.bias", "reduction.weight"):
            spell[f"layers.1.downsample.{part}"] = f"layers.0.downsample.{part}"
        tensors = {spell.get(n, n): a for n, a in tensors.items()}
        tensors["layers.0.blocks.1.attn_mask"] = np.zeros((4, 9, 9))
        tensors["layers.0.blocks.0.attn.relative_position_index"] = np.zeros((9, 9), int)
    elif spelling == "headless":
        tensors = {n.removeprefix("swin."): a for n, a in tensors.items() if "classifier" not in n}
    got, report = loading.load_tensors(tensors, fmt, model, classifier=classifier)
    if spelling == "headless":
        variables["params"]["head"] = jax.tree.map(np.zeros_like, variables["params"]["head"])
    jax.tree.map(np.testing.assert_array_equal, got, variables)
    assert not report.left


def test_a_unicl_file_of_both_towers_has_the_published_size():
    image = Swin(num_classes=1, image_size=224, projection=512)
    text = TextTransformer(width=512, depth=12, num_heads=8, embed_dim=512, norm_eps=1e-12)
    fmt, total = FORMATS["unicl"], 0
    assert fmt.text is not None
    for model, rows in ((image, fmt.tensors(image)), (text, fmt.text(text))):
        variables = jax.eval_shape(model.init, jax.random.key(0), model.example_input())
        shapes = flax.traverse_util.flatten_dict(variables, sep="/")
        for row in rows:
            stored = jax.eval_shape(LAYOUTS[row.layout].store, shapes[row.path]).shape
            total += math.prod(stored)
    assert total == 91_340_667  # microsoft/UniCL's Swin-T


def test_the_configuration_of_a_file_is_read():
    overrides = FORMATS["huggingface"].overrides
    config = {"hidden_act": "gelu", "layer_norm_eps": 1e-6, "window_size": 12, "image_size": 384}
    assert overrides(config) == {"norm_eps": 1e-6, "window": 12}
    assert overrides({}) == {}
    with pytest.raises(ValueError, match=r"erf GELU; got hidden_act='relu'"):
        overrides({"hidden_act": "relu"})


def test_other_networks_are_refused():
    vit = ViT(5, 16, 8, width=8, depth=1, num_heads=1, mlp_dim=8)
    with pytest.raises(ValueError, match=r"holds a Swin Transformer; got a ViT"):
        FORMATS["timm"].tensors(vit)
    with pytest.raises(ValueError, match=r"ends with a projection; got projection=None"):
        FORMATS["unicl"].tensors(tiny())
    with pytest.raises(ValueError, match=r"only UniCL's files hold a projection; got projection=6"):
        FORMATS["huggingface"].tensors(tiny(projection=6))
