"""The same seed gives the same summary.json, bit by bit; another seed another one."""

import subprocess

import pytest
from runs import ROOT, command
from test_killed import summary

pytest_plugins = ["finished_run"]


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "equal"), [(0, True), (1, False)])
def test_seed(finished, tmp_path, seed, equal):
    argv = command(tmp_path / "run", f"--config.seed={seed}")
    subprocess.run(argv, cwd=ROOT, check=True, capture_output=True)
    ours = summary(tmp_path / "run")
    assert ours["config"].pop("seed") == seed
    before = summary(finished)
    before["config"].pop("seed")
    assert ours["config"] == before["config"]
    assert (ours["methods"] == before["methods"]) == equal
    assert len(ours["methods"]) >= 4
