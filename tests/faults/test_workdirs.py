"""A workdir from anybody: loading it executes nothing, and what is damaged in it is named."""

import json
import pickle
import shutil
import subprocess
import sys

import numpy as np
import pytest
from runs import ROOT, copy_run

import robust_jax
from robust_jax import writers

pytest_plugins = ["finished_run"]

CALIBRATION = "evaluate/calibration/ours.json"
FILES = ("config.json", "dataset.json", "networks.json", CALIBRATION)


@pytest.fixture(scope="module")
def workdir(finished, tmp_path_factory):
    """A copy whose files the next fixture lets tests change."""
    return copy_run(finished, tmp_path_factory.mktemp("anybody") / "run")


@pytest.fixture
def changing(finished, workdir):
    """The copy, whose files are put back after the test."""
    yield workdir
    for name in FILES:
        shutil.copyfile(finished / name, workdir / name)


# Runs in a process of its own: an audit hook cannot be taken away.
WATCHED = """
import os, sys
sys.argv = ["-"]
workdir, out = os.environ["WORKDIR"], []
CALLS = ("pickle.find_class", "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn")
CODE = (".py", ".pyc", ".so", ".pkl", "-cache")
def watch(event, args):
    text = repr(args)[:2000]
    opened = event == "open" and workdir in str(args[0]) and str(args[0]).endswith(CODE)
    if event.startswith(CALLS) or opened:
        out.append((event, text))
    if event in ("exec", "compile", "import", "marshal.loads") and workdir in text:
        out.append((event, text))
import numpy, jax, flax, optax, orbax.checkpoint, tensorflow, ml_collections, robust_jax.predict
os.chdir(workdir)
sys.addaudithook(watch)
classifier = robust_jax.load(workdir)
print(classifier.predict(numpy.zeros((1, 32, 32, 3), numpy.uint8)).label.shape)
sys.exit(f"{len(out)} events, such as {out[:3]}" if out else 0)
"""


class Evil:
    def __reduce__(self):
        return exec, ("raise SystemExit('code of the workdir was run')",)


def test_nothing_in_a_workdir_is_executed(workdir, tmp_path):
    """Code lies wherever a careless reader would find it: modules, pickles, compiled programs."""
    poisoned = copy_run(workdir, tmp_path / "run")
    code = "raise SystemExit('code of the workdir was run')\n"
    names = [
        "sitecustomize",
        "robust_jax/__init__",
        "configs/base",
        "configs/__init__",
        "jax",
        "conftest",
    ]
    for name in [*names, "distill/ours/tuned/__init__"]:
        (poisoned / f"{name}.py").parent.mkdir(parents=True, exist_ok=True)
        (poisoned / f"{name}.py").write_text(code)
    programs = poisoned / "xla_cache"
    shutil.rmtree(programs, ignore_errors=True)
    programs.mkdir()
    for name in ("jit_answer-cache", "checkpoint", "state.pkl"):
        (programs / name).write_bytes(pickle.dumps(Evil()))
        (poisoned / "evaluate" / name).write_bytes(pickle.dumps(Evil()))
        (poisoned / "distill" / "ours" / "tuned" / name).write_bytes(pickle.dumps(Evil()))
    environment = {"WORKDIR": str(poisoned), "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    found = subprocess.run(
        [sys.executable, "-c", WATCHED],
        env={
            "PATH": "/usr/bin:/bin",
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "HOME": str(tmp_path),
            **environment,
        },
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stderr[-2000:]
    assert found.stdout.endswith("(1,)\n")


DAMAGE = {
    "empty": b"",
    "cut off": None,
    "no UTF-8": b'{"seed": "\xff"}',
    "nested without end": b"[" * 99_999,
    "a pickle": pickle.dumps({}),
    "zeros": bytes(4096),
    "a list": b"[1]",
    "a number": b"3",
    "text": b'"run"',
    "NaN": b'{"seed": NaN}',
    "an empty object": b"{}",
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_files_are_named(changing, name, damage):
    workdir = changing
    if (name, damage) == ("config.json", "an empty object"):
        pytest.skip("a run whose keys are all newer than it has the defaults")
    path, data = workdir / name, DAMAGE[damage]
    path.write_bytes(path.read_bytes()[:-20] if data is None else data)
    with pytest.raises(ValueError, match=r"; got .+; ") as caught:
        robust_jax.load(workdir)
    assert str(path if name == CALIBRATION else workdir) in str(caught.value)
    assert path.name in str(caught.value)


VALUES = {
    "config.json": {
        "data.image_size": ["32", -1, 10**30, 1.5, None],
        "student.name": [3, "os", None],
        "student.dtype": ["float128", 1],
        "method.tuned_params": [1000, "x", "-1", "1e400"],
        "method.heads_share": [0, 2, "x"],
        "method.share": ["x", 1],
        "selection.score": [[], 3],
        "train.fsdp": ["1", 1.5],
        "data": [3],
    },
    "dataset.json": {"classes": [None, "0123456789", [1, 2], [[]], []]},
    "networks.json": {
        "student": [
            None,
            [],
            {},
            {"naming": "os"},
            {"family": "__init__"},
            {"kwargs": {}},
            {"kwargs": {"depth": 10**9}},
            {"kwargs": {"evil": 1}},
            {"mean": [0, 0]},
            {"std": [0, 0, 0]},
            {"interpolation": "x"},
            {"input_size": "x"},
            {"evil": 1},
        ],
        "teacher": [None, {"family": "os"}],
    },
    CALIBRATION: {
        "temperatures": [None, {}, {"clean": 1}, {"clean": 0, "unclean": 1, "combined": 1}],
        "threshold": [None, "x", [1]],
        "gate": [3, {"evil": 1}],
        "config": [None, {}, {"score": "os"}, {"evil": 1}],
    },
}
CASES = [
    (name, key, value)
    for name, keys in VALUES.items()
    for key, values in keys.items()
    for value in values
    if (name, key, value) != (CALIBRATION, "config", {})  # the defaults
]


@pytest.mark.parametrize(("name", "key", "value"), CASES, ids=lambda v: str(v)[:30])
def test_values_that_cannot_be_are_told(changing, name, key, value):
    workdir = changing
    content = json.loads((workdir / name).read_text())
    if name == "networks.json" and value:  # fields of an entry
        value = content[key] | value
    content[key] = value
    (workdir / name).write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"; got .+; ") as caught:
        robust_jax.load(workdir)
    assert str(workdir) in str(caught.value)


JSON = {name: data for name, data in DAMAGE.items() if name not in ("cut off", "a list")}


@pytest.mark.parametrize(
    "damage", ["empty", "no UTF-8", "nested without end", "a pickle", "zeros", "NaN"]
)
def test_json_of_runs(tmp_path, damage):
    path = tmp_path / "stages" / "cache.json"
    assert writers.read_json(path) is None
    writers.write_json(path, {"a": [1, None]})
    assert writers.read_json(path) == {"a": [1, None]}
    path.write_bytes(DAMAGE[damage])
    with pytest.raises(
        ValueError, match=r"cannot read this JSON file \(.*cache\.json; it is damaged"
    ):
        writers.read_json(path)


def test_arrays_of_runs(tmp_path):
    path = tmp_path / "routing.npz"
    arrays = {
        "label": np.arange(3),
        "name": np.array(["ant", "bee"]),
        "ours/head": np.ones(2, bool),
    }
    writers.write_arrays(path, arrays)
    found = writers.read_arrays(path)
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)
    np.savez(path, label=np.array([Evil(), None], object))
    with pytest.raises(
        ValueError, match=r"cannot read this npz file \(Object .*; got .*routing\.npz; it"
    ):
        writers.read_arrays(path)
    with pytest.raises(FileNotFoundError):
        writers.read_arrays(tmp_path / "none.npz")
