"""The -C and the -P of a folder: places, pixels, and what is read back."""

import functools
import io
import subprocess
import sys

import numpy as np
import pytest
from image_folders import CLASSES, OPTIONS, command, make_folder, names, read
from PIL import Image

from robust_jax import config, models
from robust_jax.corruptions import CORRUPTIONS
from robust_jax.corruptions import corrupt as corrupt_batch
from robust_jax.corruptions.sequences import perturb
from robust_jax.data import folder
from robust_jax.evals import benchmarks, corruption, sets
from robust_jax.stages.networks import fill_in

GRID = [("fog", 1), ("fog", 5), ("shot_noise", 1), ("shot_noise", 5)]


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    root = tmp_path_factory.mktemp("small")
    return root, np.stack(make_folder(root, lambda i: (16, 16)))


def test_places_and_pixels(small, tmp_path, capsys):
    source, images = small
    assert command(source, tmp_path, *OPTIONS, "--png", "--seed", "3") == 0
    said = capsys.readouterr().out
    assert f"--sets folder_c:{tmp_path} folder_p:{tmp_path}/perturbations" in said
    assert "wrote 45 files" in said and "sequences take 0.000214 GB" in said
    written = [p for p in tmp_path.rglob("*.*") if p.is_file() and ".index" not in p.parts]
    assert len(written) == 45 + 1 and tmp_path / "manifest.json" in written
    files, ids = names(source, ".png"), np.arange(9)
    for name, severity in GRID:
        expected = corrupt_batch(images, name, severity, ids=ids, seed=3)
        np.testing.assert_array_equal(read(tmp_path / name / str(severity), files), expected)
    frames = perturb(images, "tilt", ids=ids, seed=3)
    found = [np.load(tmp_path / "perturbations" / "tilt" / f) for f in names(source, ".npy")]
    np.testing.assert_array_equal(found, frames)


def test_jpeg_of_quality_85_is_the_default(small, tmp_path):
    source, images = small
    command(source, tmp_path, *OPTIONS)
    for name, severity in GRID:
        found = read(tmp_path / name / str(severity), names(source, ".JPEG"))
        made = corrupt_batch(images, name, severity, ids=np.arange(9))
        for image, one in zip(made, found, strict=True):
            buffer = io.BytesIO()
            Image.fromarray(image).save(buffer, "JPEG", quality=85)
            np.testing.assert_array_equal(one, np.asarray(Image.open(buffer)))
        saved = corruption.transform(name, severity, 0, jpeg85=True)(images, np.arange(9))
        np.testing.assert_array_equal(found, saved)


@pytest.mark.parametrize(("size", "resize", "more"), [(104, 119, []), (32, 37, ["--resize", "37"])])
def test_the_same_as_on_the_fly(size, resize, more, tmp_path):
    """Of photographs of changing sizes, with the ops of a ResNet of this size."""
    source, out, entry = tmp_path / "in", tmp_path / "out", models.entry("resnet50")
    make_folder(source, lambda i: (130 + i, 150 - 3 * i), counts=(2, 1, 2))
    command(source, out, *OPTIONS, "--size", str(size), *more, "--png", "--seed", "2")
    ops, larger = (
        fill_in(one, entry, size)
        for one in (config.base().data.eval_ops, config.base().evaluate.perturbation_ops)
    )
    assert ops == f"decode|resize_small({resize}, 'bilinear')|central_crop({size})"
    load = functools.partial(
        benchmarks.load, class_names=CLASSES, eval_ops=ops, size=size, severities=(1, 5)
    )
    (images,) = load(f"folder:{source}")
    choice = sets.Choice(("fog", "shot_noise"), (1, 5), ("tilt",), seed=2)
    _, *own, tilted = sets.own_sets(images.source, ops, larger, choice, size=size)
    read_back = load(f"folder_c:{out}", corruptions=("fog", "shot_noise"))
    for one, back in zip(own, read_back, strict=True):
        ((batch, ids),) = one.images.batches(8)
        expected = corruption.transform(*one.corrupt)(batch, ids)
        ((found, _),) = sets.EvalSet(back.source, back.ops).batches(8)
        np.testing.assert_array_equal(found, expected)  # and not cut again
        where = out / one.where["corruption"] / str(one.where["severity"])
        np.testing.assert_array_equal(read(where, names(source, ".png")), expected)
    ((expected, labels),) = tilted.frames(8)
    (stored,) = load(f"folder_p:{out}/perturbations", perturbations=("tilt",))
    ((found, read_labels),) = stored.batches(8)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(read_labels, labels)


def test_read_back_as_a_benchmark(small, tmp_path):
    source, images = small
    out = tmp_path / "out"
    # Six names are both a corruption and a sequence.
    both = ["--corruption", "brightness", "fog", "--perturbation", "brightness", "tilt"]
    command(source, out, *both, "--severity", "2", "--png")
    load = functools.partial(benchmarks.load, class_names=CLASSES, eval_ops="decode", size=16)
    options = {"corruptions": ("brightness", "fog"), "severities": (2,)}
    for one in load(f"folder_c:{out}", **options):
        name = one.where["corruption"]
        ((found, _),) = sets.EvalSet(one.source, one.ops).batches(9)
        expected = corrupt_batch(images, name, 2, ids=np.arange(9))
        np.testing.assert_array_equal(found, expected)
        assert one.source.labels.tolist() == [0, 0, 0, 1, 1, 2, 2, 2, 2]
    options = {"perturbations": ("brightness", "tilt")}
    for one in load(f"folder_p:{out}/perturbations", **options):
        ((frames, labels),) = one.batches(9)
        expected = perturb(images, one.where["perturbation"], ids=np.arange(9))
        np.testing.assert_array_equal(frames, expected)
        assert labels.tolist() == [0, 0, 0, 1, 1, 2, 2, 2, 2]


def test_the_15_at_every_severity_by_default(tmp_path):
    source, out = tmp_path / "in", tmp_path / "out"
    make_folder(source, lambda i: (16, 16), counts=(1, 1, 1))
    command(source, out)
    found = {"/".join(p.relative_to(out).parts[:2]) for p in out.glob("*/*/*/*.JPEG")}
    assert found == {f"{name}/{severity}" for name in CORRUPTIONS for severity in range(1, 6)}
    assert len(list(out.glob("*/*/*/*.JPEG"))) == 15 * 5 * 3
    assert not (out / "perturbations").exists()


def test_images_that_are_not_square_stay_so(tmp_path):
    source, out = tmp_path / "in", tmp_path / "out"
    images = np.stack(make_folder(source, lambda i: (12, 20)))
    command(source, out, *OPTIONS, "--png")
    found = read(out / "fog" / "5", names(source, ".png"))
    np.testing.assert_array_equal(found, corrupt_batch(images, "fog", 5, ids=np.arange(9)))
    assert np.load(out / "perturbations/tilt/ant/0.npy").shape[1:] == (12, 20, 3)


def test_files_of_a_folder_are_named_in_order(small):
    source, _ = small
    labels = {"cow": 1, "ant": 0}
    found = folder.of_classes(
        source, labels, ["ant", "cow"], name="two", verify=False, max_bad_images=0
    )
    assert found.files == (*(f"cow/{i}" for i in ("0.jpg", "1.png", "2.jpg", "3.png")),
                           "ant/0.jpg", "ant/1.png", "ant/2.jpg")  # fmt: skip
    assert found.subset([4, 1]).files == ("ant/0.jpg", "cow/1.png")


def test_help_needs_no_jax():
    code = "import sys; from robust_jax import corrupt; print('jax' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "False"
