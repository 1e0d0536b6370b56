"""A run is the same on one device, on eight, and on two processes."""

import json
import shutil

import numpy as np
import pytest
from topologies import losses, run

pytestmark = pytest.mark.slow

STEPS = 50
OPTIONS = (
    "--config.stages=('pretrain','distort','teacher','cache','distill')",
    *(f"--config.{section}.total_steps={STEPS}" for section in ("pretrain", "teacher", "distill")),
    # At the rates of the config, rounding grows until it shows: tenfold a step for the teacher's
    # batch norm and consistency loss, to 1.2e-5 in one step of the student's.
    "--config.teacher.learning_rate=0.001",
    "--config.pretrain.learning_rate=0.0003",
    "--config.cache.use=true",
    "--config.cache.dtype=float32",
    "--config.augmented.fraction=1.0",
    "--config.train.log_every_steps=1",
    "--config.train.checkpoint_every_steps=25",
)
TRAININGS = ("pretrain", "teacher", "distill/ours")
SPLIT = "--config.train.fsdp=4"
# Devices of each process, processes, options.
TOPOLOGIES = {
    "8 devices": (8, 1, ()),
    "8 devices, fsdp": (8, 1, (SPLIT,)),
    "2 processes": (4, 2, ()),
    "2 processes, fsdp": (4, 2, (SPLIT,)),
}


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("one") / "run"
    run(workdir, *OPTIONS)
    return workdir


def assert_same_curves(workdir, one):
    for name in TRAININGS:
        found, expected = losses(workdir, name), losses(one, name)
        assert len(found) == len(expected) == STEPS
        np.testing.assert_allclose(found, expected, rtol=1e-5, err_msg=name)


@pytest.mark.parametrize("name", TOPOLOGIES)
def test_the_loss_curve_is_that_of_one_device(one, tmp_path, name):
    devices, processes, options = TOPOLOGIES[name]
    said = run(tmp_path / "run", *OPTIONS, *options, devices=devices, processes=processes)
    assert_same_curves(tmp_path / "run", one)
    assert ["stage distill" in text for text in said] == [True, False][:processes]  # one speaks


def test_a_checkpoint_moves_to_other_topologies(one, tmp_path):
    begun = tmp_path / "begun"
    run(begun, *OPTIONS, SPLIT, devices=4)
    for training in TRAININGS:  # as if it had stopped after half of the steps
        shutil.rmtree(begun / training / "checkpoints" / str(STEPS))
    for stage in ("pretrain", "teacher", "cache", "distill"):
        path = begun / "stages" / f"{stage}.json"
        marker = json.loads(path.read_text())
        path.write_text(json.dumps({"config": marker["config"], "done": False}))
    shutil.rmtree(begun / "cache")
    shutil.rmtree(begun / "distill")
    for devices, processes in ((1, 1), (2, 2)):
        moved = tmp_path / f"moved_{processes}"
        shutil.copytree(begun, moved)
        said = run(moved, *OPTIONS, devices=devices, processes=processes)
        for training in ("pretrain", "teacher"):
            assert f"{training}: resumed at step 25 of {STEPS}" in said[0]
        assert_same_curves(moved, one)
