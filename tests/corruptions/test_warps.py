"""What moves, tilts and grows in the sequences, against Pillow, scipy and points in space."""

import math

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from sequence_photos import one, photos

BILINEAR = Image.Resampling.BILINEAR


@pytest.mark.parametrize(("side", "first"), [(32, -7), (64, -15), (98, -20)])
def test_translate_moves_whole_pixels_and_leaves_black(side, first):
    image = photos(1, side)[0]
    for i, frame in enumerate(one(image, "translate")):
        np.testing.assert_array_equal(frame, ndimage.shift(image, (0, first + i, 0), order=0))


def test_rotate_is_clockwise_about_the_old_centre_of_torchvision():
    image = photos(1)[0]
    image[2:6, 13:19] = 255
    result = one(image, "rotate")
    for i in (0, 8, 30):
        picture = Image.fromarray(image).rotate(15 - i, BILINEAR, center=(16.5, 16.5))
        np.testing.assert_array_equal(result[i], picture)
    assert result[0, 0, -1].max() == 0


def affine_by_scipy(image, inverse):
    """Linear interpolation about (w / 2 + 0.5, h / 2 + 0.5), of (y, x); valid off the border."""
    centre = np.array(image.shape[:2]) / 2
    offset = centre - inverse @ centre
    planes = [
        ndimage.affine_transform(image[..., c].astype(float), inverse, offset, order=1)
        for c in range(3)
    ]
    return np.stack(planes, -1)


@pytest.mark.parametrize(
    ("side", "scales"), [(32, [0.7, 0.98, 1.3]), (64, [0.4, 0.75, 1.15]), (98, [0.4, 0.75, 1.15])]
)
def test_scale(side, scales):
    image = photos(1, side)[0]
    result = one(image, "scale")
    margin = side * 3 // 8
    inner = (slice(margin, -margin), slice(margin, -margin))
    for i, scale in zip((0, 14, 30), scales, strict=True):
        expected = affine_by_scipy(image, np.eye(2) / scale)
        assert np.abs(result[i][inner] - expected[inner]).max() <= 1.01
    assert result[0, 0].max() == 0


def test_shear_slants_and_shrinks():
    image = photos(1)[0]
    result = one(image, "shear")
    for i in (0, 7, 30):
        angle = math.radians(i - 15)
        inverse = np.array([[1 / math.cos(angle), 0], [math.tan(angle), 1]])
        expected = affine_by_scipy(image, inverse)
        assert np.abs(result[i][6:-6, 6:-6] - expected[6:-6, 6:-6]).max() <= 1.01


def test_zoom_blur_is_a_running_mean():
    image = photos(1)[0]
    total = image.astype(float)
    result = one(image, "zoom_blur")
    for i in range(1, 31):
        total += affine_by_scipy(image, np.eye(2) / (1 + 0.004 * i))
        inner = total[3:-3, 3:-3] / (i + 1)
        assert np.abs(result[i, 3:-3, 3:-3] - inner).max() <= 2.01
        assert np.abs(result[i, 3:-3, 3:-3] - inner).mean() <= 1.01


@pytest.mark.parametrize(("side", "factor"), [(32, 0.75), (64, 1), (98, 1)])
def test_tilt_against_three_dimensional_points(side, factor):
    """Each output pixel's ray meets the turned plane at the point of the image that is sampled."""
    image = photos(1, side)[0].astype(float)
    result = one(image.astype(np.uint8), "tilt")
    f = math.sqrt(2) * side
    y, x = np.mgrid[:side, :side].astype(float)
    for i in (0, 10, 15, 30):
        a = math.radians(factor * (i - 15))
        turn_y = np.array(
            [[math.cos(a), 0, -math.sin(a)], [0, 1, 0], [math.sin(a), 0, math.cos(a)]]
        )
        turn_x = np.array(
            [[1, 0, 0], [0, math.cos(a), -math.sin(a)], [0, math.sin(a), math.cos(a)]]
        )
        across, down, depth = (turn_x @ turn_y).T
        # Points are across * u + down * v + depth + (0, 0, f); the ray of a pixel is t * (p, q, 1).
        rays = np.stack([(x - side / 2) / f, (y - side / 2) / f, np.ones_like(x)], -1)
        systems = np.stack(
            [np.broadcast_to(across, rays.shape), np.broadcast_to(down, rays.shape), -rays], -1
        )
        start = np.broadcast_to(-(depth + np.array([0, 0, f])), rays.shape)
        u, v, _ = np.moveaxis(np.linalg.solve(systems, start[..., None])[..., 0], -1, 0)
        at = [v + side / 2, u + side / 2]
        planes = [
            ndimage.map_coordinates(image[..., c], at, order=1, mode="grid-constant")
            for c in range(3)
        ]
        # Pillow truncates.
        difference = np.stack(planes, -1) - result[i]
        assert difference.min() > -0.02 and difference.max() < 1.02
