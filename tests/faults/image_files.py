"""Image files of rare forms, damaged ones, and what is none, for tests."""

import io
import struct
import zlib

import numpy as np
from PIL import Image

from robust_jax.data.images import MAX_RATIO

# Blocks of one colour, which a JPEG keeps.
PIXELS = np.kron(
    np.random.default_rng(0).integers(0, 256, (3, 4, 3), np.uint8), np.ones((16, 16, 1), np.uint8)
)
RGB = Image.fromarray(PIXELS)
RED, BLUE = (Image.new("RGB", (6, 4), colour) for colour in ("red", "blue"))


def encode(image, form, **options):
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, depth, colour, rows, *chunks):
    """A PNG by hand: ISO/IEC 15948."""
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = [chunk(b"IHDR", head), *chunks, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(body)


def bmp(width, height):
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54 + 16, 0, 0, 54) + info + bytes(16)


def gif(width, height):
    frame = b"," + struct.pack("<HHHHB", 0, 0, width, height, 0) + b"\x02\x02\x44\x01\x00;"
    return b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes(6) + frame


def webp(width, height):
    """An extended WebP of one lossless image: RFC 9649."""
    one = encode(Image.new("RGB", (1, 1)), "WEBP", lossless=True)[12:]
    sides = b"".join((side - 1).to_bytes(3, "little") for side in (width, height))
    body = b"WEBPVP8X" + struct.pack("<II", 10, 0) + sides + one
    return b"RIFF" + struct.pack("<I", len(body)) + body


def jpeg(width, height):
    """A JPEG whose header says another size than its content has."""
    data = bytearray(encode(RGB, "JPEG"))
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(data)


LOSSLESS = {"quality": 98, "subsampling": 0}  # nearly
JPEG = encode(RGB, "JPEG", **LOSSLESS)
PNG = encode(RGB, "PNG")


def turned(form, orientation, **options):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encode(RGB, form, exif=exif, **options)


def damaged_exif(form):
    data = turned(form, 6, **(LOSSLESS if form == "JPEG" else {}))
    at = data.index(b"Exif\0\0" if form == "JPEG" else b"eXIf") + 10
    whole = data[:at] + b"\xff" * 12 + data[at + 12 :]
    if form == "PNG":  # the chunk's checksum is right
        start = data.index(b"eXIf")
        (length,) = struct.unpack(">I", data[start - 4 : start])
        end = start + 4 + length
        whole = whole[:end] + struct.pack(">I", zlib.crc32(whole[start:end])) + whole[end + 4 :]
    return whole


XMP = b'<x:xmpmeta xmlns:tiff="http://ns.adobe.com/tiff/1.0/"><r tiff:Orientation="3"/></x:xmpmeta>'
DEEP = np.arange(0, 65536, 1111, np.uint16).reshape(1, -1)[:, :48]
# Name -> file, and the pixels that it shows; None for those of PIXELS, within what a JPEG loses.
SHOWN = {
    "CMYK JPEG": (encode(RGB.convert("CMYK"), "JPEG", quality=98), None),
    "grey PNG": (encode(RGB.convert("L"), "PNG"), np.asarray(RGB.convert("L").convert("RGB"))),
    "black and white PNG": (
        encode(RGB.convert("1"), "PNG"),
        np.asarray(RGB.convert("1").convert("RGB")),
    ),
    "16-bit grey PNG": (
        encode(Image.fromarray(DEEP), "PNG"),
        np.repeat((DEEP / 257).round().astype(np.uint8)[..., None], 3, -1),
    ),
    "16-bit RGB PNG": (
        png(2, 1, 16, 2, b"\0" + struct.pack(">6H", 0, 257, 65535, 32896, 514, 0)),
        np.array([[[0, 1, 255], [128, 2, 0]]], np.uint8),
    ),
    "palette PNG": (encode(RED.quantize(4), "PNG"), np.asarray(RED)),
    "palette PNG with alpha": (
        encode(RED.quantize(4), "PNG", transparency=b"\0\x80"),
        np.asarray(RED),
    ),
    "RGBA PNG": (encode(RGB.convert("RGBA"), "PNG"), PIXELS),
    "transparent RGBA PNG": (
        encode(Image.merge("RGBA", (*RGB.split(), Image.new("L", RGB.size))), "PNG"),
        PIXELS,
    ),
    "grey PNG with alpha": (
        encode(RGB.convert("LA"), "PNG"),
        np.asarray(RGB.convert("L").convert("RGB")),
    ),
    "RGBA WebP": (encode(RGB.convert("RGBA"), "WEBP", lossless=True), PIXELS),
    "GIF renamed": (encode(RED, "GIF"), np.asarray(RED)),
    "animated GIF": (
        encode(RED, "GIF", save_all=True, append_images=[BLUE]),
        np.asarray(RED),
    ),
    "APNG": (encode(RED, "PNG", save_all=True, append_images=[BLUE]), np.asarray(RED)),
    "APNG with a default image": (
        encode(RED, "PNG", save_all=True, append_images=[BLUE, BLUE], default_image=True),
        np.asarray(RED),
    ),
    "animated WebP": (
        encode(RED, "WEBP", save_all=True, append_images=[BLUE], lossless=True),
        np.asarray(RED),
    ),
    "JPEG of several pictures": (
        encode(RGB, "MPO", save_all=True, append_images=[RED], **LOSSLESS),
        None,
    ),
    "JPEG upside down": (turned("JPEG", 3, **LOSSLESS), PIXELS[::-1, ::-1]),
    "PNG on its side": (turned("PNG", 6), np.rot90(PIXELS, -1)),
    "WebP on its side": (turned("WEBP", 8, lossless=True), np.rot90(PIXELS)),
    "JPEG upside down by XMP": (encode(RGB, "JPEG", xmp=XMP, **LOSSLESS), PIXELS[::-1, ::-1]),
    "JPEG with a damaged Exif block": (damaged_exif("JPEG"), None),
    "PNG with a damaged Exif block": (damaged_exif("PNG"), PIXELS),
    "JPEG with an unknown orientation": (turned("JPEG", 99, **LOSSLESS), None),
    "1x1": (encode(Image.new("RGB", (1, 1), "red"), "PNG"), np.array([[[255, 0, 0]]], np.uint8)),
    f"1x{MAX_RATIO}": (
        encode(Image.new("RGB", (1, MAX_RATIO), "red"), "PNG"),
        np.full((MAX_RATIO, 1, 3), (255, 0, 0), np.uint8),
    ),
}


NO_IMAGES = {
    "zero bytes": (b"", "it is empty"),
    "one byte": (b"\xff", "it begins with"),
    "HTML renamed": (b"<!DOCTYPE html><title>404</title>", "it begins with b'<!DOCTYPE ht"),
    "text": ("ein Bild".encode("utf-16"), "it begins with"),
    # These PIL could read: PostScript by a program that it starts.
    "PostScript renamed": (encode(RGB, "EPS"), "it begins with b'%!PS-Adobe"),
    "TIFF renamed": (encode(RGB, "TIFF"), "it begins with b'II"),
    "ICO renamed": (encode(RGB, "ICO"), "it begins with"),
    "PPM renamed": (encode(RGB, "PPM"), "it begins with b'P6"),
    "RIFF that is sound": (b"RIFF" + bytes(4) + b"WAVEfmt " + bytes(40), "it is no WebP"),
    "JPEG cut": (JPEG[:-100], "truncated"),
    "JPEG cut before its pixels": (JPEG[:400], ""),
    "JPEG header alone": (JPEG[:20], ""),
    "JPEG segment too long": (JPEG.replace(b"\xff\xe0\x00\x10", b"\xff\xe0\xff\xff", 1), ""),
    "JPEG segment of no length": (JPEG.replace(b"\xff\xdb\x00\x43", b"\xff\xdb\x00\x00", 1), ""),
    "JPEG without pixels": (jpeg(0, 0), ""),
    "JPEG higher than its data, cut": (jpeg(64, 4000)[:-9], "truncated"),
    "PNG cut": (PNG[:-40], ""),
    "PNG with a flipped bit": (PNG[:50] + bytes([PNG[50] ^ 1]) + PNG[51:], "checksum"),
    "PNG without pixels": (png(0, 5, 8, 2, b""), ""),
    "PNG with a text bomb": (
        png(1, 1, 8, 2, bytes(4), chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(1 << 26)))),
        "Decompressed data too large",
    ),
    "GIF cut": (encode(RED, "GIF")[:-6], ""),
    "WebP cut": (encode(RGB, "WEBP")[:60], ""),
    "BMP cut": (encode(RGB, "BMP")[:90], "truncated"),
}
