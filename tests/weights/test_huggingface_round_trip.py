"""Weights of transformers make a run, and the run's student goes back to transformers."""

import io
import json
import subprocess
import sys

import jax
import numpy as np
import pytest
import tensorflow as tf
from parity import difference
from PIL import Image
from runs import ROOT, command, make_folder
from safetensors import safe_open

from robust_jax import convert, weights
from robust_jax.data import registry
from robust_jax.method.selection import HEADS
from robust_jax.stages.networks import Networks
from robust_jax.weights.native import Heads

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.slow

NORM = "layernorm.weight"
MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.25, 0.3]
OPTIONS = (
    "--config.student.name=vit_ti16",
    "--config.data.image_size=32",
    "--config.method.tuned_params=400000",
    "--config.distill.total_steps=12",
    "--config.distill.learning_rate=0.01",
    "--config.baselines.methods=()",
    "--config.stages=('pretrain', 'distort', 'teacher', 'cache', 'distill')",
)


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A directory as of the Hub, which differs from the defaults of everybody."""
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=192,
        num_attention_heads=3,
        intermediate_size=768,
        num_labels=7,
        hidden_act="gelu_new",
        layer_norm_eps=1e-3,
    )
    folder = tmp_path_factory.mktemp("published")
    model = transformers.ViTForImageClassification(config)
    with torch.no_grad():  # at their initial values, biases and norms would hide mistakes
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    preprocessor = {"image_mean": MEAN, "image_std": STD, "resample": 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    return folder


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("data") / "pets")


@pytest.fixture(scope="module", params=["tail", "none"])
def workdir(request, published, images, tmp_path_factory):
    path = tmp_path_factory.mktemp(request.param) / "run"
    given = (f"--config.data.dir={images}", f"--config.student.weights={published}")
    options = (*OPTIONS, *given, f"--config.method.share={request.param}")
    found = subprocess.run(
        command(path, *options, config="configs/folder.py:runlocal"),
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stderr
    return path


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(1).integers(0, 256, (6, 32, 32, 3), np.uint8)


@pytest.fixture(scope="module")
def expected(workdir, pixels):
    """The logits of every head without dropout, and of the network before the method."""
    networks = Networks.restore(workdir)
    student = networks.student(HEADS)
    assert student.plan.adapter_width and student.plan.freed
    frozen, tuned = networks.variables("pretrain"), networks.tuned("distill/ours", HEADS)
    z = student.trunk(frozen, pixels)
    logits = {**student.tail(frozen, tuned, z, key=None), "original": student.original(frozen, z)}
    return jax.device_get(logits)


@pytest.fixture(autouse=True)
def modules(tmp_path, monkeypatch):
    """Where transformers copies custom code."""
    from transformers import dynamic_module_utils

    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", [*sys.path])


def opened(folder, make, **options):
    model, info = make.from_pretrained(folder, output_loading_info=True, **options)
    assert not any(info.values()), info
    return model.eval()


def answer(folder, model, pixels):
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    whole = {"do_resize": False, "do_center_crop": False}
    inputs = processor(images=list(pixels), return_tensors="pt", **whole).pixel_values
    want = (pixels / 255 - np.array(MEAN)) / np.array(STD)
    np.testing.assert_allclose(inputs.permute(0, 2, 3, 1), want, atol=1e-5)
    with torch.no_grad():
        return model(inputs).logits.numpy()


@pytest.mark.parametrize("head", [*HEADS, "original"])
def test_transformers_answers_as_the_head_does(workdir, pixels, expected, head, tmp_path):
    out = tmp_path / "out"
    if head == "clean":
        program = [sys.executable, "-m", "robust_jax.convert", str(workdir), str(out)]
        found = subprocess.run(program, cwd=ROOT, capture_output=True, text=True)
        assert found.returncode == 0, found.stderr
        assert found.stdout.splitlines() == [
            f"wrote {out}: vit_ti16, clean, in the format huggingface, and heads.safetensors"
        ]
    else:
        convert.convert_run(workdir, out, head)
    auto = transformers.AutoModelForImageClassification
    model = opened(out, auto, trust_remote_code=head != "original")
    custom = head != "original"
    assert type(model).__name__ == f"{'Robust' * custom}ViTForImageClassification"
    assert (out / "modeling_robust_student.py").exists() == custom
    assert model.config.id2label[1] == "bee"
    assert model.config.label2id["jay"] == 9
    got = answer(out, model, pixels)
    assert difference(got, expected[head]) < 1e-4
    others = [name for name in expected if name != head]
    assert min(difference(got, expected[name]) for name in others) > 1e-2
    # The network without the head is a ViT for everyone.
    for make in (transformers.ViTForImageClassification, transformers.ViTModel):
        plain, info = make.from_pretrained(out, output_loading_info=True)
        assert all("pooler" in name for name in info["missing_keys"])
        assert all("classifier." in name for name in info["unexpected_keys"])
        weight = dict(plain.named_parameters())["vit." * (make.__name__ != "ViTModel") + NORM]
        with safe_open(out / "model.safetensors", "np") as file:
            np.testing.assert_array_equal(weight.detach(), file.get_tensor(f"vit.{NORM}"))


def test_transformers_prepares_images_as_the_run_does(workdir, tmp_path):
    convert.convert_run(workdir, tmp_path / "out")
    y, x = np.mgrid[:70, :50] / 10
    smooth = np.stack([np.sin(x + y), np.cos(x - y), np.sin(2 * x)], -1)
    image = np.uint8(127.5 + 127 * smooth)
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path / "out")
    got = processor(images=[image], return_tensors="pt").pixel_values[0].permute(1, 2, 0)
    ops = registry.build(Networks.restore(workdir).ops("eval_ops"))
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    ours = ops({"image": tf.constant(file.getvalue())}, tf.zeros(2, tf.int32))["image"].numpy()
    pixels = (got.numpy() * np.array(STD) + np.array(MEAN)) * 255
    # Pillow rounds the resized image, and TensorFlow does not.
    assert np.abs(pixels - ours).max() < 1.5


def test_training_mode_drops_units(workdir, pixels, tmp_path):
    convert.convert_run(workdir, tmp_path / "out")
    auto = transformers.AutoModelForImageClassification
    model = opened(tmp_path / "out", auto, trust_remote_code=True)
    assert model.config.head_dropout == 0.25
    once = answer(tmp_path / "out", model.train(), pixels)
    assert difference(answer(tmp_path / "out", model, pixels), once) > 1e-3


def test_heads_come_back_bit_by_bit(workdir, tmp_path):
    convert.convert_run(workdir, tmp_path / "out", "combined")
    networks = Networks.restore(workdir)
    heads = Heads.load(tmp_path / "out" / "heads.safetensors")
    tuned = networks.tuned("distill/ours", HEADS)
    jax.tree.map(np.testing.assert_array_equal, heads.tuned, jax.device_get(tuned))
    head = networks.variables("pretrain")["params"]["head"]
    jax.tree.map(np.testing.assert_array_equal, heads.classifier, jax.device_get(head))
    assert (heads.plan, heads.entry) == (networks.plan, networks.student_entry)
    assert heads.class_names == networks.class_names


def test_what_transformers_wrote_comes_back_bit_by_bit(published, tmp_path):
    said = convert.convert_weights(str(published), tmp_path / "out", "vit_ti16", "huggingface")
    assert said == f"wrote {tmp_path / 'out'}: vit_ti16 in the format huggingface"
    with safe_open(published / "model.safetensors", "np") as file:
        given = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    got = weights.read(tmp_path / "out").tensors
    assert got.keys() == given.keys()
    jax.tree.map(np.testing.assert_array_equal, got, given)
    opened(tmp_path / "out", transformers.ViTForImageClassification)
