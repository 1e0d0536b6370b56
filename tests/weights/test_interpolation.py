import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from robust_jax.weights.interpolation import interpolate


def tree(**changes):
    made = {
        "params": {"conv": {"kernel": np.float32([1.5, -0.0]), "bias": np.float32(3)}},
        "batch_stats": {"bn": {"mean": np.float32([2.0, np.inf])}},
        "count": np.int32(4),
    }
    return {**made, **changes}


OTHER = tree(
    params={"conv": {"kernel": np.float32([2.5, 0.0]), "bias": np.float32(-1)}},
    batch_stats={"bn": {"mean": np.float32([4.0, 1.0])}},
)


def test_the_ends_are_exact():
    for alpha, end in ((0, tree()), (0.0, tree()), (1, OTHER), (1.0, OTHER)):
        found = interpolate(tree(), OTHER, alpha)
        # Bytes, because zeros have signs, and infinity times nothing is no number.
        got, want = (jax.tree.map(lambda a: a.tobytes(), t) for t in (found, end))
        assert got == want


def test_in_between_is_the_line():
    found = interpolate(tree(), OTHER, 0.25)
    np.testing.assert_array_equal(found["params"]["conv"]["kernel"], np.float32([1.75, 0]))
    assert found["params"]["conv"]["bias"] == 2
    np.testing.assert_array_equal(found["batch_stats"]["bn"]["mean"], np.float32([2.5, np.inf]))
    assert found["count"] == 4
    assert {leaf.dtype.name for leaf in jax.tree.leaves(found)} == {"float32", "int32"}


def test_arrays_on_devices_stay_there():
    a, b = (jax.tree.map(jnp.asarray, t) for t in (tree(), OTHER))
    found = interpolate(a, b, 0.75)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(found))
    want = interpolate(tree(), OTHER, 0.75)
    jax.tree.map(np.testing.assert_array_equal, found, want)


def test_narrow_arrays_are_computed_in_f32_and_keep_their_dtype():
    x, y = (np.array(v, ml_dtypes.bfloat16) for v in ([1.0, 256.0], [3.0, 262.0]))
    for make in (np.asarray, jnp.asarray):
        found = interpolate({"x": make(x)}, {"x": make(y)}, 0.5)["x"]
        assert found.dtype == ml_dtypes.bfloat16
        want = (np.float32(x) + np.float32(y)) / 2
        np.testing.assert_array_equal(np.float32(found), want.astype(ml_dtypes.bfloat16))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_stats": {}}, r"got 'batch_stats/bn/mean' in a and not in b; interpolate"),
        ({"more": np.zeros(2), "much": np.zeros(2)}, r"got 'more' in b and not in a"),
        (
            {"batch_stats": {"bn": {"mean": np.zeros((1, 2), np.float32)}}},
            r"got 'batch_stats/bn/mean' as float32\[2\] and float32\[1, 2\]",
        ),
        ({"count": np.float32(4)}, r"got 'count' as int32\[\] and float32\[\]"),
        ({"count": np.int32(5)}, r"an array of whole numbers differs; got 'count'"),
        ({"params": [np.zeros(2)]}, r"got 'params/0' in b and not in a"),
    ],
)
def test_weights_of_other_networks_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        interpolate(tree(), tree(**changes), 0.5)


def test_containers_must_be_the_same():
    with pytest.raises(ValueError, match=r"another structure; got .* and .*; interpolate"):
        interpolate([np.zeros(1)], (np.zeros(1),), 0.5)


@pytest.mark.parametrize("alpha", [-0.1, 1.5, float("nan")])
def test_alpha_lies_between(alpha):
    with pytest.raises(ValueError, match=r"alpha must lie between the two weights; got"):
        interpolate(tree(), OTHER, alpha)
