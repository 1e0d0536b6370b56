"""Decodes encoded images without TensorFlow: JPEG, PNG, WebP, BMP, of any colour mode."""

import io

import numpy as np
from PIL import Image, ImageOps

# ITU T.81, table B.1: frames of baseline, extended and progressive Huffman coding.
_PLAIN_FRAMES = (0xC0, 0xC1, 0xC2)
_OTHER_FRAMES = (0xC3, *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0))
_APP1 = 0xE1  # holds the Exif block and with it the orientation
_START_OF_SCAN = 0xDA


def decode_image(data: bytes) -> np.ndarray:
    """Decodes one image to RGB, upright as its Exif orientation says, without its alpha channel.

    Args:
      data: an encoded image.

    Returns:
      uint8[h, w, 3].
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            upright = ImageOps.exif_transpose(image)
            if upright.mode.startswith("I"):  # 16-bit grey: convert() would clip it at 255
                grey = np.round(np.asarray(upright, np.float32) / 257).clip(0, 255)
                return np.repeat(grey.astype(np.uint8)[..., None], 3, axis=-1)
            if "transparency" in upright.info:
                upright = upright.convert("RGBA")
            return np.asarray(upright.convert("RGB"))
    except Exception as error:  # on damaged files PIL raises nearly anything, SyntaxError included
        raise ValueError(
            f"cannot decode the image; got {len(data)} bytes and the error {error!s:.200}; "
            "replace it by a readable JPEG, PNG, WebP or BMP"
        ) from error


def is_plain_jpeg(data: bytes) -> bool:
    """Tells whether a plain libjpeg gives the same pixels as `decode_image`.

    That holds for a complete grey or three-channel 8-bit Huffman-coded JPEG without Exif block.

    Args:
      data: an encoded image.
    """
    # A truncated file goes to PIL, which says what is wrong with it.
    if data[:2] != b"\xff\xd8" or b"\xff\xd9" not in data[-32:]:
        return False
    at, plain = 2, False
    while at + 9 < len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == _START_OF_SCAN:
            return plain
        if marker == _APP1 and data[at + 4 : at + 8] == b"Exif":
            return False
        if marker in _OTHER_FRAMES:
            return False
        if marker in _PLAIN_FRAMES:
            plain = data[at + 4] == 8 and data[at + 9] in (1, 3)
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return False
