"""RandAugment against Keras's own call of the layer, and as a pure function of the seed."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from pillow_ops import photo

from robust_jax.data import registry
from robust_jax.data.randaugment import randaugment

SEEDS = np.random.default_rng(0).integers(-(2**31), 2**31, (24, 2)).astype(np.int32)
IMAGES = np.stack([photo(16, 20, i) for i in range(24)])


def run(op, images, seeds, parallel=4, shape=None):
    """Pixels of a parallel map, uint8[n, h, w, 3]."""
    examples = tf.data.Dataset.from_tensor_slices((images, seeds))
    shape = shape or images.shape[1:]

    def augment(image, seed):
        [image] = tf.py_function(lambda x: [x], [image], [tf.uint8])  # forgets the shape
        return op({"image": tf.ensure_shape(image, shape)}, seed)["image"]

    made = examples.map(augment, num_parallel_calls=parallel)
    assert made.element_spec == tf.TensorSpec(shape, tf.uint8)
    return np.array(list(made.as_numpy_iterator()))


@pytest.fixture(scope="module")
def augmented():
    return run(randaugment(), IMAGES, SEEDS)


def test_changes_images(augmented):
    assert (augmented != IMAGES).any((1, 2, 3)).mean() > 0.9


def test_pure_function_of_the_seed(augmented):
    op = randaugment()
    np.testing.assert_array_equal(augmented, run(op, IMAGES, SEEDS))
    backwards = run(op, IMAGES[::-1], SEEDS[::-1], parallel=1)
    np.testing.assert_array_equal(augmented[::-1], backwards)
    eager = op({"image": tf.constant(IMAGES[5])}, tf.constant(SEEDS[5]))["image"]
    np.testing.assert_array_equal(augmented[5], eager)
    alone = run(randaugment(), IMAGES[7:8], SEEDS[7:8], shape=(None, None, 3))
    np.testing.assert_array_equal(augmented[7], alone[0])


def test_seeds_differ():
    same_image = run(randaugment(), np.stack([IMAGES[0]] * 24), SEEDS)
    assert len(np.unique(same_image, axis=0)) > 20


def test_equals_the_layer_itself(augmented):
    """Keras's call computes every operation and selects; ours computes those drawn."""

    class Seeds(keras.random.SeedGenerator):
        def __init__(self, seed):
            self.count, self.seed = 0, seed

        def next(self, ordered=True):
            self.count += 1
            return tf.random.experimental.stateless_fold_in(self.seed, self.count)

    class Stock(keras.layers.RandAugment):
        def _get_seed_generator(self, backend=None):
            return current[-1]

    layer = Stock(num_ops=2, factor=0.5, dtype="float32")
    current = []

    @tf.function
    def expected(image, seed):
        current.append(Seeds(seed))
        return layer(tf.cast(image, tf.float32)[None], training=True)[0]

    for image, seed, made in zip(IMAGES, SEEDS, augmented, strict=True):
        np.testing.assert_allclose(made, expected(image, seed).numpy(), atol=0.5 + 1e-3)


@pytest.mark.slow  # Keras with JAX traces equalization bin by bin
def test_other_keras_backend_gives_the_same_pixels(augmented, tmp_path):
    code = (
        "import sys, jax, numpy as np, tensorflow as tf\n"
        "from robust_jax.data import registry\n"
        "from robust_jax.data.randaugment import randaugment\n"
        "import keras; assert keras.backend.backend() == 'jax'\n"
        "given = np.load(sys.argv[1]); op = randaugment()\n"
        "data = tf.data.Dataset.from_tensor_slices((given['images'], given['seeds']))\n"
        "made = data.map(lambda image, seed: op({'image': image}, seed)['image'])\n"
        "np.save(sys.argv[2], list(made.as_numpy_iterator()))\n"
    )
    given, result = tmp_path / "given.npz", tmp_path / "result.npy"
    np.savez(given, images=IMAGES, seeds=SEEDS)
    environment = os.environ | {"KERAS_BACKEND": "jax"}
    subprocess.run([sys.executable, "-c", code, given, result], check=True, env=environment)
    np.testing.assert_array_equal(np.load(result), augmented)


def test_a_keras_with_state_of_its_own_is_refused(monkeypatch):
    class Stateful(keras.layers.RandAugment):
        def get_random_transformation(self, data, training=True, seed=None):
            drawn = super().get_random_transformation(data, training)
            choice = keras.random.randint((self.num_ops,), 0, 11, seed=self.generator)
            return drawn | {"layer_idxes": choice}

    monkeypatch.setattr(keras.layers, "RandAugment", Stateful)
    op = randaugment()
    with pytest.raises(ValueError, match=r"state of its own.*got keras 3"):
        op({"image": tf.constant(IMAGES[0])}, tf.constant(SEEDS[0]))


@pytest.mark.parametrize("arguments", ["0", "1.5", "2, 1.1", "2, -0.1", "2, 'high'"])
def test_settings_are_checked(arguments):
    with pytest.raises(ValueError, match="bad arguments of op 'randaugment'"):
        registry.build(f"randaugment({arguments})")


def test_needs_bytes():
    fn = registry.build("value_range(0, 1)|randaugment")
    with pytest.raises(ValueError, match="RandAugment works on RGB bytes; got float32"):
        fn({"image": tf.constant(IMAGES[0])}, tf.constant([0, 1]))
