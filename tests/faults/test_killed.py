"""SIGKILL at 20 random moments over the whole pipeline: it ends like one that was not killed."""

import collections
import json
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from runs import ROOT, command, networks, quick_config, tuned

KILLS = 20
STEPS = {"pretrain": 60, "teacher": 60, "distill": 300}
OPTIONS = (
    *(f"--config.{name}.total_steps={steps}" for name, steps in STEPS.items()),
    "--config.stages=('pretrain','distort','teacher','cache','distill','baselines','evaluate','report')",
    "--config.augmented.fraction=1.0",
    "--config.cache.use=true",
    "--config.baselines.methods=('teacher',)",
    "--config.train.checkpoint_every_steps=10",
    "--config.train.log_every_steps=10",
)


def start(workdir):
    _, _, module, *rest = command(workdir, *OPTIONS)
    assert module == "robust_jax.main"
    program = [sys.executable, ROOT / "tests/faults/noted_main.py", f"{workdir}.batches"]
    return subprocess.Popen(
        [*program, *rest], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def finish(workdir):
    process = start(workdir)
    said = process.communicate(timeout=900)[0].decode()
    assert process.returncode == 0, said
    return said


def work(workdir):
    """How far a run has come: batches, and files of the cache and of the evaluation."""
    notes = Path(f"{workdir}.batches")
    lines = notes.read_bytes().count(b"\n") if notes.exists() else 0
    files = [path for part in ("cache", "evaluate") for path in (workdir / part).rglob("*")]
    return lines + len(files)


def kill(workdir, amount, writing):
    """Kills a run that has done so much work; returns whether it lived that long.

    Args:
      amount: see `work`.
      writing: then wait for a moment at which a checkpoint is half written.
    """
    before, process = work(workdir), start(workdir)
    try:
        while process.poll() is None and work(workdir) - before < amount:
            time.sleep(0.01)
        end = time.monotonic() + 60
        while writing and process.poll() is None and time.monotonic() < end:
            if half_written(workdir):
                break
        return process.poll() is None
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def half_written(workdir):
    return list(workdir.glob("*/**/*.orbax-checkpoint-tmp*"))


def summary(workdir):
    """Without the times, which are measured."""

    def untimed(value):
        if isinstance(value, dict):
            return {k: untimed(v) for k, v in value.items() if not k.endswith("seconds")}
        return value

    return untimed(json.loads((workdir / "summary.json").read_text()))


def batches(workdir):
    """(training, step) -> the hashes of the batches that this step has seen in all its tries."""
    seen = {}
    for line in Path(f"{workdir}.batches").read_text().splitlines():
        name, step, digest = line.split()
        seen.setdefault((name, int(step)), set()).add(digest)
    return seen


@pytest.mark.slow
def test_the_end_is_the_same(tmp_path):
    whole = tmp_path / "whole"
    finish(whole)
    wanted = batches(whole)
    assert len(wanted) == sum(STEPS.values())
    assert all(len(digests) == 1 for digests in wanted.values())
    config = quick_config(augmented__fraction=1.0)
    rng = random.Random(0)
    kills, within, number, stages = 0, 0, 0, collections.Counter()
    while kills < KILLS:
        workdir = tmp_path / f"killed{number}"
        number += 1
        shutil.copytree(whole / "xla_cache", workdir / "xla_cache")
        alive = True
        while alive and kills < KILLS:
            alive = kill(workdir, rng.uniform(0, 70), writing=kills % 3 == 2)
            kills += alive
            within += alive and bool(half_written(workdir))
            begun = sorted((workdir / "stages").glob("*.json"), key=lambda p: p.stat().st_mtime)
            stages[begun[-1].stem if begun else "before the first"] += alive
            print(f"kill {kills}: {stages}", flush=True)
        finish(workdir)
        assert batches(workdir) == wanted  # the same one for each step, none left out
        for path in ("pretrain", "teacher"):
            same(networks(workdir, config).variables(path), networks(whole, config).variables(path))
        same(tuned(workdir, config), tuned(whole, config))
        assert summary(workdir) == summary(whole)
        shutil.rmtree(workdir)
    print(f"{kills} kills, {within} of them within a checkpoint, in {number} runs; {stages}")
    assert within and len(stages) > 3


def same(left, right):
    assert jax.tree.structure(left) == jax.tree.structure(right)
    jax.tree.map(np.testing.assert_array_equal, left, right)
