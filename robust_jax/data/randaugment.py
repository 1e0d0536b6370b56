"""RandAugment (Cubuk et al. 2020) for tf.data, with the operations and ranges of Keras.

It holds operations that ImageNet-C tests: see `overlap`.
"""

from typing import Any

import tensorflow as tf

from robust_jax.data.registry import Features, Op, check_rgb_bytes, register


@register("randaugment")
def randaugment(num_ops: int = 2, factor: float = 0.5) -> Op:
    """Applies operations drawn from the eleven of `keras.layers.RandAugment`, one after another.

    With KERAS_BACKEND=jax the pixels are the same, but equalization takes ten times as long.

    Args:
      num_ops: how many operations an image gets, at least 1; one drawn twice keeps its strength.
      factor: largest strength, in [0, 1]: rotations reach 360 degrees times this, translations and
        shears this part of the image. Keras's posterization and solarization are strongest near 0.

    Returns:
      fn(features, seed: int32[2]) -> features, on features["image"], uint8[h, w, 3].
    """
    import keras  # here, because no other op needs it

    if not isinstance(num_ops, int) or num_ops < 1:
        raise ValueError("num_ops is an integer of at least 1")

    class ExampleSeeds(keras.random.SeedGenerator):
        """Numbers the draws of one trace; each gets its own seed, folded from the example's."""

        def __init__(self) -> None:  # Keras's makes the variable which this one is there to avoid
            self.count, self.seed = 0, None

        def start(self, seed: tf.Tensor) -> None:
            self.count, self.seed = 0, seed

        def next(self, ordered: bool = True) -> tf.Tensor:
            self.count += 1
            return tf.random.experimental.stateless_fold_in(self.seed, self.count)

    seeds = ExampleSeeds()

    class Layer(keras.layers.RandAugment):
        # Keras counts draws in a variable: what an image gets would depend on which were made
        # before it, in parallel in no fixed order.
        def _get_seed_generator(self, backend: str | None = None) -> ExampleSeeds:
            return seeds

    # Explicit, so that neither Keras's global settings nor Python's random numbers matter.
    layer = Layer((0, 255), num_ops, factor, seed=0, data_format="channels_last", dtype="float32")

    # A graph also outside of tf.data: in one, Keras computes with TensorFlow whatever its backend.
    @tf.function(autograph=False)
    def transformed(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        seeds.start(seed)
        x = tf.cast(image, tf.float32)[None]
        drawn = layer.get_random_transformation(x)
        for i in range(num_ops):
            # The layer's own call computes all operations and keeps one.
            branches = [
                lambda name=name, how=how, x=x: getattr(layer, name).transform_images(x, how)
                for name, how in drawn["transforms"].items()
            ]
            x = tf.switch_case(drawn["layer_idxes"][i], branches)
        return tf.cast(tf.clip_by_value(tf.round(x[0]), 0.0, 255.0), tf.uint8)

    def apply(features: Features, seed: Any) -> Features:
        image = features["image"]
        check_rgb_bytes(image, "RandAugment")
        traced = transformed.get_concrete_function(image, seed)
        if traced.captured_inputs:
            raise ValueError(
                "this version of Keras keeps random state of its own, so images would depend on "
                f"their order; got keras {keras.__version__}; install keras 3.15"
            )
        return features | {"image": tf.ensure_shape(traced(image, seed), image.shape)}

    return apply
