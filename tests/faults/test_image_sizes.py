"""Images beyond the limits of size: refused by their header, before they take memory."""

import subprocess
import sys

import pytest
from image_files import bmp, encode, gif, jpeg, png, webp
from PIL import Image
from runs import ROOT

from robust_jax.data.images import MAX_PIXELS, MAX_RATIO, decode_image, is_plain_jpeg

SIDE = 60_000
BOMBS = {
    "PNG": png(SIDE, SIDE, 8, 2, bytes(100)),
    "16-bit PNG": png(SIDE, SIDE, 16, 6, bytes(100)),
    "JPEG": jpeg(SIDE, SIDE),
    "BMP": bmp(SIDE, SIDE),
    "GIF": gif(SIDE, SIDE),
    "WebP": webp(SIDE, SIDE),
}
LONG = {
    "PNG": png(MAX_RATIO + 1, 1, 8, 2, bytes(3 * MAX_RATIO + 4)),
    "100000 high": png(1, 100_000, 8, 2, bytes(400_000)),
}
JUST_TOO_LARGE = png(10_001, 10_000, 8, 2, bytes(100))


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused_by_their_header(name):
    message = r"the image is too large; got 60000x60000 px, 3600.0 megapixels, at most 100 are read"
    with pytest.raises(ValueError, match=message):
        decode_image(BOMBS[name])
    assert not is_plain_jpeg(BOMBS[name])


def test_the_limits_are_the_documented_ones():
    assert MAX_PIXELS == 10**8 and MAX_RATIO == 250
    with pytest.raises(ValueError, match=r"got 10001x10000 px, 100.0 megapixels, at most 100"):
        decode_image(JUST_TOO_LARGE)
    for data in LONG.values():
        with pytest.raises(ValueError, match=r"too long for its width; got \d+x\d+ px, at m"):
            decode_image(data)


CHECK = """
import re, sys, warnings
warnings.simplefilter("error")
from robust_jax.data.images import decode_image
def peak():  # not getrusage, which tells of the process that started this one, too
    with open("/proc/self/status") as file:
        return int(re.search(r"VmHWM:\\s+(\\d+) kB", file.read())[1])
data = sys.stdin.buffer.read()
before = peak()
try:
    print(*decode_image(data).shape)
except ValueError as error:
    print(error)
print((peak() - before) // 1024)
"""


def grown(data):
    """What decoding says in a process of its own, and by how many MiB its peak grows."""
    found = subprocess.run([sys.executable, "-c", CHECK], input=data, cwd=ROOT, capture_output=True)
    assert found.returncode == 0, found.stderr.decode()
    said, mebibytes = found.stdout.decode().splitlines()
    return said, int(mebibytes)


@pytest.mark.slow
@pytest.mark.parametrize("name", BOMBS)
def test_bombs_take_no_memory(name):
    said, mebibytes = grown(BOMBS[name])
    assert said.startswith("the image is too large") and mebibytes < 50


@pytest.mark.slow
@pytest.mark.parametrize(
    ("form", "mode", "options"),
    [
        ("PNG", "RGB", {"compress_level": 1}),
        ("PNG", "RGBA", {"compress_level": 1}),
        ("PNG", "I;16", {"compress_level": 1}),
        ("JPEG", "RGB", {}),
        ("JPEG", "CMYK", {}),
        ("BMP", "RGB", {}),
        ("WEBP", "RGB", {"method": 0}),
    ],
)
def test_100_megapixels_take_less_than_2_gigabytes(form, mode, options):
    said, mebibytes = grown(encode(Image.new(mode, (10_000, 10_000)), form, **options))
    assert said == "10000 10000 3"
    assert 200 < mebibytes < 1900
