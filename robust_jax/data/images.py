"""Decodes encoded images without TensorFlow: JPEG, PNG, WebP, BMP, GIF, of any colour mode.

Of an animated image this is its first frame. No other format is tried, whatever a file is called:
some of Pillow's readers start other programs.
"""

import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    WebPImagePlugin,
)

# A larger image is refused before its pixels are decoded, which takes 0.4 to 1.6 GB at this size.
MAX_PIXELS = 100_000_000
# A longer one is refused, too: brought to the shorter side of a model it would be as large.
MAX_RATIO = 250

# ITU T.81, table B.1: frames of baseline, extended and progressive Huffman coding.
_PLAIN_FRAMES = (0xC0, 0xC1, 0xC2)
_OTHER_FRAMES = (0xC3, *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0))
_APP1 = 0xE1  # holds the Exif block and with it the orientation, or XMP, which may have one, too
_START_OF_SCAN = 0xDA
_ORIENTATION = 0x0112  # of Exif 2.3, and what a viewer has to do
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_STRIP = 1 << 22  # pixels that are converted at a time
# Not `Image.open`, which warns of what we allow, and which tries every format that it knows.
_READERS: dict[bytes, Callable[[io.BytesIO, str], ImageFile.ImageFile]] = {
    b"\xff\xd8\xff": JpegImagePlugin.jpeg_factory,
    b"\x89PNG\r\n\x1a\n": PngImagePlugin.PngImageFile,
    b"RIFF": WebPImagePlugin.WebPImageFile,
    b"BM": BmpImagePlugin.BmpImageFile,
    b"GIF8": GifImagePlugin.GifImageFile,
}


class _SizeError(ValueError):
    pass


def check_size(width: int, height: int) -> None:
    """Checks the size of an image before it takes memory.

    Raises:
      ValueError: for an image without pixels, of more than `MAX_PIXELS`, or more than `MAX_RATIO`
        times as long as wide.
    """
    size = f"{width}x{height} px"
    if width < 1 or height < 1:
        raise _SizeError(f"the image has no pixels; got {size}; give at least 1x1")
    if width * height > MAX_PIXELS:
        raise _SizeError(
            f"the image is too large; got {size}, {width * height / 1e6:.1f} megapixels, at most "
            f"{MAX_PIXELS / 1e6:.0f} are read; scale it down"
        )
    if max(width, height) > MAX_RATIO * min(width, height):
        raise _SizeError(
            f"the image is too long for its width; got {size}, at most {MAX_RATIO} times as long "
            "as wide is read; cut it"
        )


def decode_image(data: bytes) -> np.ndarray:
    """Decodes one image to RGB, upright as its Exif orientation says, without its alpha channel.

    Args:
      data: an encoded image.

    Returns:
      uint8[h, w, 3].

    Raises:
      ValueError: for what is no such image, or a damaged one, and by `check_size`.
    """
    try:
        with _open(data) as image:
            check_size(*image.size)
            if image.format == "PNG":
                _check_png(data)
            method = _UPRIGHT.get(_orientation(image))
            return _to_array(image if method is None else image.transpose(method))
    except _SizeError:
        raise
    except Exception as error:  # on damaged files PIL raises nearly anything, SyntaxError included
        raise ValueError(
            f"cannot decode the image; got {len(data)} bytes and the error {error!s:.200}; "
            "replace it by a readable JPEG, PNG, WebP, BMP or GIF"
        ) from error


def _open(data: bytes) -> ImageFile.ImageFile:
    """Reads the header of an image."""
    if data[:4] == b"RIFF":  # its reader makes room for the pixels at once
        check_size(*_webp_size(data))
    for magic, reader in _READERS.items():
        if data.startswith(magic):
            return reader(io.BytesIO(data), "")
    raise ValueError(f"it begins with {data[:12]!r}" if data else "it is empty")


def _check_png(data: bytes) -> None:
    """Compares the checksums of the pixels, which PIL passes over."""
    at = 8
    while at + 12 <= len(data):
        end = at + 8 + int.from_bytes(data[at : at + 4], "big")
        wrong = zlib.crc32(data[at + 4 : end]).to_bytes(4, "big") != data[end : end + 4]
        if data[at + 4 : at + 8] == b"IDAT" and wrong:
            raise ValueError(f"the checksum of the pixels in the bytes {at} to {end} is wrong")
        at = end + 4


def _webp_size(data: bytes) -> tuple[int, int]:
    """Returns (width, height) of a WebP: RFC 9649, sections 2.5 to 2.7."""
    if data[8:15] == b"WEBPVP8" and len(data) >= 30:
        if data[15:16] == b"X":
            low, high = struct.unpack("<HB", data[24:27]), struct.unpack("<HB", data[27:30])
            return low[0] + (low[1] << 16) + 1, high[0] + (high[1] << 16) + 1
        if data[15:16] == b"L":
            bits = int.from_bytes(data[21:25], "little")
            return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        if data[15:16] == b" ":
            width, height = struct.unpack("<HH", data[26:30])
            return width & 0x3FFF, height & 0x3FFF
    raise ValueError(f"it is no WebP: {data[:16]!r}")


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # a damaged Exif block leaves the pixels as they are
        return 1


def _to_array(image: Image.Image) -> np.ndarray:
    """Converts in strips: all at once a large image would be in memory four times."""
    width, height = image.size
    if width * height <= _STRIP:
        return _to_rgb(image)
    pixels, rows = np.empty((height, width, 3), np.uint8), max(_STRIP // width, 1)
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        pixels[top:bottom] = _to_rgb(image.crop((0, top, width, bottom)))
    return pixels


def _to_rgb(image: Image.Image) -> np.ndarray:
    if image.mode.startswith("I"):  # 16-bit grey: convert() would clip it at 255
        grey = np.round(np.asarray(image, np.float32) / 257).clip(0, 255)
        return np.repeat(grey.astype(np.uint8)[..., None], 3, axis=-1)
    if "transparency" in image.info:
        image = image.convert("RGBA")
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def is_plain_jpeg(data: bytes) -> bool:
    """Tells whether a plain libjpeg gives the same pixels as `decode_image`.

    That holds for a complete grey or three-channel 8-bit Huffman-coded JPEG without orientation,
    of a size that is allowed.

    Args:
      data: an encoded image.
    """
    # A truncated file goes to PIL, which says what is wrong with it.
    if data[:2] != b"\xff\xd8" or b"\xff\xd9" not in data[-32:]:
        return False
    at, plain = 2, False
    while at + 9 < len(data) and data[at] == 0xFF:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if marker == _START_OF_SCAN:
            return plain
        if marker == _APP1 and (
            data[at + 4 : at + 8] == b"Exif" or b"Orientation" in data[at + 4 : at + 2 + length]
        ):
            return False
        if marker in _OTHER_FRAMES:
            return False
        if marker in _PLAIN_FRAMES:
            height, width = struct.unpack(">HH", data[at + 5 : at + 9])
            plain = data[at + 4] == 8 and data[at + 9] in (1, 3) and _fits(width, height)
        at += 2 + length
    return False


def _fits(width: int, height: int) -> bool:
    try:
        check_size(width, height)
    except ValueError:
        return False
    return True
