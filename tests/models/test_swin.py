import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import erf

from robust_jax.models.swin import Swin

TINY = {"embed_dim": 8, "depths": (2, 2, 1), "num_heads": (1, 2, 4), "window": 3}


def tiny(**fields):
    return Swin(**{"num_classes": 5, "image_size": 44, **TINY, **fields})


def norm(x, p, eps=1e-5):
    x = x - x.mean(-1, keepdims=True)
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + eps) * p["scale"] + p["bias"]


def dense(x, p):
    return x @ p["kernel"] + p.get("bias", 0)


def pad(x, size):
    rows, columns = (math.ceil(n / size) * size for n in x.shape[1:3])
    y = np.zeros((len(x), rows, columns, x.shape[3]))
    y[:, : x.shape[1], : x.shape[2]] = x
    return y


def attention(x, p, window, shift):
    """Attention of every token to every token, cut down to those that share a window."""
    b, height, width, d = x.shape
    table_window = window
    if min(height, width) <= window:
        window, shift = min(height, width), 0
    y = pad(norm(x, p["norm"]), window)
    rows, columns = y.shape[1:3]
    i, j = (axis.ravel() for axis in np.mgrid[:rows, :columns])
    rolled = [(i - shift) % rows // window, (j - shift) % columns // window]
    dy, dx = i[:, None] - i, j[:, None] - j
    together = (abs(dy) < window) & (abs(dx) < window)
    for place in rolled:
        together &= place[:, None] == place
    row = (dy + table_window - 1) * (2 * table_window - 1) + dx + table_window - 1
    bias = p["bias_table"][np.where(together, row, 0)]
    y = y.reshape(b, -1, d)
    query, key, value = (
        np.einsum("bnd,dhc->bnhc", y, p[part]["kernel"]) + p[part]["bias"]
        for part in ("query", "key", "value")
    )
    scores = np.einsum("bqhc,bnhc->bqnh", query, key) / np.sqrt(query.shape[-1]) + bias
    weights = np.exp(scores - scores.max(2, keepdims=True)) * together[:, :, None]
    weights /= weights.sum(2, keepdims=True)
    y = np.einsum("bqnh,bnhc,hcd->bqd", weights, value, p["out"]["kernel"]) + p["out"]["bias"]
    return x + y.reshape(b, rows, columns, d)[:, :height, :width]


def reference(variables, x, model):
    """The network in float64 numpy."""
    params = jax.tree.map(lambda a: np.asarray(a, np.float64), variables["params"])
    for name in model.stage_names:
        p = params.get(name, {})
        if name == "embed":
            x = pad(x, 4)
            b, height, width, _ = x.shape
            x = x.reshape(b, height // 4, 4, width // 4, 4, 3)
            x = np.einsum("bhiwjc,ijcd->bhwd", x, p["patch"]["kernel"]) + p["patch"]["bias"]
            x = norm(x, p["norm"])
        elif name.endswith("_attn"):
            shift = model.window // 2 if "block1" in name else 0
            x = attention(x, p, model.window, shift)
        elif name.endswith("_mlp"):
            y = dense(norm(x, p["norm"]), p["fc1"])
            x = x + dense(y * (1 + erf(y / np.sqrt(2))) / 2, p["fc2"])
        elif name.endswith("_merge"):
            x = pad(x, 2)
            corners = [x[:, i::2, j::2] for i, j in ((0, 0), (1, 0), (0, 1), (1, 1))]
            x = dense(norm(np.concatenate(corners, -1), p["norm"]), p["reduction"])
        elif name == "norm":
            x = norm(x, p)
        elif name == "pool":
            x = x.mean((1, 2))
        else:
            x = dense(x, p)
    return x


# Maps of 11, 6, 3: padded windows and merging, shifts, one whole window. Of 5, 3, 2: less than one.
@pytest.mark.parametrize("size", [(44, 44), (20, 20), (18, 31)])
def test_equals_the_numpy_network(size, variables_of):
    model = tiny()
    variables = variables_of(model)
    x = jax.random.normal(jax.random.key(3), (2, *size, 3))
    want = reference(variables, np.asarray(x, np.float64), model)
    got = jax.jit(model.apply)(variables, x)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)


def test_the_projection_is_the_feature(variables_of):
    model = tiny(projection=6, image_size=12)
    assert model.stage_names[-3:] == ("pool", "proj", "head") and model.feature_width == 6
    variables = variables_of(model)
    x = jax.random.normal(jax.random.key(4), (2, 3, 3, 32))
    feature = model.apply(variables, x, start="pool", stop="head")
    kernel = variables["params"]["proj"]["kernel"]
    assert set(variables["params"]["proj"]) == {"kernel"}
    np.testing.assert_allclose(feature, x.mean((1, 2)) @ kernel, rtol=1e-4, atol=1e-6)


def test_a_pixel_reaches_the_next_window_by_the_shift_alone(variables_of):
    model = tiny(image_size=36)
    variables = variables_of(model)
    x = jax.random.normal(jax.random.key(5), (1, 36, 36, 3))

    def changed(stop):
        apply = jax.jit(functools.partial(model.apply, stop=stop))
        before, after = apply(variables, x), apply(variables, x.at[0, 0, 8].add(1))
        return np.abs(after - before).sum((0, -1)) > 1e-6

    own = np.zeros((9, 9), bool)
    own[:3, :3] = True
    np.testing.assert_array_equal(changed("stage1_block1_attn"), own)
    # The shifted windows hold rows and columns 1 to 3, 4 to 6, 7 and 8; what wraps stays apart.
    own[:4, :4] = True
    np.testing.assert_array_equal(changed("stage1_merge"), own)


def test_bfloat16_keeps_the_feature_and_the_logits_f32(variables_of):
    fields = {"image_size": 20, "projection": 6, "depths": (2, 1), "num_heads": (1, 2)}
    exact, model = tiny(**fields), tiny(**fields, dtype=jnp.bfloat16)
    variables = variables_of(model)
    x = jax.random.normal(jax.random.key(6), (2, 20, 20, 3))
    tokens = jax.eval_shape(functools.partial(model.apply, stop="norm"), variables, x)
    assert tokens.dtype == jnp.bfloat16
    got, want = (jax.jit(m.apply)(variables, x) for m in (model, exact))
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, want, atol=0.1 * float(jnp.abs(want).max()))


def test_full_size_counts_are_the_published_ones():
    def counts(**fields):
        model = Swin(num_classes=1000, image_size=224, **fields)
        params = jax.eval_shape(model.init, jax.random.key(0), model.example_input())["params"]
        return {
            stage: sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))
            for stage, tree in params.items()
        }

    classifier = counts()
    assert sum(classifier.values()) == 28_288_354
    assert sum(classifier.values()) - classifier["head"] == 27_519_354
    assert counts(projection=512)["proj"] == 768 * 512


def test_a_budget_frees_from_the_end():
    groups = tiny(depths=(1, 1), num_heads=(1, 2), projection=6).freeable()
    assert groups[:6] == (
        ("proj",),
        ("norm",),
        ("stage2_block0_mlp/fc2",),
        ("stage2_block0_mlp/fc1",),
        ("stage2_block0_mlp/norm",),
        ("stage2_block0_attn/out",),
    )
    assert groups[6:10] == (
        tuple(f"stage2_block0_attn/{part}" for part in ("query", "key", "value", "bias_table")),
        ("stage2_block0_attn/norm",),
        ("stage1_merge/reduction",),
        ("stage1_merge/norm",),
    )


def test_impossible_shapes_are_named():
    with pytest.raises(ValueError, match=r"got width=16, num_heads=3 in stage 2; use a divisor"):
        tiny(num_heads=(1, 3, 4))
    with pytest.raises(ValueError, match=r"got depths=\(2, 2, 1\), num_heads=\(1, 2\)"):
        tiny(num_heads=(1, 2))
    with pytest.raises(ValueError, match=r"got depths=\(\); use"):
        tiny(depths=(), num_heads=())
    with pytest.raises(ValueError, match=r"window counts from 1; got 0"):
        tiny(window=0)
