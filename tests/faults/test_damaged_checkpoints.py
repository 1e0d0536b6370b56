"""Truncated, flipped and missing files of checkpoints: found, told, and never used."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy_training import assert_equal, new_state, run

from robust_jax import checkpoint

SHAPES = {"kernel": (64, 48), "bias": (48,), "scale": (5, 7, 3)}


def tree(seed=0):
    rng = np.random.default_rng(seed)
    made = {k: jnp.asarray(rng.normal(size=s), jnp.float32) for k, s in SHAPES.items()}
    return {**made, "step": jnp.int32(7), "half": jnp.arange(99, dtype=jnp.bfloat16) / 7}


def data_files(directory):
    """The files of a stored tree, the largest first."""
    files = [p for p in directory.rglob("*") if p.is_file() and p.stat().st_size]
    return sorted(files, key=lambda path: (-path.stat().st_size, path.name))


def truncate(path, rng):
    path.write_bytes(path.read_bytes()[: int(rng.integers(path.stat().st_size))])


def flip(path, rng):
    data = bytearray(path.read_bytes())
    data[rng.integers(len(data))] ^= 1 << rng.integers(8)
    path.write_bytes(bytes(data))


def remove(path, rng):
    path.unlink()


def empty(path, rng):
    path.write_bytes(b"")


def zeros(path, rng):
    path.write_bytes(bytes(path.stat().st_size))


DAMAGES = (truncate, flip, remove, empty, zeros)


def equal(left, right):
    return all(
        np.array_equal(a, b)
        for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True)
    )


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda f: f.__name__)
def test_no_damage_is_accepted(tmp_path, damage):
    """Each file of a stored tree in turn: what is read is what was saved, or an error."""
    rng, refused = np.random.default_rng(1), 0
    checkpoint.save_tree(tmp_path / "whole", tree())
    for number, path in enumerate(data_files(tmp_path / "whole")):
        name, copy = path.relative_to(tmp_path / "whole"), tmp_path / f"copy{number}"
        shutil.copytree(tmp_path / "whole", copy)
        damage(copy / name, rng)
        try:
            found = checkpoint.load_tree(copy, tree(seed=3))
        except ValueError as error:
            assert "a saved tree" in str(error) and "run the command that made it" in str(error)
            refused += 1
        else:  # a file that reading does not need, such as one of times
            assert equal(found, tree()), name
    assert refused >= 3


@pytest.mark.slow
def test_no_flipped_bit_is_accepted(tmp_path):
    """300 single bits, at random places of the files that hold the numbers."""
    rng, refused = np.random.default_rng(2), 0
    checkpoint.save_tree(tmp_path / "tree", tree())
    files = [p for p in data_files(tmp_path / "tree") if p.stat().st_size > 100]
    sizes = np.array([p.stat().st_size for p in files], float)
    for _ in range(300):
        path = files[rng.choice(len(files), p=sizes / sizes.sum())]
        before = path.read_bytes()
        flip(path, rng)
        try:
            assert equal(checkpoint.load_tree(tmp_path / "tree", tree(seed=3)), tree())
        except ValueError:
            refused += 1
        path.write_bytes(before)
    # The others lie where reading does not look; how many those are differs from save to save.
    assert refused > 150
    assert equal(checkpoint.load_tree(tmp_path / "tree", tree(seed=3)), tree())


def test_one_changed_element_changes_the_checksum():
    for name, leaf in tree().items():
        bits = np.asarray(leaf).reshape(-1).view(np.uint8)
        for place in range(0, bits.size, max(1, bits.size // 40)):
            changed = bits.copy()
            changed[place] ^= 128
            other = jnp.asarray(changed.view(leaf.dtype).reshape(leaf.shape))
            sums = checkpoint.checksums({"x": leaf}), checkpoint.checksums({"x": other})
            assert sums[0] != sums[1], (name, place)
    # Nor do elements that changed places have the same one.
    x = jnp.arange(12.0).reshape(3, 4)
    assert checkpoint.checksums({"x": x}) != checkpoint.checksums({"x": x[::-1]})
    assert checkpoint.checksums({"x": jnp.array([True, False])}) == {"x": ["bool", 1]}


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda f: f.__name__)
def test_training_goes_back_to_the_one_before(tmp_path, capsys, damage):
    whole, _ = run(tmp_path, 9)
    directory = tmp_path / "toy" / "checkpoints"
    assert sorted(path.name for path in directory.iterdir()) == ["6", "9"]
    largest = next(p for p in data_files(directory / "9" / "state") if p.stat().st_size > 100)
    damage(largest, np.random.default_rng(4))
    again, _ = run(tmp_path, 9)
    said = capsys.readouterr().out
    assert "the checkpoint of step 9" in said and "going back to the one before" in said
    assert "toy: resumed at step 6 of 9" in said
    assert_equal(again, whole)
    with checkpoint.Checkpoints(directory) as checkpoints:
        assert_equal(checkpoints.restore(9, new_state())[0], whole)


def test_without_a_good_one_it_stops(tmp_path):
    run(tmp_path, 6)
    directory = tmp_path / "toy" / "checkpoints"
    for step in ("3", "6"):
        for path in data_files(directory / step / "state")[:3]:
            flip(path, np.random.default_rng(0))
            truncate(path, np.random.default_rng(0))
    with pytest.raises(ValueError, match=r"the checkpoint of step 3 .*; remove it and run"):
        run(tmp_path, 9)
    assert sorted(path.name for path in directory.iterdir()) == ["3", "6"]
