import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from robust_jax.deepaugment import cae_weights, published
from robust_jax.deepaugment.cae import CAE

MODEL = CAE()
KEYS = jax.random.split(jax.random.key(0), 8)
TRANSPOSED = "d_up_conv_1_3"


def random_params(model):
    """Parameters of these shapes; biases of new ones are zero, where nothing would show."""
    draw = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: published.init_params(model, 0))
    return jax.tree.map(lambda s: draw.normal(size=s.shape).astype(np.float32), shapes)


@functools.cache
def layer_of(name):
    return random_params(MODEL)[name]


@functools.cache
def results(name, layer, faithful):
    """[(old, new)] by key, each (kernel, bias) with the axes in the order of the file."""

    def run(key, weights):
        noise_key, key = jax.random.split(key)
        noise = jax.random.uniform(noise_key, (weights["kernel"].size,))
        found = cae_weights.layer_weights({layer: weights}, noise, MODEL, layer, faithful=faithful)
        new = cae_weights.CHANGES[name](key, found, faithful)
        return new.kernel, new.bias

    weights = layer_of(layer)
    kernels, biases = jax.jit(jax.vmap(run, (0, None)))(KEYS, weights)
    old = as_file(weights["kernel"]), weights["bias"]
    return [(old, (as_file(k), np.asarray(b))) for k, b in zip(kernels, biases, strict=True)]


def as_file(kernel):
    return np.asarray(kernel).transpose(3, 2, 0, 1)


def test_flip_filters():
    for (w, b), (w2, b2) in results("flip_filters", "d_block_2_4", True):
        np.testing.assert_array_equal(w2, w[::-1])
        np.testing.assert_array_equal(b2, b[::-1])


@pytest.mark.parametrize("faithful", [True, False])
@pytest.mark.parametrize("name", ["negate_filters", "zero_filters", "gelu_filters"])
@pytest.mark.parametrize("layer", ["d_up_conv_1_0", TRANSPOSED])
def test_changes_of_some_filters(layer, name, faithful):
    def change(x):
        if name == "gelu_filters":
            return -x * (1 + special.erf(x / np.sqrt(2))) / 2
        return -x if name == "negate_filters" else 0 * x

    count = 12 if name == "negate_filters" else 25
    seen, most = [], []
    for (w, b), (w2, b2) in results(name, layer, faithful):
        if layer == TRANSPOSED and not faithful:  # the file has its inputs first
            w, w2 = w.swapaxes(0, 1), w2.swapaxes(0, 1)
        assert len(w) == (128 if layer == TRANSPOSED and not faithful else 64)
        times = np.zeros(len(w), int)  # how often each filter was drawn, as far as can be seen
        for k in range(len(w)):
            w_k, b_k = w[k], b[k]
            while not np.allclose(w_k, w2[k], atol=1e-6):
                w_k, b_k, times[k] = change(w_k), change(b_k), times[k] + 1
                assert times[k] < 8
            np.testing.assert_allclose(b_k, b2[k], atol=1e-6)
        np.testing.assert_array_equal(b[len(w) :], b2[len(w) :])
        seen.append(times.sum())
        most.append(times.max())
    if name == "gelu_filters" or not faithful:
        assert set(seen) == {count}
        assert (max(most) > 1) == faithful  # drawn again
    else:
        assert 0 < min(seen) < count and max(seen) <= count
    if name == "negate_filters":  # one drawn twice is back: pairs of draws vanish
        assert all(number % 2 == count % 2 for number in seen)


@pytest.mark.parametrize("faithful", [True, False])
def test_scale_weights(faithful):
    slopes = []
    for (w, b), (w2, b2) in results("scale_weights", "d_up_conv_1_0", faithful):
        np.testing.assert_array_equal(b, b2)
        ratio = w2 / w
        slope = np.ptp(ratio)  # 8 u
        low = 1 if faithful else 1 - slope / 4
        np.testing.assert_allclose(ratio.min(), low, atol=0.02 * slope)
        np.testing.assert_allclose(ratio.mean(), low + slope / 2, atol=0.02 * slope)
        slopes.append(slope)
    assert 8 > max(slopes) > 6.5 and 4 > min(slopes) > 0


def test_mask_weights():
    kinds = set()
    for (w, b), (w2, b2) in results("mask_weights", "d_up_conv_1_0", True):
        np.testing.assert_array_equal(b, b2)
        values, counts = np.unique(np.round(w2 / w, 5), return_counts=True)
        kinds.add(tuple(values + 0.0))
        np.testing.assert_allclose(counts / counts.sum(), 0.5, atol=0.02)
    assert kinds == {(0, 1), (-1, 1)}


def test_rotate_kernel():
    turns = []
    for (w, b), (w2, b2) in results("rotate_kernel", "d_up_conv_1_0", True):
        np.testing.assert_array_equal(b, b2)
        turns += [k for k in range(4) if np.array_equal(np.rot90(w, k, (2, 3)), w2)]
    assert len(turns) == len(KEYS) and set(turns) == {1, 2, 3}


@pytest.mark.parametrize("faithful", [True, False])
@pytest.mark.parametrize("layer", ["d_up_conv_1_0", TRANSPOSED])
def test_negate_fifth(layer, faithful):
    counts = []
    for (w, b), (w2, b2) in results("negate_fifth", layer, faithful):
        if layer == TRANSPOSED and not faithful:
            w, w2 = w.swapaxes(0, 1), w2.swapaxes(0, 1)
        np.testing.assert_array_equal(b, b2)
        negated = np.asarray([np.array_equal(-w[k], w2[k]) for k in range(len(w))])
        kept = np.asarray([np.array_equal(w[k], w2[k]) for k in range(len(w))])
        assert np.all(negated != kept)
        counts.append(negated.sum())
    assert max(counts) <= len(w) // 5
    assert 0 < min(counts) < len(w) // 5 if faithful else min(counts) == len(w) // 5


def test_keep_largest_tap():
    for (w, b), (w2, b2) in results("keep_largest_tap", "d_up_conv_1_0", False):
        np.testing.assert_array_equal(b, b2)
        assert np.all((w2 != 0).sum((2, 3)) == 1)
        np.testing.assert_array_equal(w2.sum((2, 3)), w.max((2, 3)))


@pytest.mark.parametrize("faithful", [True, False])
@pytest.mark.parametrize("name", ["flip_filters", "scale_weights", "rotate_kernel"])
def test_layers_that_are_drawn(name, faithful):
    model = CAE(width=4, code=4, blocks=2)
    params = random_params(model)

    def run(key):
        new = cae_weights.perturb(key, params, model, [name], faithful=faithful)
        return (
            {k: jnp.any(new[k]["kernel"] != params[k]["kernel"]) for k in params},
            {k: reversed_of(new[k], params[k]) for k in params},
        )

    def reversed_of(new, old):
        return jnp.all(new["kernel"] == old["kernel"][..., ::-1]) & jnp.all(
            new["bias"] == old["bias"][::-1]
        )

    moved, reverse = jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(1), 64))
    if name == "flip_filters":
        jax.tree.map(np.testing.assert_array_equal, moved, reverse)
    layers = cae_weights.layers_of(model, name)
    assert {layer for layer, found in moved.items() if found.any()} == set(layers)
    counts = np.stack([np.asarray(moved[layer]) for layer in layers]).sum(0)
    expected = {"scale_weights": {1, 2}, "rotate_kernel": {1}}
    # A flipped second layer is flipped back by the published code.
    assert set(counts) == expected.get(name, {1} if faithful else {2})


def test_what_is_drawn():
    assert len(cae_weights.drawn(True)) == 8
    assert len(cae_weights.drawn(False)) == 9
    params = random_params(CAE(width=16, code=16, blocks=1))
    rows = [
        cae_weights.layer_weights(
            params, jnp.zeros(10**5), CAE(width=16, code=16, blocks=1), layer, faithful=True
        )
        for layer in ("e_conv_3_0", "d_up_conv_1_0")
    ]
    assert [row.share for row in rows] == [0.5, 0.25]
