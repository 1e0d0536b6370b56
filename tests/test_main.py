import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import test_paper_configs
import test_results_configs
from runs import FOLDERS, ROOT, command, folder_config, make_folder, quick_config, run
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from robust_jax import config as config_lib
from robust_jax.data import sources
from robust_jax.evals.classification import EvalSet

pytest_plugins = ["finished_run"]

ALWAYS = {
    "clean_accuracy",
    "clean_nll",
    "clean_ece",
    "clean_brier",
    "clean_aurc",
    "corrupted_accuracy",
    "accuracy_by_corruption",
    "tuned_params",
    "total_params",
}
COSTS = {"train_seconds", "compile_seconds", "train_flops"}
ROUTING = {"f_correct_clean", "f_correct_shift", "f_correct_severe", "routing_auroc"}
HEADS = {"ours", "ours_no_kd"}  # whose own heads are told apart
ROUTED = {"ours", "ours_no_kd", "ours_no_kld", "ours_no_umc", "ours_max_logit", "ours_product"}
METHODS = ROUTED | {"original", "teacher", "apt"}
TRAINED = ("pretrain", "teacher", "distill/ours", "baselines/apt", "baselines/ours_no_kd")
CORRUPTIONS = {"gaussian_noise", "defocus_blur", "fog", "jpeg_compression"}


def assert_complete(workdir, config):
    """Checks everything that a run promises to leave behind; returns its summary."""
    summary = json.loads((workdir / "summary.json").read_text())
    assert set(summary) == {"config", "dataset", "methods"}
    assert summary["config"] == config_lib.flatten(config)
    assert json.loads((workdir / "config.json").read_text()) == summary["config"]
    needed = {"name", "classes", "train_images", "eval_images", "bad_images", "shared_images"}
    assert set(summary["dataset"]) == needed
    assert set(summary["methods"]) == METHODS
    for method, entry in summary["methods"].items():
        # A metric that was not run is absent: no mean corruption error without all corruptions,
        # no mCE without ImageNet, no routing without heads.
        trained = set() if method == "original" else COSTS
        routed = ROUTING if method in ROUTED else set()
        own = {"heads"} if method in HEADS else set()
        assert set(entry) == ALWAYS | trained | routed | own, method
        assert entry["total_params"] >= entry["tuned_params"] >= 0
        assert all(entry[key] > 0 for key in trained)
        by_corruption = entry["accuracy_by_corruption"]
        assert set(by_corruption) == CORRUPTIONS
        assert {len(values) for values in by_corruption.values()} == {2}
        values = [v for row in by_corruption.values() for v in row]
        assert entry["corrupted_accuracy"] == pytest.approx(np.mean(values))
        values += [entry[f"clean_{metric}"] for metric in ("accuracy", "ece", "aurc")]
        values += [entry["corrupted_accuracy"], *(entry[key] for key in ROUTING if key in entry)]
        assert all(0 <= v <= 1 for v in values)
        assert 0 <= entry["clean_brier"] <= 2
        assert entry["clean_nll"] > 0
    rows = [json.loads(line) for line in (workdir / "results.jsonl").read_text().splitlines()]
    accuracy = [row for row in rows if row["metric"] == "accuracy"]
    assert len(accuracy) == len(METHODS) * (1 + 2 * len(CORRUPTIONS))
    for row in accuracy:
        assert row["n"] == summary["dataset"]["eval_images"]
        assert 0 <= row["low"] <= row["value"] <= row["high"] <= 1
    for name in TRAINED:
        events = EventAccumulator(str(workdir / "tb" / name))
        events.Reload()
        assert [event.step for event in events.Tensors("loss")] == [2, 4]
    page = (workdir / "report" / "index.html").read_text()
    assert "<html" in page
    assert {"jax", "python", "git_commit"} <= set(
        json.loads((workdir / "versions.json").read_text())
    )
    return summary


def test_quickstart(finished):
    config = quick_config()
    summary = assert_complete(finished, config)
    assert summary["dataset"]["train_images"] == 1294
    assert summary["dataset"]["eval_images"] == 64
    val = EvalSet(sources.load(config.data, "val"), "decode", 64)
    stored = finished / "evaluate" / "outputs"
    clean, fog = (np.load(stored / f"{name}.npz") for name in ("clean", "fog-5"))
    for method, entry in summary["methods"].items():
        label = f"{method}/label"
        assert entry["clean_accuracy"] == pytest.approx(np.mean(clean[label] == val.labels))
        severe = entry["accuracy_by_corruption"]["fog"][1]
        assert severe == pytest.approx(np.mean(fog[label] == val.labels))
    ours = summary["methods"]["ours"]
    assert ours["f_correct_clean"] == pytest.approx(np.mean(clean["ours/head"] == 0))


def test_folder(finished, tmp_path):
    # The teacher is the same there, and a smaller student compiles faster, too.
    shutil.copytree(finished / "xla_cache", tmp_path / "run" / "xla_cache")
    root = make_folder(tmp_path / "pets")
    (root / "train" / "bee" / "torn.png").write_bytes(b"\x89PNG")
    config = folder_config(root, data__max_bad_images=1, student__name="resnet_small")
    run(config, tmp_path / "run")
    dataset = assert_complete(tmp_path / "run", config)["dataset"]
    assert dataset == {
        "name": "pets",
        "classes": list(FOLDERS),
        "train_images": 36,  # a tenth of 40 is held out
        "eval_images": 40,
        "bad_images": 1,
        "shared_images": 0,
    }


# Every config has to run; add its test above.
TESTED = {"quickstart.py": test_quickstart, "folder.py": test_folder}
# These have theirs in test_paper_configs and test_results_configs.
ELSEWHERE = {
    "paper": {"scales.py"} | {f"{name}.py" for name in test_paper_configs.NAMES},
    "results": {"tables.py"} | {f"{name}.py" for name in test_results_configs.NAMES},
}


@pytest.mark.parametrize("path", sorted((ROOT / "configs").rglob("*.py")), ids=lambda p: p.name)
def test_every_config_has_a_run(path):
    tested = ELSEWHERE.get(path.parent.name, {"base.py", "recipes.py"} | set(TESTED))
    assert path.name in {"__init__.py"} | tested


def test_a_dry_run_prints_the_plan_and_writes_nothing(tmp_path, tmp_path_factory, capsys):
    images = make_folder(tmp_path_factory.mktemp("data") / "pets")
    run(folder_config(images), tmp_path / "none" / "run", dry_run=True)
    plan = capsys.readouterr().out
    for line in (
        r"data: pets train, 36 train, 4 calibration and 40 evaluation images, 10 classes",
        r"pretrain: 4 steps of 32, sgd",
        r"distill: 4 steps of 32, adam",
        r"stages: pretrain, distort, teacher, cache, distill, baselines, evaluate, report",
    ):
        assert line in plan.splitlines()
    assert "frozen" in plan
    assert " MB" in plan
    assert list(tmp_path.iterdir()) == []


def python(code, *args):
    found = [sys.executable, "-c", code, *map(str, args)]
    return subprocess.run(found, cwd=ROOT, capture_output=True, text=True)


def test_the_command_line_reaches_run(tmp_path):
    code = """
from robust_jax import main
def run(config, workdir, *, rerun, dry_run):
    print(config.distill.total_steps, config.stages, config.cache.use, workdir, rerun, dry_run)
main.run = run
main.cli()
"""
    options = ("--rerun=distill", "--dry_run", "--config.distill.total_steps=7")
    stages = "--config.stages=('distill',)"
    found = python(code, *command("w", *options, stages, "--config.cache.use=false")[3:])
    assert found.stdout == "7 ('distill',) false w ['distill'] True\n", found.stderr


def test_wrong_command_lines_are_told():
    code = "from robust_jax import main; main.cli()"
    for options, message in (
        (["--workdir=w"], "--config"),
        (["--config=configs/quickstart.py"], "--workdir"),
        (command("w", "--rerun=distil")[3:], "distill"),
        (command("w", "more")[3:], "unexpected arguments; got ['more']"),
        (
            command("w", config="configs/none.py")[3:],
            "config file not found; got 'configs/none.py'",
        ),
        (command("w", config="configs/quickstart.py:runlocl")[3:], "did you mean 'runlocal'"),
    ):
        found = python(code, *options)
        assert found.returncode != 0
        assert message in found.stdout + found.stderr


def test_modules_that_need_no_tensorflow_do_not_import_it():
    modules = (
        "robust_jax",
        "robust_jax.models",
        "robust_jax.method.student",
        "robust_jax.train",
        "robust_jax.data.cache",
        "robust_jax.predict",
    )
    code = """
import importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
    assert "tensorflow" not in sys.modules, name
"""
    found = python(code, *modules)
    assert found.returncode == 0, found.stderr
