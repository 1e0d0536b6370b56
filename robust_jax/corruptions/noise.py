"""Gaussian, speckle, shot and impulse noise (Hendrycks & Dietterich 2019)."""

from collections.abc import Sequence

import numpy as np
from numpy.random import Generator


def normal(images: np.ndarray, rngs: Sequence[Generator], sigma: float) -> np.ndarray:
    """f32 of the shape of `images`, each drawn from its own generator."""
    draws = np.empty(images.shape, np.float32)
    for rng, out in zip(rngs, draws, strict=True):
        rng.standard_normal(out=out, dtype=np.float32)
    draws *= np.float32(sigma)
    return draws


def gaussian_noise(images: np.ndarray, rngs: Sequence[Generator], sigma: float) -> np.ndarray:
    """Adds normal noise of standard deviation `sigma` (of the range) to u8[b, h, w, 3]."""
    return images + 255 * sigma * normal(images, rngs, 1).astype(np.float64)


def speckle_noise(images: np.ndarray, rngs: Sequence[Generator], sigma: float) -> np.ndarray:
    """Normal noise on u8[b, h, w, 3] of standard deviation `sigma` times the pixel."""
    return images + images * (sigma * normal(images, rngs, 1).astype(np.float64))


def shot_noise(images: np.ndarray, rngs: Sequence[Generator], photons: float) -> np.ndarray:
    """Poisson noise on u8[b, h, w, 3] where white is `photons` photons."""
    rates = images * (photons / 255)
    counts = [rng.poisson(rate) for rng, rate in zip(rngs, rates, strict=True)]
    return np.stack(counts) / photons * 255


def impulse_noise(images: np.ndarray, rngs: Sequence[Generator], fraction: float) -> np.ndarray:
    """Salt and pepper, half each, on `fraction` of the values of u8[b, h, w, 3]."""
    uniform = np.empty(images.shape, np.float32)
    for rng, out in zip(rngs, uniform, strict=True):
        rng.random(out=out, dtype=np.float32)
    noisy = images.copy()
    noisy[uniform < fraction] = 0
    noisy[uniform < fraction / 2] = 255
    return noisy
