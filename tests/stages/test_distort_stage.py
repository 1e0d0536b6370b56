"""The stage `distort`, and the command that does the same beforehand."""

import json
import shutil

import jax
import numpy as np
import pytest
from etils import epath
from PIL import Image
from runs import FOLDERS, folder_config, make_folder, run

from robust_jax import costs, distort, stages
from robust_jax.data.copies import read_manifest
from robust_jax.data.pipeline import ordered_batches
from robust_jax.stages.context import Context

NETWORKS = ("cae", "edsr", "noise2net")
NAMES = ("cae_0", "edsr_0", "noise2net_0")
WAYS = ("clean", "augment_ops", "deepaugment", "noise2net", "chained")
MIXTURES = {f"{s}__mixture__{w}": 0.2 for s in ("teacher", "augmented") for w in WAYS}


@pytest.fixture(scope="module", autouse=True)
def quick_compilation():
    """The networks of DeepAugment compile for long and compute little here."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("data") / "pets")


def config(root, **changes):
    quick = {"student__name": "resnet_small", "data__augment_ops": "flip_lr"}
    return folder_config(root, **(quick | changes))


def copy_files(directory):
    return {str(f.relative_to(directory)): f for f in directory.rglob("*.jpg")}


@pytest.fixture(scope="module")
def finished(images, tmp_path_factory):
    """A run of the stage, with every kind of copies; do not write into it."""
    workdir = tmp_path_factory.mktemp("distort") / "run"
    run(config(images, stages=("distort",), distort__networks=NETWORKS, **MIXTURES), workdir)
    return workdir


@pytest.mark.slow
def test_every_training_image_is_distorted_by_every_network(finished):
    directory = finished / "distort" / "copies"
    found = copy_files(directory)
    wanted = {
        f"{name}/{label}/{4 * k + i:08d}.jpg"
        for name in NAMES
        for k, label in enumerate(FOLDERS)
        for i in range(4)
    }
    assert found.keys() == wanted
    sizes = {Image.open(path).size for path in found.values()}
    assert sizes == {(32, 32)}
    made = np.stack([[Image.open(found[f]) for f in sorted(found) if n in f] for n in NAMES])
    assert made.shape == (3, 40, 32, 32, 3)
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert (made[one] != made[other]).any((1, 2, 3)).all()
    assert made[2].std((1, 2)).min() > 10  # the others restore little after four steps


@pytest.mark.slow
def test_the_result_tells_the_time_and_what_the_networks_can(finished):
    found = stages.result(epath.Path(finished), "distort")
    quality = {f"{kind}_{key}" for kind in ("cae", "edsr") for key in ("psnr", "psnr_trivial")}
    assert found.keys() == distort.NO_COSTS.keys() | quality
    assert all(value > 0 for value in found.values())
    made = read_manifest(epath.Path(finished) / "distort" / "copies")["copies"]
    assert made.keys() == set(NAMES)
    assert made["noise2net_0"] == {"max_eps": 0.75}
    assert made["edsr_0"]["shrink"] == 2
    assert made["cae_0"]["weights"] != made["edsr_0"]["weights"]


@pytest.mark.slow
def test_the_teacher_is_trained_on_a_mixture(images, finished, tmp_path):
    workdir = shutil.copytree(finished, tmp_path / "run")
    keys = {"distort__networks": NETWORKS, "teacher__ema_decay": 0.9, **MIXTURES}
    run(config(images, stages=("teacher",), **keys), workdir)
    found = stages.result(epath.Path(workdir), "teacher")
    assert found["steps"] == 4
    assert 0 <= found["clean_accuracy"] <= 1
    assert (workdir / "teacher" / "variables").exists()


def test_copies_of_another_run_are_used_for_the_same_images_only(
    images, finished, tmp_path, capsys
):
    keys = {
        "stages": ("distort",),
        "distort__networks": NETWORKS,
        "distort__dir": str(finished / "distort" / "copies"),
        **MIXTURES,
    }
    run(config(images, **keys), tmp_path / "same")
    assert stages.result(epath.Path(tmp_path / "same"), "distort") == distort.NO_COSTS
    assert not (tmp_path / "same" / "distort").exists()
    assert "distort: 3 copies of 40 images" in capsys.readouterr().out

    message = r"copies are missing; got .*'noise2net_0'.* without cae_1, edsr_1, noise2net_1; "
    with pytest.raises(ValueError, match=message):
        run(config(images, **keys, distort__copies=2), tmp_path / "more")

    other = make_folder(tmp_path / "other")
    changed = other / "train" / "cat" / "0.jpg"
    Image.open(changed).transpose(Image.Transpose.ROTATE_180).save(changed)
    with pytest.raises(ValueError, match="the copies were made from other images; got"):
        run(config(other, **keys), tmp_path / "changed")
    assert not stages.is_done(epath.Path(tmp_path / "changed"), "distort")


def test_what_calibrates_is_made_as_the_selection_says(images, finished, tmp_path):
    copies = finished / "distort" / "copies"
    keys = {"distort__networks": NETWORKS, "distort__dir": str(copies)}
    usual = Context(config(images, **keys), tmp_path).calibration_set()
    assert usual.mixture.used == ["augment_ops"]  # as the augmented set
    chosen = config(images, **keys, selection__mixture__noise2net=1.0)
    elements = Context(chosen, tmp_path).calibration_set()
    (batch,) = ordered_batches(elements, batch_size=8)
    assert batch["mask"].sum() == len(elements) == 4
    for view, record in zip(batch["aug"], batch["id"][batch["mask"]], strict=False):
        copy = Image.open(copies / "noise2net_0" / elements.copies.files[record])
        np.testing.assert_allclose(view, np.asarray(copy, np.float32), atol=3)  # JPEG decoders


def test_without_networks_nothing_is_made(images, tmp_path, capsys):
    run(config(images, stages=("distort",)), tmp_path)
    assert stages.result(epath.Path(tmp_path), "distort") == distort.NO_COSTS
    assert not (tmp_path / "distort").exists()
    out = capsys.readouterr().out
    assert "distort: distort.networks names no network, no copies are made" in out
    with pytest.raises(ValueError, match=r"augmented.mixture: nothing to draw chained from; got"):
        run(config(images, augmented__mixture__chained=1.0), tmp_path / "chained")
    assert not (tmp_path / "chained").exists()


def compiled(target):
    return costs.spent(target / "networks" / "distort" / "compile.json")["compile_seconds"]


def test_what_distorting_costs(images, tmp_path):
    """Compilation is told apart, and what an interrupted call has spent is added."""
    c = config(images, distort__networks=("noise2net",), stages=("distort",))
    run(c, tmp_path / "run")
    found = stages.result(epath.Path(tmp_path / "run"), "distort")
    once = 40 * 12 * 2 * 32 * 32 * 9 * 16 * 16  # twelve convolutions an image
    assert found["flops"] == pytest.approx(once, rel=0.1)
    assert 0 < found["seconds"] < 100
    assert found["compile_seconds"] > 0

    marker = tmp_path / "run" / "stages" / "distort.json"
    marker.write_text(json.dumps({**json.loads(marker.read_text()), "done": False}))
    directory = tmp_path / "run" / "distort"
    done = directory / "copies" / "done.json"
    done.write_text(json.dumps({"records": 0, "seconds": 1000.0}))
    (directory / "compile.json").write_text(json.dumps({"compile_seconds": 500.0}))
    run(c, tmp_path / "run")
    again = stages.result(epath.Path(tmp_path / "run"), "distort")
    assert 1000 < again["seconds"] < 1000 + found["seconds"] + 50
    assert 500 < again["compile_seconds"] < 700
    assert again["flops"] == found["flops"]


@pytest.mark.parametrize(
    "networks",
    [("noise2net",), pytest.param(("noise2net", "edsr"), marks=pytest.mark.slow)],
)
def test_copies_made_beforehand(tmp_path, capsys, networks):
    root, target = make_folder(tmp_path / "pets", train=3, val=1), tmp_path / "copies"
    options = ["--fit_steps", "2", "--size", "32", "--copies", "2"]
    command = [str(root), str(target), "--networks", *networks, *options]
    distort.main(command)
    names = [f"{network}_{i}" for network in networks for i in range(2)]
    assert f"{len(names)} copies of 30 images in " in capsys.readouterr().out
    files = copy_files(target)
    records = [f"{k}/{3 * i + j:08d}.jpg" for i, k in enumerate(FOLDERS) for j in range(3)]
    assert files.keys() == {f"{name}/{record}" for name in names for record in records}
    first = compiled(target)
    assert first > 0
    before = {name: path.read_bytes() for name, path in files.items()}
    assert before["noise2net_0/cat/00000006.jpg"] != before["noise2net_1/cat/00000006.jpg"]
    distort.main(command)  # once more, nothing is left to do
    assert {name: path.read_bytes() for name, path in copy_files(target).items()} == before
    assert compiled(target) == first
    with pytest.raises(ValueError, match=r"made in another way; got another made_from.seed in"):
        distort.main([*command, "--seed", "1"])

    # A run takes them, all or some.
    keys = {"stages": ("distort",), "distort__dir": str(target), "distort__networks": networks[:1]}
    run(config(root, **keys, teacher__mixture__noise2net=1.0), tmp_path / "run")
    assert stages.is_done(epath.Path(tmp_path / "run"), "distort")
