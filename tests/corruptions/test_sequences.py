"""The sequences of ImageNet-P and CIFAR-P against Pillow, scipy and the published constants."""

import colorsys
import math

import numpy as np
import pytest
from scipy import ndimage
from sequence_photos import one, photos

from robust_jax.corruptions import corrupt
from robust_jax.corruptions.sequences import (
    EXTRA_SEQUENCES,
    SEQUENCES,
    frames,
    is_noise,
    perturb,
)

ALL = SEQUENCES + EXTRA_SEQUENCES
RANDOM = {"gaussian_noise", "shot_noise", "snow", "speckle_noise", "spatter"}


def test_names():
    assert len(SEQUENCES) == 10 and len(EXTRA_SEQUENCES) == 4
    noises = ["gaussian_noise", "shot_noise", "speckle_noise"]
    assert [name for name in ALL if is_noise(name)] == noises


@pytest.mark.parametrize(
    ("size", "motion", "translate"), [(32, 21, 16), (48, 21, 16), (64, 31, 31), (224, 31, 41)]
)
def test_numbers_of_frames(size, motion, translate):
    expected = dict.fromkeys(ALL, 31) | {"motion_blur": motion, "translate": translate}
    assert {name: frames(name, size) for name in ALL} == expected


@pytest.mark.parametrize("size", [(8, 8), (28, 33), (64, 50)])
@pytest.mark.parametrize("name", ALL)
def test_any_size(name, size):
    images = np.random.default_rng(0).integers(0, 256, (2, *size, 3), np.uint8)
    result = perturb(images, name, ids=[0, 1])
    assert result.shape == (2, frames(name, max(size)), *size, 3) and result.dtype == np.uint8


def test_imagenet_size_and_crop():
    images = photos(1, 112)
    for name in ("motion_blur", "translate", "snow"):
        result = perturb(images, name, ids=[0], crop=98)
        assert result.shape == (1, frames(name, 98), 98, 98, 3)


@pytest.mark.parametrize("name", ALL)
def test_image_is_independent_of_its_batch(name):
    images, ids = photos(3), np.array([7, 2**40, 0])
    together = perturb(images, name, ids=ids)
    alone = [perturb(images[i : i + 1], name, ids=ids[i : i + 1])[0] for i in range(3)]
    np.testing.assert_array_equal(together, alone)
    np.testing.assert_array_equal(perturb(images[::-1], name, ids=ids[::-1]), together[::-1])


@pytest.mark.parametrize("name", ALL)
def test_seed_and_id_decide_what_is_random(name):
    images = photos(1)
    first = perturb(images, name, ids=[1])
    np.testing.assert_array_equal(perturb(images, name, ids=[1]), first)
    for other in (perturb(images, name, ids=[2]), perturb(images, name, ids=[1], seed=1)):
        assert np.array_equal(first, other) == (name not in RANDOM)


# The frame that is the image itself, counted from 0, for sides of 32, 64 and 98 px.
@pytest.mark.parametrize(
    ("name", "index"),
    [
        ("gaussian_noise", (0, 0, 0)),
        ("shot_noise", (0, 0, 0)),
        ("speckle_noise", (0, 0, 0)),
        ("zoom_blur", (0, 0, 0)),
        ("brightness", (15, 15, 15)),
        ("translate", (7, 15, 20)),
        ("rotate", (15, 15, 15)),
        ("scale", (15, 24, 24)),
        ("shear", (15, 15, 15)),
    ],
)
def test_frame_that_is_the_image(name, index):
    for side, i in zip((32, 64, 98), index, strict=True):
        image = photos(1, side)[0]
        result = one(image, name)
        np.testing.assert_array_equal(result[i], image)
        assert sum(np.array_equal(frame, image) for frame in result) == 1


@pytest.mark.parametrize(
    ("side", "name", "sigmas"),
    [
        (32, "gaussian_noise", (0.02, 0.04, 0.06)),
        (64, "gaussian_noise", (0.025, 0.05, 0.075)),
        (98, "gaussian_noise", (0.03, 0.05, 0.08)),
        (32, "shot_noise", [math.sqrt(0.5 / photons) for photons in (700, 400, 200)]),
        (98, "shot_noise", [math.sqrt(0.5 / photons) for photons in (300, 120, 60)]),
        (32, "speckle_noise", (0.025, 0.035, 0.05)),
        (98, "speckle_noise", (0.025, 0.05, 0.075)),
    ],
)
def test_deviation_of_noise(side, name, sigmas):
    grey = np.full((side, side, 3), 127, np.uint8)
    for difficulty, sigma in enumerate(sigmas, 1):
        noise = one(grey, name, difficulty=difficulty)[1:].astype(float) - 127
        # Truncation takes half a level and adds the variance of a uniform rest.
        assert noise.std() == pytest.approx(math.hypot(255 * sigma, 12**-0.5), rel=0.015)
        assert noise.mean() == pytest.approx(-0.5, abs=0.15)
        assert abs(np.corrcoef(noise[3].ravel(), noise[4].ravel())[0, 1]) < 0.08


@pytest.mark.parametrize(("side", "step"), [(32, 0.015), (64, 0.02)])
def test_brightness_is_hsv_and_grows(side, step):
    image = photos(1, side)[0]
    result = one(image, "brightness")
    assert (np.diff(result.mean((1, 2, 3))) > 0).all()
    for i in (0, 3, 20, 30):
        for y, x in [(0, 0), (5, 9), (side // 2, side // 3), (20, 30)]:
            h, s, v = colorsys.rgb_to_hsv(*(image[y, x] / 255))
            expected = np.array(colorsys.hsv_to_rgb(h, s, min(max(v + (i - 15) * step, 0), 1)))
            assert np.abs(result[i, y, x] - 255 * expected).max() <= 1 + 1e-9


@pytest.mark.parametrize(
    ("side", "radius", "sigma", "first", "step"),
    [(32, 6, 1.8, -180, 9), (64, 14, 3, -150, 5), (98, 10, 3, -120, 4)],
)
def test_motion_blur_of_a_step_along_its_angles(side, radius, sigma, first, step):
    image = np.zeros((side, side, 3), np.uint8)
    image[:, side // 2 :] = 200
    taps = np.exp(-0.5 * (np.arange(2 * radius + 1) / sigma) ** 2)
    taps /= taps.sum()
    result = one(image, "motion_blur").astype(int)
    for i in (0, 3, len(result) - 1):
        # Pixel y, x takes from x + k cos(angle), so near columns from taps that cross the step.
        reach = np.ceil(np.arange(2 * radius + 1) * math.cos(math.radians(first + i * step)) - 0.5)
        for x in (side // 2 - 2, side // 2, side // 2 + 1):
            expected = 200 * taps[x + reach >= side // 2].sum()
            assert abs(result[i, side // 2, x, 0] - expected) <= 0.51


@pytest.mark.parametrize("side", [32, 64, 98])
def test_snow_keeps_its_flakes_and_turns_their_streaks(side):
    black = one(np.zeros((side, side, 3), np.uint8), "snow").astype(float)
    # 0.15 of half white, and flakes.
    assert black.min() == 19
    flakes = black[..., 0] - 19
    assert (flakes > 0).mean() > 0.05
    assert flakes.sum((1, 2)) == pytest.approx(flakes[0].sum(), rel=0.25)
    np.testing.assert_allclose(flakes, flakes[:, ::-1, ::-1], atol=1)
    steepness = [
        np.abs(np.diff(f, axis=1)).sum() / np.abs(np.diff(f, axis=0)).sum() for f in flakes
    ]
    # Angles of -150, -90 and -30 degrees: the middle frame falls upright.
    assert steepness[15] > 1.3 * max(steepness[0], steepness[30])


@pytest.mark.parametrize(
    ("side", "sigmas", "cut"), [(32, (0.3, 0.75), 7), (64, (0.35, 0.77), 7), (98, (0.25, 1.3), 6)]
)
def test_gaussian_blur(side, sigmas, cut):
    image = photos(1, side)[0]
    result = one(image, "gaussian_blur")
    for i, sigma in zip((0, 30), sigmas, strict=True):
        blurred = ndimage.gaussian_filter(
            image.astype(float), (sigma, sigma, 0), truncate=cut, mode="nearest"
        )
        assert np.abs(result[i] - blurred + 0.5).max() <= 0.51


def test_cropping_follows_or_precedes_the_perturbation():
    image = photos(1, 40)[0]
    for name in ("translate", "rotate", "tilt", "scale", "zoom_blur", "shear"):
        whole = one(image, name)
        np.testing.assert_array_equal(one(image, name, crop=32), whole[:, 4:-4, 4:-4])
    for name in ("motion_blur", "snow", "brightness", "gaussian_noise", "gaussian_blur"):
        np.testing.assert_array_equal(one(image, name, crop=32), one(image[4:-4, 4:-4], name))


def test_noise_is_not_the_noise_of_corrupt():
    grey = np.full((1, 32, 32, 3), 127, np.uint8)
    sequence = perturb(grey, "gaussian_noise", ids=[0])[0, 1].astype(float)
    corrupted = corrupt(grey, "gaussian_noise", 1, ids=[0])[0].astype(float)
    assert abs(np.corrcoef(sequence.ravel(), corrupted.ravel())[0, 1]) < 0.08


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "rotation"}, "did you mean 'rotate'"),
        ({"ids": [0, 1]}, "one integer an image"),
        ({"seed": -1}, "not negative"),
        ({"images": np.zeros((1, 32, 32, 3))}, "must be uint8"),
        ({"difficulty": 4}, "difficulty is 1, 2 or 3"),
        ({"difficulty": 2.0}, "difficulty is 1, 2 or 3"),
        ({"name": "tilt", "difficulty": 2}, "every second or third frame"),
        ({"crop": 33}, "crop must be from 8"),
        ({"crop": 7}, "crop must be from 8"),
    ],
)
def test_mistakes(change, message):
    given = {"images": photos(1), "name": "gaussian_noise", "ids": [0]} | change
    with pytest.raises(ValueError, match=message):
        perturb(**given)
