import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view

from robust_jax.models.clip import ModifiedResNet

TINY = {"depths": (2, 1), "num_heads": 4, "embed_dim": 12, "base_width": 4}


def tiny(**overrides):
    return ModifiedResNet(**{"num_classes": 5, "image_size": 32, **TINY, **overrides})


def conv(x, kernel, stride=1):
    side = len(kernel)
    x = np.pad(x, ((0, 0), *[(side // 2, side // 2)] * 2, (0, 0)))
    windows = sliding_window_view(x, (side, side), axis=(1, 2))[:, ::stride, ::stride]
    return np.einsum("bhwcij,ijcd->bhwd", windows, kernel)


def unit(x, params, stats, conv_name, bn_name, stride=1):
    x = conv(x, params[conv_name]["kernel"], stride)
    p, s = params[bn_name], stats[bn_name]
    return (x - s["mean"]) / np.sqrt(s["var"] + 1e-5) * p["scale"] + p["bias"]


def halve(x):
    b, h, w, d = x.shape
    return x.reshape(b, h // 2, 2, w // 2, 2, d).mean((2, 4))


def reference_map(variables, x, model):
    """Stem and blocks in float64 numpy with torch's symmetric padding."""
    variables = jax.tree.map(lambda a: np.asarray(a, np.float64), variables)
    params, stats = variables["params"], variables["batch_stats"]
    x = np.asarray(x, np.float64)
    for i in (1, 2, 3):
        x = unit(x, params["stem"], stats["stem"], f"conv{i}", f"bn{i}", 2 if i == 1 else 1)
        x = np.maximum(x, 0)
    x = halve(x)
    for group, depth in enumerate(model.depths):
        for number in range(depth):
            stage = f"stage{group + 1}_block{number}"
            at = functools.partial(unit, params=params[stage], stats=stats[stage])
            y = np.maximum(at(x, conv_name="conv1", bn_name="bn1"), 0)
            y = np.maximum(at(y, conv_name="conv2", bn_name="bn2"), 0)
            if group and not number:
                x, y = halve(x), halve(y)
            y = at(y, conv_name="conv3", bn_name="bn3")
            if not number:
                x = at(x, conv_name="downsample_conv", bn_name="downsample_bn")
            x = np.maximum(x + y, 0)
    return x


def test_the_map_equals_the_numpy_network(variables_of):
    model = tiny()
    variables = variables_of(model)
    x = jax.random.normal(jax.random.key(3), (2, 32, 32, 3))
    got = jax.jit(functools.partial(model.apply, stop="attn_pool"))(variables, x)
    assert got.shape == (2, 4, 4, 32)
    np.testing.assert_allclose(got, reference_map(variables, x, model), rtol=1e-4, atol=1e-4)


def test_the_pool_is_flax_attention_asked_by_the_mean(variables_of):
    model = tiny()
    params = variables_of(model)["params"]["attn_pool"]
    x = jax.random.normal(jax.random.key(4), (2, 4, 4, 32))
    flat = x.reshape(2, 16, 32)
    tokens = jnp.concatenate([flat.mean(1, keepdims=True), flat], axis=1) + params["pos"]
    attention = nn.MultiHeadDotProductAttention(num_heads=4, qkv_features=32, out_features=12)
    weights = {name: params[name] for name in ("query", "key", "value", "out")}
    want = attention.apply({"params": weights}, tokens)[:, 0]
    got = model.apply({"params": {"attn_pool": params}}, x, start="attn_pool", stop="head")
    assert got.shape == (2, model.feature_width)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


def test_splits_give_the_whole_and_bfloat16_stays_close(variables_of):
    model = tiny()
    variables = variables_of(model)
    x = jax.random.normal(jax.random.key(5), (3, 32, 32, 3))
    whole = model.apply(variables, x)
    for boundary in model.stage_names:
        z = model.apply(variables, x, stop=boundary)
        np.testing.assert_array_equal(model.apply(variables, z, start=boundary), whole)
    half = model.clone(dtype=jnp.bfloat16)
    for stop, dtype in (("attn_pool", jnp.bfloat16), ("head", jnp.float32)):
        z = jax.eval_shape(functools.partial(half.apply, stop=stop), variables, x)
        assert z.dtype == dtype
    difference = jnp.abs(jax.jit(half.apply)(variables, x) - whole).max()
    assert 0 < float(difference) < 0.1 * float(jnp.abs(whole).max())


def test_freeable_starts_with_the_projection_and_names_each_parameter_once():
    model = tiny()
    params = jax.eval_shape(model.init, jax.random.key(0), model.example_input())["params"]
    inner = [
        "/".join(key.key for key in path)
        for path, _ in jax.tree_util.tree_leaves_with_path(params)
        if path[0].key not in ("stem", "head")
    ]
    groups = model.freeable()
    assert groups[0] == ("attn_pool/out",)
    freed = [
        path
        for group in groups
        for prefix in group
        for path in inner
        if path == prefix or path.startswith(prefix + "/")
    ]
    assert sorted(freed) == sorted(inner)
    order = [model.stage_names.index(group[0].split("/")[0]) for group in groups]
    assert order == sorted(order, reverse=True)


def test_batch_norm_trains_unless_frozen(variables_of):
    x = 1 + jax.random.normal(jax.random.key(6), (4, 32, 32, 3))
    for frozen in (False, True):
        model = tiny(frozen_bn=frozen)
        variables = variables_of(model)
        logits, new = model.apply(variables, x, train=True, mutable=["batch_stats"])
        assert bool((logits == model.apply(variables, x)).all()) == frozen
        moved = jax.tree.map(
            lambda a, b: bool((a != b).any()),
            new.get("batch_stats", variables["batch_stats"]),
            variables["batch_stats"],
        )
        assert set(jax.tree.leaves(moved)) == {not frozen}


def test_the_count_is_the_published_one():
    model = ModifiedResNet(
        num_classes=1, image_size=224, depths=(3, 4, 6, 3), num_heads=32, embed_dim=1024
    )
    params = jax.eval_shape(model.init, jax.random.key(0), model.example_input())["params"]
    count = {stage: sum(leaf.size for leaf in jax.tree.leaves(params[stage])) for stage in params}
    assert count["attn_pool"] == 14_789_632
    assert sum(count.values()) - count["head"] == 38_316_896


def test_mistakes_are_named():
    with pytest.raises(ValueError, match=r"got image_size=30; use a multiple of 8, such as 24"):
        tiny(image_size=30)
    with pytest.raises(ValueError, match=r"got width 32, num_heads=5"):
        tiny(num_heads=5)
    with pytest.raises(ValueError, match=r"unknown head; got 'mlp'"):
        tiny(head="mlp")
    model = tiny()
    with pytest.raises(ValueError, match=r"\[b, 32, 32, 3\]; got \[1, 40, 40, 3\]"):
        model.init(jax.random.key(0), jnp.zeros((1, 40, 40, 3)))
