import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import erf, expit, softmax

from robust_jax.models import build
from robust_jax.models.attention import GELU, attend
from robust_jax.models.vit import ViT

NUMPY_GELU = {
    "erf": lambda x: x * (1 + erf(x / np.sqrt(2))) / 2,
    "tanh": lambda x: x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))) / 2,
    "quick": lambda x: x * expit(1.702 * x),
}


def layer_norm(x, p, eps):
    mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) / np.sqrt(var + eps) * p["scale"] + p["bias"]


def reference(params, x, model):
    """The whole network for all tokens, in float64 numpy, one head at a time."""
    params = jax.tree.map(lambda a: np.asarray(a, np.float64), params)
    x = np.asarray(x, np.float64)
    p, d, eps = model.patch_size, model.width, model.norm_eps
    b, size = len(x), model.image_size
    embed = params["embed"]
    rows = x.reshape(b, size // p, p, size // p, p, 3).transpose(0, 1, 3, 2, 4, 5)
    x = rows.reshape(b, -1, p * p * 3) @ embed["patch"]["kernel"].reshape(-1, d)
    x = x + embed["patch"]["bias"]
    if model.pool == "cls":
        x = np.concatenate([np.repeat(embed["cls"], b, axis=0), x], axis=1)
    x = x + embed["pos"]
    scale = model.attention_scale or (d // model.num_heads) ** -0.5
    for i in range(model.depth):
        attn, mlp = params[f"block_{i:02d}_attn"], params[f"block_{i:02d}_mlp"]
        y = layer_norm(x, attn["norm"], eps)
        out = attn["out"]["bias"]
        for h in range(model.num_heads):
            q, k, v = (
                y @ attn[name]["kernel"][:, h] + (attn[name]["bias"][h] if model.qkv_bias else 0)
                for name in ("query", "key", "value")
            )
            weights = softmax(q @ k.swapaxes(1, 2) * scale, axis=-1)
            out = out + weights @ v @ attn["out"]["kernel"][h]
        x = x + out
        y = layer_norm(x, mlp["norm"], eps) @ mlp["fc1"]["kernel"] + mlp["fc1"]["bias"]
        x = x + NUMPY_GELU[model.gelu](y) @ mlp["fc2"]["kernel"] + mlp["fc2"]["bias"]
    x = layer_norm(x, params["norm"], eps)
    x = x[:, 0] if model.pool == "cls" else x.mean(1)
    return x @ params["head"]["kernel"] + params["head"]["bias"]


@pytest.mark.parametrize(
    "overrides",
    [
        {},
        {"pool": "gap", "gelu": "tanh"},
        {"gelu": "quick", "norm_eps": 1e-2},
        {"qkv_bias": False, "attention_scale": 24**-0.5},
        {"depth": 1},
    ],
)
def test_equals_the_computation_of_all_tokens(overrides, variables_of):
    model = build("vit_tiny8", 5, **{"width": 24, "depth": 2, "mlp_dim": 40, **overrides})
    assert isinstance(model, ViT)
    variables = variables_of(model)
    assert ("bias" in variables["params"]["block_00_attn"]["query"]) == model.qkv_bias
    x = jax.random.normal(jax.random.key(2), (2, 32, 32, 3))
    want = reference(variables["params"], x, model)
    got = jax.jit(model.apply)(variables, x)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_after_the_last_attention_only_the_cls_token_is_left(variables_of):
    model = build("vit_tiny8", 5, width=24, depth=2, mlp_dim=40)
    variables, x = variables_of(model), jnp.ones((2, 32, 32, 3))
    shapes = {
        stop: jax.eval_shape(functools.partial(model.apply, stop=stop), variables, x).shape
        for stop in model.stage_names[1:]
    }
    assert shapes["block_01_attn"] == (2, 17, 24)
    assert shapes["block_01_mlp"] == shapes["norm"] == shapes["head"] == (2, 24)


def test_position_embedding_has_a_row_for_the_cls_token():
    for pool, rows in (("cls", 17), ("gap", 16)):
        model = build("vit_tiny8", 5, pool=pool)
        params = jax.eval_shape(model.init, jax.random.key(0), model.example_input())["params"]
        assert params["embed"]["pos"].shape == (1, rows, 192)
        assert ("cls" in params["embed"]) == (pool == "cls")


def test_layer_norm_survives_a_large_mean():
    # The one-pass variance is wrong by 0.78 here; two passes in f32 by 2e-4.
    model = build("vit_tiny8", 5, width=192)
    x = 30 + 0.01 * jax.random.normal(jax.random.key(0), (4, 192))
    params = {"norm": {"scale": jnp.ones(192), "bias": jnp.zeros(192)}}
    got = model.apply({"params": params}, x, start="norm", stop="head")
    wide = np.asarray(x, np.float64)
    want = layer_norm(wide, {"scale": 1.0, "bias": 0.0}, 1e-6)
    np.testing.assert_allclose(got, want, atol=2e-3)


def test_gelu_variants_differ_as_published():
    x = jnp.linspace(-4, 4, 101)
    for name, fn in NUMPY_GELU.items():
        np.testing.assert_allclose(GELU[name](x), fn(np.asarray(x, np.float64)), atol=2e-6)


def test_scores_and_softmax_are_f32_for_bfloat16_tokens():
    # The scores 300 and 300.5 are one number in bfloat16, whose step there is 2.
    query = jnp.ones((1, 1, 1, 2), jnp.bfloat16)
    key = jnp.array([[300, 0], [300, 0.5]], jnp.bfloat16)[None, :, None]
    value = jnp.array([[0, 0], [1, 1]], jnp.bfloat16)[None, :, None]
    got = attend(query, key, value, scale=1.0)
    assert got.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(got, np.float32), expit(0.5), atol=4e-3)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"image_size": 4}, r"got image_size=4 with patches of 8x8; .* such as 8"),
        ({"image_size": 30}, r"got image_size=30 with patches of 8x8; .* such as 24"),
        ({"num_heads": 5}, r"got width=192, num_heads=5"),
        ({"depth": 0}, r"got depth=0"),
        ({"pool": "map"}, r"unknown pool; got 'map'; use one of cls, gap"),
        ({"gelu": "relu"}, r"unknown gelu; got 'relu'; use one of erf, tanh, quick"),
    ],
)
def test_impossible_fields_are_named(overrides, message):
    with pytest.raises(ValueError, match=message):
        build("vit_tiny8", 5, **overrides)


def test_images_of_another_size_are_refused():
    model = build("vit_tiny8", 5)
    with pytest.raises(ValueError, match=r"\[b, 32, 32, 3\]; got \[1, 40, 40, 3\]"):
        model.init(jax.random.key(0), jnp.zeros((1, 40, 40, 3)))
