"""AugMix's operations in Pillow, and an image to try them on."""

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

EXACT = ("autocontrast", "equalize", "posterize", "solarize")


def _affine(image, *matrix):
    return image.transform(image.size, Image.AFFINE, matrix, resample=Image.BILINEAR)


def _enhance(enhancer, image, level):
    return enhancer(image).enhance(level * 1.8 / 10 + 0.1)


# As the published augmentations.py, with the level and sign given and the image's own size.
PILLOW = {
    "autocontrast": lambda im, L, s: ImageOps.autocontrast(im),
    "equalize": lambda im, L, s: ImageOps.equalize(im),
    "posterize": lambda im, L, s: ImageOps.posterize(im, 4 - int(L * 4 / 10)),
    "rotate": lambda im, L, s: im.rotate(s * int(L * 30 / 10), resample=Image.BILINEAR),
    "solarize": lambda im, L, s: ImageOps.solarize(im, 256 - int(L * 256 / 10)),
    "shear_x": lambda im, L, s: _affine(im, 1, s * (L * 0.3 / 10), 0, 0, 1, 0),
    "shear_y": lambda im, L, s: _affine(im, 1, 0, 0, s * (L * 0.3 / 10), 1, 0),
    "translate_x": lambda im, L, s: _affine(im, 1, 0, s * int(L * (im.width / 3) / 10), 0, 1, 0),
    "translate_y": lambda im, L, s: _affine(im, 1, 0, 0, 0, 1, s * int(L * (im.height / 3) / 10)),
    "color": lambda im, L, s: _enhance(ImageEnhance.Color, im, L),
    "contrast": lambda im, L, s: _enhance(ImageEnhance.Contrast, im, L),
    "brightness": lambda im, L, s: _enhance(ImageEnhance.Brightness, im, L),
    "sharpness": lambda im, L, s: _enhance(ImageEnhance.Sharpness, im, L),
}


def photo(height, width, seed=0):
    """uint8[h, w, 3] with smooth parts, noise and a narrow range in one channel."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    smooth = np.stack([200 * y / height, 127 + 120 * np.sin(x / 5), 90 + 40 * np.cos(y / 7)], -1)
    noise = rng.normal(0, [3, 12, 1], (height, width, 3))
    return np.clip(smooth + noise, 0, 255).astype(np.uint8)
