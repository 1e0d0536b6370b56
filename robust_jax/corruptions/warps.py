"""Frames that move: zoom blur, translate, rotate, tilt, scale and shear of ImageNet-P.

What lies outside the image is black, and Pillow truncates grey levels. The published files are of
2018: until version 0.8 torchvision's affine maps turned about (w / 2 + 0.5, h / 2 + 0.5), half a
pixel off the middle (pull request 2468), and its shear also shrank by the cosine. Both are kept.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.random import Generator
from PIL import Image

Frames = Iterator[np.ndarray]
BILINEAR = Image.Resampling.BILINEAR


def affine(images: np.ndarray, inverse: np.ndarray) -> np.ndarray:
    """Warps u8[b, h, w, 3] by the f[2, 2] map from output to input (x, y), about the centre."""
    height, width = images.shape[1:3]
    centre = np.array([width, height]) / 2 + 0.5
    rows = np.column_stack([inverse, centre - inverse @ centre])
    method, data = Image.Transform.AFFINE, tuple(rows.ravel().tolist())
    pictures = (Image.fromarray(image) for image in images)
    return np.stack(
        [np.asarray(p.transform((width, height), method, data, BILINEAR)) for p in pictures]
    )


def zoom(images: np.ndarray, factor: float) -> np.ndarray:
    """Enlarges u8[b, h, w, 3] within its frame; a factor below 1 leaves a black margin."""
    return affine(images, np.eye(2) / factor)


def zoom_blurs(
    images: np.ndarray, rngs: Sequence[Generator], steps: Sequence[float], constants: tuple[()]
) -> Frames:
    """Frame i is the mean of the zooms of u8[b, h, w, 3] by the steps up to i."""
    del rngs, constants
    total = np.zeros(images.shape, np.float32)
    for count, factor in enumerate(steps, 1):
        total += zoom(images, factor)
        yield total / np.float32(count)


def scalings(
    images: np.ndarray, rngs: Sequence[Generator], steps: Sequence[float], constants: tuple[()]
) -> Frames:
    """Zooms of u8[b, h, w, 3] by each of the steps."""
    del rngs, constants
    for factor in steps:
        yield zoom(images, factor)


def translations(
    images: np.ndarray, rngs: Sequence[Generator], steps: Sequence[int], constants: tuple[()]
) -> Frames:
    """Moves u8[b, h, w, 3] to the right by each of the steps, in pixels."""
    del rngs, constants
    width = images.shape[2]
    for step in steps:
        moved = np.zeros_like(images)
        moved[:, :, max(step, 0) : width + min(step, 0)] = images[
            :, :, max(-step, 0) : width - max(step, 0)
        ]
        yield moved


def rotations(
    images: np.ndarray, rngs: Sequence[Generator], steps: Sequence[float], constants: tuple[()]
) -> Frames:
    """Turns u8[b, h, w, 3] clockwise by each of the steps, in degrees."""
    del rngs, constants
    for angle in np.radians(steps):
        cos, sin = np.cos(angle), np.sin(angle)
        yield affine(images, np.array([[cos, sin], [-sin, cos]]))


def shears(
    images: np.ndarray, rngs: Sequence[Generator], steps: Sequence[float], constants: tuple[()]
) -> Frames:
    """Slants the columns of u8[b, h, w, 3] by each of the steps, in degrees."""
    del rngs, constants
    for angle in np.radians(steps):
        yield affine(images, np.array([[1, np.tan(angle)], [0, 1 / np.cos(angle)]]))


def tilt_homography(height: int, width: int, degrees: float) -> np.ndarray:
    """f64[3, 3] map from input to output (x, y), pixel centres at integers.

    The plane is turned by the angle about its vertical, then about its horizontal middle axis, and
    seen from the length of the image's diagonal. As in the reference it starts one pixel behind
    the image's own depth, so an angle of 0 shrinks the image by f / (f + 1).
    """
    f, angle = np.hypot(height, width), np.radians(degrees)
    cos, sin = np.cos(angle), np.sin(angle)
    from_middle = np.array([[1, 0, -width / 2], [0, 1, -height / 2], [0, 0, 1]])
    about_vertical = np.array([[cos, 0, -sin], [0, 1, 0], [sin, 0, cos]])
    about_horizontal = np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]])
    turned = about_horizontal @ about_vertical @ from_middle
    turned[2, 2] += f
    return np.array([[f, 0, width / 2], [0, f, height / 2], [0, 0, 1]]) @ turned


def tilts(
    images: np.ndarray, rngs: Sequence[Generator], steps: Sequence[float], constants: tuple[()]
) -> Frames:
    """Tilts the plane of u8[b, h, w, 3] by each of the steps, in degrees."""
    del rngs, constants
    height, width = images.shape[1:3]
    # A black frame, as OpenCV blends the edge pixels with what lies outside and Pillow does not.
    pictures = [
        Image.fromarray(image) for image in np.pad(images, [(0, 0), (1, 1), (1, 1), (0, 0)])
    ]
    # Pillow's coordinates count from a pixel's corner.
    from_pillow = np.array([[1, 0, -0.5], [0, 1, -0.5], [0, 0, 1]])
    to_pillow = np.array([[1, 0, 1.5], [0, 1, 1.5], [0, 0, 1]])
    for angle in steps:
        inverse = np.linalg.inv(tilt_homography(height, width, angle))
        inverse = to_pillow @ inverse @ from_pillow
        method = Image.Transform.PERSPECTIVE
        data = tuple((inverse / inverse[2, 2]).ravel()[:8].tolist())
        yield np.stack(
            [np.asarray(p.transform((width, height), method, data, BILINEAR)) for p in pictures]
        )
