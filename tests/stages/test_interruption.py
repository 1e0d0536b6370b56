"""A run that is killed and started again ends like one that was not."""

import os
import signal
import subprocess
import time

import jax
import numpy as np
import pytest
from runs import ROOT, command, copy_run, networks, quick_config, tuned

from robust_jax import main

pytest_plugins = ["finished_run"]

STEPS = 24


def kill_when(path, argv):
    """Starts a run and kills it as soon as `path` exists."""
    run = subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        end = time.monotonic() + 240
        while not path.exists():
            assert run.poll() is None, run.stdout.read().decode()
            assert time.monotonic() < end, f"{path} did not appear"
            time.sleep(0.005)
    finally:
        os.kill(run.pid, signal.SIGKILL)
        run.wait()
        run.stdout.close()
    assert run.returncode == -signal.SIGKILL


def assert_same(left, right):
    assert jax.tree.structure(left) == jax.tree.structure(right)
    jax.tree.map(np.testing.assert_array_equal, left, right)


def test_distill(finished, tmp_path, capsys):
    changes = {"distill__total_steps": STEPS, "stages": ("distill",)}
    config = quick_config(**changes)
    whole, killed = (
        copy_run(finished, tmp_path / name, without=("distill", "evaluate", "report"))
        for name in ("whole", "killed")
    )
    options = ("--config.stages=('distill',)", f"--config.distill.total_steps={STEPS}")
    kill_when(killed / "distill/ours/checkpoints/4", command(killed, *options))
    assert not (killed / "distill" / "ours" / "tuned").exists()
    main.run(config, killed)
    assert "distill/ours: resumed at step" in capsys.readouterr().out
    main.run(config, whole)
    assert_same(tuned(killed, config), tuned(whole, config))


@pytest.mark.slow
def test_pretrain(finished, tmp_path):
    options = ("--config.stages=('pretrain',)", f"--config.pretrain.total_steps={STEPS}")
    kill_when(tmp_path / "killed/pretrain/checkpoints/4", command(tmp_path / "killed", *options))
    config = quick_config(pretrain__total_steps=STEPS, stages=("pretrain",))
    for name in ("killed", "whole"):
        main.run(config, tmp_path / name)
    killed, whole = (
        networks(tmp_path / name, config).variables("pretrain") for name in ("killed", "whole")
    )
    assert_same(killed, whole)
