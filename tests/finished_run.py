"""A pytest plugin: one finished run, made once for all processes of a test session.

Test modules that need it say `pytest_plugins = ["finished_run"]`.
"""

import fcntl
import os
import subprocess

import jax
import numpy as np
import pytest
from runs import ROOT, command, copy_run, tuned

from robust_jax.checkpoint import save_tree


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """The workdir of a finished `quickstart.py:runlocal`; do not write into it."""
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent  # that of all workers
    workdir, log = base / "finished", base / "finished.log"
    with open(base / "finished.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not log.exists():
            found = subprocess.run(command(workdir), cwd=ROOT, capture_output=True, text=True)
            assert found.returncode == 0, found.stderr
            log.write_text(found.stdout)
    return workdir


@pytest.fixture(scope="module")
def shaken(finished, tmp_path_factory):
    """A copy whose tuned parameters are far from where they began, so that heads differ."""
    workdir = copy_run(finished, tmp_path_factory.mktemp("shaken") / "run")
    noise = np.random.default_rng(5)

    def shake(a):
        return np.float32(a + 0.1 * noise.standard_normal(a.shape))

    save_tree(workdir / "distill/ours/tuned", jax.tree.map(shake, tuned(workdir)))
    return workdir
