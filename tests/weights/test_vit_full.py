"""ViT-B/16 in its full size equals transformers' on made weights."""

import cases_vit
import jax
import numpy as np
import parity
import pytest
import transformers_files

from robust_jax import models
from robust_jax.weights import loading
from robust_jax.weights.vit import FORMATS


@pytest.mark.slow
def test_vit_b16_at_224_equals_transformers():
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    full = cases_vit.vit_model(
        224,
        hidden_size=768,
        num_hidden_layers=12,
        num_attention_heads=12,
        intermediate_size=3072,
        patch_size=16,
        num_labels=1000,
    )
    tensors, images, want = transformers_files.on_made_weights(full)

    model = models.build("vit_b16", 1000)
    variables, report = loading.load_tensors(tensors, FORMATS["huggingface"], model)
    assert not report.left and not report.resized
    got = jax.jit(model.apply)(variables, images.transpose(0, 2, 3, 1))
    assert np.abs(want[0] - want[1]).max() > 1e-2 * np.abs(want).max()
    assert parity.difference(got, want) <= 1e-4
