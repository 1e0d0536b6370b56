import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec

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


def test_stacked_batches_are_split_along_their_second_axis():
    steps = {"x": np.arange(3 * 8, dtype=np.float32).reshape(3, 8)}
    placed = sharding.shard_batch(steps, sharding.make_mesh(), stacked=True)["x"]
    assert placed.addressable_shards[0].data.shape == (3, 2)
    np.testing.assert_array_equal(placed, steps["x"])


def test_large_arrays_are_shared_along_their_longest_axis():
    mesh = sharding.make_mesh(fsdp=2)
    assert mesh.shape == {"data": 2, "fsdp": 2}
    tree = {
        "kernel": np.arange(64 * 96, dtype=np.float32).reshape(64, 96),
        "stack": np.zeros((5, 7, 4096), np.float32),
        "bias": np.zeros(96, np.float32),  # small
        "odd": np.zeros((81, 81), np.float32),
        "scale": 1.5,
    }
    lie = {name: where.spec for name, where in sharding.infer(tree, mesh).items()}
    assert lie == {
        "kernel": PartitionSpec(None, "fsdp"),
        "stack": PartitionSpec(None, None, "fsdp"),
        "bias": PartitionSpec(),
        "odd": PartitionSpec(),
        "scale": PartitionSpec(),
    }
    placed = sharding.place(tree, mesh)
    assert placed["kernel"].addressable_shards[0].data.shape == (64, 48)
    assert placed["odd"].addressable_shards[0].data.shape == (81, 81)
    np.testing.assert_array_equal(placed["kernel"], tree["kernel"])
    assert sharding.place(placed, mesh)["kernel"] is placed["kernel"]  # not copied
    batch = {"x": np.arange(8.0)}
    assert sharding.shard_batch(batch, mesh)["x"].addressable_shards[0].data.shape == (2,)


def test_what_is_created_lies_where_it_will_be_used():
    mesh = sharding.make_mesh(fsdp=4)
    made = sharding.create(lambda n, fill: {"w": jnp.full((64, 64), fill)}, mesh, 3, fill=2.0)
    assert made["w"].addressable_shards[0].data.shape == (16, 64)
    np.testing.assert_array_equal(made["w"], np.full((64, 64), 2.0))


def test_fsdp_error_names_what_to_use():
    with pytest.raises(ValueError, match=r"train.fsdp must divide .* got 3 for 4 devices; use a"):
        sharding.make_mesh(fsdp=3)


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
    for count, fsdp in ((1, 1), (4, 1), (4, 2)):
        mesh = sharding.make_mesh(jax.devices()[:count], fsdp)
        state = sharding.place(TrainState.create(params, optimizer), mesh)
        for _ in range(3):
            state, metrics = step(state, {}, sharding.shard_batch(batch, mesh))
        results.append((state.params, float(metrics["loss"])))
    (params, loss), *others = results
    for other_params, other_loss in others:
        assert loss == pytest.approx(other_loss, rel=1e-5)
        for one, four in zip(*map(jax.tree.leaves, (params, other_params)), strict=True):
            np.testing.assert_allclose(one, four, atol=1e-5)
