import jax
import numpy as np
import pytest

from robust_jax import sharding
from robust_jax.data import sources
from robust_jax.evals.features import extract

IMAGES = np.random.default_rng(0).integers(0, 256, (23, 8, 8, 3), np.uint8)
SOURCE = sources.from_arrays(IMAGES, np.arange(23) % 3)


@jax.jit
def function(scale, batch):
    flat = batch["image"].reshape(len(batch["label"]), -1) / 255
    return {"mean": scale * flat.mean(1), "first": flat[:, :2]}


def features(directory, function=function, batch_size=6, weights=None, source=SOURCE):
    return extract(
        function,
        np.float32(2),
        source,
        "",
        outputs=("mean", "first"),
        directory=directory,
        weights=weights or {"of": "these"},
        batch_size=batch_size,
        mesh=sharding.make_mesh(),
        name="features",
    )


class Counted:
    """Counts the calls, and is interrupted at one of them."""

    def __init__(self, stop_at=None):
        self.calls, self.stop_at = 0, stop_at

    def __call__(self, scale, batch):
        if self.calls == self.stop_at:
            raise KeyboardInterrupt
        self.calls += 1
        return function(scale, batch)


def test_features_of_each_image_in_order(tmp_path):
    found = features(tmp_path)
    np.testing.assert_allclose(found["mean"], 2 * IMAGES.mean((1, 2, 3)) / 255, rtol=1e-5)
    np.testing.assert_allclose(found["first"], IMAGES.reshape(23, -1)[:, :2] / 255, rtol=1e-6)


def test_an_interrupted_pass_continues(tmp_path):
    whole = features(tmp_path / "whole")
    first = Counted(stop_at=3)
    with pytest.raises(KeyboardInterrupt):
        features(tmp_path / "part", first)
    second = Counted()
    found = features(tmp_path / "part", second)
    # Batches of 8, a multiple of the devices: the shapes and a block of two, then the rest.
    assert (first.calls, second.calls) == (3, 1)
    for name, values in whole.items():
        np.testing.assert_array_equal(found[name], values)
    features(tmp_path / "part", Counted(stop_at=0))  # nothing is computed again


def test_features_of_something_else_are_not_taken(tmp_path):
    features(tmp_path)
    with pytest.raises(ValueError, match=r"built from something else; its \['of'\] differ"):
        features(tmp_path, weights={"of": "those"})
    with pytest.raises(ValueError, match=r"its \['source'\] differ"):
        features(tmp_path, source=SOURCE.subset(np.arange(23)))
