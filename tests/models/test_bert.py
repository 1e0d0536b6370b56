import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robust_jax.models.bert import Bert

# BERT-base without pooler, LiT's dense layer of 768 x 768 with bias, and the scale.
PUBLISHED = 108_891_648 + 590_592 + 1


def tiny(**overrides):
    fields = {"width": 24, "depth": 2, "num_heads": 3, "mlp_dim": 40, "embed_dim": 10}
    return Bert(**{**fields, "vocab_size": 50, "context": 7, "max_len": 9, **overrides})


@pytest.fixture
def tokens():
    tokens = np.random.default_rng(0).integers(1, 50, (3, 7), np.int32)
    tokens[1, 4:] = 0
    return tokens


def test_count_is_the_published_one():
    model = Bert()
    params = jax.eval_shape(model.init, jax.random.key(0), model.example_input())["params"]
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == PUBLISHED
    assert params["pos"].shape == (512, 768) and params["logit_scale"].shape == ()


def test_padding_is_not_looked_at(variables_of, tokens):
    model = tiny()
    variables = variables_of(model)
    apply = jax.jit(model.apply)
    want = apply(variables, tokens)
    assert want.shape == (3, 10) and want.dtype == jnp.float32
    np.testing.assert_allclose(apply(variables, tokens[1:2, :4])[0], want[1], rtol=1e-5, atol=1e-5)
    table = variables["params"]["token"]["embedding"]
    variables["params"]["token"]["embedding"] = table.at[0].add(5.0)
    np.testing.assert_array_equal(apply(variables, tokens), want)


def test_every_token_matters_and_its_place(variables_of, tokens):
    model = tiny()
    variables = variables_of(model)
    apply = jax.jit(model.apply)
    want = apply(variables, tokens)
    for place in range(7):
        other = tokens.copy()
        other[0, place] = other[0, place] % 49 + 1
        assert float(jnp.abs(apply(variables, other)[0] - want[0]).max()) > 1e-3
    swapped = tokens[:, [0, 2, 1, 3, 4, 5, 6]]
    assert float(jnp.abs(apply(variables, swapped)[0] - want[0]).max()) > 1e-3


def test_a_text_of_padding_alone_is_finite(variables_of):
    model = tiny()
    got = jax.jit(model.apply)(variables_of(model), np.zeros((1, 7), np.int32))
    assert np.isfinite(got).all()


def test_bfloat16_stays_close(variables_of, tokens):
    model = tiny()
    variables = variables_of(model)
    want = jax.jit(model.apply)(variables, tokens)
    got = jax.jit(model.clone(dtype=jnp.bfloat16).apply)(variables, tokens)
    assert got.dtype == jnp.float32
    assert 0 < float(jnp.abs(got - want).max()) < 0.1 * float(jnp.abs(want).max())


def test_mistakes_are_named():
    with pytest.raises(ValueError, match=r"got width=24, num_heads=5"):
        tiny(num_heads=5)
    with pytest.raises(ValueError, match=r"got context=10, max_len=9; use 1 to 9"):
        tiny(context=10)
    for tokens, message in (
        (jnp.zeros((1, 10), jnp.int32), r"1 to 9 tokens; got 10"),
        (jnp.zeros((1, 0), jnp.int32), r"1 to 9 tokens; got 0"),
        (jnp.zeros((1, 7)), r"must be int32\[b, n\]; got float32\[1, 7\]"),
    ):
        with pytest.raises(ValueError, match=message):
            tiny().init(jax.random.key(0), tokens)
