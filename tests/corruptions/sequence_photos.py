"""The images that tests of sequences perturb."""

import numpy as np
from scipy import ndimage

from robust_jax.corruptions.sequences import perturb


def photos(b, side=32, seed=0):
    """Smooth random colours with edges: closer to photographs than white noise."""
    fields = np.random.default_rng(seed).normal(size=(b, side, side, 3))
    smooth = ndimage.gaussian_filter(fields, (0, side / 16, side / 16, 0))
    smooth = smooth / smooth.std() * 45 + 110
    smooth[:, side // 3 : side // 2, side // 4 : side // 2] += 70
    return np.clip(smooth, 0, 255).astype(np.uint8)


def one(image, name, **options):
    return perturb(image[None], name, ids=[0], **options)[0]
