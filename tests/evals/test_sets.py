"""The pass over sets: what is evaluated, what an interrupted pass leaves, and what is made anew."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robust_jax.corruptions import corrupt
from robust_jax.corruptions.sequences import perturb
from robust_jax.data.sources import from_arrays
from robust_jax.evals import sets
from robust_jax.sharding import make_mesh

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 12, 12, 3), np.uint8)
LABELS = np.array([0, 1, 2, 0, 1])
SOURCE = from_arrays(IMAGES, LABELS)


def own_sets(**changes):
    choice = sets.Choice(("fog",), (1, 5), ("tilt",), seed=3)._replace(**changes)
    return sets.own_sets(SOURCE, "central_crop(8)", "", choice, size=8)


class Model:
    """Sums the pixels; counts how often it is built and the images that it has seen."""

    def __init__(self):
        self.built, self.seen = [], 0

    def __call__(self, subset):
        self.built.append(subset)

        @jax.jit
        def sums(arrays, images):
            return images.astype(jnp.int32).sum((1, 2, 3)) + arrays

        def function(arrays, batch):
            self.seen += len(batch["image"])
            return {"one/label": sums(arrays, batch["image"]), "one/head": batch["label"]}

        return function


def measure(found, model, store, version="1"):
    return sets.measure(
        found,
        model,
        np.int32(0),
        store,
        version=version,
        batch_size=5,
        mesh=make_mesh(jax.devices()[:1]),
    )


def test_own_sets_by_hand(tmp_path):
    clean, mild, strong, tilt = measure(own_sets(), Model(), tmp_path)
    crop = IMAGES[:, 2:10, 2:10].astype(np.int64)
    assert clean.where == {"set": "clean"}
    np.testing.assert_array_equal(clean.outputs["one/label"], crop.sum((1, 2, 3)))
    np.testing.assert_array_equal(clean.outputs["one/head"], LABELS)
    fog = corrupt(IMAGES[:, 2:10, 2:10], "fog", 5, ids=np.arange(5), seed=3).astype(np.int64)
    assert strong.where == {"set": "corruption", "corruption": "fog", "severity": 5}
    np.testing.assert_array_equal(strong.outputs["one/label"], fog.sum((1, 2, 3)))
    assert mild.where["severity"] == 1
    frames = perturb(IMAGES, "tilt", ids=np.arange(5), seed=3, crop=8).astype(np.int64)
    assert tilt.where == {"set": "perturbation", "perturbation": "tilt"}
    assert set(tilt.outputs) == {"one/label"}
    np.testing.assert_array_equal(tilt.outputs["one/label"], frames.sum((2, 3, 4)))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "clean.npz",
        "flips-tilt.npz",
        "fog-1.npz",
        "fog-5.npz",
    ]


def test_finished_sets_are_not_evaluated_again(tmp_path):
    whole = measure(own_sets(), Model(), tmp_path)
    (tmp_path / "fog-1.npz").unlink()
    model = Model()
    again = measure(own_sets(), model, tmp_path)
    assert model.seen == 5 and model.built == [None]
    for one, other in zip(whole, again, strict=True):
        jax.tree.map(np.testing.assert_array_equal, one.outputs, other.outputs)


@pytest.mark.parametrize(
    ("changes", "version", "seen"),
    [
        ({}, "1", 0),
        ({}, "2", 3 * 5),
        ({"seed": 4}, "1", 2 * 5),  # not the clean images
        ({"jpeg85": True}, "1", 2 * 5),
        ({"max_images": 3}, "1", 3 * 3),
    ],
)
def test_what_changed_is_evaluated_again(changes, version, seen, tmp_path):
    few = {"corruptions": ("fog", "gaussian_noise"), "severities": (1,), "perturbations": ()}
    measure(own_sets(**few), Model(), tmp_path)
    model = Model()
    measure(own_sets(**few, **changes), model, tmp_path, version)
    assert model.seen == seen


@pytest.mark.parametrize(("most", "images", "frames"), [((None, 2), 5, 2), ((3, 4), 3, 3)])
def test_sequences_may_be_fewer_than_images(most, images, frames, tmp_path):
    found = own_sets(max_images=most[0], max_sequences=most[1])
    *shown, tilt = measure(found, Model(), tmp_path)
    assert [len(one.labels) for one in shown] == [len(one.outputs["one/label"]) for one in shown]
    assert {len(one.labels) for one in shown} == {images}
    assert len(tilt.labels) == len(tilt.outputs["one/label"]) == frames


def test_what_is_stored_of_images_and_frames(tmp_path):
    def function(arrays, batch):
        count = len(batch["image"])
        return {"one/label": batch["label"], "one/top5": np.zeros((count, 5), np.int32)}

    clean, *_, tilt = measure(own_sets(), lambda subset: function, tmp_path)
    assert set(clean.outputs) == {"one/label"}  # of frames it matters how the best answers move
    assert set(tilt.outputs) == {"one/label", "one/top5"}


def test_a_function_is_built_once_for_each_subset(tmp_path):
    class Half:
        name = "half"

    clean, *_ = own_sets()
    restricted = [
        dataclasses.replace(clean, where={"set": name}, subset=subset)
        for name, subset in (("a", Half), ("b", Half), ("c", None))
    ]
    model = Model()
    measure([clean, *restricted], model, tmp_path)
    assert model.built == [None, Half]
