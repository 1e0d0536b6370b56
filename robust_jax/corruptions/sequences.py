"""The perturbation sequences of ImageNet-P: ten for the metric and four for validation.

Constants: Hendrycks & Dietterich 2019, `make_imagenet_p.py`, `make_tinyimagenet_p.py` and
`make_cifar_p.py` in github.com/hendrycks/robustness at 8190fe3, chosen by the size of the frames as
in `corruptions.corrupt`. Frames are uint8 in memory; all but CIFAR-P were then saved as video.

For ImageNet-P give images whose shorter side is 256 and `crop=224`: what moves then comes from
beyond the crop. Without a margin it is black, as in CIFAR-P. Tiny-ImageNet-P blurred the photograph
before it was shrunk to 64; here motion blur acts on the image given, and so is stronger. CIFAR-P is
usually reported with spatter in the place of snow.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.random import Generator

from robust_jax.corruptions import batches, blur, digital, noise, spatter, warps, weather
from robust_jax.corruptions.constants import CORRUPTIONS, benchmark_for

SEQUENCES = (
    "gaussian_noise",
    "shot_noise",
    "motion_blur",
    "zoom_blur",
    "snow",
    "brightness",
    "translate",
    "rotate",
    "tilt",
    "scale",
)
EXTRA_SEQUENCES = ("speckle_noise", "gaussian_blur", "spatter", "shear")
_ALL = SEQUENCES + EXTRA_SEQUENCES
_NOISES = ("gaussian_noise", "shot_noise", "speckle_noise")
# These are computed on the whole image; the others on the crop, as in the reference.
_MOVING = ("zoom_blur", "translate", "rotate", "tilt", "scale", "shear")


class _Sequence(NamedTuple):
    """What changes from frame to frame, and what does not; of noise one constant a difficulty."""

    steps: Sequence[Any]
    constants: tuple[Any, ...] = ()


_COUNT = range(31)
_IMAGENET = {
    "gaussian_noise": _Sequence(_COUNT, (0.03, 0.05, 0.08)),
    "shot_noise": _Sequence(_COUNT, (300, 120, 60)),
    "motion_blur": _Sequence(range(-120, 1, 4), (10, 3)),
    "zoom_blur": _Sequence([1 + 0.004 * i for i in _COUNT]),
    "snow": _Sequence(range(-150, -29, 4), (0.05, 0.3, 3, 0.5, 14, 4, 0.85)),
    "brightness": _Sequence([(i - 15) * 2 / 100 for i in _COUNT]),
    "translate": _Sequence(range(-20, 21)),
    "rotate": _Sequence(range(-15, 16)),
    "tilt": _Sequence(range(-15, 16)),
    "scale": _Sequence([(2.5 * i + 40) / 100 for i in _COUNT]),
    "speckle_noise": _Sequence(_COUNT, (0.05, 0.1, 0.15)),
    "gaussian_blur": _Sequence([0.25 + 0.035 * i for i in _COUNT], (6,)),
    "spatter": _Sequence(_COUNT, (0.65, 0.27, 3.7, 0.69, (0.05, 0.1, 0.15, 0.7))),
    "shear": _Sequence(range(-15, 16)),
}
_TINY = _IMAGENET | {
    "gaussian_noise": _Sequence(_COUNT, (0.025, 0.05, 0.075)),
    "shot_noise": _Sequence(_COUNT, (500, 250, 125)),
    "motion_blur": _Sequence(range(-150, 1, 5), (14, 3)),
    "snow": _Sequence(range(-150, -29, 4), (0.05, 0.28, 2, 0.5, 10, 2.5, 0.85)),
    "translate": _Sequence(range(-15, 16)),
    "gaussian_blur": _Sequence([0.35 + 0.014 * i for i in _COUNT], (7,)),
    "spatter": _Sequence(_COUNT, (0.6, 0.25, 1.75, 0.7, (0.2, 0.8))),
}
_CIFAR = _IMAGENET | {
    "gaussian_noise": _Sequence(_COUNT, (0.02, 0.04, 0.06)),
    "shot_noise": _Sequence(_COUNT, (700, 400, 200)),
    "motion_blur": _Sequence(range(-180, 1, 9), (6, 1.8)),
    "snow": _Sequence(range(-150, -29, 4), (0.05, 0.3, 2, 0.5, 10, 2, 0.85)),
    "brightness": _Sequence([(i - 15) * 1.5 / 100 for i in _COUNT]),
    "translate": _Sequence(range(-7, 9)),
    "tilt": _Sequence([0.75 * (i - 15) for i in _COUNT]),
    "scale": _Sequence([(2 * i + 70) / 100 for i in _COUNT]),
    "speckle_noise": _Sequence(_COUNT, (0.05, 0.07, 0.1)),
    "gaussian_blur": _Sequence([0.3 + 0.015 * i for i in _COUNT], (7,)),
    "spatter": _Sequence(_COUNT, (0.6, 0.265, 1.75, 0.7, (0.2, 0.8))),
}
_TABLES = {"imagenet": _IMAGENET, "tiny": _TINY, "cifar": _CIFAR}


def is_noise(name: str) -> bool:
    """Whether the frames are independent draws, each to be compared with frame 1 (the image)."""
    batches.check_name(name, _ALL, "sequence")
    return name in _NOISES


def frames(name: str, size: int) -> int:
    """The number of frames of a sequence whose longer side is `size` pixels."""
    batches.check_name(name, _ALL, "sequence")
    return len(_TABLES[benchmark_for(size, size)][name].steps)


def perturb(
    images: np.ndarray,
    name: str,
    *,
    ids: Any,
    seed: int = 0,
    difficulty: int = 1,
    crop: int | None = None,
) -> np.ndarray:
    """All frames of a sequence; those of an image do not depend on the rest of the batch.

    Args:
        images: u8[b, h, w, 3], sides of at least 8 px.
        name: one of SEQUENCES or EXTRA_SEQUENCES.
        ids: i[b], non-negative: with seed, name and difficulty they determine the randomness.
        seed: non-negative.
        difficulty: 1 to 3 for noise (more of it). The harder versions of the other sequences are
            the same frames, compared with every second or third: pass 1 and slice.
        crop: side of the middle square to return, or None for the whole frame.

    Returns:
        u8[b, f, h', w', 3], f = `frames(name, max(h', w'))`, truncated as in the reference.
    """
    batches.check_name(name, _ALL, "sequence")
    images, ids = batches.as_batch(images, ids, seed)
    b, *sides = images.shape[:3]
    if crop is not None and not batches.SMALLEST_SIDE <= crop <= min(sides):
        raise ValueError(
            f"crop must be from {batches.SMALLEST_SIDE} to the shorter side; got {crop} for "
            f"{sides[0]}x{sides[1]}; choose a smaller one or give larger images"
        )
    height, width = sides if crop is None else (crop, crop)
    steps, constants = _TABLES[benchmark_for(height, width)][name]
    allowed = range(1, 4) if name in _NOISES else range(1, 2)
    if not isinstance(difficulty, int | np.integer) or difficulty not in allowed:
        raise ValueError(
            f"difficulty is 1, 2 or 3 for noise and 1 for other sequences; got {difficulty!r} for "
            f"{name}; for a harder {name} compare every second or third frame of difficulty 1"
        )
    if name in _NOISES:
        constants = constants[difficulty - 1 : difficulty]
    top, left = (sides[0] - height) // 2, (sides[1] - width) // 2
    middle: tuple[Any, ...] = (
        ...,
        slice(top, top + height),
        slice(left, left + width),
        slice(None),
    )
    if name not in _MOVING:
        images, middle = images[middle], (...,)
    result = np.empty((b, len(steps), height, width, 3), np.uint8)

    def run(part: slice) -> None:
        # Beyond the numbers that `corrupt` uses, so that no stream serves both.
        stream = (seed, len(CORRUPTIONS) + _ALL.index(name), int(difficulty))
        rngs = [np.random.default_rng([*stream, int(i)]) for i in ids[part]]
        moving = _FUNCTIONS[name](images[part], rngs, steps, constants)
        for index, frame in enumerate(moving):
            result[part, index] = batches.truncate(frame[middle])

    batches.in_parts(run, b, sides[0] * sides[1])
    return result


def _noisy(function: Callable[..., np.ndarray]) -> Callable[..., Iterator[np.ndarray]]:
    def draws(
        images: np.ndarray, rngs: Sequence[Generator], steps: Sequence[int], constants: tuple[float]
    ) -> Iterator[np.ndarray]:
        yield images
        for _ in steps[1:]:
            yield function(images, rngs, *constants)

    return draws


def _line_blurs(
    images: np.ndarray, steps: Sequence[float], radius: int, sigma: float
) -> Iterator[np.ndarray]:
    """Motion blurs of f32[b, h, w, c] along each of the steps, in degrees."""
    b, height, width, c = images.shape
    # The angle is the same for the batch, which goes last for every weight to act on a long run.
    packed = np.moveaxis(images, 0, 2).reshape(1, height, width, b * c)
    for angle in steps:
        blurred = blur.line_blur(packed, radius, sigma, np.array([angle]))
        yield np.moveaxis(blurred.reshape(height, width, b, c), 2, 0)


def _motion_blurs(
    images: np.ndarray,
    rngs: Sequence[Generator],
    steps: Sequence[float],
    constants: tuple[int, float],
) -> Iterator[np.ndarray]:
    del rngs
    return _line_blurs(images.astype(np.float32), steps, *constants)


def _snowfall(
    images: np.ndarray, rngs: Sequence[Generator], steps: Sequence[float], constants: Any
) -> Iterator[np.ndarray]:
    *layer, radius, sigma, mix = constants
    height, width = images.shape[1:3]
    flakes = weather.snow_layer(rngs, height, width, tuple(layer))
    white = weather.whiten(images, mix)
    for falling in _line_blurs(flakes, steps, radius, sigma):
        yield white + falling + falling[:, ::-1, ::-1]


def _brightnesses(
    images: np.ndarray, rngs: Sequence[Generator], steps: Sequence[float], constants: tuple[()]
) -> Iterator[np.ndarray]:
    del constants
    for shift in steps:
        # Truncated HSV would take a level from some pixels of the image itself.
        yield digital.brightness(images, rngs, shift) if shift else images


def _gaussian_blurs(
    images: np.ndarray, rngs: Sequence[Generator], steps: Sequence[float], constants: tuple[float]
) -> Iterator[np.ndarray]:
    del rngs
    pixels = images.astype(np.float32)
    for sigma in steps:
        yield blur.gaussian_blur(pixels, sigma, *constants)


_FUNCTIONS: dict[str, Callable[..., Iterator[np.ndarray]]] = {
    "gaussian_noise": _noisy(noise.gaussian_noise),
    "shot_noise": _noisy(noise.shot_noise),
    "motion_blur": _motion_blurs,
    "zoom_blur": warps.zoom_blurs,
    "snow": _snowfall,
    "brightness": _brightnesses,
    "translate": warps.translations,
    "rotate": warps.rotations,
    "tilt": warps.tilts,
    "scale": warps.scalings,
    "speckle_noise": _noisy(noise.speckle_noise),
    "gaussian_blur": _gaussian_blurs,
    "spatter": spatter.spatters,
    "shear": warps.shears,
}
