"""AugMix in JAX against Pillow and the tf.data op on the same draws, and its draws."""

import itertools

import jax
import jax.numpy as jnp
import key_decides
import numpy as np
import pytest
import scipy.stats
from key_decides import keys
from PIL import Image, ImageOps
from pillow_ops import EXACT, PILLOW, photo

from robust_jax.augment import augmix as augmix_module
from robust_jax.augment.augmix import Draws, augmix, draw, mix
from robust_jax.augment.augmix_ops import OPS, OVERLAPPING_OPS

NAMES = OPS + OVERLAPPING_OPS
LEVELS = (0.1, 0.97, 2.5, 2.999, 6.3, 9.99)


def one_op_draws(cases):
    """Draws that replace each image by one operation of it; cases: (op, level, sign) of each."""
    ops, levels, signs = (np.array(part).reshape(-1, 1, 1) for part in zip(*cases, strict=True))
    ones = np.ones(len(cases), np.float32)
    step = ops.astype(np.int32), levels.astype(np.float32), signs.astype(np.int32)
    return Draws(ones[:, None], ones, np.ones((len(cases), 1), np.int32), *step)


@pytest.mark.parametrize("shape", [(32, 32), (23, 41), (6, 5)])
def test_op_equals_pillow(shape):
    noise = np.random.default_rng(0).integers(0, 256, (*shape, 3)).astype(np.uint8)
    images = [photo(*shape), noise, np.full((*shape, 3), 77, np.uint8), noise // 255 * 200]
    images.append(np.sort(noise, axis=1))
    cases = list(itertools.product(range(len(NAMES)), LEVELS, (-1, 1)))
    draws = one_op_draws(cases)
    run = jax.jit(lambda images, draws: mix(images, draws, all_ops=True))
    equal = []
    for image in images:
        results = np.asarray(run(np.stack([image] * len(cases)), draws)).astype(int)
        for result, (op, level, sign) in zip(results, cases, strict=True):
            reference = PILLOW[NAMES[op]](Image.fromarray(image), float(np.float32(level)), sign)
            difference = np.abs(result - np.asarray(reference))
            assert difference.max() <= (0 if NAMES[op] in EXACT else 1), (NAMES[op], level, sign)
            equal.append((difference == 0).mean())
    assert np.mean(equal) > 0.999


def test_autocontrast_truncates_as_pillow_for_every_range():
    rng = np.random.default_rng(0)
    low, high = np.sort(rng.integers(0, 256, (2, 600, 1, 3)), axis=0)
    ramp = np.arange(256)[None, :, None]
    images = np.clip(ramp, low, high).astype(np.uint8).reshape(600, 16, 16, 3)
    draws = one_op_draws([(OPS.index("autocontrast"), 1, 1)] * 600)
    for image, result in zip(images, np.asarray(jax.jit(mix)(images, draws)), strict=True):
        np.testing.assert_array_equal(result, ImageOps.autocontrast(Image.fromarray(image)))


def test_the_same_draws_give_the_same_image_as_tf_data():
    import tensorflow as tf

    from robust_jax.data import augmix as tf_augmix
    from robust_jax.data.augmix_ops import OPS as TF_OPS
    from robust_jax.data.augmix_ops import OVERLAPPING_OPS as TF_OVERLAPPING_OPS

    ops = TF_OPS | TF_OVERLAPPING_OPS
    assert (tuple(TF_OPS), tuple(ops)) == (OPS, NAMES)
    images = np.stack([photo(32, 40, i) for i in range(24)])
    compiled = tf.function(tf_augmix.mix, jit_compile=True, autograph=False)
    drawn, expected = [], []
    for i, image in enumerate(images):
        one = tf_augmix.draw(tf.constant([i, 0]), len(ops), severity=10)
        drawn.append([part.numpy() for part in one])
        expected.append(compiled(tf.constant(image), one, list(ops.values())).numpy())
    draws = Draws(*(np.stack(parts) for parts in zip(*drawn, strict=True)))
    draws = draws._replace(levels=draws.levels.astype(np.float32))
    result = np.asarray(jax.jit(lambda *args: mix(*args, all_ops=True))(images, draws))
    difference = np.abs(result.astype(int) - np.stack(expected))
    assert difference.max() <= 1
    assert (difference == 0).mean() > 0.999
    assert np.abs(result.astype(int) - images).mean() > 1


def test_levels_have_the_published_histograms():
    # 22,500 draws; percentages: reference table of the published ranges.
    levels = np.asarray(draw(keys(2500), severity=3).levels, np.float64)
    assert levels.min() >= 0.1
    assert levels.max() < 3
    bits = 4 - (levels * 4 / 10).astype(int)
    np.testing.assert_allclose([(bits == b).mean() for b in (4, 3)], [0.827, 0.173], atol=0.01)
    levels = np.asarray(draw(keys(2500), severity=1).levels, np.float64)
    degrees = (levels * 30 / 10).astype(int)
    shares = [(degrees == d).mean() for d in (0, 1, 2)]
    np.testing.assert_allclose(shares, [0.26, 0.37, 0.37], atol=0.01)


def test_ops_depths_and_signs_are_uniform_and_independent():
    for all_ops, num_ops in ((False, 9), (True, 13)):
        d = draw(keys(4000), severity=3, all_ops=all_ops)
        for values, count in ((d.ops, num_ops), (d.depths, 3), (d.signs, 2)):
            _, found = np.unique(values, return_counts=True)
            assert len(found) == count
            assert scipy.stats.chisquare(found).pvalue > 1e-3
        parts = (d.ops, d.levels, d.signs, d.depths, d.mixing)
        columns = np.column_stack([np.asarray(part).reshape(4000, -1) for part in parts])
        assert np.abs(np.corrcoef(columns.T) - np.eye(columns.shape[1])).max() < 0.07


@pytest.mark.parametrize("alpha", [1.0, 0.4])
def test_weights_and_mixing_have_their_distributions(alpha):
    d = draw(keys(4000), severity=3, alpha=alpha, depth=2)
    np.testing.assert_allclose(d.weights.sum(-1), 1, atol=1e-6)
    assert d.weights.min() >= 0
    assert abs(d.mixing.mean() - 0.5) < 0.02
    assert scipy.stats.kstest(d.mixing, "beta", (alpha, alpha)).pvalue > 1e-3
    for c in range(3):  # the marginals of a Dirichlet
        assert scipy.stats.kstest(d.weights[:, c], "beta", (alpha, 2 * alpha)).pvalue > 1e-3
    assert d.ops.shape == (4000, 3, 2)
    assert (d.depths == 2).all()


def test_mixing_zero_gives_the_clean_image_and_one_the_chains():
    images = np.stack([photo(24, 32, i) for i in range(4)])
    d, run = draw(keys(4), severity=3), jax.jit(mix)
    clean = run(images, d._replace(mixing=jnp.zeros(4)))
    np.testing.assert_array_equal(clean, images)
    d = d._replace(ops=jnp.full_like(d.ops, OPS.index("equalize")), mixing=jnp.ones(4))
    d = d._replace(weights=jnp.tile(jnp.array([0.0, 1.0, 0.0]), (4, 1)))
    result = np.asarray(run(images, d._replace(depths=d.depths.at[:, 1].set(1))))
    for image, equalized in zip(images, result, strict=True):
        np.testing.assert_array_equal(equalized, ImageOps.equalize(Image.fromarray(image)))


def test_an_image_and_its_key_decide_on_any_batch_and_any_devices():
    images = np.stack([photo(20, 28, i) for i in range(8)])
    alone = key_decides.check(lambda images, keys: augmix(images, keys, severity=3), images)
    assert (np.abs(alone.astype(int) - images).mean((1, 2, 3)) > 0.2).sum() >= 6


def test_a_batch_at_once_is_one_by_one(monkeypatch):
    # What runs on an accelerator: there every operation is worked out for every image.
    images = np.stack([photo(16, 12, i) for i in range(16)])
    draws = draw(keys(16), severity=10, all_ops=True)
    one_by_one = np.asarray(jax.jit(lambda *args: mix(*args, all_ops=True))(images, draws))
    monkeypatch.setattr(augmix_module, "each_image", jax.vmap)
    at_once = np.asarray(jax.jit(lambda *args: mix(*args, all_ops=True))(images, draws))
    difference = np.abs(one_by_one.astype(int) - at_once)
    assert difference.max() <= 1
    assert (difference == 0).mean() > 0.999


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"severity": 0}, r"severity .*; got 0; use a number in \(0, 10\]"),
        ({"severity": 10.5}, r"severity .*; got 10.5; use"),
        ({"severity": 3, "width": 0}, "width .*; got 0; use 1 or more"),
        ({"severity": 3, "depth": 0}, "depth .*; got 0; use 1 or more operations, or -1"),
        ({"severity": 3, "alpha": 0}, "alpha .*; got 0; use a number above 0"),
    ],
)
def test_settings_out_of_range_are_errors(settings, message):
    with pytest.raises(ValueError, match=message):
        augmix(np.zeros((1, 8, 8, 3), np.uint8), keys(1), **settings)


@pytest.mark.parametrize(
    "image", [np.zeros((2, 8, 8, 3), np.float32), np.zeros((8, 8, 3), np.uint8)]
)
def test_other_images_are_errors(image):
    with pytest.raises(ValueError, match=r"must be uint8\[b, h, w, 3\]; got .*8, 8, 3.; convert"):
        augmix(image, keys(2), severity=3)


@pytest.mark.parametrize("bad", [jax.random.key(0), jnp.zeros((2, 2), jnp.uint32)])
def test_other_keys_are_errors(bad):
    with pytest.raises(ValueError, match=r"one typed key an image; got .* for 2 images; pass"):
        augmix(np.zeros((2, 8, 8, 3), np.uint8), bad, severity=3)
