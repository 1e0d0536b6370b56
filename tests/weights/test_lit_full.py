"""LiT's text tower at full size against transformers' BERT, with made weights."""

import dataclasses

import cases_lit
import jax
import numpy as np
import parity
import pytest

from robust_jax import models
from robust_jax.weights import lit, loading


@pytest.mark.slow
def test_the_text_tower_of_full_size_equals_bert():
    pytest.importorskip("transformers")
    tower = models.build_text("lit_b16b")
    fields = {field.name: getattr(tower, field.name) for field in dataclasses.fields(tower)}
    reference = cases_lit.text_reference(fields)
    case = parity.Case("lit", "lit", "big_vision", lambda: tower, lambda: reference, text=True)
    tensors = {name: parity.made(name, shape) for name, shape in reference.shapes.items()}
    tokens = parity.inputs(case, tower)
    want = reference.run(tensors, tokens)
    variables, _ = loading.load_text(tensors, lit.FORMATS["big_vision"], tower)
    got = jax.jit(tower.apply)(variables, tokens.astype(np.int32))
    assert got.shape == want.shape == (parity.BATCH, 768)
    assert parity.difference(got, want) <= 1e-4
