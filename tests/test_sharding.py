import jax
import numpy as np
import optax
import pytest

from robust_jax import models, sharding
from robust_jax.method import supervised
from robust_jax.state import TrainState


def test_batch_is_split_over_devices_and_whole():
    batch = {"x": np.arange(8 * 3, dtype=np.float32).reshape(8, 3)}
    for count in (1, 4):
        placed = sharding.shard_batch(batch, sharding.make_mesh(jax.devices()[:count]))["x"]
        assert len(placed.addressable_shards) == count
        assert placed.addressable_shards[0].data.shape == (8 // count, 3)
        np.testing.assert_array_equal(placed, batch["x"])


def test_batch_size_error_names_a_size_that_works():
    mesh = sharding.make_mesh(jax.devices()[:4])
    sharding.check_batch_size(8, mesh, "train.batch_size")
    with pytest.raises(ValueError, match=r"train.batch_size must be .* got 10 on 4 .*; use 8"):
        sharding.check_batch_size(10, mesh, "train.batch_size")


def test_a_step_on_four_devices_is_the_step_on_one():
    model = models.build("vit_tiny8", 5, width=24, depth=1, mlp_dim=48)
    # SGD: Adam would blow up rounding where a gradient is zero (the bias of the attention keys).
    entry, optimizer = models.entry("vit_tiny8"), optax.sgd(0.1)
    params = model.init(jax.random.key(0), model.example_input())["params"]
    step = jax.jit(supervised.make_step(model, entry, optimizer, loss="augmix_jsd"))
    rng = np.random.default_rng(0)
    batch = {
        view: rng.integers(0, 256, (8, 32, 32, 3), np.uint8) for view in ("image", "aug1", "aug2")
    }
    batch["label"] = np.arange(8, dtype=np.int32) % 5
    results = []
    for count in (1, 4):
        mesh = sharding.make_mesh(jax.devices()[:count])
        state = sharding.replicate(TrainState.create(params, optimizer), mesh)
        for _ in range(3):
            state, metrics = step(state, {}, sharding.shard_batch(batch, mesh))
        results.append((state.params, float(metrics["loss"])))
    assert results[0][1] == pytest.approx(results[1][1], rel=1e-5)
    for one, four in zip(*(jax.tree.leaves(r[0]) for r in results), strict=True):
        np.testing.assert_allclose(one, four, atol=1e-5)
