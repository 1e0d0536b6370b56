"""The image operations of AugMix as TensorFlow functions that give PIL's own pixels.

Each operation is `op(image, level, sign) -> image`, compiled by XLA as a part of `augmix.mix`.
Args, for all of them:
    image: uint8[h, w, 3], any h and w.
    level: f64[], the drawn strength L in (0, 10].
    sign: int32[], -1 or 1, the direction of a geometric operation.
Returns uint8[h, w, 3].

Parameters as a function of L: Hendrycks et al. 2020, "AugMix", code `augmentations.py`. Geometric
operations map output to input, sample bilinearly at pixel centres and fill with black. Coordinates
and interpolation are float64 and truncated, as in PIL, hence equal pixels but for rare roundings
by one level where an interpolated value is a whole number.
"""

import math
from collections.abc import Callable

import tensorflow as tf

Op = Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]


def _truncated(value: tf.Tensor) -> tf.Tensor:
    """Python's int() of the published code, as int32."""
    return tf.cast(value, tf.int32)


def _to_uint8(values: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.clip_by_value(values, 0, 255), tf.uint8)


def autocontrast(image: tf.Tensor, level: tf.Tensor, sign: tf.Tensor) -> tf.Tensor:
    """Stretches each channel to the full range (PIL `ImageOps.autocontrast`)."""
    x = tf.cast(image, tf.float64)
    low = tf.cast(tf.reduce_min(image, [0, 1]), tf.float64)
    high = tf.cast(tf.reduce_max(image, [0, 1]), tf.float64)
    scale = 255.0 / tf.maximum(high - low, 1.0)
    # The maxima change no value. They round each product, as in PIL, where XLA would contract the
    # products and the difference to a fused multiply-add, which is one level off in places.
    stretched = tf.maximum(x * scale, 0.0) - tf.maximum(low * scale, 0.0)
    return tf.where(high > low, _to_uint8(stretched), image)


def equalize(image: tf.Tensor, level: tf.Tensor, sign: tf.Tensor) -> tf.Tensor:
    """Equalizes each channel's histogram with the integer steps of PIL `ImageOps.equalize`."""
    index = tf.cast(image, tf.int32) + 256 * tf.range(3)
    counts = tf.math.unsorted_segment_sum(tf.ones_like(index), index, num_segments=768)
    histogram, value = tf.reshape(counts, [3, 256]), tf.range(256)[None, :]
    # PIL leaves out the count of the brightest value present.
    brightest = tf.reduce_max(tf.where(histogram > 0, value, 0), 1, keepdims=True)
    step = tf.reduce_sum(tf.where(value < brightest, histogram, 0), 1, keepdims=True) // 255
    below = tf.cumsum(histogram, axis=1, exclusive=True)
    table = tf.where(step > 0, (step // 2 + below) // tf.maximum(step, 1), value)
    # The table is in order already. Sorting keeps XLA from working it out again at every pixel.
    table = tf.sort(tf.minimum(table, 255), axis=1)
    return tf.gather(tf.reshape(tf.cast(table, tf.uint8), [768]), index)


def posterize(image: tf.Tensor, level: tf.Tensor, sign: tf.Tensor) -> tf.Tensor:
    """Keeps the 4 - int(0.4 L) highest bits."""
    dropped = 4 + _truncated(level * 4 / 10)
    x = tf.bitwise.right_shift(tf.cast(image, tf.int32), dropped)
    return tf.cast(tf.bitwise.left_shift(x, dropped), tf.uint8)


def solarize(image: tf.Tensor, level: tf.Tensor, sign: tf.Tensor) -> tf.Tensor:
    """Inverts values from 256 - int(25.6 L) upwards."""
    x = tf.cast(image, tf.int32)
    threshold = 256 - _truncated(level * 256 / 10)
    return tf.cast(tf.where(x < threshold, x, 255 - x), tf.uint8)


def _centres(image: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Coordinates of the pixel centres: x f64[1, w], y f64[h, 1]."""
    height, width = tf.unstack(tf.shape(image)[:2])
    x = tf.cast(tf.range(width), tf.float64) + 0.5
    y = tf.cast(tf.range(height), tf.float64) + 0.5
    return x[None, :], y[:, None]


def _split(
    index: tf.Tensor | int, offset: tf.Tensor, size: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Of pixel `index` moved by `offset`: the pixel before, the pixel after, the way between."""
    whole = tf.floor(offset)
    before = index + _truncated(whole)
    first, second = (tf.clip_by_value(i, 0, size - 1) for i in (before, before + 1))
    return first, second, (offset - whole)[..., None]


def _inside(position: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    return (position >= 0) & (position < tf.cast(size, position.dtype))


def _between(first: tf.Tensor, second: tf.Tensor, way: tf.Tensor) -> tf.Tensor:
    first = tf.cast(first, tf.float64)
    return first + (tf.cast(second, tf.float64) - first) * way


def _black_outside(values: tf.Tensor, inside: tf.Tensor) -> tf.Tensor:
    return tf.where(inside[..., None], tf.cast(values, tf.uint8), tf.zeros([], tf.uint8))


def rotate(image: tf.Tensor, level: tf.Tensor, sign: tf.Tensor) -> tf.Tensor:
    """Rotates by a whole number of degrees, ±int(3 L), counter-clockwise about the centre."""
    height, width = tf.unstack(tf.shape(image)[:2])
    degrees = tf.cast(sign * _truncated(level * 30 / 10), tf.float64)
    cos, sin = tf.cos(degrees * math.pi / 180), tf.sin(degrees * math.pi / 180)
    x, y = _centres(image)
    middle_x, middle_y = tf.cast(width, tf.float64) / 2, tf.cast(height, tf.float64) / 2
    x, y = x - middle_x, y - middle_y
    x, y = cos * x - sin * y + middle_x, sin * x + cos * y + middle_y
    left, right, way_x = _split(0, x - 0.5, width)
    top, bottom, way_y = _split(0, y - 0.5, height)
    pixels = tf.reshape(image, [-1, 3])

    def interpolated(row: tf.Tensor) -> tf.Tensor:
        first, second = (tf.gather(pixels, row * width + column) for column in (left, right))
        return _between(first, second, way_x)

    values = _between(interpolated(top), interpolated(bottom), way_y)
    return _black_outside(values, _inside(x, width) & _inside(y, height))


def shear_x(image: tf.Tensor, level: tf.Tensor, sign: tf.Tensor) -> tf.Tensor:
    """Shears along x by ±0.03 L; rows stay rows, so it interpolates along x only."""
    height, width = tf.unstack(tf.shape(image)[:2])
    x, y = _centres(image)
    offset = tf.cast(sign, tf.float64) * (level * 0.3 / 10) * y
    left, right, way = _split(tf.range(width)[None, :], offset, width)
    pixels, row = tf.reshape(image, [-1, 3]), tf.range(height)[:, None] * width
    values = _between(tf.gather(pixels, row + left), tf.gather(pixels, row + right), way)
    return _black_outside(values, _inside(x + offset, width))


def shear_y(image: tf.Tensor, level: tf.Tensor, sign: tf.Tensor) -> tf.Tensor:
    """Shears along y by ±0.03 L; columns stay columns, so it interpolates along y only."""
    height, width = tf.unstack(tf.shape(image)[:2])
    x, y = _centres(image)
    offset = tf.cast(sign, tf.float64) * (level * 0.3 / 10) * x
    top, bottom, way = _split(tf.range(height)[:, None], offset, height)
    pixels, column = tf.reshape(image, [-1, 3]), tf.range(width)[None, :]
    values = _between(
        tf.gather(pixels, top * width + column), tf.gather(pixels, bottom * width + column), way
    )
    return _black_outside(values, _inside(y + offset, height))


def translate_x(image: tf.Tensor, level: tf.Tensor, sign: tf.Tensor) -> tf.Tensor:
    """Moves by ±int(L w / 30) pixels, the width w in place of the published constant."""
    width = tf.shape(image)[1]
    shift = sign * _truncated(level * (tf.cast(width, tf.float64) / 3) / 10)
    # Not a slice: XLA compiles a slice anew for every shift.
    column = tf.range(width)[None, :] + shift
    return _black_outside(tf.roll(image, -shift, axis=1), _inside(column, width))


def translate_y(image: tf.Tensor, level: tf.Tensor, sign: tf.Tensor) -> tf.Tensor:
    """Moves by ±int(L h / 30) pixels, the height h in place of the published constant."""
    height = tf.shape(image)[0]
    shift = sign * _truncated(level * (tf.cast(height, tf.float64) / 3) / 10)
    row = tf.range(height)[:, None] + shift
    return _black_outside(tf.roll(image, -shift, axis=0), _inside(row, height))


def _luminance(image: tf.Tensor) -> tf.Tensor:
    """ITU-R 601 luma in PIL's 16-bit fixed point: int32[h, w, 1]."""
    weights = tf.constant([19595, 38470, 7471])
    luma = tf.reduce_sum(tf.cast(image, tf.int32) * weights, -1, keepdims=True)
    return tf.bitwise.right_shift(luma + 32768, 16)


def _enhance(degenerate: tf.Tensor, image: tf.Tensor, level: tf.Tensor) -> tf.Tensor:
    """From a degenerate image (factor 0) through the image (1) and beyond, factor 0.18 L + 0.1."""
    factor = tf.cast(level * 1.8 / 10 + 0.1, tf.float32)
    degenerate = tf.cast(degenerate, tf.float32)
    return _to_uint8(degenerate + factor * (tf.cast(image, tf.float32) - degenerate))


def color(image: tf.Tensor, level: tf.Tensor, sign: tf.Tensor) -> tf.Tensor:
    """Moves towards or away from grey."""
    return _enhance(_luminance(image), image, level)


def contrast(image: tf.Tensor, level: tf.Tensor, sign: tf.Tensor) -> tf.Tensor:
    """Moves towards or away from the mean grey."""
    luma = _luminance(image)
    # int64: the sum of a large image does not fit float32 or int32.
    mean = tf.reduce_sum(tf.cast(luma, tf.int64)) / tf.cast(tf.size(luma), tf.int64)
    return _enhance(_truncated(mean + 0.5), image, level)


def brightness(image: tf.Tensor, level: tf.Tensor, sign: tf.Tensor) -> tf.Tensor:
    """Moves towards or away from black."""
    return _enhance(tf.zeros([], tf.uint8), image, level)


def sharpness(image: tf.Tensor, level: tf.Tensor, sign: tf.Tensor) -> tf.Tensor:
    """Moves towards or away from PIL's `ImageFilter.SMOOTH`, whose border is the image's own."""
    x = tf.cast(image, tf.int32)
    height, width = tf.unstack(tf.shape(image)[:2])
    padded = tf.pad(x, [[1, 1], [1, 1], [0, 0]])
    total = 4 * x
    for i in range(3):
        for j in range(3):
            total += tf.slice(padded, [i, j, 0], tf.shape(image))
    row, column = tf.range(height)[:, None, None], tf.range(width)[None, :, None]
    border = (row == 0) | (row == height - 1) | (column == 0) | (column == width - 1)
    return _enhance(tf.where(border, x, (2 * total + 13) // 26), image, level)


# The nine of the paper; none of them is one of the ImageNet-C corruptions.
OPS: dict[str, Op] = {
    "autocontrast": autocontrast,
    "equalize": equalize,
    "posterize": posterize,
    "rotate": rotate,
    "solarize": solarize,
    "shear_x": shear_x,
    "shear_y": shear_y,
    "translate_x": translate_x,
    "translate_y": translate_y,
}
# These resemble ImageNet-C corruptions: a model trained with them is not comparable on ImageNet-C.
OVERLAPPING_OPS: dict[str, Op] = {
    "color": color,
    "contrast": contrast,
    "brightness": brightness,
    "sharpness": sharpness,
}
