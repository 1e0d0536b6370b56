"""The basic image ops, registered by name; each acts on `features["image"]` (uint8[h, w, 3]).

Images stay uint8, rounded, until `value_range` or `standardise`: the models normalise on the
device, and a byte travels four times faster than a float.
"""

from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from robust_jax.data.images import decode_image
from robust_jax.data.registry import Features, Op, register

tf.config.set_visible_devices([], "GPU")  # TensorFlow would take all of its memory from JAX

Size = int | Sequence[int]


def _height_width(size: Size) -> tuple[int, int]:
    sides = (size, size) if isinstance(size, int) else tuple(size)
    if len(sides) != 2 or not all(isinstance(side, int) and side > 0 for side in sides):
        raise ValueError("a size is one positive integer or (height, width)")
    return sides[0], sides[1]


def _on_image(fn: Callable[[tf.Tensor, tf.Tensor], tf.Tensor]) -> Op:
    def op(features: Features, seed: tf.Tensor) -> Features:
        return features | {"image": fn(features["image"], seed)}

    return op


def _like(image: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
    """Rounds float values back to bytes if the image they come from has bytes."""
    if image.dtype != tf.uint8:
        return values
    return tf.cast(tf.clip_by_value(tf.round(values), 0.0, 255.0), tf.uint8)


def _decode(data: bytes | np.ndarray) -> np.ndarray:
    # Run eagerly, TensorFlow wraps the string in an array without axes.
    return decode_image(data if isinstance(data, bytes) else data.item())


@register("decode")
def decode() -> Op:
    """Encoded bytes of any format -> uint8[h, w, 3], upright; leaves decoded images as they are."""

    def fn(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        if image.dtype != tf.string:
            return image
        pixels = tf.numpy_function(_decode, [image], tf.uint8, stateful=False)
        return tf.ensure_shape(pixels, (None, None, 3))

    return _on_image(fn)


def _resize(
    image: tf.Tensor, height: tf.Tensor | int, width: tf.Tensor | int, method: str, antialias: bool
) -> tf.Tensor:
    def resized() -> tf.Tensor:
        return _like(image, tf.image.resize(image, (height, width), method, antialias=antialias))

    same = tf.reduce_all(tf.equal(tf.shape(image)[:2], (height, width)))
    return tf.cond(same, lambda: image, resized)


def _check_method(method: str) -> None:
    if method not in ("bilinear", "bicubic"):
        raise ValueError("the method is 'bilinear' or 'bicubic'")


@register("resize")
def resize(size: Size, method: str = "bilinear", antialias: bool = True) -> Op:
    """Resizes to exactly `size`, the aspect ratio is not kept."""
    height, width = _height_width(size)
    _check_method(method)

    def fn(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        return tf.ensure_shape(_resize(image, height, width, method, antialias), (height, width, 3))

    return _on_image(fn)


@register("resize_small")
def resize_small(size: int, method: str = "bilinear", antialias: bool = True) -> Op:
    """Resizes the shorter side to `size` and keeps the aspect ratio."""
    _height_width(size)
    _check_method(method)

    def fn(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        sides = tf.shape(image)[:2]
        scaled = tf.cast(tf.round(sides * size / tf.reduce_min(sides)), tf.int32)
        return _resize(image, scaled[0], scaled[1], method, antialias)

    return _on_image(fn)


def _crop(image: tf.Tensor, corner: tf.Tensor, height: int, width: int, usage: str) -> tf.Tensor:
    sides = tf.shape(image)[:2]
    fits = tf.debugging.Assert(
        tf.reduce_all(sides >= (height, width)),
        [f"the image is smaller than {usage}; put resize before it; got (height, width)", sides],
    )
    with tf.control_dependencies([fits]):
        return tf.slice(image, tf.concat([corner, [0]], 0), (height, width, 3))


@register("central_crop")
def central_crop(size: Size) -> Op:
    """Cuts `size` out of the middle."""
    height, width = _height_width(size)

    def fn(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        corner = tf.maximum(tf.shape(image)[:2] - (height, width), 0) // 2
        return _crop(image, corner, height, width, f"central_crop({size})")

    return _on_image(fn)


@register("crop_border")
def crop_border(width: int) -> Op:
    """Cuts `width` pixels off every side."""
    if not isinstance(width, int) or width < 1:
        raise ValueError("the width is a positive integer")

    def fn(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        sides = tf.shape(image)[:2]
        fits = tf.debugging.Assert(
            tf.reduce_all(sides > 2 * width),
            [f"the image is smaller than the border of crop_border({width}); got", sides],
        )
        with tf.control_dependencies([fits]):
            return image[width:-width, width:-width]

    return _on_image(fn)


@register("random_crop")
def random_crop(size: Size, pad: int = 0) -> Op:
    """Pads every side with `pad` zeros, then cuts `size` at a uniformly random place."""
    height, width = _height_width(size)
    if pad < 0:
        raise ValueError("pad is at least 0")

    def fn(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        if pad:
            image = tf.pad(image, ((pad, pad), (pad, pad), (0, 0)))
        places = tf.maximum(tf.shape(image)[:2] - (height, width), 0) + 1
        draw = tf.random.stateless_uniform([2], seed, None, None, tf.int32)
        usage = f"random_crop({size}, pad={pad})"
        return _crop(image, tf.math.floormod(draw, places), height, width, usage)

    return _on_image(fn)


@register("inception_crop")
def inception_crop(
    size: Size,
    area: Sequence[float] = (0.05, 1.0),
    ratio: Sequence[float] = (3 / 4, 4 / 3),
    method: str = "bilinear",
    antialias: bool = True,
) -> Op:
    """Cuts a random part of the image (arXiv:1409.4842, section 6) and resizes it to `size`.

    Args:
      size: of the output.
      area: smallest and largest part of the image's area, in (0, 1].
      ratio: smallest and largest width / height.
      method: of the resize.
      antialias: of the resize.
    """
    height, width = _height_width(size)
    _check_method(method)
    if not 0 < area[0] <= area[1] <= 1:
        raise ValueError("area is (smallest, largest) with 0 < smallest <= largest <= 1")
    if not 0 < ratio[0] <= ratio[1]:
        raise ValueError("ratio is (smallest, largest) with 0 < smallest <= largest")

    def fn(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        corner, extent, _ = tf.image.stateless_sample_distorted_bounding_box(
            tf.shape(image),
            tf.zeros([1, 0, 4], tf.float32),
            seed,
            min_object_covered=0,
            aspect_ratio_range=ratio,
            area_range=area,
            use_image_if_no_bounding_boxes=True,
        )
        part = tf.ensure_shape(tf.slice(image, corner, extent), (None, None, 3))
        return tf.ensure_shape(_resize(part, height, width, method, antialias), (height, width, 3))

    return _on_image(fn)


@register("flip_lr")
def flip_lr() -> Op:
    """Mirrors half of the images left to right."""

    def fn(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        mirror = tf.random.stateless_uniform([], seed) < 0.5
        return tf.cond(mirror, lambda: tf.reverse(image, [1]), lambda: image)

    return _on_image(fn)


def _unit(image: tf.Tensor, op: str) -> tf.Tensor:
    if image.dtype != tf.uint8:
        raise ValueError(
            f"{op} takes uint8 images; got {image.dtype.name}; use one of value_range and "
            "standardise, once"
        )
    return tf.cast(image, tf.float32) / 255.0


@register("value_range")
def value_range(lo: float, hi: float) -> Op:
    """uint8 0..255 -> float32 lo..hi."""
    if not lo < hi:
        raise ValueError("lo is below hi")
    return _on_image(lambda image, seed: lo + (hi - lo) * _unit(image, "value_range"))


@register("standardise")
def standardise(mean: Sequence[float], std: Sequence[float]) -> Op:
    """uint8 0..255 -> float32 (x / 255 - mean) / std, with a value for each channel."""
    if len(mean) != 3 or len(std) != 3 or not all(s > 0 for s in std):
        raise ValueError("mean and std have three values in 0..1 and std is above 0")
    return _on_image(
        lambda image, seed: (_unit(image, "standardise") - tf.constant(mean)) / tf.constant(std)
    )
