"""The images, sources and elements that the tests of the pipeline share."""

import io

import numpy as np
from PIL import Image

from robust_jax.data import sources
from robust_jax.data.pipeline import Elements

N = 23
AUGMENT = "random_crop(8, pad=3)|flip_lr"


def images(count=N, sides=(8, 8)):
    return np.random.default_rng(0).integers(0, 256, (count, *sides, 3), np.uint8)


def arrays(count=N, sides=(8, 8)):
    return sources.from_arrays(images(count, sides), np.arange(count) % 3)


def elements(source=None, ops="", views=None, seed=5, **kwargs):
    views = {"clean": "", "aug": AUGMENT} if views is None else views
    return Elements(arrays() if source is None else source, ops, views, seed, **kwargs)


def encode(image, form="PNG"):
    file = io.BytesIO()
    Image.fromarray(image).save(file, form)
    return file.getvalue()


def of(*data):
    """A source whose records are `data`."""
    labels = (np.arange(len(data)) % 2).astype(np.int32)
    return sources.Source("these", ("a", "b"), labels, list(data).__getitem__, "")
