"""AugMix against Pillow, operation by operation and as a whole, and its draws against theory."""

import time

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf
from PIL import Image, ImageOps
from pillow_ops import EXACT, PILLOW, photo

from robust_jax.data import augmix as augmix_module
from robust_jax.data import registry
from robust_jax.data.augmix import augmix, draw, mix
from robust_jax.data.augmix_ops import OPS, OVERLAPPING_OPS

ALL_OPS = OPS | OVERLAPPING_OPS


def compiled(op):
    run = tf.function(op, jit_compile=True, autograph=False)
    return lambda image, level, sign: run(
        tf.constant(image), tf.constant(level, tf.float64), tf.constant(sign)
    ).numpy()


def compiled_mix(ops):
    run = tf.function(mix, jit_compile=True, autograph=False)
    return lambda image, draws: run(tf.constant(image), draws, list(ops.values())).numpy()


def draws_of(count, **settings):
    """Draws of seeds 0 to count - 1, as arrays."""
    seeds = tf.data.Dataset.range(count)
    batch = seeds.map(lambda i: draw(tf.cast(tf.stack([i, 5]), tf.int32), **settings)).batch(count)
    return next(iter(batch.as_numpy_iterator()))


def test_names():
    assert list(PILLOW) == list(ALL_OPS)


@pytest.mark.parametrize("name", ALL_OPS)
def test_op_equals_pillow(name):
    op = compiled(ALL_OPS[name])
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3)).astype(np.uint8)
    images = [photo(32, 32), noise, photo(23, 41), photo(41, 23), noise[:6, :5]]
    images += [np.full((32, 32, 3), 77, np.uint8), noise // 255 * 200, np.sort(noise, axis=1)]
    share = []
    for image in images:
        for level in (0.1, 0.97, 2.5, 6.3, 9.99):
            for sign in (-1, 1):
                expected = np.asarray(PILLOW[name](Image.fromarray(image), level, sign))
                difference = np.abs(op(image, level, sign).astype(int) - expected)
                assert difference.max() <= (0 if name in EXACT else 2), (image.shape, level, sign)
                share.append((difference == 0).mean())
    assert np.mean(share) > 0.999


def test_autocontrast_truncates_as_pillow_for_every_range():
    op = compiled(OPS["autocontrast"])
    rng = np.random.default_rng(0)
    for _ in range(400):
        low, high = np.sort(rng.integers(0, 256, (2, 3)), axis=0)
        image = np.clip(np.arange(256)[:, None], low, high).astype(np.uint8).reshape(16, 16, 3)
        np.testing.assert_array_equal(
            op(image, 1, 1), ImageOps.autocontrast(Image.fromarray(image))
        )


@pytest.mark.parametrize(
    ("ops", "settings"),
    [(OPS, {"severity": 3}), (ALL_OPS, {"severity": 10, "width": 2, "depth": 4, "alpha": 0.5})],
)
def test_whole_equals_a_replay_in_pillow(ops, settings):
    run = compiled_mix(ops)
    names = list(ops)
    changed = []
    for i in range(25):
        image = photo(32, 40, i)
        drawn = draw(tf.constant([i, 0]), len(ops), **settings)
        d = type(drawn)(*(part.numpy() for part in drawn))
        mixed = np.zeros(image.shape)
        for c in range(len(d.weights)):
            chain = Image.fromarray(image)
            for t in range(d.depths[c]):
                chain = PILLOW[names[d.ops[c, t]]](chain, float(d.levels[c, t]), int(d.signs[c, t]))
            mixed += d.weights[c] * np.asarray(chain, np.float64)
        expected = (1 - d.mixing) * image + d.mixing * mixed
        result = run(image, drawn)
        # Half a level of rounding, and up to 2 in a geometric or overlapping operation.
        difference = np.abs(result - expected)
        assert difference.max() <= 2.5
        assert (difference < 0.501).mean() > 0.995
        changed.append(np.abs(result.astype(int) - image).mean())
    assert np.median(changed) > 1


def test_levels_have_the_published_histograms():
    # 20,000 draws and more (9 a seed); percentages: reference table of the published ranges.
    level = draws_of(2500, num_ops=9, severity=3).levels.ravel()
    assert level.min() >= 0.1
    assert level.max() < 3
    bits = 4 - (level * 4 / 10).astype(int)
    np.testing.assert_allclose([(bits == b).mean() for b in (4, 3)], [0.827, 0.173], atol=0.01)
    assert set((level * 30 / 10).astype(int)) == set(range(9))
    assert set((level * (32 / 3) / 10).astype(int)) == {0, 1, 2, 3}

    level = draws_of(2500, num_ops=9, severity=1).levels.ravel()
    assert set(4 - (level * 4 / 10).astype(int)) == {4}
    degrees = (level * 30 / 10).astype(int)
    shares = [(degrees == d).mean() for d in (0, 1, 2)]
    np.testing.assert_allclose(shares, [0.26, 0.37, 0.37], atol=0.01)
    threshold = 256 - (level * 256 / 10).astype(int)
    assert (threshold.min(), threshold.max()) == (231, 254)
    assert (level * (224 / 3) / 10).max() < 7.5


def test_ops_depths_and_signs_are_uniform_and_independent():
    d = draws_of(4000, num_ops=9)
    for values, count in ((d.ops, 9), (d.depths, 3), (d.signs, 2)):
        _, found = np.unique(values, return_counts=True)
        assert len(found) == count
        assert scipy.stats.chisquare(found).pvalue > 1e-3
    parts = (d.ops, d.levels, d.signs, d.depths, d.mixing)
    columns = np.column_stack([part.reshape(4000, -1) for part in parts])
    correlation = np.corrcoef(columns.T) - np.eye(columns.shape[1])
    assert np.abs(correlation).max() < 0.07


@pytest.mark.parametrize("alpha", [1.0, 0.4, 3.0])
def test_weights_and_mixing_have_their_distributions(alpha):
    d = draws_of(4000, num_ops=9, width=3, alpha=alpha)
    np.testing.assert_allclose(d.weights.sum(-1), 1, atol=1e-6)
    assert d.weights.min() >= 0
    assert abs(d.mixing.mean() - 0.5) < 0.02
    assert scipy.stats.kstest(d.mixing, "beta", (alpha, alpha)).pvalue > 1e-3
    for c in range(3):  # the marginals of a Dirichlet
        assert scipy.stats.kstest(d.weights[:, c], "beta", (alpha, 2 * alpha)).pvalue > 1e-3


def test_mixing_zero_gives_the_clean_image_and_one_the_chains():
    image, run = photo(32, 32), compiled_mix(OPS)
    equalize = tf.fill([3, 3], list(OPS).index("equalize"))
    d = draw(tf.constant([3, 4]), 9)._replace(ops=equalize, depths=tf.constant([3, 1, 1]))
    np.testing.assert_array_equal(run(image, d._replace(mixing=tf.constant(0.0))), image)
    d = d._replace(mixing=tf.constant(1.0), weights=tf.constant([0.0, 1.0, 0.0]))
    np.testing.assert_array_equal(run(image, d), ImageOps.equalize(Image.fromarray(image)))


def test_the_seed_alone_decides_in_a_parallel_pipeline():
    fn = registry.build("augmix(severity=3)")
    images = np.stack([photo(20, 28, i) for i in range(16)])

    def example(image, i):
        # A shape unknown when the pipeline is traced, as after a decoder.
        image = tf.numpy_function(lambda x: x, [image], tf.uint8, stateful=False)
        image.set_shape([None, None, 3])
        return fn({"image": image, "label": i}, tf.cast(tf.stack([i, 9]), tf.int32))

    data = tf.data.Dataset.from_tensor_slices((images, np.arange(16)))
    runs = [
        list(data.map(example, num_parallel_calls=calls).as_numpy_iterator()) for calls in (1, 2)
    ]
    direct = registry.build("augmix()")
    for i, (first, second) in enumerate(zip(*runs, strict=True)):
        assert first["label"] == i
        np.testing.assert_array_equal(first["image"], second["image"])
        alone = direct({"image": tf.constant(images[i])}, tf.constant([i, 9]))["image"]
        np.testing.assert_array_equal(first["image"], alone)
    other = direct({"image": tf.constant(images[0])}, tf.constant([0, 10]))["image"]
    assert (other.numpy() != runs[0][0]["image"]).any()


def test_every_draw_runs_the_same_compiled_program():
    fn = augmix()
    image = tf.constant(photo(16, 16))
    start = time.perf_counter()
    fn({"image": image}, tf.constant([0, 0]))
    first = time.perf_counter() - start
    start = time.perf_counter()
    for i in range(1, 31):
        fn({"image": image}, tf.constant([0, i]))
    assert time.perf_counter() - start < first


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"severity": 0}, r"severity .*; got 0; use a number in \(0, 10\]"),
        ({"severity": 10.5}, r"severity .*; got 10.5; use"),
        ({"width": 0}, "width .*; got 0; use 1 or more"),
        ({"depth": 0}, "depth .*; got 0; use 1 or more operations, or -1"),
        ({"alpha": 0}, "alpha .*; got 0; use a number above 0"),
    ],
)
def test_settings_out_of_range_are_errors(settings, message):
    with pytest.raises(ValueError, match=message):
        augmix(**settings)


@pytest.mark.parametrize("image", [np.zeros((8, 8, 3), np.float32), np.zeros((8, 8, 1), np.uint8)])
def test_other_images_are_errors(image):
    with pytest.raises(ValueError, match=r"RGB bytes; got .*8, 8, .*; place it before value_range"):
        augmix()({"image": tf.constant(image)}, tf.constant([0, 0]))


def test_contact_sheet(tmp_path, monkeypatch):
    source, out = tmp_path / "in.png", tmp_path / "out.png"
    Image.fromarray(photo(24, 32)).save(source)
    monkeypatch.setattr("sys.argv", ["augmix", f"--contact_sheet={out}", f"--image={source}"])
    augmix_module.main()
    with Image.open(out) as sheet:
        assert sheet.width > sheet.height > 100
    assert augmix_module._sample_image().shape == (224, 224, 3)
