import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util import tensor_util
from toy_training import (
    OPTIMIZER,
    assert_equal,
    frozen,
    make_batches,
    new_state,
    run,
    step_fn,
)

from robust_jax import sharding
from robust_jax.state import TrainState


def wide_step(state, frozen, batch):
    """Linear regression from 256 to 256 numbers."""

    def loss_fn(params):
        return jnp.mean(((batch["x"] @ frozen["w"]) @ params["w"]) ** 2)

    loss, grads = jax.value_and_grad(loss_fn)(state.params)
    return state.update(grads, OPTIMIZER, {"loss": loss})


def wide_arrays():
    w = jnp.ones((256, 256)) / 1e3
    return TrainState.create({"w": w}, OPTIMIZER), {"w": w[:3]}


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path):
    seen, parts = [], []
    whole, _ = run(tmp_path / "whole", 6, seen=seen)
    _, first = run(tmp_path / "parts", 3, seen=parts)
    resumed, times = run(tmp_path / "parts", 6, seen=parts)
    assert seen == parts == [0, 1, 2, 3, 4, 5]
    assert_equal(whole, resumed)
    assert int(resumed.step) == 6
    assert times["seconds"] > first["seconds"] > 0
    assert times["compile_seconds"] > first["compile_seconds"] > 0
    assert times["flops"] == 2 * first["flops"]
    # A finished run is read, not run.
    again, same = run(tmp_path / "parts", 6, seen=parts)
    assert len(parts) == 6
    assert_equal(again, whole)
    assert same == times


def test_operations_are_those_of_all_steps_on_any_number_of_devices(tmp_path):
    def count(path, total, **options):
        times = run(path, total, step=wide_step, arrays=wide_arrays(), batch_size=64, **options)[1]
        return times["flops"]

    whole = count(tmp_path / "four", 6)
    # The frozen layer forward, the tuned one forward and backward.
    by_hand = 2 * 64 * 256 * (3 + 2 * 256)
    assert whole == pytest.approx(6 * by_hand, rel=0.05)
    one = sharding.make_mesh(jax.devices()[:1])
    assert count(tmp_path / "one", 6, mesh=one) == whole
    count(tmp_path / "parts", 3)
    assert count(tmp_path / "parts", 6) == whole


@pytest.mark.parametrize("total", [12, 10])
def test_steps_in_one_call_are_the_same_steps(tmp_path, total):
    options = {"log_every_steps": 4, "checkpoint_every_steps": 4}
    single, times = run(tmp_path / "single", total, **options)
    whole, at_once = run(tmp_path / "whole", total, steps_per_call=4, **options)
    for name, value in single.params.items():
        np.testing.assert_allclose(whole.params[name], value, rtol=1e-5)
    assert at_once["loss"] == pytest.approx(times["loss"], rel=1e-5)
    assert at_once["flops"] == times["flops"]
    # Stopped behind a checkpoint, it goes on with the same calls.
    shutil.rmtree(tmp_path / "whole/toy/checkpoints" / str(total))
    seen = []
    resumed, _ = run(tmp_path / "whole", total, seen=seen, steps_per_call=4, **options)
    assert seen == list(range(8, total))
    assert_equal(resumed, whole)


def test_calls_must_fit_the_intervals(tmp_path):
    with pytest.raises(
        ValueError, match=r"toy: steps_per_call must divide .* got 2 for 2 .* and 3"
    ):
        run(tmp_path, 6, steps_per_call=2)


def test_the_loop_takes_the_steps_one_after_another(tmp_path):
    trained, times = run(tmp_path, 6)
    state = new_state()
    for batch in make_batches([])(0, 6):
        state, metrics = step_fn(state, frozen(), batch)
    for name, value in state.params.items():
        np.testing.assert_allclose(trained.params[name], value, rtol=1e-5)
    assert int(trained.step) == 6
    assert float(metrics["loss"]) == pytest.approx(times["loss"], rel=1e-5)


def test_a_run_continues_on_other_devices(tmp_path):
    whole, _ = run(tmp_path / "four", 6)
    run(tmp_path / "moved", 3)
    one = sharding.make_mesh(jax.devices()[:1])
    moved, _ = run(tmp_path / "moved", 6, mesh=one)
    assert all(leaf.devices() == set(one.devices.flat) for leaf in jax.tree.leaves(moved))
    for name, value in whole.params.items():
        np.testing.assert_allclose(moved.params[name], value, rtol=1e-5)


def test_metrics_are_written(tmp_path):
    _, times = run(tmp_path, 7)
    events = EventAccumulator(str(tmp_path / "tb" / "toy"))
    events.Reload()
    assert set(events.Tags()["tensors"]) == {
        "loss",
        "step",
        "gradient_norm",
        "learning_rate",
        "images_per_second",
    }
    losses = events.Tensors("loss")
    assert [event.step for event in losses] == [2, 3, 4, 6, 7]  # 3 and 6 are checkpoints
    steps = [tensor_util.make_ndarray(event.tensor_proto) for event in events.Tensors("step")]
    assert steps == [1, 2, 3, 5, 6]  # the state before the step
    assert tensor_util.make_ndarray(losses[-1].tensor_proto) == pytest.approx(times["loss"])


def test_batches_must_divide_among_the_devices(tmp_path):
    message = r"toy: the batch size must be a multiple .*got 7 on 4 devices; use 8$"
    with pytest.raises(ValueError, match=message):
        run(tmp_path, 3, batch_size=7)
    mesh = sharding.make_mesh()
    for size, nearest in ((1, 4), (5, 4), (11, 12)):
        with pytest.raises(ValueError, match=rf"got {size} on 4 devices; use {nearest}$"):
            sharding.check_batch_size(size, mesh, "batch")
    sharding.check_batch_size(12, mesh, "batch")


def test_the_state_is_donated_and_what_is_frozen_stays(tmp_path):
    mesh = sharding.make_mesh()
    state, kept = sharding.place((new_state(), frozen()), mesh)
    run(tmp_path, 2, arrays=(state, kept), mesh=mesh)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state.params))
    np.testing.assert_array_equal(kept["w"], frozen()["w"])


def test_batches_lie_across_the_devices(tmp_path):
    placed = sharding.shard_batch({"x": np.arange(8.0)}, sharding.make_mesh())["x"]
    assert [shard.data.tolist() for shard in placed.addressable_shards] == [
        [0, 1],
        [2, 3],
        [4, 5],
        [6, 7],
    ]
