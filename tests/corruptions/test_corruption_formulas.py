"""Each corruption against published figures or an independent, slower computation."""

import math
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from robust_jax.corruptions import blur, corrupt, digital, noise, weather

Y, X = np.mgrid[:224, :224]
RAMP_224 = (np.stack([X, Y, X + Y], -1) % 256).astype(np.uint8)[None]
RAMP_32 = np.stack([8 * X, 8 * Y, 4 * (X + Y)], -1)[:32, :32].astype(np.uint8)[None]

# Mean and standard deviation of the reference implementation at severities 1, 3 and 5.
GOLDEN = [
    (RAMP_224, "contrast", [(116.993, 28.517), (116.963, 16.015), (116.984, 9.123)]),
    (RAMP_224, "brightness", [(133.099, 74.819), (155.556, 81.410), (164.867, 83.046)]),
    (RAMP_224, "zoom_blur", [(117.357, 66.429), (117.774, 64.988), (118.199, 63.521)]),
    (RAMP_224, "defocus_blur", [(116.508, 67.823), (116.540, 67.060), (118.283, 66.751)]),
    (RAMP_224, "pixelate", [(118.019, 68.428), (117.739, 68.244), (118.150, 68.044)]),
    (RAMP_224, "gaussian_blur", [(117.392, 68.087), (117.329, 67.075), (117.268, 65.632)]),
    (RAMP_224, "saturate", [(158.356, 49.254), (94.132, 82.914), (92.263, 83.607)]),
    (RAMP_32, "contrast", [(124.000, 50.572), (123.596, 26.980), (123.596, 10.125)]),
    (RAMP_32, "brightness", [(132.647, 69.664), (148.614, 72.022), (166.208, 72.535)]),
    (RAMP_32, "zoom_blur", [(120.120, 65.567), (120.147, 63.038), (119.902, 60.356)]),
    (RAMP_32, "saturate", [(153.542, 57.809), (110.369, 73.813), (93.562, 76.286)]),
]


def random_images(b, height, width):
    return np.random.default_rng(1).integers(0, 256, (b, height, width, 3), np.uint8)


@pytest.mark.parametrize(("images", "name", "expected"), GOLDEN)
def test_golden_mean_and_deviation(images, name, expected):
    for severity, (mean, deviation) in zip((1, 3, 5), expected, strict=True):
        result = corrupt(images, name, severity, ids=[0]).astype(float)
        # Contrast at 224 meets exact grey levels, which truncation moves by rounding alone.
        tolerance = 0.07 if name == "contrast" else 0.002
        assert result.mean() == pytest.approx(mean, abs=tolerance)
        assert result.std() == pytest.approx(deviation, abs=tolerance)


def test_noise_moments():
    grey = np.full((1, 200, 200, 3), 128, np.uint8)
    rngs = [np.random.default_rng(0)]
    gaussian = noise.gaussian_noise(grey, rngs, 0.08)
    assert gaussian.mean() == pytest.approx(128, abs=0.2)
    assert gaussian.std() == pytest.approx(255 * 0.08, rel=0.01)
    shot = noise.shot_noise(grey, rngs, 60)
    assert shot.mean() == pytest.approx(128, abs=0.2)
    assert shot.std() == pytest.approx(255 * math.sqrt(128 / 255 / 60), rel=0.01)
    impulse = noise.impulse_noise(grey, rngs, 0.27)
    assert np.mean(impulse == 0) == pytest.approx(0.135, abs=0.004)
    assert np.mean(impulse == 255) == pytest.approx(0.135, abs=0.004)


@pytest.mark.parametrize(("reach", "shape"), [(1, (32, 32)), (2, (20, 31)), (4, (24, 24))])
def test_glass_copies_like_the_sequential_loop(reach, shape):
    height, width = shape
    offsets = np.random.default_rng(2).integers(
        -reach, reach, (3, height - 2 * reach, width - 2 * reach, 2)
    )
    sources = blur.glass_map(offsets, height, width, reach)
    for image_offsets, source in zip(offsets, sources, strict=True):
        pixels = np.arange(height * width).reshape(height, width)
        for h in range(height - reach, reach, -1):
            for w in range(width - reach, reach, -1):
                dy, dx = image_offsets[h - reach - 1, w - reach - 1]
                pixels[h, w] = pixels[h + dy, w + dx]
        np.testing.assert_array_equal(source, pixels.ravel())
        assert len(np.unique(source)) < height * width


def test_glass_blurs_copies_and_blurs_again():
    images, passes = random_images(1, 24, 24), 2
    result = blur.glass_blur(images, [np.random.default_rng(3)], (0.7, 1, passes))
    offsets = np.random.default_rng(3).integers(-1, 1, (passes, 22, 22, 2), np.int8)

    def smooth(image):
        return ndimage.gaussian_filter(image.astype(float), (0.7, 0.7, 0), mode="nearest")

    pixels = np.floor(smooth(images[0]) + 1e-3)
    for one_pass in offsets:
        for h in range(23, 1, -1):
            for w in range(23, 1, -1):
                dy, dx = one_pass[h - 2, w - 2]
                pixels[h, w] = pixels[h + dy, w + dx]
    np.testing.assert_allclose(result[0], smooth(pixels), atol=1e-3)


@pytest.mark.parametrize("sigma", [0.05, 0.4, 1.5])
def test_gaussian_blur(sigma):
    images = random_images(2, 20, 17).astype(np.float32)
    expected = ndimage.gaussian_filter(images, (0, sigma, sigma, 0), mode="nearest")
    np.testing.assert_allclose(blur.gaussian_blur(images, sigma), expected, atol=1e-3)


@pytest.mark.parametrize("constants", [(0.3, 0.4), (2.5, 0.01), (8, 0.5), (10, 0.5)])
def test_defocus_is_a_mirrored_convolution_with_the_disk(constants):
    images = random_images(1, 40, 33)
    kernel = blur.disk_kernel(*constants)[..., None]
    expected = ndimage.convolve(images[0].astype(float), kernel, mode="mirror")
    result = blur.defocus_blur(images, [], constants)[0]
    # Truncated; a mean of 21 pixels, for one, is often an exact level.
    assert (np.floor(expected - 1e-4) <= result).all()
    assert (result <= np.floor(expected + 1e-4)).all()


@pytest.mark.parametrize("degrees", [-44.0, 0.0, 17.5, -100.0])
def test_line_blur_samples_the_nearest_pixels_of_the_line(degrees):
    radius, sigma = 6, 2.0
    image = random_images(1, 28, 30)[0].astype(np.float32)
    weights = [math.exp(-(i**2) / (2 * sigma**2)) for i in range(2 * radius + 1)]
    angle = math.radians(degrees)
    expected = np.zeros(image.shape)
    for y in range(28):
        for x in range(30):
            for i, weight in enumerate(weights):
                row = y + math.ceil(i * math.sin(angle) - 0.5)
                column = x + math.ceil(i * math.cos(angle) - 0.5)
                pixel = image[min(max(row, 0), 27), min(max(column, 0), 29)]
                expected[y, x] += weight / sum(weights) * pixel
    result = blur.line_blur(image[None], radius, sigma, np.array([degrees]))[0]
    np.testing.assert_allclose(result, expected, atol=0.5 + 1e-3)


@pytest.mark.parametrize("factor", [1.0, 1.11, 1.3, 2.25, 4.5])
def test_zoom_is_scipys_zoom_cropped(factor):
    height, width = 32, 45
    crop = (math.ceil(height / factor), math.ceil(width / factor))
    image = np.random.default_rng(4).normal(size=(*crop, 2)).astype(np.float32)
    full = ndimage.zoom(image, (factor, factor, 1), order=1)
    top, left = (full.shape[0] - height) // 2, (full.shape[1] - width) // 2
    expected = full[top : top + height, left : left + width]
    np.testing.assert_allclose(blur.zoom(image, factor, height, width), expected, atol=1e-5)


def test_plasma_fills_the_unit_interval_and_gets_rougher():
    maps = weather.plasma([np.random.default_rng(i) for i in range(4)], 64, 2.0)
    np.testing.assert_array_equal(maps.min((1, 2)), 0)
    np.testing.assert_array_equal(maps.max((1, 2)), 1)
    np.testing.assert_array_equal(maps[2], weather.plasma([np.random.default_rng(2)], 64, 2.0)[0])
    rough = weather.plasma([np.random.default_rng(i) for i in range(4)], 64, 1.4)
    assert np.abs(np.diff(rough)).mean() > 2 * np.abs(np.diff(maps)).mean()


def test_fog_scales_back_by_the_brightest_value():
    white = np.full((1, 32, 32, 3), 255, np.uint8)
    fogged = weather.fog(white, [np.random.default_rng(0)], (1.5, 2))
    assert fogged.max() == pytest.approx(255) and fogged.min() == pytest.approx(255 / 2.5)


def test_snow_is_the_image_without_flakes_above_the_threshold():
    images = random_images(1, 32, 32)
    result = weather.snow(images, [np.random.default_rng(0)], (0.1, 0.2, 1, 99, 8, 3, 0.8))
    grey = images @ np.array([0.299, 0.587, 0.114])
    white = np.maximum(images, grey[..., None] * 1.5 + 127.5)
    np.testing.assert_allclose(result, 0.8 * images + 0.2 * white, rtol=1e-5)


def test_frost_draws_from_the_first_five_files_only(monkeypatch):
    used = []
    load = weather.frost_texture

    def spy(index, scale):
        used.append((index, scale))
        return load(index, scale)

    monkeypatch.setattr(weather, "frost_texture", spy)
    corrupt(np.zeros((100, 32, 32, 3), np.uint8), "frost", 3, ids=np.arange(100))
    assert set(used) == {(i, 0.2) for i in range(5)}
    assert [Path(name).stem for name in weather.FROST_FILES] == [f"frost{i}" for i in range(1, 6)]


def test_frost_is_bluish_white():
    frosted = corrupt(np.zeros((64, 224, 224, 3), np.uint8), "frost", 1, ids=np.arange(64))
    red, green, blue = frosted.mean((0, 1, 2))
    assert red < green < blue < 2 * red


def test_frost_without_its_photographs_says_what_to_install(monkeypatch):
    weather._frost_photo.cache_clear()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="pip install imagecorruptions-imaug"):
        corrupt(np.zeros((1, 32, 32, 3), np.uint8), "frost", 1, ids=[0])


@pytest.mark.parametrize(("mode", "axis"), [("mirror", 0), ("reflect", 1)])
def test_bilinear_is_scipys_map_coordinates(mode, axis):
    rng = np.random.default_rng(5)
    images = random_images(2, 12, 17).astype(np.float32)
    y = rng.uniform(-20, 40, (2, 12, 17)).astype(np.float32)
    x = rng.uniform(-20, 40, (2, 12, 17)).astype(np.float32)
    result = digital.bilinear(images, y, x, mode)
    for i in range(2):
        for channel in range(3):
            expected = ndimage.map_coordinates(images[i, ..., channel], (y[i], x[i]), None, 1, mode)
            np.testing.assert_allclose(result[i, ..., channel], expected, atol=2e-3)


@pytest.mark.parametrize("sigma", [0.9, 6.4, 170.8])
def test_smooth_is_a_reflecting_gaussian_filter(sigma):
    field = np.random.default_rng(6).uniform(-1, 1, (1, 32, 45)).astype(np.float32)
    expected = ndimage.gaussian_filter(field[0], sigma, mode="reflect", truncate=3)
    np.testing.assert_allclose(digital.smooth(field, sigma)[0], expected, atol=1e-5)


def test_elastic_affine_moves_the_three_points():
    height, width, jitter = 48, 60, 0.1
    images = np.zeros((1, height, width, 3), np.uint8)
    points = np.array([width // 2, height // 2]) + 16 * np.array([[1, 1], [1, -1], [-1, -1]])
    for x, y in points:
        images[0, y - 1 : y + 2, x - 1 : x + 2] = 255
    moved = points + np.random.default_rng(7).uniform(-4.8, 4.8, (3, 2))
    warped = digital.elastic_transform(images, [np.random.default_rng(7)], (0, 0, jitter))
    for x, y in moved.round().astype(int):
        assert warped[0, y, x].min() > 150


def test_brightness_adds_to_the_value_of_hsv():
    images = random_images(1, 16, 16)
    images[0, 0] = 0
    result = corrupt(images, "brightness", 3, ids=[0]).astype(float)
    value = images.max(-1).astype(float)
    np.testing.assert_allclose(result.max(-1), np.minimum(value + 0.15 * 255, 255), atol=1)
    np.testing.assert_array_equal(result[0, 0], math.floor(0.15 * 255))
    # Ratios to V stay, so hue and saturation do.
    raised = np.minimum(value + 0.15 * 255, 255) / np.maximum(value, 1)
    np.testing.assert_allclose(result[0, 1:], images[0, 1:] * raised[0, 1:, :, None], atol=1)
