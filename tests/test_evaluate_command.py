import json
import shutil

import numpy as np
import pytest
from PIL import Image
from runs import CLASSES, copy_run, quick_config

from robust_jax import convert, evaluate
from robust_jax.corruptions import corrupt
from robust_jax.data import sources
from robust_jax.evals.classification import EvalSet

pytest_plugins = ["finished_run"]

NATIVE = ("--format", "robust_jax")
OWN = ("accuracy", "nll", "ece", "brier", "aurc")


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """The evaluation images of the run as a folder, and where each of them is in it."""
    val = EvalSet(sources.load(quick_config().data, "val"), "decode", 64)
    images = np.concatenate([batch for batch, _ in val.batches(64)])
    root = tmp_path_factory.mktemp("digits")
    for number, (image, label) in enumerate(zip(images, val.labels, strict=True)):
        (root / CLASSES[label]).mkdir(exist_ok=True)
        Image.fromarray(image).save(root / CLASSES[label] / f"{number:02}.png")
    order = np.argsort(val.labels, kind="stable")
    return root, images[order], val.labels[order], order


def command(model, out, *options):
    assert evaluate.main([str(model), "--out", str(out), *map(str, options)]) == 0
    rows = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    return json.loads((out / "summary.json").read_text())["methods"], rows


def test_the_methods_of_a_run_answer_as_in_it(finished, digits, tmp_path, capsys):
    root, order = digits[0], digits[3]
    choice = ("--corruptions", "fog", "--severities", 2, 5, "--perturbations", "tilt")
    methods, rows = command(finished, tmp_path, "--data", f"folder:{root}", *choice)
    there = json.loads((finished / "summary.json").read_text())["methods"]
    assert set(methods) == set(there)
    stored = np.load(finished / "evaluate" / "outputs" / "clean.npz")
    found = np.load(tmp_path / "outputs" / "clean.npz")
    for name, entry in methods.items():
        label = f"{name}/label"
        np.testing.assert_array_equal(found[label], stored[label][order])
        for metric in OWN:
            value = entry[f"clean_{metric}"]
            assert value == pytest.approx(there[name][f"clean_{metric}"], rel=1e-5)
        assert 0 <= entry["mean_flip_probability"] <= 1
    assert {row["n"] for row in rows} == {64}
    said = capsys.readouterr().out
    assert "images: clean 64, corruption 64, perturbation 64" in said
    assert "ours (U x KL)" in said and "fog" in said and "mean flip probability" in said


def test_a_network_alone_and_a_stored_corruption(finished, digits, tmp_path, capsys):
    root, images, labels, _ = digits
    convert.main([str(finished), str(tmp_path / "weights"), "--head", "original", *NATIVE])
    for severity in (1, 4):
        fog = corrupt(images, "fog", severity, ids=np.arange(64))
        for number, (image, label) in enumerate(zip(fog, labels, strict=True)):
            folder = tmp_path / "c" / "fog" / str(severity) / CLASSES[label]
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(folder / f"{number:02}.png")
    options = ("--corruptions", "fog", "--severities", 1, 4)
    sets = ("--data", f"folder:{root}", "--sets", f"mine=folder_c:{tmp_path / 'c'}")
    methods, rows = command(tmp_path / "weights", tmp_path / "out", *sets, *options)
    (entry,) = methods.values()
    there = json.loads((finished / "summary.json").read_text())["methods"]["original"]
    assert entry["clean_accuracy"] == there["clean_accuracy"]
    # The same images, made on the fly and read.
    read = entry["benchmarks"]["mine"]
    assert read["accuracy_by_corruption"] == entry["accuracy_by_corruption"]
    assert {row["method"] for row in rows} == {"original"}
    assert "mine" in capsys.readouterr().out


def test_an_evaluation_continues(finished, digits, tmp_path, capsys):
    options = ("--data", f"folder:{digits[0]}", "--corruptions", "--max_images", 8)
    first, rows = command(finished, tmp_path, *options)
    assert {row["n"] for row in rows} == {8}
    stored = tmp_path / "outputs" / "clean.npz"
    written = stored.stat().st_mtime_ns
    again, _ = command(finished, tmp_path, *options)
    assert again == first and stored.stat().st_mtime_ns == written
    command(finished, tmp_path, *options, "--corruptions", "fog", "--severities", 1)
    assert stored.stat().st_mtime_ns == written
    assert (tmp_path / "outputs" / "fog-1.npz").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), r"nothing to evaluate; got neither --data nor --sets"),
        (("--data", "{root}", "--model", "resnet20"), r"a run knows its networks; got --model"),
        (("--data", "{root}", "--max_images", "0"), r"--max_images must be positive; got 0"),
        (("--data", "{root}", "--corruptions", "fogg"), r"unknown corruption; got 'fogg'"),
        (("--data", "{root}", "--severities", "6"), r"severities must be .*; got \[6\]"),
        (("--data", "{root}", "--perturbations", "tild"), r"unknown .*; got 'tild'"),
        (("--data", "{root}_none"), r"not at this place; got '.*_none'"),
        (("--data", "folder_c{colon}"), r"--data is one set of images as they are"),
        (("--sets", "imagenet_a:/data"), r"imagenet_a .*1000 classes"),
        (("--sets", "clean={root}"), r"cannot be a benchmark's name; got 'clean'"),
    ],
)
def test_mistakes_are_told(finished, digits, tmp_path, options, message):
    root = digits[0]
    for name in CLASSES:
        shutil.copytree(root / name, tmp_path / "fog" / "1" / name)
    known = {"root": f"folder:{root}", "colon": f":{tmp_path}"}
    words = [word.format(**known) for word in options]
    few = [] if "--corruptions" in words or "--severities" in words else ["--corruptions", "fog"]
    few += [] if "--severities" in words else ["--severities", "1"]
    with pytest.raises(ValueError, match=message):
        evaluate.main([str(finished), "--out", str(tmp_path / "out"), *words, *few])
    assert not (tmp_path / "out" / "results.jsonl").exists()


def test_what_cannot_be_evaluated_is_told(finished, digits, tmp_path):
    options = ["--out", str(tmp_path / "out"), "--data", f"folder:{digits[0]}"]
    unfinished = copy_run(finished, tmp_path / "run", without=("evaluate",))
    with pytest.raises(ValueError, match="evaluate"):
        evaluate.main([str(unfinished), *options])
    with pytest.raises(ValueError, match="nowhere"):
        evaluate.main([str(tmp_path / "nowhere"), *options, "--model", "resnet20"])
