"""A dry run plans with what is on this machine, and fetches nothing."""

import re
import socket

import pytest
import tensorflow_datasets as tfds
from runs import folder_config, make_folder, quick_config, run

from configs import base
from robust_jax.evals import benchmarks
from robust_jax.weights import locate

CLIP = "hf://openai/clip-vit-large-patch14-336"
VIT = "hf://timm/vit_base_patch16_224.augreg_in21k_ft_in1k"
SETS = (
    "tfds:imagenet_v2/matched-frequency",
    "tfds:imagenet2012_corrupted",
    "tfds:imagenet_r",
    "tfds:imagenet_a",
    "tfds:imagenet_sketch",
    "objectnet:data/objectnet/images",
    "p=imagenet_p:data/ImageNet-P",
)


class Fetched(Exception):
    pass


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    """Raises for whatever would come from elsewhere; nothing is in the current directory."""

    def fetch(*args, **kwargs):
        raise Fetched(args)

    monkeypatch.setattr(locate, "locate", fetch)
    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", fetch)
    monkeypatch.setattr(socket, "getaddrinfo", fetch)
    monkeypatch.chdir(tmp_path)


def imagenet(directory, **changes):
    """ImageNet as in the paper, from the TFDS sets below a directory."""
    c = base.get_config()
    c.data.update(source="tfds", name="imagenet2012", val_split="validation", dir=str(directory))
    c.data.augment_ops = "flip_lr"  # AugMix is slow to build
    c.data.calibration_images = 10_000
    c.student.update(name="clip_vit_l14_336", weights=CLIP, classifier="probe")
    c.teacher.update(name="vit_b16", weights=VIT, batch_size=512, total_epochs=8)
    c.augmented.update(replicas=1, fraction=0.5)
    c.method.tuned_params = "paper"
    c.distill.update(batch_size=256, total_epochs=500)
    c.evaluate.sets = SETS
    c.update_from_flattened_dict({key.replace("__", "."): v for key, v in changes.items()})
    return c


def plan(config, workdir, capsys):
    run(config, workdir, dry_run=True)
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("own", [("all",), ()])
def test_imagenet_is_planned_without_imagenet(tmp_path, capsys, own):
    config = imagenet(tmp_path / "tfds", evaluate__corruptions=own)
    said = plan(config, tmp_path / "none" / "run", capsys)
    names = "imagenet_v2-matched-frequency, imagenet2012_corrupted, imagenet_r, imagenet_a"
    for line in (
        "data: imagenet2012 is not prepared on this machine; its images were not checked",
        f"weights not on this machine and not checked: {CLIP}, {VIT}",
        f"benchmarks: {', '.join(SETS)}",
        f"benchmarks not on this machine: {names}, imagenet_sketch, objectnet, p",
        f"student: clip_vit_l14_336 ({CLIP}), teacher: vit_b16 ({VIT})",
        # 1,281,167 of which 10,000 are held out
        "data: imagenet2012 train, 1,271,167 train, 10,000 calibration and 50,000 evaluation "
        "images, 1000 classes",
        f"pretrain: {CLIP}, classifier: probe",
        "teacher: 19,862 steps of 512, sgd",  # 8 x 1,271,167 / 512 = 19,861.98
        "distill: 1,241,375 steps of 256, adam",  # 500 x 635,584 / 256, half of them
        "stages: pretrain, distort, teacher, cache, distill, baselines, evaluate, report",
    ):
        assert line in said
    (tuned,) = (line for line in said if line.startswith("tuned "))
    assert int(re.match(r"tuned ([\d,]+) ", tuned)[1].replace(",", "")) == pytest.approx(
        5.6e6, rel=0.01
    )
    assert list(tmp_path.iterdir()) == []


def test_of_a_run_that_needs_nothing_from_elsewhere_nothing_is_amiss(tmp_path, capsys):
    said = plan(quick_config(data__augment_ops="flip_lr"), tmp_path / "run", capsys)
    (networks,) = (line for line in said if line.startswith("student: "))
    assert networks.count("(trained here)") == 2
    assert not any("not " in line for line in said)
    assert not any(line.startswith("benchmark") for line in said)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data__name": "mnist"}, r"got data.name='mnist'.*; prepare it first"),
        ({"data__name": "imagenet2013"}, r"no such dataset.*did you mean 'imagenet2012"),
        ({"data__name": "coco"}, r"prepare it first, with `tfds build coco`"),
        ({"data__classes": ("n01440764", "n01443537")}, r"data.classes=\('n01440764', .*prepare"),
        ({"data__val_split": "test"}, r"data.val_split='test'; choose among train, validation"),
        ({"data__train_ops": "decode"}, r"data.train_ops must make uint8 images of the run's size"),
        ({"data__eval_ops": "decode|resise(9)"}, r"unknown op; got 'resise'"),
        ({"evaluate__sets": ("objectnett:data",)}, r"unknown kind .*objectnett.*objectnet"),
        ({"evaluate__sets": ("tfds:imagenet_w",)}, r"no such dataset; got data.name='imagenet_w'"),
        ({"evaluate__sets": (SETS[2], SETS[2])}, r"two benchmarks are both called imagenet_r"),
        ({"evaluate__sets": ("tfds:imagenet2012_corrupted/mist_1",)}, r"corruption; got 'mist'"),
        ({"student__name": "clip_vit_l15"}, r"unknown model; got 'clip_vit_l15'"),
    ],
)
def test_mistakes_are_told_in_a_dry_run(tmp_path, changes, message):
    small = {"student__name": "vit_b16", "student__weights": VIT, "method__tuned_params": "auto"}
    with pytest.raises(ValueError, match=message):
        run(imagenet(tmp_path, **(small | changes)), tmp_path / "run", dry_run=True)
    assert list(tmp_path.iterdir()) == []


def test_weights_on_this_machine_are_read_in_a_dry_run(tmp_path, capsys):
    here = tmp_path / "weights.pth"
    here.write_bytes(b"x")
    for path in (str(here), "s3://bucket/weights.pth"):
        config = imagenet(tmp_path, student__weights=path)
        with pytest.raises(Fetched, match=path):  # where local files are looked for, too
            run(config, tmp_path / "run", dry_run=True)
    here.unlink()
    said = plan(imagenet(tmp_path, student__weights=str(here)), tmp_path / "run", capsys)
    assert f"weights not on this machine and not checked: {here}, {VIT}" in said
    with pytest.raises(Fetched):
        run(imagenet(tmp_path, student__weights=str(here), data__source="digits"), tmp_path / "r")


def test_benchmarks_on_this_machine_are_checked_in_a_dry_run(tmp_path, capsys):
    images = make_folder(tmp_path / "pets")
    here, absent = f"here=folder:{images / 'val'}", f"folder:{images / 'vall'}"
    config = folder_config(images, data__augment_ops="flip_lr", evaluate__sets=(here, absent))
    said = plan(config, tmp_path / "run", capsys)
    assert f"benchmarks: {here}, {absent}" in said
    assert "benchmark here: 40 images in 1 sets" in said
    assert "benchmarks not on this machine: folder" in said
    with pytest.raises(ValueError, match=r"vall"):
        run(config, tmp_path / "run")
    (images / "vall" / "yak").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"classes that the classifier lacks; got yak"):
        run(config, tmp_path / "run", dry_run=True)


def test_a_run_prepares_and_fetches(tmp_path):
    with pytest.raises(Fetched, match="imagenet2012"):
        run(imagenet(tmp_path / "tfds"), tmp_path / "run")
    config = quick_config(student__name="vit_b16", student__weights=VIT, data__image_size=32)
    with pytest.raises(Fetched, match=VIT):
        run(config, tmp_path / "run")
    assert not (tmp_path / "run" / "config.json").exists()  # nor has any stage begun
    options = {"class_names": "01", "eval_ops": "decode", "size": 8, "data_dir": str(tmp_path)}
    assert benchmarks.load_all(["tfds:mnist"], skip_absent=True, **options) == []
    with pytest.raises(Fetched, match="mnist"):
        benchmarks.load_all(["tfds:mnist"], **options)
