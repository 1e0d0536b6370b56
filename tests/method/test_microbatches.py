import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.sharding import NamedSharding, PartitionSpec

from robust_jax import sharding
from robust_jax.method import microbatches

MOVES = r"all-to-all|collective-permute|all-gather|reduce-scatter|all-reduce"


@given(st.integers(1, 5), st.integers(1, 4), st.lists(st.integers(1, 3), max_size=2))
def test_part_i_holds_every_row_from_i_on_in_steps_and_join_undoes_it(parts, rows, rest):
    shape = (parts * rows, *rest)
    batch = {"x": np.arange(np.prod(shape)).reshape(shape), "label": np.arange(parts * rows)}
    cut = microbatches.split(batch, parts)
    for name, leaf in batch.items():
        assert cut[name].shape == (parts, rows, *leaf.shape[1:])
        for i in range(parts):
            np.testing.assert_array_equal(cut[name][i], leaf[i::parts])
    jax.tree.map(np.testing.assert_array_equal, microbatches.join(cut), batch)


def test_a_batch_must_split_evenly():
    with pytest.raises(ValueError, match=r"split evenly; got 6 rows in 4 parts; use a divisor"):
        microbatches.split({"x": np.zeros((6, 2))}, 4)


def test_there_must_be_a_part():
    with pytest.raises(ValueError, match=r"parts counts .*; got 0; use 1 or more"):
        microbatches.split({"x": np.zeros((6, 2))}, 0)


def test_rows_stay_on_their_device():
    mesh = sharding.make_mesh()
    assert mesh.size == 4
    whole = NamedSharding(mesh, PartitionSpec("data"))
    parts = NamedSharding(mesh, PartitionSpec(None, "data"))
    x = jax.device_put(np.arange(16 * 3 * 5.0).reshape(16, 3, 5), whole)

    cut = jax.jit(lambda x: microbatches.split(x, 2))
    assert cut(x).sharding.is_equivalent_to(parts, 4)
    np.testing.assert_array_equal(cut(x), np.stack([x[0::2], x[1::2]]))

    def each(x):
        _, parts = jax.lax.scan(lambda i, part: (i + 1, part * i), 1.0, microbatches.split(x, 2))
        return microbatches.join(parts)

    for fn in (cut, jax.jit(each)):
        assert not re.findall(MOVES, fn.lower(x).compile().as_text())
    assert jax.jit(each)(x).sharding.is_equivalent_to(whole, 3)
    expected = np.array(x)
    expected[1::2] *= 2
    np.testing.assert_array_equal(jax.jit(each)(x), expected)


def test_parts_of_neighbouring_rows_would_move_them():
    """What the order of the rows is for, and that the test above can fail."""
    mesh = sharding.make_mesh()
    x = jax.device_put(np.arange(48.0).reshape(16, 3), NamedSharding(mesh, PartitionSpec("data")))

    def each(x):
        _, parts = jax.lax.scan(lambda i, part: (i + 1, part * i), 1.0, x.reshape(2, 8, 3))
        return parts.reshape(16, 3)

    assert re.findall(MOVES, jax.jit(each).lower(x).compile().as_text())


def test_accumulate_is_the_mean_over_parts_in_f32():
    """Gradients in bf16, of which 256 + 1 is 256 there, are added up in f32."""
    x = np.array([256, 1, 1, 1], np.float32)

    def part_fn(part, carry, i):
        return {"w": part.sum().astype(jnp.bfloat16)}, carry + part.sum(), {"i": i, "b": carry}

    params = {"w": jnp.zeros((), jnp.float32)}
    grads, carry, metrics = microbatches.accumulate(part_fn, params, jnp.zeros(()), x, 4)
    assert float(grads["w"]) == 259 / 4 and float(carry) == 259
    # The metrics' means: the parts are numbered, and each sees what the one before it handed on.
    assert float(metrics["i"]) == 1.5 and float(metrics["b"]) == (0 + 256 + 257 + 258) / 4


def test_one_part_is_the_whole_batch_without_a_loop():
    def part_fn(part, carry, i):
        assert i is None
        return part, carry, {}

    x = np.arange(4.0)
    assert microbatches.accumulate(part_fn, x, None, x, 1)[0] is x
