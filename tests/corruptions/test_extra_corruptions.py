"""The four corruptions kept for validation, JPEG storage, and which random stream is whose."""

import colorsys
import io
import math

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from sequence_photos import photos

from robust_jax import corruptions
from robust_jax.corruptions import CORRUPTIONS, EXTRA_CORRUPTIONS, SEVERITIES, corrupt
from robust_jax.corruptions.constants import CIFAR, IMAGENET, TINY
from robust_jax.corruptions.sequences import EXTRA_SEQUENCES, SEQUENCES, perturb

ALL = CORRUPTIONS + EXTRA_CORRUPTIONS


@pytest.mark.parametrize(("size", "sigma"), [(32, 0.12), (64, 0.25), (224, 0.35)])
def test_speckle_grows_with_the_pixel(size, sigma):
    b = 40_000 // size**2 + 1
    for level in (0, 60, 120):
        grey = np.full((b, size, size, 3), level, np.uint8)
        noise = corrupt(grey, "speckle_noise", 3, ids=np.arange(b)).astype(float) - level
        # Truncation takes half a level and adds the variance of a uniform rest.
        expected = math.hypot(level * sigma, 12**-0.5) if level else 0
        assert noise.std() == pytest.approx(expected, rel=0.02)
        assert noise.mean() == pytest.approx(-0.5 if level else 0, abs=0.4)


@pytest.mark.parametrize(("size", "sigmas"), [(32, (0.4, 0.7, 1)), (64, (0.5, 1, 1.5))])
def test_gaussian_blur_is_a_separable_convolution(size, sigmas):
    image = photos(1, size)[0]
    for severity, sigma in zip((1, 3, 5), sigmas, strict=True):
        reach = int(4 * sigma + 0.5)
        taps = [math.exp(-0.5 * (i / sigma) ** 2) for i in range(-reach, reach + 1)]
        blurred = np.pad(image.astype(float), [(reach, reach), (reach, reach), (0, 0)], "edge")
        for axis in (0, 1):
            blurred = np.apply_along_axis(np.convolve, axis, blurred, taps, "valid") / sum(taps)
        result = corrupt(image[None], "gaussian_blur", severity, ids=[0])[0]
        assert np.abs(result - np.floor(blurred + 1e-9)).max() <= 1
        assert (result == np.floor(blurred + 1e-9)).mean() > 0.99


@pytest.mark.parametrize("size", [32, 64, 97])
def test_saturate_is_hsv(size):
    table = {32: CIFAR, 64: TINY, 97: IMAGENET}[size]
    image = np.random.default_rng(0).integers(0, 256, (size, size, 3), np.uint8)
    image[0, 0] = 130  # grey
    image[0, 1] = 0
    image[0, 2] = 255, 0, 0
    for severity, (factor, shift) in zip(SEVERITIES, table["saturate"], strict=True):
        result = corrupt(image[None], "saturate", severity, ids=[0])[0]
        for y, x in [(0, 0), (0, 1), (0, 2), (5, 9), (17, 3), (30, 31)]:
            h, s, v = colorsys.rgb_to_hsv(*(image[y, x] / 255))
            expected = colorsys.hsv_to_rgb(h, min(max(factor * s + shift, 0), 1), v)
            assert np.abs(result[y, x] - 255 * np.array(expected)).max() <= 1 + 1e-9


def test_saturate_orders_grey_and_colour_apart():
    image = photos(1, 64)

    def colour(pixels):
        return np.ptp(pixels.astype(int), axis=-1).mean()

    pale, grey, *strong = (colour(corrupt(image, "saturate", s, ids=[0])) for s in SEVERITIES)
    assert grey < pale < colour(image) < strong[0] < strong[1] < strong[2]


@pytest.mark.parametrize("size", [32, 64, 224])
def test_spatter_is_water_then_mud(size):
    b = 4 if size == 224 else 16
    images = np.full((b, size, size, 3), 100, np.uint8)
    wet = []
    for severity in SEVERITIES:
        result = corrupt(images, "spatter", severity, ids=np.arange(b)).astype(int)
        change = result - 100
        assert (np.abs(change).max((1, 2, 3)) > 20).all()  # no image stays dry
        wet.append((np.abs(change).max(-1) > 5).mean())
        if severity <= 3:
            assert change.min() == 0
            lit = change[..., 1] > 20
            assert np.abs(change[..., 0][lit] / change[..., 1][lit] - 175 / 238).max() < 0.06
            np.testing.assert_array_equal(change[..., 1], change[..., 2])
        else:
            assert change.max() == 0
            # Mud that is not soft at its edge hides the image.
            assert (result.min((0, 1, 2)) <= np.array([64, 43, 21])).all()
            assert (result.min((0, 1, 2)) >= np.array([62, 41, 19])).all()
    assert wet[0] < wet[1] < wet[2] and wet[3] < wet[4]


@pytest.mark.parametrize(("size", "severity"), [(32, 5), (224, 4)])
def test_mud_covers_where_noise_is_above_the_threshold(size, severity):
    mean, sigma, blur, threshold, softness, mud = (CIFAR if size == 32 else IMAGENET)["spatter"][
        severity - 1
    ]
    assert mud
    image = photos(1, size)[0]
    noise = np.random.default_rng([6, 102, severity, 9]).standard_normal((size, size), np.float32)
    layer = ndimage.gaussian_filter(mean + sigma * noise.astype(float), blur, mode="nearest")
    cover = ndimage.gaussian_filter((layer > threshold).astype(float), softness, mode="nearest")
    cover = np.where(cover < 0.8, 0, cover)[..., None]
    expected = image * (1 - cover) + cover * np.array([63, 42, 20])
    result = corrupt(image[None], "spatter", severity, ids=[9], seed=6)[0]
    assert 0.01 < (cover > 0).mean() < 0.5
    # Rounding may move a pixel over a threshold.
    assert (np.abs(result - np.floor(expected)) <= 1).all(-1).mean() > 0.999


@pytest.mark.parametrize("name", ALL)
def test_jpeg85_is_pillows_roundtrip_of_the_result(name):
    images, ids = photos(2, 48), [3, 4]
    plain = corrupt(images, name, 3, ids=ids, seed=1)
    stored = corrupt(images, name, 3, ids=ids, seed=1, jpeg85=True)
    for image, read in zip(plain, stored, strict=True):
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=85)
        np.testing.assert_array_equal(read, Image.open(file))
    assert (stored != plain).any()


@pytest.mark.parametrize(
    ("name", "severity", "before", "after"),
    [
        ("gaussian_noise", 1, 20, 16),
        ("gaussian_noise", 3, 44, 32),
        ("gaussian_noise", 5, 78, 55),
        ("impulse_noise", 5, 71, 51),
        ("defocus_blur", 5, None, None),
        ("contrast", 5, None, None),
    ],
)
def test_jpeg85_takes_noise_away_and_leaves_the_rest(name, severity, before, after):
    images = photos(2, 224)
    plain, stored = (
        (corrupt(images, name, severity, ids=[0, 1], jpeg85=jpeg85).astype(float) - images).std()
        for jpeg85 in (False, True)
    )
    assert plain == pytest.approx(before or plain, rel=0.1)
    assert stored == pytest.approx(after or plain, rel=0.1)


def test_pixelate_enlarges_like_a_box_filter():
    """At 50 px and a scale of 0.4, for example, the nearest pixel would be another."""
    box = Image.Resampling.BOX
    for height, width in [(8, 9), (20, 25), (32, 32), (50, 60), (64, 61), (120, 150), (224, 160)]:
        image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
        for scale in sorted({*IMAGENET["pixelate"], *TINY["pixelate"], *CIFAR["pixelate"]}):
            small = Image.fromarray(image).resize((int(width * scale), int(height * scale)), box)
            result = corruptions.digital.pixelate(image[None], [], scale)[0]
            np.testing.assert_array_equal(result, small.resize((width, height), box))


@pytest.mark.parametrize(
    ("name", "number"), [("gaussian_noise", 0), ("impulse_noise", 2), ("speckle_noise", 100)]
)
def test_streams_stay_what_they_are(name, number):
    """Numbers measured with one release are compared with those of the next."""
    image = photos(1, 32)[0].astype(float)
    for severity in (1, 4):
        rng = np.random.default_rng([5, number, severity, 2**40])
        if name == "impulse_noise":
            uniform = rng.random((32, 32, 3), np.float32)
            amount = CIFAR[name][severity - 1]
            expected = np.select([uniform < amount / 2, uniform < amount], [255, 0], image)
        else:
            noise = rng.standard_normal((32, 32, 3), np.float32) * CIFAR[name][severity - 1]
            expected = image + noise * (image if name == "speckle_noise" else 255)
        expected = np.floor(np.clip(expected, 0, 255) + 1e-3)
        result = corrupt(image[None].astype(np.uint8), name, severity, ids=[2**40], seed=5)[0]
        assert np.abs(result - expected).max() <= 1 and (result == expected).mean() > 0.99


def test_no_stream_serves_two(monkeypatch):
    """Of corruptions and sequences, for the same seed, severity and id."""
    seen = []
    make = np.random.default_rng
    monkeypatch.setattr(np.random, "default_rng", lambda key: seen.append(tuple(key)) or make(key))
    images = np.full((1, 16, 16, 3), 90, np.uint8)
    for name in ALL:
        corrupt(images, name, 1, ids=[4], seed=3)
    for name in SEQUENCES + EXTRA_SEQUENCES:
        perturb(images, name, ids=[4], seed=3)
    assert len(seen) == len(set(seen)) == len(ALL) + len(SEQUENCES) + len(EXTRA_SEQUENCES)
    assert {(key[0], *key[2:]) for key in seen} == {(3, 1, 4)}
