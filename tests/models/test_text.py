import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robust_jax.models.text import TextTransformer

# Width, heads, embedding, and the parameters with projection and logit scale, counted on OpenAI's
# networks.
PUBLISHED = {
    "rn50": (512, 8, 1024, 63_690_241),
    "b16": (512, 8, 512, 63_428_097),
    "l14": (768, 12, 768, 123_650_305),
}
EOT = 49


def tiny(**overrides):
    fields = {"width": 24, "depth": 2, "num_heads": 3, "embed_dim": 10, "vocab_size": EOT + 1}
    return TextTransformer(**{**fields, "context": 9, **overrides})


@pytest.fixture
def tokens():
    tokens = np.random.default_rng(0).integers(1, EOT, (3, 9), np.int32)
    tokens[[0, 1, 2], [4, 6, 8]] = EOT
    return tokens


@pytest.mark.parametrize("name", PUBLISHED)
def test_counts_are_the_published_ones(name):
    width, num_heads, embed_dim, count = PUBLISHED[name]
    model = TextTransformer(width=width, depth=12, num_heads=num_heads, embed_dim=embed_dim)
    params = jax.eval_shape(model.init, jax.random.key(0), model.example_input())["params"]
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == count


def test_the_feature_is_of_the_first_end_and_of_what_precedes_it(variables_of, tokens):
    model = tiny()
    apply = jax.jit(model.apply)
    variables = variables_of(model)
    want = apply(variables, tokens)
    assert want.shape == (3, 10) and want.dtype == jnp.float32
    for padding in (0, EOT):
        padded = tokens.copy()
        padded[0, 5:] = padded[1, 7:] = padding
        np.testing.assert_array_equal(apply(variables, padded), want)
    earlier = tokens.copy()
    earlier[:, 0] = (earlier[:, 0] + 1) % EOT
    assert float(jnp.abs(apply(variables, earlier) - want).max(axis=1).min()) > 1e-2


def test_a_shorter_row_of_tokens_gives_the_same(variables_of, tokens):
    model = tiny()
    variables = variables_of(model)
    apply = jax.jit(model.apply)
    got, want = apply(variables, tokens[:1, :5]), apply(variables, tokens[:1])
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def test_logit_scale_starts_at_the_published_temperature():
    model = tiny(depth=1)
    params = jax.jit(model.init)(jax.random.key(0), model.example_input())["params"]
    assert params["logit_scale"].shape == ()
    assert float(jnp.exp(params["logit_scale"])) == pytest.approx(1 / 0.07, rel=1e-6)


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
    with pytest.raises(ValueError, match=r"unknown gelu; got 'relu'; use one of erf"):
        tiny(gelu="relu")
    for tokens, message in (
        (jnp.zeros((1, 10), jnp.int32), r"1 to 9 tokens; got 10"),
        (jnp.zeros((1, 0), jnp.int32), r"1 to 9 tokens; got 0"),
        (jnp.zeros((1, 9)), r"must be int32\[b, n\]; got float32\[1, 9\]"),
        (jnp.zeros(9, jnp.int32), r"got int32\[9\]"),
    ):
        with pytest.raises(ValueError, match=message):
            tiny().init(jax.random.key(0), tokens)
