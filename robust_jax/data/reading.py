"""Reads the images of elements as bytes, and turns the bytes to pixels in tf.data."""

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from robust_jax.data.elements import Elements
from robust_jax.data.images import decode_image, is_plain_jpeg
from robust_jax.data.listing import shown
from robust_jax.data.mixture import RECORD
from robust_jax.data.sources import Source

Read = tuple[bytes, tuple[int, int, int]]  # pixels and their shape, or a JPEG and zeros

_JPEG = (0, 0, 0)
_NOTHING: Read = (b"", _JPEG)


def read_images(
    elements: Elements, records: np.ndarray, copies: np.ndarray, both: bool
) -> tuple[list[Read], list[Read]]:
    """Reads records, and distorted copies beside them or, where there is one, instead of them."""

    def read_copy(record: int, copy: int) -> Read:
        made = elements.copies
        assert made is not None  # `Elements` sees to it
        data = made.read(record, copy)
        return _to_read(data, lambda: f"distorted copy {made.names[copy]}/{made.files[record]}")

    pairs = [(int(record), int(copy)) for record, copy in zip(records, copies, strict=True)]
    drawn = [_NOTHING if copy == RECORD else read_copy(record, copy) for record, copy in pairs]
    needed = [both or image is _NOTHING for image in drawn]
    first = [
        _read(elements.source, record) if read else image
        for (record, _), image, read in zip(pairs, drawn, needed, strict=True)
    ]
    return first, drawn if both else [_NOTHING] * len(drawn)


def _read(source: Source, record: int) -> Read:
    """Reads a record as (pixels, shape), or as (JPEG, (0, 0, 0)) where libjpeg will do."""
    image = source.read(record)
    if isinstance(image, bytes):
        return _to_read(image, lambda: _name(source, record))
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != 3:
        raise ValueError(
            f"{_name(source, record)} is not an image; got "
            f"{image.dtype}{list(image.shape)}; give uint8[h, w, 3]"
        )
    return image.tobytes(), image.shape


def _to_read(data: bytes, name: Callable[[], str]) -> Read:
    if is_plain_jpeg(data):
        return data, _JPEG
    try:
        image = decode_image(data)
    except ValueError as error:
        raise ValueError(f"{name()}: {error}") from error
    return image.tobytes(), image.shape


def _name(source: Source, record: int) -> str:
    file = f" ({shown(source.files[record])})" if source.files else ""
    return f"record {record}{file} of source {source.name!r}"


def to_pixels(data: tf.Tensor, shape: tf.Tensor, encoded: bool) -> tf.Tensor:
    """Turns what `read_images` read into uint8[h, w, 3]; `encoded`: whether some are JPEGs."""

    def raw() -> tf.Tensor:
        return tf.reshape(tf.io.decode_raw(data, tf.uint8), shape)

    def jpeg() -> tf.Tensor:
        # The accurate DCT is PIL's; with it the pixels are equal. What is cut off does not get here
        # (see `is_plain_jpeg`); damage near the end that libjpeg passes over is none for PIL.
        return tf.io.decode_jpeg(
            data, channels=3, dct_method="INTEGER_ACCURATE", try_recover_truncated=True
        )

    pixels = tf.cond(shape[0] > 0, raw, jpeg) if encoded else raw()
    return tf.ensure_shape(pixels, (None, None, 3))
