import io
import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from runs import ROOT, copy_run, quick_config, run

import robust_jax
from robust_jax import classifier as classifier_module
from robust_jax import predict
from robust_jax.classifier import Prediction
from robust_jax.data import sources
from robust_jax.evals.classification import EvalSet

pytest_plugins = ["finished_run"]


@pytest.fixture(scope="module")
def trained(finished, tmp_path_factory):
    """A run whose heads have learned to differ: rounding does not decide which one answers."""
    workdir = tmp_path_factory.mktemp("trained") / "run"
    copy_run(finished, workdir, without=("distill", "baselines", "evaluate", "report"))
    changes = {"distill__total_steps": 60, "distill__learning_rate": 0.02}
    stages = ("distill", "baselines", "evaluate")
    config = quick_config(**changes, baselines__methods=(), stages=stages)
    run(config, workdir)
    return workdir


@pytest.fixture(scope="module")
def classifier(trained):
    return robust_jax.load(trained)


@pytest.fixture(scope="module")
def images():
    val = EvalSet(sources.load(quick_config().data, "val"), "decode", 64)
    return np.concatenate([batch for batch, _ in val.batches(64)])


@pytest.fixture(scope="module")
def said(classifier, images):
    return classifier.predict(images)


def encode(image, form):
    file = io.BytesIO()
    Image.fromarray(image).save(file, form)
    return file.getvalue()


def test_answers_are_those_of_the_evaluation(trained, said):
    assert said.kl.min() > 1e-4 and 0 < said.head.mean() < 1
    stored = np.load(trained / "evaluate" / "outputs" / "clean.npz")
    np.testing.assert_array_equal(said.label, stored["ours/label"])
    np.testing.assert_array_equal(said.head, stored["ours/head"])


def test_another_rule_may_choose(trained, images, tmp_path):
    workdir = copy_run(trained, tmp_path / "run")
    config = json.loads((workdir / "config.json").read_text())
    (workdir / "config.json").write_text(json.dumps(config | {"selection.score": "product"}))
    calibrations = workdir / "evaluate" / "calibration"
    (calibrations / "ours_product.json").replace(calibrations / "ours.json")
    other = robust_jax.load(workdir)
    assert other.score == "product"
    said = other.predict(images)
    stored = np.load(trained / "evaluate" / "outputs" / "clean.npz")
    assert 0 < said.head.mean() < 1 and (said.head != stored["ours/head"]).any()
    np.testing.assert_array_equal(said.head, stored["ours_product/head"])
    np.testing.assert_array_equal(said.label, stored["ours_product/label"])


def test_answers_have_the_promised_form(classifier, said):
    assert classifier.class_names == tuple("0123456789")
    assert said.label.dtype == said.head.dtype == np.int32
    assert said.probs.shape == (64, 10)
    assert said.uncertainty.shape == (64, 3)
    assert said.kl.shape == (64, 2)
    np.testing.assert_allclose(said.probs.sum(1), 1, rtol=1e-5)
    np.testing.assert_array_equal(said.probs.argmax(1), said.label)
    assert said.class_name == tuple(str(label) for label in said.label)
    assert said.head_probs.shape == (64, 3, 10)
    np.testing.assert_array_equal(said.head_probs[np.arange(64), said.head], said.probs)
    assert set(said.head) <= {0, 1}  # the combined head is no candidate
    assert (said.uncertainty >= 0).all()


def assert_same(found, expected):
    np.testing.assert_array_equal(found.label, expected.label)
    np.testing.assert_array_equal(found.head, expected.head)
    for name in ("probs", "uncertainty", "kl"):
        values = getattr(found, name)
        np.testing.assert_allclose(values, getattr(expected, name), rtol=1e-3, atol=1e-6)


def rows(said, index):
    chosen = np.arange(len(said.label))[index]
    parts = {name: value[index] for name, value in vars(said).items() if name != "class_name"}
    return Prediction(class_name=tuple(said.class_name[i] for i in chosen), **parts)


@pytest.mark.parametrize("size", [1, 3, 16])
def test_answers_do_not_depend_on_the_batch(classifier, images, said, size):
    some = images[:24]
    parts = [vars(classifier.predict(some[i : i + size])) for i in range(0, 24, size)]
    found = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    assert_same(Prediction(**found), rows(said, slice(24)))


def test_answers_do_not_depend_on_their_parts(classifier, images, said, monkeypatch):
    many = np.arange(200) % 64  # of which a device takes 64 through the heads at once
    assert_same(classifier.predict(images[many]), rows(said, many))
    monkeypatch.setattr(classifier_module, "MAX_BATCH", 8)
    assert_same(classifier.predict(images[:20]), rows(said, slice(20)))


def test_pixels_are_those_of_the_evaluation(classifier, monkeypatch):
    random = np.random.default_rng(0)
    sizes = [(32, 32), (20, 45), (64, 33), (200, 150), (32, 32)]
    given = [random.integers(0, 256, (*size, 3), np.uint8) for size in sizes]
    seen, answer = [], classifier._answer

    def watched(arrays, pixels):
        seen.append(pixels)
        return answer(arrays, pixels)

    monkeypatch.setattr(classifier, "_answer", watched)
    classifier.predict(given)
    for image, pixels in zip(given, seen[0], strict=False):
        source = sources.from_arrays(image[None], np.zeros(1, np.int32), ("a", "b"))
        ((expected, _),) = EvalSet(source, "decode|resize(32)").batches(1)
        np.testing.assert_array_equal(pixels, expected[0])


def test_loading_imports_no_tensorflow(trained):
    load = f"import sys, robust_jax; robust_jax.load({str(trained)!r})"
    code = f"{load}; print('tensorflow' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert found.stdout.strip() == "False", found.stderr


def test_files_and_arrays_of_any_size(classifier, images, said):
    larger = np.repeat(np.repeat(images[2], 2, 0), 3, 1)
    mixed = [images[0], encode(images[1], "PNG"), larger, images[3][:20], encode(images[4], "BMP")]
    grey = io.BytesIO()
    Image.fromarray(images[5][..., 0]).save(grey, "PNG")
    found = classifier.predict([*mixed, grey.getvalue()])
    unchanged = [0, 1, 4, 5]  # the digits are grey
    assert_same(rows(found, unchanged), rows(said, unchanged))
    np.testing.assert_allclose(found.probs.sum(1), 1, rtol=1e-5)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([], r"no images; got an empty batch"),
        (np.zeros((2, 8, 8, 3), np.float32), r"must be uint8\[h, w, 3\]; got float32\[8, 8, 3\]"),
        (np.zeros((8, 8, 3), np.uint8), r"must be uint8\[h, w, 3\]; got uint8\[8, 3\]"),
        (np.zeros((2, 8, 8, 1), np.uint8), r"got uint8\[8, 8, 1\]"),
        ([b"GIF?"], r"image 0: cannot decode the image; got 4 bytes"),
    ],
)
def test_wrong_images_are_told(classifier, images, message):
    with pytest.raises(ValueError, match=message):
        classifier.predict(images)


def test_command_line(trained, classifier, images, said, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(predict, "RobustClassifier", lambda workdir: classifier)
    paths = [tmp_path / name for name in ("a.png", "b.bmp")]
    for path, image in zip(paths, images, strict=False):
        Image.fromarray(image).save(path)
    assert predict.main([str(trained), *map(str, paths)]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(lines) == 2
    for i, line in enumerate(lines):
        assert line["image"] == str(paths[i])
        assert line["label"] == said.label[i]
        assert line["class"] == str(said.label[i])
        assert line["prob"] == pytest.approx(said.probs[i].max(), abs=1e-5)
        assert line["head"] == ("clean", "unclean", "combined")[said.head[i]]
        assert line["uncertainty"] == pytest.approx(said.uncertainty[i], abs=1e-5)
        assert line["kl"] == pytest.approx(said.kl[i], abs=1e-5)
    paths[1].write_bytes(b"torn")
    with pytest.raises(ValueError, match=r"b.bmp: cannot decode the image; got 4 bytes"):
        predict.main([str(trained), *map(str, paths)])
    with pytest.raises(ValueError, match=r"no such image file or folder; got .*c.png; give a path"):
        predict.main([str(trained), str(paths[0]), str(tmp_path / "c.png")])


def test_folders_and_lists(trained, classifier, images, said, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(predict, "RobustClassifier", lambda workdir: classifier)
    paths = [tmp_path / "folder" / name for name in ("a.png", "b/c.BMP", "b/d.png")]
    for path, image in zip(paths, images, strict=False):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    (tmp_path / "folder" / "notes.txt").write_text("no image")
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{paths[2]}\n\n{paths[0]}\n"))
    assert predict.main([str(trained), str(tmp_path / "folder"), "-", "--heads"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    order = [0, 1, 2, 2, 0]
    assert [line["image"] for line in lines] == [str(paths[i]) for i in order]
    for i, line in zip(order, lines, strict=True):
        assert line["label"] == said.label[i]
        for number, head in enumerate(("clean", "unclean", "combined")):
            probs = said.head_probs[i, number]
            assert line["heads"][head]["label"] == probs.argmax()
            assert line["heads"][head]["prob"] == pytest.approx(probs.max(), abs=1e-5)
    # For people, and for programs all the same with --json.
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    predict.main([str(trained), str(paths[0]), "--heads"])
    words = capsys.readouterr().out.strip().split("\t")
    assert words[:2] == [str(paths[0]), str(said.label[0])]
    assert words[3] == ("clean", "unclean", "combined")[said.head[0]]
    assert [word.split(":")[0] for word in words[4:]] == ["clean", "unclean", "combined"]
    predict.main([str(trained), str(paths[0]), "--json"])
    assert "heads" not in json.loads(capsys.readouterr().out)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"no images in this folder; got .*empty"):
        predict.main([str(trained), str(tmp_path / "empty")])


def test_directories_without_a_run_are_told(tmp_path):
    with pytest.raises(ValueError, match=r"no run in this directory; got .*; give the --workdir"):
        robust_jax.load(tmp_path)
