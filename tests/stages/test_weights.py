"""Runs whose student comes from a weight file."""

import json

import jax
import numpy as np
import pytest
import tiny_networks
from runs import networks, quick_config, run
from tiny_networks import write

from robust_jax import load, models, weights
from robust_jax.zero_shot.head import ZeroShotHead


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    tiny_networks.add(monkeypatch)


def config(path, **changes):
    return quick_config(student__name="tiny_vit", student__weights=str(path), **changes)


def facts(workdir, stage="pretrain"):
    return json.loads((workdir / "stages" / f"{stage}.json").read_text())["result"]


def test_probe_learns_a_classifier_and_leaves_the_rest(tmp_path, capsys):
    given = write(tmp_path / "w.safetensors", "tiny_vit", "timm", 3)
    run(config(tmp_path / "w.safetensors", stages=("pretrain",)), tmp_path / "run")
    said = capsys.readouterr().out
    assert "w.safetensors (timm): loaded 38 arrays" in said
    assert "newly initialised: params/head/bias, params/head/kernel" in said
    assert "left in the file (2): head.bias, head.weight" in said
    result = facts(tmp_path / "run")
    assert result["clean_accuracy"] > 0.5 and result["weights_format"] == "timm"
    trained = networks(
        tmp_path / "run", config(tmp_path / "w.safetensors", stages=("pretrain",))
    ).variables("pretrain")["params"]
    assert trained["head"]["kernel"].shape == (32, 10)
    for name in given["params"].keys() - {"head"}:
        jax.tree.map(np.testing.assert_array_equal, trained[name], given["params"][name])


def test_the_file_s_own_classifier(tmp_path):
    given = write(tmp_path / "w.safetensors", "tiny_vit", "timm", 10)
    change = {"student__classifier": "load", "stages": ("pretrain",)}
    run(config(tmp_path / "w.safetensors", **change), tmp_path / "run")
    c = config(tmp_path / "w.safetensors", **change)
    trained = networks(tmp_path / "run", c).variables("pretrain")
    jax.tree.map(np.testing.assert_array_equal, trained["params"], given["params"])
    assert "steps" not in facts(tmp_path / "run")


def test_a_classifier_of_other_classes_is_refused(tmp_path):
    write(tmp_path / "w.safetensors", "tiny_vit", "timm", 7)
    with pytest.raises(ValueError, match=r"of other classes; got 7 in .*w\.safetensors and 10 in"):
        run(
            config(tmp_path / "w.safetensors", student__classifier="load", stages=("pretrain",)),
            tmp_path / "run",
        )


def test_weights_of_another_model_are_refused_before_anything_is_trained(tmp_path):
    write(tmp_path / "w.safetensors", "tiny_clip", "huggingface", 10)
    with pytest.raises(ValueError, match=r"not of this model; got .*w\.safetensors.*'tiny_vit'"):
        run(config(tmp_path / "w.safetensors"), tmp_path / "run")
    assert not (tmp_path / "run" / "stages").exists()


def test_finetune_starts_from_the_weights(tmp_path):
    write(tmp_path / "w.safetensors", "tiny_vit", "timm", 7)
    c = config(
        tmp_path / "w.safetensors",
        student__classifier="finetune",
        pretrain__learning_rate=1e-9,
        stages=("pretrain",),
    )
    run(c, tmp_path / "run")
    given = weights.find(str(tmp_path / "w.safetensors"), "tiny_vit").load(
        models.build("tiny_vit", 10), classifier="new"
    )[0]
    trained = networks(tmp_path / "run", c).variables("pretrain")
    for name in ("embed", "norm"):
        got, want = trained["params"][name], given["params"][name]
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), got, want)
    assert facts(tmp_path / "run")["steps"] == 4


@pytest.mark.slow
def test_zero_shot_keeps_the_vocabulary_open(tmp_path):
    write(tmp_path / "w.safetensors", "tiny_clip", "huggingface", 10)
    rng = np.random.default_rng(0)

    def head(count):
        kernel = rng.standard_normal((16, count)).astype(np.float32)
        kernel *= 20 / np.linalg.norm(kernel, axis=0)
        return ZeroShotHead(kernel, tuple(f"class {i}" for i in range(count)), {})

    head(10).save(tmp_path / "head.npz")
    c = config(
        tmp_path / "w.safetensors",
        student__classifier="zero_shot",
        student__zero_shot_head=str(tmp_path / "head.npz"),
        method__tuned_params="6000",
        baselines__methods=(),
    )
    c.student.name = "tiny_clip"
    run(c, tmp_path / "run")
    classifier = load(tmp_path / "run")
    images = rng.integers(0, 256, (5, 32, 32, 3), np.uint8)
    before = classifier.predict(images)
    # The heads know features, not classes: another list of classes needs no training.
    head(4).save(tmp_path / "other.npz")
    other = load(tmp_path / "run", zero_shot_head=tmp_path / "other.npz")
    after = other.predict(images)
    assert before.probs.shape == (5, 10) and after.probs.shape == (5, 4)
    assert other.class_names == ("class 0", "class 1", "class 2", "class 3")
    same = load(tmp_path / "run", zero_shot_head=tmp_path / "head.npz").predict(images)
    np.testing.assert_array_equal(same.probs, before.probs)

    head(9).save(tmp_path / "nine.npz")
    c.student.zero_shot_head = str(tmp_path / "nine.npz")
    with pytest.raises(ValueError, match=r"does not fit; got \[16, 9\] in .* 16 features and 10"):
        run(c, tmp_path / "another")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"student__classifier": "load"}, r"classifier=load needs pre-trained weights; got"),
        ({"student__classifier": "lod"}, r"student\.classifier has an unknown value; got 'lod'"),
        ({"student__zero_shot_head": "x.npz"}, r"need each other; got zero_shot_head='x\.npz'"),
    ],
)
def test_keys_that_do_not_belong_together(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        run(quick_config(**changes), tmp_path)
