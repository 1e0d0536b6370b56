"""What is answered along sequences, and what that makes of flips, by hand."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robust_jax.corruptions.sequences import EXTRA_SEQUENCES, SEQUENCES, perturb
from robust_jax.data.sources import from_arrays
from robust_jax.evals import perturbation, robustness
from robust_jax.evals.answers import summarise
from robust_jax.evals.classification import EvalSet
from robust_jax.sharding import make_mesh


def grey(*levels):
    return np.stack([np.full((8, 8, 3), level, np.uint8) for level in levels])


@jax.jit
def bright(arrays, batch):
    """Class 1 if the image is lighter than 128 on average, of two classes."""
    level = batch["image"].astype(jnp.float32).mean((1, 2, 3))
    return {"one/label": (level > arrays).astype(jnp.int32), "one/head": level}


@jax.jit
def bins(arrays, batch):
    """The class of 10 levels is ranked first, then its neighbours in order of distance."""
    level = batch["image"].astype(jnp.float32).mean((1, 2, 3))[:, None] / 10
    said = summarise(jax.nn.softmax(-jnp.abs(level - jnp.arange(26) - 0.4)), batch["label"])
    return {f"one/{key}": values for key, values in said.items()}


def along(function, images, name, *, batch_size=8, seed=0, crop=8):
    source = from_arrays(images, np.arange(len(images)) % 2, ["a", "b"])
    frames = perturbation.generated(
        EvalSet(source, ""), name, crop=crop, seed=seed, batch_size=batch_size
    )
    arrays = np.float32(128)
    mesh = make_mesh()
    return perturbation.evaluate(function, arrays, frames, batch_size=batch_size, mesh=mesh)


def test_flips_of_brightness_by_hand():
    # 31 frames of ±0.225 of the range in steps of 3.825 levels: the image of 120 crosses 128 once,
    # that of 20 (at most 77) never.
    found = along(bright, grey(120, 20), "brightness")
    assert set(found) == {"one/label"}
    assert robustness.flip_rates(list(found["one/label"])) == [pytest.approx(1 / 30), 0]


def test_top5_against_the_definition():
    images = grey(120, 100)
    found = along(bins, images, "brightness", batch_size=1)
    assert found["one/top5"].shape == (2, 31, 5)
    distances = []
    for sequence in perturb(images, "brightness", ids=[0, 1]):
        level = sequence.mean((1, 2, 3))[:, None] / 10
        order = np.argsort(np.abs(level - np.arange(26) - 0.4), axis=1, kind="stable")
        pairs = itertools.pairwise(order)
        far = [
            sum(abs(i - min(list(after).index(before[i]), 5)) for i in range(5))
            for before, after in pairs
        ]
        distances.append(np.mean(far))
    assert robustness.top5_distances(found["one/top5"]) == pytest.approx(distances)
    assert 0 < np.mean(distances) < 15


@pytest.mark.parametrize("name", ["gaussian_noise", "motion_blur", "translate"])
def test_every_frame_once_in_order_for_any_batch_size(name):
    images = np.random.default_rng(0).integers(0, 256, (37, 12, 12, 3), np.uint8)
    found = [along(bright, images, name, batch_size=b, seed=3, crop=12) for b in (8, 100)]
    frames = perturb(images, name, ids=np.arange(37), seed=3)
    expected = frames.mean((2, 3, 4), dtype=np.float32) > 128
    for one in found:
        assert np.mean(one["one/label"] == expected) > 0.999  # a mean may lie on the edge
    other = along(bright, images, name, seed=4, crop=12)
    noise = name == "gaussian_noise"
    assert np.array_equal(other["one/label"], found[0]["one/label"]) != noise


def test_frames_are_cropped_from_larger_images():
    images = np.zeros((1, 12, 12, 3), np.uint8)
    images[:, :2] = 255  # outside of the crop until it is turned
    source = EvalSet(from_arrays(images, np.array([1]), ["a", "b"]), "")
    ((frames, labels),) = perturbation.generated(source, "rotate", crop=8, seed=0, batch_size=4)
    assert frames.shape == (1, 31, 8, 8, 3) and labels.tolist() == [1]
    assert frames[0, 15].max() == 0 < frames[0, 0].max()


def test_names():
    assert perturbation.names(("all",)) == SEQUENCES
    assert perturbation.names(("tilt", "extra", "tilt")) == ("tilt", *EXTRA_SEQUENCES)
    with pytest.raises(ValueError, match=r"unknown sequence; got 'brightnes'.*mean 'brightness'"):
        perturbation.names(("brightnes",))
