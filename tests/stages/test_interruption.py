"""A run that is killed and started again ends like one that was not."""

import shutil
import signal
import subprocess
import time

import jax
import numpy as np
import pytest
from runs import ROOT, command, copy_run, networks, quick_config, run, tuned

pytest_plugins = ["finished_run"]

STEPS = 24
LATER = ("distill", "baselines", "evaluate", "report")


def kill_when(path, argv, how=signal.SIGKILL):
    """Starts a run, sends it a signal as soon as `path` exists, and returns what it said."""
    process = subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        end = time.monotonic() + 240
        while not path.exists():
            assert process.poll() is None, process.stdout.read().decode()
            assert time.monotonic() < end, f"{path} did not appear"
            time.sleep(0.005)
        process.send_signal(how)
        said = process.communicate(timeout=240)[0].decode()
    finally:
        process.kill()
        process.wait()
    assert process.returncode == (75 if how == signal.SIGTERM else -how), said
    return said


def assert_same(left, right):
    assert jax.tree.structure(left) == jax.tree.structure(right)
    jax.tree.map(np.testing.assert_array_equal, left, right)


def test_distill(finished, tmp_path, capsys):
    config = quick_config(distill__total_steps=STEPS, stages=("distill",))
    whole = copy_run(finished, tmp_path / "whole", without=LATER)
    run(config, whole)
    killed = copy_run(whole, tmp_path / "killed", without=("distill",))
    options = ("--config.stages=('distill',)", f"--config.distill.total_steps={STEPS}")
    kill_when(killed / "distill/ours/checkpoints/4", command(killed, *options))
    assert not (killed / "distill" / "ours" / "tuned").exists()
    run(config, killed)
    assert "distill/ours: resumed at step" in capsys.readouterr().out
    assert_same(tuned(killed, config), tuned(whole, config))


@pytest.mark.slow
def test_asked_to_stop_it_saves_first(finished, tmp_path, capsys):
    steps = 400
    config = quick_config(
        distill__total_steps=steps, train__checkpoint_every_steps=steps, stages=("distill",)
    )
    whole = copy_run(finished, tmp_path / "whole", without=LATER)
    run(config, whole)
    stopped = copy_run(whole, tmp_path / "stopped", without=("distill",))
    options = (
        "--config.stages=('distill',)",
        f"--config.distill.total_steps={steps}",
        f"--config.train.checkpoint_every_steps={steps}",
    )
    events = stopped / "tb" / "distill"
    shutil.rmtree(events)
    said = kill_when(events, command(stopped, *options), how=signal.SIGTERM)
    assert "distill/ours: asked to stop; saved step" in said
    run(config, stopped)
    assert "distill/ours: resumed at step" in capsys.readouterr().out
    assert_same(tuned(stopped, config), tuned(whole, config))


@pytest.mark.slow
def test_pretrain(tmp_path, capsys):
    config = quick_config(pretrain__total_steps=STEPS, stages=("pretrain",))
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    run(config, whole)
    options = ("--config.stages=('pretrain',)", f"--config.pretrain.total_steps={STEPS}")
    kill_when(killed / "pretrain/checkpoints/4", command(killed, *options))
    assert not (killed / "pretrain" / "variables").exists()
    run(config, killed)
    assert "pretrain: resumed at step" in capsys.readouterr().out
    trained = [networks(path, config).variables("pretrain") for path in (killed, whole)]
    assert_same(*trained)
