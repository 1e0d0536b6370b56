"""Small folders of images, and the -C and -P that the command makes of them."""

import numpy as np
from PIL import Image

from robust_jax import corrupt

CLASSES = ("ant", "bee", "cow")
OPTIONS = ["--corruption", "fog", "shot_noise", "--severity", "1", "5", "--perturbation", "tilt"]


def make_folder(root, sides, counts=(3, 2, 4), suffixes=(".jpg", ".png")):
    """Noisy colours, `sides(number)` high and wide; returns them as files are sorted."""
    rng, pixels = np.random.default_rng(0), []
    for label, (name, count) in enumerate(zip(CLASSES, counts, strict=True)):
        (root / name).mkdir(parents=True)
        for number in range(count):
            image = rng.integers(0, 120, (*sides(len(pixels)), 3), np.uint8)
            image[..., label] += 100
            file = root / name / f"{number}{suffixes[number % len(suffixes)]}"
            Image.fromarray(image).save(file)
            pixels.append(np.asarray(Image.open(file)))
    return pixels


def command(source, target, *options):
    return corrupt.main([str(source), str(target), *options])


def names(source, suffix):
    return [
        f"{kind}/{path.stem}{suffix}"
        for kind in CLASSES
        for path in sorted((source / kind).iterdir())
    ]


def read(directory, files):
    return np.stack([np.asarray(Image.open(directory / file)) for file in files])
