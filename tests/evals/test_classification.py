import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robust_jax.data.sources import from_arrays
from robust_jax.evals import classification, corruption
from robust_jax.evals.classification import EvalSet
from robust_jax.sharding import make_mesh


def _source(count=23):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, 8, 8, 3), np.uint8)
    return images, from_arrays(images, np.arange(count, dtype=np.int32) % 3)


@jax.jit
def _sums(arrays, batch):
    sums = batch["image"].astype(jnp.int32).sum((1, 2, 3))
    return {"sum": sums + arrays, "label": batch["label"]}


@pytest.mark.parametrize("batch_size", [1, 4, 10, 23, 100])
@pytest.mark.parametrize("devices", [1, 4])
def test_every_image_counts_once_in_order(batch_size, devices):
    images, source = _source()
    mesh = make_mesh(jax.devices()[:devices])
    outputs = classification.evaluate(
        _sums, jnp.asarray(7), EvalSet(source, "decode"), batch_size=batch_size, mesh=mesh
    )
    expected = images.astype(np.int64).sum((1, 2, 3)) + 7
    np.testing.assert_array_equal(outputs["sum"], expected)
    np.testing.assert_array_equal(outputs["label"], source.labels)


def test_second_pass_reads_what_the_first_kept():
    images, source = _source()
    eval_set = EvalSet(source, "decode")
    for _ in range(2):
        found = np.concatenate([batch for batch, _ in eval_set.batches(5)])
        np.testing.assert_array_equal(found, images)


def test_an_abandoned_pass_is_not_kept():
    images, source = _source()
    eval_set = EvalSet(source, "decode")
    next(iter(eval_set.batches(5)))
    found = np.concatenate([batch for batch, _ in eval_set.batches(5)])
    np.testing.assert_array_equal(found, images)


def test_transform_sees_images_and_ids():
    images, source = _source()
    seen = []

    def transform(batch, ids):
        seen.extend(ids)
        return 255 - batch

    outputs = classification.evaluate(
        _sums,
        jnp.asarray(0),
        EvalSet(source, "decode"),
        batch_size=8,
        mesh=make_mesh(),
        transform=transform,
    )
    assert seen == list(range(23))
    np.testing.assert_array_equal(outputs["sum"], (255 - images.astype(np.int64)).sum((1, 2, 3)))


def test_max_images_is_a_fixed_subset():
    _, source = _source()
    few, fewer = EvalSet(source, "decode", 10), EvalSet(source, "decode", 5)
    assert len(few.labels) == 10 and len(fewer.labels) == 5
    ids = {eval_set: set(np.flatnonzero(_member(eval_set, source))) for eval_set in (few, fewer)}
    assert ids[fewer] < ids[few]


def _member(eval_set, source):
    kept = {batch.tobytes() for images, _ in eval_set.batches(4) for batch in images}
    return [source.read(i).tobytes() in kept for i in range(len(source))]


def test_grid():
    assert len(corruption.grid(("all",), (1, 2, 3, 4, 5))) == 75
    assert corruption.grid(("fog", "snow"), (5,)) == [("fog", 5), ("snow", 5)]
    with pytest.raises(ValueError, match=r"unknown corruption; got .foggy.*mean .fog."):
        corruption.grid(("foggy",), (1,))
    with pytest.raises(ValueError, match="severities must be whole numbers from 1 to 5; got"):
        corruption.grid(("fog",), (0, 6))


def test_corruption_transform_does_not_depend_on_the_batch():
    images = np.random.default_rng(1).integers(0, 256, (6, 32, 32, 3), np.uint8)
    ids = np.arange(6)
    whole = corruption.transform("gaussian_noise", 3, 0)(images, ids)
    part = corruption.transform("gaussian_noise", 3, 0)(images[2:4], ids[2:4])
    np.testing.assert_array_equal(whole[2:4], part)
