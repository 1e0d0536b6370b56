"""Networks of full size against OpenAI's code, with made weights."""

import gc
import importlib.util

import cases_clip
import jax
import numpy as np
import parity
import pytest

from robust_jax.models.clip import ModifiedResNet
from robust_jax.models.text import TextTransformer
from robust_jax.models.vit import ViT
from robust_jax.weights import clip, loading

RN50 = ModifiedResNet(
    num_classes=1, image_size=224, depths=(3, 4, 6, 3), num_heads=32, embed_dim=1024
)
VIT_B32 = ViT(
    num_classes=1,
    image_size=224,
    patch_size=32,
    width=768,
    depth=12,
    num_heads=12,
    mlp_dim=3072,
    projection=512,
    **cases_clip.VIT_CLIP,
)
TEXT_B32 = TextTransformer(width=512, depth=12, num_heads=8, embed_dim=512)
FULL = {
    "rn50": (RN50, cases_clip.openai_resnet),
    "vit_b32": (VIT_B32, cases_clip.openai_vit),
    "vit_b32_text": (TEXT_B32, cases_clip.openai_text),
}


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("clip") is None, reason="needs clip-anytorch")
@pytest.mark.parametrize("name", FULL)
def test_a_network_of_full_size_equals_openai(name):
    pytest.importorskip("torch")
    model, make = FULL[name]
    is_text = isinstance(model, TextTransformer)
    case = parity.Case(name, "clip", "openai_clip", lambda: model, make, text=is_text)
    reference, fmt = make(model), clip.FORMATS["openai_clip"]
    tensors = {name: parity.made(name, shape) for name, shape in reference.shapes.items()}
    inputs = parity.inputs(case, model)
    want = reference.run(tensors, inputs)
    del reference
    gc.collect()  # A gigabyte of torch's parameters.
    if is_text:
        variables, _ = loading.load_text(tensors, fmt, model)
        got = jax.jit(model.apply)(variables, inputs.astype(np.int32))
    else:
        variables, _ = loading.load_tensors(tensors, fmt, model, classifier="new")
        apply = jax.jit(lambda v, x: model.apply(v, x, stop="head"))
        got = apply(variables, inputs.transpose(0, 2, 3, 1))
    assert got.shape == want.shape == (parity.BATCH, want.shape[1])
    assert parity.difference(got, want) <= 1e-4
