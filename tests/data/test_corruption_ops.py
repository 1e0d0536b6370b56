"""The ops against `corruptions.corrupt` called directly, and as a pure function of the seed."""

import numpy as np
import pytest
import tensorflow as tf
from pillow_ops import photo

from robust_jax.corruptions import CORRUPTIONS, EXTRA_CORRUPTIONS, corrupt
from robust_jax.data import registry
from robust_jax.data.corruption_ops import corrupt_image

SEEDS = np.random.default_rng(0).integers(-(2**31), 2**31, (12, 2)).astype(np.int32)


def run(ops, images, seeds, parallel=4):
    """Pixels of a parallel map, uint8[n, h, w, 3]."""
    fn = registry.build(ops)
    examples = tf.data.Dataset.from_tensor_slices((images, seeds))
    made = examples.map(
        lambda image, seed: fn({"image": image}, seed)["image"], num_parallel_calls=parallel
    )
    assert made.element_spec == tf.TensorSpec(images.shape[1:], tf.uint8)
    return np.array(list(made.as_numpy_iterator()))


def folded(seed):
    """The seed of the first op of a string."""
    return tf.random.experimental.stateless_fold_in(tf.constant(seed), 0).numpy()


@pytest.mark.parametrize("name", CORRUPTIONS + EXTRA_CORRUPTIONS)
def test_equals_corrupt(name):
    image, seed = photo(32, 40), SEEDS[0]
    made = run(f"{name}(severity=3)", image[None], seed[None])
    first, second = (int(part) % 2**32 for part in folded(seed))
    np.testing.assert_array_equal(made, corrupt(image[None], name, 3, ids=[second], seed=first))
    assert (made != image).any()


def test_pure_function_of_the_seed():
    images = np.stack([photo(16, 16, i) for i in range(12)])
    ops = "impulse_noise((1, 5))"
    made = run(ops, images, SEEDS)
    np.testing.assert_array_equal(made[::-1], run(ops, images[::-1], SEEDS[::-1], parallel=1))
    eager = registry.build(ops)({"image": tf.constant(images[5])}, tf.constant(SEEDS[5]))
    np.testing.assert_array_equal(made[5], eager["image"])
    same_image = run(ops, np.stack([images[0]] * 12), SEEDS)
    assert len(np.unique(same_image, axis=0)) == 12


def test_severity_range_is_uniform_and_inclusive():
    image = photo(8, 8)
    levels = [corrupt(image[None], "contrast", s, ids=[0])[0] for s in (1, 2, 3, 4, 5)]
    rng = np.random.default_rng(0)
    counts = np.zeros(5)
    for seed in rng.integers(-(2**31), 2**31, (600, 2)).astype(np.int32):
        made = corrupt_image(image, "contrast", (2, 4), seed)
        counts += [np.array_equal(made, level) for level in levels]
    assert counts[0] == counts[4] == 0
    np.testing.assert_allclose(counts[1:4], 200, atol=50)  # 4 sigma


@pytest.mark.parametrize("arguments", ["0", "6", "2.0", "(2, 1)", "(0, 3)", "(1, 2, 3)", "'2'", ""])
def test_severity_is_checked(arguments):
    with pytest.raises(ValueError, match=r"bad arguments of op 'fog' .*severity"):
        registry.build(f"fog({arguments})")


def test_needs_bytes():
    fn = registry.build("value_range(0, 1)|fog(1)")
    with pytest.raises(ValueError, match=r"fog works on RGB bytes; got float32\(8, 8, 3\); place"):
        fn({"image": tf.constant(photo(8, 8))}, tf.constant([0, 1]))
