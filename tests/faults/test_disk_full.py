"""A full disk while a checkpoint, the feature cache or a report is written."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from full_disk import fill, small_disk
from runs import copy_run, quick_config, tuned
from runs import run as run_config
from toy_training import assert_equal, run

from robust_jax import checkpoint, disk, writers
from robust_jax.data.cache import FeatureCache

pytest_plugins = ["finished_run"]

LATER = ("distill", "baselines", "evaluate", "report")


@pytest.fixture
def small(tmp_path):
    with small_disk(tmp_path / "disk", 40) as directory:
        yield directory


def test_checkpoint(small, tmp_path):
    whole, _ = run(tmp_path / "whole", 9)
    run(small, 6)
    filler = fill(small, leave=100_000)
    message = (
        r"the disk is full while writing the checkpoint of step 9 to .*; got 0\.1 MB free of "
        r"\d+\.\d MB needed, so at least \d\.\d MB are missing; free some and run the same "
    )
    with pytest.raises(disk.DiskFull, match=message):
        run(small, 9)
    with checkpoint.Checkpoints(small / "toy" / "checkpoints") as checkpoints:
        assert checkpoints.latest_step() == 6
    filler.unlink()
    assert_equal(run(small, 9)[0], whole)


def test_checkpoint_while_it_is_written(small, monkeypatch):
    """Space that another program takes after it was asked for."""
    big = {"w": jnp.asarray(np.random.default_rng(0).normal(size=2_000_000), jnp.float32)}
    checkpoint.save_tree(small / "old", jax.tree.map(lambda a: a[:1000], big))
    fill(small, leave=2_000_000)
    monkeypatch.setattr(disk, "_free", lambda path: 10**9)
    with pytest.raises(disk.DiskFull, match=r"the disk is full while writing new to "):
        checkpoint.save_tree(small / "new", big)
    assert not (small / "new").exists()
    old = checkpoint.load_tree(small / "old", {"w": big["w"][:1000]})
    np.testing.assert_array_equal(old["w"], big["w"][:1000])
    with (
        pytest.raises(disk.DiskFull, match=r"writing (the|a) checkpoint"),
        checkpoint.Checkpoints(small / "run") as checkpoints,
    ):
        checkpoints.save(1, big, {})
    with checkpoint.Checkpoints(small / "run") as checkpoints:
        assert checkpoints.latest_step() is None


@pytest.mark.parametrize("foreseen", [True, False])
def test_cache(small, monkeypatch, foreseen):
    rng = np.random.default_rng(0)
    cache = FeatureCache(small / "cache", {"seed": 0}, 4000)
    rows = {"z": rng.normal(size=(4000, 500)).astype(np.float32)}
    cache.lay_out({"z": rows["z"][:8]}, batch_size=8)
    block = cache.block
    for start in range(0, 1000, block):
        cache.write(start, {"z": rows["z"][start : start + block]}, {"seconds": 1.0})
    done = cache.finished()
    fill(small, leave=100_000)
    if not foreseen:
        monkeypatch.setattr(disk, "_free", lambda path: 10**9)
    next_one = len(done) * block
    message = rf"the disk is full while writing elements from {next_one} of the feature cache to"
    with pytest.raises(disk.DiskFull, match=message):
        cache.write(next_one, {"z": rows["z"][next_one : next_one + block]}, {"seconds": 1.0})
    assert FeatureCache(small / "cache", {"seed": 0}, 4000).finished() == done
    (small / "filler").unlink()
    for start in range(next_one, 4000, block):
        cache.write(start, {"z": rows["z"][start : start + block]}, {"seconds": 1.0})
    np.testing.assert_array_equal(cache.load(["z"])["z"], rows["z"])


def test_files(small):
    writers.write_json(small / "summary.json", {"old": 1})
    fill(small, leave=2**16)
    with pytest.raises(disk.DiskFull, match=r"full while writing summary.json to .* are missing"):
        writers.write_json(small / "summary.json", {"new": "x" * 10**6})
    assert writers.read_json(small / "summary.json") == {"old": 1}
    assert sorted(os.listdir(small)) == ["filler", "summary.json"]


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["distill", "report"])
def test_a_run(finished, tmp_path, stage):
    """The whole program on a full disk, which then goes on."""
    stages = LATER[LATER.index(stage) :]
    needed = sum(p.stat().st_size for p in finished.rglob("*") if p.is_file()) / 1e6
    with small_disk(tmp_path / "disk", needed + 20) as directory:
        workdir = copy_run(finished, directory / "run", without=stages)
        filler = fill(directory, leave=2**17)
        with pytest.raises(disk.DiskFull, match=r"the disk is full while writing .*missing"):
            run_config(quick_config(stages=stages), workdir)
        filler.unlink()
        run_config(quick_config(stages=stages), workdir)
        assert_equal(tuned(workdir), tuned(finished))
        ours = [writers.read_json(w / "summary.json") for w in (workdir, finished)]
        for summary in ours:
            del summary["config"]  # the stages of this run are fewer
            for method in summary["methods"].values():
                method.pop("train_seconds", None)
                method.pop("compile_seconds", None)
        assert ours[0] == ours[1]
