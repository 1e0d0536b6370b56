import dataclasses
import json
import shutil
import subprocess
import sys

import flax.traverse_util
import jax
import numpy as np
import pytest
from runs import CLASSES, ROOT, copy_run, networks, tuned
from scipy.special import erf

from robust_jax import convert, models, weights
from robust_jax.method.selection import HEADS
from robust_jax.weights import files, loading, native, network
from robust_jax.weights.vit import FORMATS

pytest_plugins = ["finished_run"]


@pytest.fixture(scope="module")
def student(shaken):
    """The student with its arrays."""
    student = networks(shaken).student(HEADS)
    assert student.plan.adapter_width and student.plan.freed
    arrays = networks(shaken).variables("pretrain"), tuned(shaken)
    return student, *jax.device_get(arrays)


def read(folder):
    return files.read(folder / "model.safetensors").tensors


def equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def flat(tree):
    return flax.traverse_util.flatten_dict(tree, sep="/")


def linear(tensors, name, x):
    return x @ tensors[f"{name}.weight"].T + tensors[f"{name}.bias"]


def bottleneck(tensors, name, x):
    hidden = linear(tensors, f"{name}.down", x)
    return linear(tensors, f"{name}.up", hidden * (1 + erf(hidden / 2**0.5)) / 2)


@pytest.mark.parametrize("head", HEADS)
def test_the_file_of_a_run_holds_its_head(shaken, student, head, tmp_path):
    made, frozen, arrays = student
    said = convert.convert_run(shaken, tmp_path, head)
    assert said == (
        f"wrote {tmp_path}: vit_tiny8, {head}, in the format huggingface, and heads.safetensors"
    )
    tensors, model = read(tmp_path), made.model
    own = {n: a for n, a in tensors.items() if ".adapter." not in n and ".head." not in n}
    variables, _ = loading.load_tensors(own, FORMATS["huggingface"], model)
    want = flat(frozen["params"]) | flat(arrays["shared"]["tail"])
    equal(flat(variables["params"]), want)

    pixels = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), np.uint8)
    x = np.float64(model.apply(variables, models.normalise(pixels, made.entry), stop="head"))
    normed = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    norm = "classifier.adapter.norm"
    normed = normed * tensors[f"{norm}.weight"] + tensors[f"{norm}.bias"]
    x = x + bottleneck(tensors, "classifier.adapter.bottleneck", normed)
    logits = linear(tensors, "classifier", x) + bottleneck(tensors, "classifier.head", x)
    expected = made.tail(frozen, arrays, made.trunk(frozen, pixels))
    np.testing.assert_allclose(logits, expected[head], rtol=1e-4, atol=1e-4)
    others = [logits - expected[other] for other in HEADS if other != head]
    assert min(np.abs(rest).max() for rest in others) > 1e-2


def test_what_stands_beside_the_weights(shaken, student, tmp_path):
    plan, entry = student[0].plan, student[0].entry
    convert.convert_run(shaken, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "config.json",
        "heads.safetensors",
        "model.safetensors",
        "modeling_robust_student.py",
        "preprocessor_config.json",
    }
    code = (ROOT / "robust_jax" / "weights" / "hf_student.py").read_text()
    assert (tmp_path / "modeling_robust_student.py").read_text() == code
    config = json.loads((tmp_path / "config.json").read_text())
    architecture = "RobustViTForImageClassification"
    assert config["architectures"] == [architecture]
    auto = {"AutoModelForImageClassification": f"modeling_robust_student.{architecture}"}
    assert config["auto_map"] == auto
    assert config["id2label"] == {str(i): name for i, name in enumerate(CLASSES)}
    assert (config["head_rank"], config["adapter_width"]) == (plan.head_rank, plan.adapter_width)
    assert (config["robust_head"], config["head_dropout"]) == ("clean", 0.25)
    assert (config["hidden_act"], config["layer_norm_eps"]) == ("gelu", 1e-6)
    preprocessor = json.loads((tmp_path / "preprocessor_config.json").read_text())
    assert preprocessor["image_mean"] == list(entry.mean)
    assert preprocessor["crop_size"] == {"height": 32, "width": 32}
    assert preprocessor["size"] == {"shortest_edge": 32}
    heads = native.Heads.load(tmp_path / "heads.safetensors")
    equal(heads.tuned, student[2])
    names = set(files.read(tmp_path / "heads.safetensors").tensors)
    assert {"heads/clean/down/kernel", "shared/adapter/norm/scale", "classifier/bias"} < names
    assert any(name.startswith("shared/tail/") for name in names)


def test_the_network_before_the_method(shaken, student, tmp_path, capsys):
    assert convert.main([str(shaken), str(tmp_path / "hf"), "--head=original"]) == 0
    given, model = student[1], student[0].model
    tensors = read(tmp_path / "hf")
    equal(
        loading.load_tensors(tensors, FORMATS["huggingface"], model)[0]["params"], given["params"]
    )
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    assert config["architectures"] == ["ViTForImageClassification"]
    assert "auto_map" not in config
    assert not (tmp_path / "hf" / "modeling_robust_student.py").exists()
    assert "vit_tiny8, original, in the format huggingface" in capsys.readouterr().out


def test_a_network_needs_its_own_stage_only(shaken, tmp_path, capsys):
    begun = tmp_path / "begun"
    copy_run(shaken, begun, without=("cache", "distill"))
    for head, name, stage in (
        ("original", "student", "pretrain"),
        ("teacher", "teacher", "teacher"),
    ):
        convert.main([str(begun), str(tmp_path / head), f"--head={head}", "--format=robust_jax"])
        found, kept = network.read(str(tmp_path / head)), networks(shaken)
        assert (found.model, found.entry) == kept.network(name)
        equal(found.variables, jax.device_get(kept.variables(stage)))
        assert not (tmp_path / head / "heads.safetensors").exists()
    assert "resnet_tiny, teacher, in the format robust_jax\n" in capsys.readouterr().out


@pytest.mark.parametrize("form", ["timm", "big_vision", "robust_jax"])
def test_other_formats_of_a_run(shaken, student, form, tmp_path):
    said = convert.convert_run(shaken, tmp_path, "unclean", form)
    lines = ["the format does not say gelu='erf', read as 'tanh'"] * (form == "big_vision")
    assert said.splitlines()[1:] == lines
    made, frozen, arrays = student
    want = flat(frozen["params"]) | flat(arrays["shared"]["tail"])
    if form == "robust_jax":
        got = network.read(str(tmp_path))
        assert (got.model, got.entry, got.class_names) == (made.model, made.entry, CLASSES)
        equal(flat(got.variables["params"]), want)
    else:
        fmt = FORMATS[form]
        equal(flat(loading.load_tensors(read(tmp_path), fmt, made.model)[0]["params"]), want)
    assert not (tmp_path / "config.json").exists()
    assert (tmp_path / "heads.safetensors").exists()


def test_weights_from_timm_to_ours_and_back(tmp_path, capsys, monkeypatch):
    row = models.entry("vit_ti16")
    small = dataclasses.replace(row, kwargs={**row.kwargs, "depth": 2}, input_size=32)
    monkeypatch.setitem(models.MODELS, "vit_ti16", small)
    model = models.build(small, 7)
    random = np.random.default_rng(0)
    shapes = jax.eval_shape(model.init, jax.random.key(0), model.example_input())
    made = jax.tree.map(lambda s: random.standard_normal(s.shape, np.float32), shapes)
    tensors = loading.to_tensors(made, weights.formats(small)["timm"], model)
    given, ours, back = (tmp_path / name for name in ("given.safetensors", "ours", "back"))
    files.write_safetensors(given, tensors)
    convert.main([str(given), str(ours), "--model=vit_ti16", "--format=robust_jax"])
    convert.main([str(ours), str(back), "--format=timm"])
    assert given.read_bytes()[-1000:] == (back / "model.safetensors").read_bytes()[-1000:]
    equal(read(back), tensors)
    convert.main([str(back), str(tmp_path / "hf"), "--model=vit_ti16"])
    assert capsys.readouterr().out.splitlines() == [
        f"wrote {ours}: vit_ti16 in the format robust_jax",
        f"wrote {back}: vit_ti16 in the format timm",
        f"wrote {tmp_path / 'hf'}: vit_ti16 in the format huggingface",
    ]


@pytest.fixture
def mistakes(tmp_path, shaken):
    """Directories that there is something wrong with."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    files.write_safetensors(tmp_path / "w.safetensors", {"a": np.zeros(1)})
    ignore = shutil.ignore_patterns("xla_cache", "cache", "tuned")
    shutil.copytree(shaken, tmp_path / "begun", ignore=ignore)
    (tmp_path / "begun" / "stages" / "distill.json").unlink()
    (tmp_path / "run").symlink_to(shaken)
    return tmp_path


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("empty out", r"neither a finished run nor weights; got '.*empty'; give the --workdir"),
        ("none out", r"neither a finished run nor weights; got '.*none'"),
        ("begun out", r"stage 'distill' has not finished in .*begun; add it to config\.stages"),
        ("run full", r"DST exists and is not an empty directory; got '.*full'; name a new one"),
        ("run w.safetensors", r"DST exists and is not an empty directory; got '.*w\.safetensors'"),
        ("run out --head=dirty", r"no such head; got 'dirty'; use one of clean, unclean, combi"),
        ("run out --model=vit_b16", r"a run knows its model; got --model=vit_b16; leave it out"),
        ("run out --format=unicl", r"got 'unicl' for 'vit_tiny8'; use one of huggingface, timm, b"),
        ("w.safetensors out", r"of which model they are; got '.*w\.safetensors'; name it with --m"),
        ("w.safetensors out --model=vit_b61", r"unknown model; got 'vit_b61'; did you mean 'vit_b"),
        ("w.safetensors out --model=vit_b16", r"not of this model; got '.*w\.safetensors'"),
        ("w.safetensors out --head=clean", r"weights have no heads; got --head=clean; leave it"),
    ],
)
def test_mistakes_are_told(mistakes, line, message):
    source, target, *options = line.split()
    with pytest.raises(ValueError, match=message):
        convert.main([str(mistakes / source), str(mistakes / target), *options])
    assert not (mistakes / "out").exists()


def test_the_destination_is_local(shaken):
    with pytest.raises(ValueError, match=r"DST must be local; got 'gs://bucket/out'; copy it"):
        convert.convert_run(shaken, "gs://bucket/out")


def test_help_does_not_wait_for_jax():
    code = """
import sys
from robust_jax import convert
try:
    convert.main(["--help"])
finally:
    assert not {"jax", "flax", "numpy", "tensorflow", "torch"} & set(sys.modules)
"""
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert "--head" in found.stdout
