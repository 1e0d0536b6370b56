"""Swin-T in its full size equals transformers' on made weights."""

import cases_swin
import jax
import numpy as np
import parity
import pytest
import transformers_files

from robust_jax.models.swin import Swin
from robust_jax.weights import loading
from robust_jax.weights.swin import FORMATS


@pytest.mark.slow
def test_swin_tiny_at_224_equals_transformers():
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    full = cases_swin.huggingface_model(
        embed_dim=96,
        depths=(2, 2, 6, 2),
        num_heads=(3, 6, 12, 24),
        window_size=7,
        image_size=224,
        num_labels=1000,
    )
    tensors, images, want = transformers_files.on_made_weights(full)

    model = Swin(num_classes=1000, image_size=224)
    variables, report = loading.load_tensors(tensors, FORMATS["huggingface"], model)
    assert not report.left
    got = jax.jit(model.apply)(variables, images.transpose(0, 2, 3, 1))
    assert np.abs(want[0] - want[1]).max() > 1e-2 * np.abs(want).max()
    assert parity.difference(got, want) <= 1e-4
