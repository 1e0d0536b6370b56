"""The images, sources, copies and elements that the tests of the pipeline share."""

import io

import numpy as np
from PIL import Image

from robust_jax.data import sources
from robust_jax.data.copies import Copies, copy_names, kind_of
from robust_jax.data.copies import write as write_copies
from robust_jax.data.pipeline import Elements, train_batches

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


def train(elements, **kwargs):
    defaults = {"batch_size": 6, "start_step": 0, "num_steps": 8}
    return list(train_batches(elements, **(defaults | kwargs)))


def join(batches):
    return {key: np.concatenate([batch[key] for batch in batches]) for key in batches[0]}


def assert_same(left, right):
    assert len(left) == len(right)
    for a, b in zip(left, right, strict=True):
        assert a.keys() == b.keys()
        for key in a:
            np.testing.assert_array_equal(a[key], b[key], err_msg=key)


def smooth_images(count=N, sides=(8, 8)):
    """Colour gradients, of which a JPEG loses little."""
    draw = np.random.default_rng(0)
    corners = draw.uniform(40, 200, (count, 2, 2, 3))
    y, x = (np.linspace(0, 1, side) for side in sides)
    along = np.einsum("hi,nijc->nhjc", np.stack([1 - y, y], 1), corners)
    return np.einsum("wj,nhjc->nhwc", np.stack([1 - x, x], 1), along).astype(np.uint8)


def invert(images, seeds):
    return 255 - images


def shade(images, seeds):
    """Takes from 0 to 29 off, as the seed says."""
    return images - (seeds.sum(1) % 30).astype(np.uint8)[:, None, None, None]


DISTORTIONS = {"cae": (invert, {"weights": "i"}), "noise2net": (shade, {"max_eps": 0.5})}
COPIES = copy_names(DISTORTIONS, 2)


def write(
    directory, source, *, names=COPIES, ops="", distortions=DISTORTIONS, seed=3, batch_size=6
):
    """Writes copies of a source and returns where they lie."""
    copies = Copies.of(directory, names, source)
    used = {kind_of(name) for name in names}
    chosen = {kind: made for kind, made in distortions.items() if kind in used}
    write_copies(copies, source, ops, chosen, seed=seed, batch_size=batch_size)
    return copies


def classified(count=N, names=("ant", "bee", "cat")):
    return sources.from_arrays(smooth_images(count), np.arange(count) % 3, names)


def pixels(data):
    return np.asarray(Image.open(io.BytesIO(data)))


def files(root):
    """Every file but the record of the time, with its content."""
    found = {str(f.relative_to(root)): f.read_bytes() for f in root.rglob("*") if f.is_file()}
    assert found.pop("done.json")
    return found
