import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robust_jax import checkpoint, sharding


def tree(offset=0.0, mesh=None):
    made = {
        "a": {"kernel": jnp.arange(6.0).reshape(2, 3) + offset},
        "half": jnp.arange(4, dtype=jnp.bfloat16) / 3,
        "step": jnp.int32(7),
    }
    return sharding.place(made, mesh or sharding.make_mesh())


def assert_equal(left, right):
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def test_a_run_keeps_its_newest_checkpoints(tmp_path):
    with checkpoint.Checkpoints(tmp_path, keep=2) as checkpoints:
        assert checkpoints.latest_step() is None
        for step in (2, 4, 6):
            checkpoints.save(step, tree(step), {"seconds": step / 2})
        checkpoints.save(6, tree(99.0), {"seconds": 99.0})  # it is there already
    assert sorted(path.name for path in tmp_path.iterdir()) == ["4", "6"]
    with checkpoint.Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest_step() == 6
        state, meta = checkpoints.restore(6, tree())
    assert_equal(state, tree(6))
    assert meta == {"seconds": 3.0}


def test_a_half_written_checkpoint_does_not_count(tmp_path):
    with checkpoint.Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(2, tree(), {})
    (tmp_path / "4.orbax-checkpoint-tmp-1").mkdir()
    with checkpoint.Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest_step() == 2


def test_arrays_come_back_on_the_devices_of_now(tmp_path):
    one = sharding.make_mesh(jax.devices()[:1])
    with checkpoint.Checkpoints(tmp_path / "run") as checkpoints:
        checkpoints.save(1, tree(), {})
        state, _ = checkpoints.restore(1, tree(mesh=one))
    checkpoint.save_tree(tmp_path / "tree", tree())
    for found in (state, checkpoint.load_tree(tmp_path / "tree", tree(mesh=one))):
        assert_equal(found, tree())
        assert all(leaf.devices() == {jax.devices()[0]} for leaf in jax.tree.leaves(found))


def test_what_is_read_in_another_dtype_is_checked_before(tmp_path):
    made = {"w": jnp.arange(1000.0) / 3}
    checkpoint.save_tree(tmp_path / "tree", made)
    half = {"w": jax.ShapeDtypeStruct((1000,), jnp.bfloat16, sharding=made["w"].sharding)}
    assert_equal(
        checkpoint.load_tree(tmp_path / "tree", half), {"w": made["w"].astype(half["w"].dtype)}
    )
    with checkpoint.Checkpoints(tmp_path / "run") as checkpoints:
        checkpoints.save(1, made, {})
        assert checkpoints.restore(1, half)[0]["w"].dtype == jnp.bfloat16


def test_trees_are_replaced_whole(tmp_path):
    checkpoint.save_tree(tmp_path / "tree", {"other": jnp.zeros(3)})
    checkpoint.save_tree(tmp_path / "tree", tree(1.0))
    assert_equal(checkpoint.load_tree(tmp_path / "tree", tree()), tree(1.0))


def test_nothing_saved_is_told(tmp_path):
    with pytest.raises(ValueError, match=r"no saved parameters; got .*none; run the stage that"):
        checkpoint.load_tree(tmp_path / "none", tree())


def test_many_arrays_over_devices_have_their_checksums():
    """With a program for each at once, XLA's CPU devices wait for each other for ever."""
    values = [np.full((64, 64 + i % 7), i, np.float32) for i in range(150)]
    placed = sharding.place(dict(enumerate(values)), sharding.make_mesh(fsdp=2))
    assert not placed[0].is_fully_replicated
    for _ in range(20):
        found = checkpoint.checksums(placed)
    assert found == checkpoint.checksums(dict(enumerate(values)))
