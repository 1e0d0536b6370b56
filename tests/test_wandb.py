"""The run of Weights & Biases, written without a network and read back."""

import json
import os
import struct
import subprocess
import sys
import textwrap

import pytest
from etils import epath
from runs import ROOT, command, quick_config
from toy_training import run

from robust_jax import wandb_run
from robust_jax.validation import validate

TRAINED = textwrap.dedent(
    """
    import sys
    from etils import epath
    from runs import quick_config
    from toy_training import run
    from robust_jax import wandb_run

    workdir, steps = epath.Path(sys.argv[1]), int(sys.argv[2])
    with wandb_run.of(workdir, quick_config(train__wandb="mine", seed=steps)):
        run(workdir, steps)
        wandb_run.tell({"ours": {"clean_accuracy": 0.5, "by_set": {"fog": 0.25}}})
    """
)


def payloads(data):
    """The records of a file in LevelDB's log format: blocks of 32 KiB behind 7 bytes."""
    at, parts = 7, b""
    while at < len(data):
        left = 2**15 - at % 2**15
        if left < 7:  # no room for another header
            at += left
            continue
        _, size, kind = struct.unpack("<IHB", data[at : at + 7])  # checksum, bytes, place
        parts += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or the last part
            yield parts
            parts = b""


def records(file):
    """What a .wandb file holds: config, logged rows and summary, as plain values."""
    from wandb.proto import wandb_internal_pb2

    found = {"config": {}, "rows": [], "summary": {}, "run": None}
    for data in payloads(file.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        if record.HasField("run"):
            found["run"] = (record.run.project, record.run.run_id, record.run.display_name)
            updates = record.run.config.update
            found["config"] |= {one.key: json.loads(one.value_json) for one in updates}
        if record.HasField("history"):
            items = record.history.item
            row = {"/".join(one.nested_key) or one.key: json.loads(one.value_json) for one in items}
            found["rows"].append(row)
        for one in record.summary.update:
            name = "/".join(one.nested_key) or one.key
            found["summary"][name] = json.loads(one.value_json)
    return found


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A toy training of four steps that was taken up again and went on to the seventh."""
    workdir = tmp_path_factory.mktemp("wandb") / "work"
    environment = {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "PYTHONPATH": f"{ROOT}/tests"}
    for steps in ("4", "7"):
        subprocess.run(
            [sys.executable, "-c", TRAINED, str(workdir), steps],
            cwd=ROOT,
            env={**os.environ, **environment},
            check=True,
        )
    files = sorted((workdir / "wandb").glob("offline-run-*/*.wandb"))
    assert len(files) == 2
    return workdir, [records(file) for file in files]


def test_a_workdir_is_one_run(written):
    workdir, found = written
    ident = json.loads((workdir / "wandb.json").read_text())["id"]
    assert [one["run"] for one in found] == [("mine", ident, str(workdir))] * 2
    assert [one["config"]["seed"] for one in found] == [4, 7]
    assert found[0]["config"]["student.name"] == quick_config().student.name


def test_numbers_are_those_of_the_training(written, tmp_path):
    _, found = written
    rows = [row for one in found for row in one["rows"]]
    assert [row["toy/step"] for row in rows] == [2, 3, 4, 6, 7]
    _, times = run(tmp_path, 7)
    assert rows[-1]["toy/loss"] == pytest.approx(times["loss"], rel=1e-5)
    assert {"toy/learning_rate", "toy/images_per_second"} <= rows[0].keys()


def test_the_summary_has_the_figures(written):
    _, found = written
    summary = found[-1]["summary"]
    assert summary["ours/clean_accuracy"] == 0.5
    assert "ours/by_set" not in summary


def test_nothing_without_a_project(tmp_path):
    with wandb_run.of(epath.Path(tmp_path), quick_config()):
        run(tmp_path, 2)
        wandb_run.tell({"ours": {"clean_accuracy": 0.5}})
    assert not (tmp_path / "wandb").exists()
    assert not (tmp_path / "wandb.json").exists()


def test_it_must_be_installed(monkeypatch, tmp_path):
    monkeypatch.setattr(wandb_run.importlib.util, "find_spec", lambda name: None)
    config = quick_config(train__wandb="mine")
    validate(config, quick_config())
    with pytest.raises(ValueError, match=r"not installed; got 'mine'; .*requirements-wandb.txt"):
        wandb_run.check(config.train.wandb)


@pytest.mark.slow
def test_a_whole_run(tmp_path):
    environment = {**os.environ, "WANDB_MODE": "offline"}
    workdir = tmp_path / "work"
    options = command(workdir, "--config.train.wandb=mine")
    subprocess.run(options, cwd=ROOT, env=environment, check=True)
    (file,) = (workdir / "wandb").glob("offline-run-*/*.wandb")
    found = records(file)
    trainings = {key.rpartition("/")[0] for row in found["rows"] for key in row if "/" in key}
    assert {"pretrain", "teacher", "distill"} <= trainings
    methods = json.loads((workdir / "summary.json").read_text())["methods"]
    for name, entry in methods.items():
        assert found["summary"][f"{name}/clean_accuracy"] == entry["clean_accuracy"]
