import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from robust_jax.deepaugment import edsr_activations as features

KEYS = jax.random.split(jax.random.key(0), 64)
X = np.random.default_rng(0).normal(size=(6, 5, 64)).astype(np.float32)


def results(table, name, faithful=True):
    x = jnp.asarray(X)
    return np.asarray(jax.jit(jax.vmap(lambda key: table[name](key, x, faithful)))(KEYS))


@pytest.mark.parametrize("faithful", [True, False])
def test_swap_channels(faithful):
    differ = []
    for out in results(features.BEFORE, "swap_channels", faithful):
        order = [int(np.argmin(np.abs(X - out[..., [k]]).sum((0, 1)))) for k in range(64)]
        np.testing.assert_array_equal(out, X[..., order])
        assert faithful or sorted(order) == list(range(64))
        differ.append(sum(o != k for k, o in enumerate(order)))
        if faithful:  # nothing but copies: as many channels are lost as are changed
            assert differ[-1] >= 64 - len(set(order)) > 0
    assert max(differ) == (5 if faithful else 10)


@pytest.mark.parametrize("name, share, value", [("drop", 0.05, 0), ("negate", 0.025, -1)])
def test_values(name, share, value):
    ratios = results(features.BEFORE, f"{name}_values") / X
    assert set(np.unique(ratios)) == {value, 1}
    np.testing.assert_allclose((ratios == value).mean(), share, rtol=0.05)


def test_negate_and_none():
    np.testing.assert_array_equal(results(features.MIDDLE, "negate_features")[0], -X)
    for table in (features.BEFORE, features.MIDDLE):
        np.testing.assert_array_equal(results(table, features.NONE)[0], X)


def test_activate_features():
    relu, gelu = np.maximum(X, 0), X * (1 + special.erf(X / np.sqrt(2))) / 2
    found = results(features.MIDDLE, "activate_features")
    is_relu = [np.array_equal(out, relu) for out in found]
    for out, yes in zip(found, is_relu, strict=True):
        np.testing.assert_allclose(out, relu if yes else gelu, atol=1e-6)
    assert 0.2 < np.mean(is_relu) < 0.5


def test_flip_features():
    rows, columns = X[::-1, :, ::-1], X[:, ::-1, ::-1]
    found = results(features.MIDDLE, "flip_features")
    is_rows = [np.array_equal(out, rows) for out in found]
    for out, yes in zip(found, is_rows, strict=True):
        np.testing.assert_array_equal(out, rows if yes else columns)
    assert 0.2 < np.mean(is_rows) < 0.5


def test_skipped_modules():
    keys = jax.random.split(jax.random.key(1), 300)
    keep = np.asarray(jax.vmap(lambda key: features.kept_modules(key, 16))(keys))
    assert keep.shape == (300, 17)
    assert keep[:, :2].all()  # published: three of 2 to 16, with replacement
    skipped = (~keep).sum(1)
    assert set(skipped) == {1, 2, 3} or set(skipped) == {2, 3}
    np.testing.assert_allclose((~keep[:, 2:]).mean(0), 3 / 15, atol=0.09)


@pytest.mark.parametrize("faithful", [True, False])
def test_plans(faithful):
    keys = jax.random.split(jax.random.key(1), 400)
    plans = jax.vmap(lambda key: features.plan(key, 16, faithful=faithful))(keys)
    for option, table in ((plans.before, features.BEFORE), (plans.middle, features.MIDDLE)):
        share = np.bincount(option, minlength=len(table)) / 400
        np.testing.assert_allclose(share, 1 / len(table), atol=0.07)
    skipping = np.asarray(plans.middle) == list(features.MIDDLE).index(features.SKIP_BLOCKS)
    np.testing.assert_array_equal(~np.asarray(plans.keep).all(1), skipping)
    np.testing.assert_array_equal(~np.asarray(plans.chained), skipping & faithful)


def test_a_single_one():
    plan = features.plan(jax.random.key(0), 4, "flip_features", faithful=True)
    assert list(features.MIDDLE)[plan.middle] == "flip_features"
    assert list(features.BEFORE)[plan.before] == features.NONE
