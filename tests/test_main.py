import json
import subprocess
import sys

import numpy as np
import pytest
from runs import ROOT, command, make_folder, quick_config, run
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from configs import folder
from robust_jax import config as config_lib
from robust_jax.data import sources
from robust_jax.evals.classification import EvalSet

pytest_plugins = ["finished_run"]

ALWAYS = {
    "clean_accuracy",
    "corrupted_accuracy",
    "accuracy_by_corruption",
    "tuned_params",
    "total_params",
}
ROUTING = {"f_correct_clean", "f_correct_shift", "routing_auroc"}
ROUTED = {"ours", "ours_no_kd", "ours_no_kld", "ours_no_umc", "ours_max_logit", "ours_gate"}
METHODS = ROUTED | {"original", "teacher", "apt"}
TRAINED = ("pretrain", "teacher", "distill/ours", "baselines/apt", "baselines/ours_no_kd")
CORRUPTIONS = {"gaussian_noise", "defocus_blur", "fog", "jpeg_compression"}


def assert_complete(workdir, config):
    """Checks everything that a run promises to leave behind; returns its summary."""
    summary = json.loads((workdir / "summary.json").read_text())
    assert set(summary) == {"config", "dataset", "methods"}
    assert summary["config"] == config_lib.flatten(config)
    assert json.loads((workdir / "config.json").read_text()) == summary["config"]
    needed = {"name", "classes", "train_images", "eval_images", "bad_images"}
    assert set(summary["dataset"]) == needed
    assert set(summary["methods"]) == METHODS
    for method, entry in summary["methods"].items():
        # A metric that was not run is absent: no mean corruption error without all corruptions,
        # no mCE without ImageNet, no routing without heads.
        seconds = set() if method == "original" else {"train_seconds"}
        assert set(entry) == ALWAYS | seconds | (ROUTING if method in ROUTED else set()), method
        assert entry["total_params"] >= entry["tuned_params"] >= 0
        assert entry.get("train_seconds", 1.0) > 0
        by_corruption = entry["accuracy_by_corruption"]
        assert set(by_corruption) == CORRUPTIONS
        assert {len(values) for values in by_corruption.values()} == {2}
        values = [v for row in by_corruption.values() for v in row]
        assert entry["corrupted_accuracy"] == pytest.approx(np.mean(values))
        values += [entry[key] for key in ALWAYS | ROUTING if key in entry and "acc" in key]
        values += [entry[key] for key in ROUTING if key in entry]
        assert all(0 <= v <= 1 for v in values if isinstance(v, float))
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


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("data") / "pets")


def folder_config(root, **changes):
    c = folder.get_config("runlocal")
    c.data.dir = str(root)
    c.update_from_flattened_dict({key.replace("__", "."): v for key, v in changes.items()})
    return c


def test_folder(tmp_path):
    root = make_folder(tmp_path / "pets")
    (root / "train" / "bee" / "torn.png").write_bytes(b"\x89PNG")
    # A smaller student compiles faster.
    config = folder_config(root, data__max_bad_images=1, student__name="resnet_small")
    run(config, tmp_path / "run")
    dataset = assert_complete(tmp_path / "run", config)["dataset"]
    assert dataset == {
        "name": "pets",
        "classes": ["ant", "bee", "cat"],
        "train_images": 33,  # a tenth of 36 is held out
        "eval_images": 12,
        "bad_images": 1,
    }


# Every config has to run; add its test above.
TESTED = {"quickstart.py": test_quickstart, "folder.py": test_folder}


@pytest.mark.parametrize("path", sorted((ROOT / "configs").rglob("*.py")), ids=lambda p: p.name)
def test_every_config_has_a_run(path):
    assert path.name in {"__init__.py", "base.py"} | set(TESTED)


def test_a_dry_run_prints_the_plan_and_writes_nothing(images, tmp_path, capsys):
    run(folder_config(images), tmp_path / "none" / "run", dry_run=True)
    plan = capsys.readouterr().out
    for line in (
        r"data: pets train, 33 train, 3 calibration and 12 evaluation images, 3 classes",
        r"pretrain: 4 steps of 32, sgd",
        r"distill: 4 steps of 32, adam",
        r"stages: pretrain, teacher, cache, distill, baselines, evaluate, report",
    ):
        assert line in plan.splitlines()
    assert "frozen" in plan
    assert " MB" in plan
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data__image_size": 2}, r"data.image_size .*got 2; use a value of at least 8"),
        ({"data__image_size": 30, "student__name": "vit_tiny8"}, r"got image_size=30 with pat"),
        ({"pretrain__batch_size": 30}, r"pretrain.batch_size .*got 30 on 4 devices; use 32"),
        ({"distill__batch_size": 2}, r"distill.batch_size .*got 2 on 4 devices; use 4"),
        ({"student__name": "vit_tinny"}, r"unknown model; got 'vit_tinny'; did you mean 'vit_tiny"),
        ({"data__eval_ops": "decode|resise(32)"}, r"unknown op; got 'resise'; did you mean"),
        ({"data__eval_ops": "decode|resize(16)"}, r"data.eval_ops must make uint8 .*\[16, 16, 3\]"),
        ({"data__train_ops": "decode"}, r"data.train_ops must make uint8 .* for image_size=32"),
        ({"evaluate__corruptions": ("mist",)}, r"unknown corruptions .*got \['mist'\]"),
        ({"evaluate__severities": (6,)}, r"evaluate.severities .*got \[6\]"),
        ({"distill__weight_decay": 0.1}, r"'adam' has no weight decay; got weight_decay=0.1"),
        ({"teacher__total_examples": 4}, r"teacher: two durations"),
        ({"method__tuned_params": "much"}, r"method.tuned_params must be .*got 'much'"),
    ],
)
def test_mistakes_are_told_before_training(images, tmp_path, changes, message):
    # Plain ops in place of AugMix, which is slow to build.
    config = folder_config(images, **({"data__augment_ops": "flip_lr"} | changes))
    with pytest.raises(ValueError, match=message):
        run(config, tmp_path)
    assert not (tmp_path / "stages").exists()


def corrupt_image(root):
    (root / "val" / "cat" / "1.png").write_bytes(b"\x89PNG")


def empty_class(root):
    for file in (root / "train" / "ant").iterdir():
        file.unlink()
    (root / "train" / "ant" / "notes.txt").write_text("x")


def new_class(root):
    (root / "val" / "dodo").mkdir()


def few_images(root):
    for file in (root / "train").rglob("[3-9].*"):
        file.unlink()
    for file in (root / "train").rglob("1[01].*"):
        file.unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (corrupt_image, r"1 images of .*val cannot be read; got cat/1.png; .*max_bad_images=1"),
        (empty_class, r"no readable image in .*train/ant; got 1 other files"),
        (new_class, r"val has classes that train lacks; got dodo"),
        (few_images, r"too few training images; got 9; a run needs at least 10"),
    ],
)
def test_bad_folders_are_told_before_training(tmp_path, damage, message):
    root = make_folder(tmp_path / "pets")
    damage(root)
    with pytest.raises(ValueError, match=message):
        run(folder_config(root), tmp_path / "run")
    assert not (tmp_path / "run" / "stages").exists()
    with pytest.raises(ValueError, match=r"data.dir is not a directory; got '.*nowhere'"):
        run(folder_config(tmp_path / "nowhere"), tmp_path / "run")


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
