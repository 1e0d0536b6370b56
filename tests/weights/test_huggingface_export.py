"""What transformers makes of the networks and students that are written for it."""

import sys

import numpy as np
import pytest
import tiny_zoo
from parity import difference
from tiny_zoo import made_network, made_student

from robust_jax import models
from robust_jax.weights import export, student

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def zoo(monkeypatch):
    tiny_zoo.add(monkeypatch)


def opened(make, folder, **options):
    found, info = make.from_pretrained(folder, output_loading_info=True, **options)
    assert not any(info.values()), info
    return found.eval()


@pytest.mark.parametrize(
    ("name", "make", "num_classes"),
    [
        ("tiny_vit", "ViTForImageClassification", 7),
        ("tiny_dinov2", "Dinov2Model", 0),
        ("tiny_clip", "CLIPModel", 0),
        ("tiny_resnet", "ResNetForImageClassification", 7),
        ("tiny_basic", "ResNetForImageClassification", 7),
        ("tiny_swin", "SwinForImageClassification", 7),
    ],
)
def test_transformers_opens_what_is_written(name, make, num_classes, tmp_path):
    given = made_network(name, num_classes)
    assert export.write(tmp_path, given, "huggingface") == []
    auto = "AutoModelForImageClassification" if num_classes else "AutoModel"
    model = opened(getattr(transformers, auto), tmp_path)
    assert type(model).__name__ == make
    x = np.random.default_rng(3).standard_normal((2, 32, 32, 3)).astype(np.float32)
    images = torch.tensor(x.transpose(0, 3, 1, 2))
    variables = given.variables
    if not num_classes:
        variables = {"params": {**variables["params"], "head": {}}}
    ours = given.model.apply(variables, x, stop=None if num_classes else "head")
    with torch.no_grad():
        if make == "CLIPModel":
            found = model.get_image_features(images)
            tower, words = given.text
            tokens = np.array([[3, 5, 39, 0], [7, 39, 0, 0]])
            text = model.get_text_features(torch.tensor(tokens))
            text = getattr(text, "pooler_output", text)
            assert difference(text.numpy(), tower.apply(words, tokens)) < 1e-4
            found = getattr(found, "pooler_output", found)
        elif make == "Dinov2Model":
            found = model(images).last_hidden_state[:, 0]
        else:
            found = model(images).logits
    assert difference(found.numpy(), ours) < 1e-4


@pytest.mark.parametrize("name", ["tiny_resnet", "tiny_basic", "tiny_swin"])
def test_transformers_answers_as_the_students_head(name, tmp_path, monkeypatch):
    from transformers import dynamic_module_utils

    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", [*sys.path])
    made, frozen, tuned = made_student(made_network(name), part=0.6)
    assert made.plan.adapter_width and made.plan.freed
    out = tmp_path / "out"
    student.write(out, made, frozen, tuned, head="combined", class_names="abcdefghij")
    model = opened(transformers.AutoModelForImageClassification, out, trust_remote_code=True)
    assert type(model).__name__.startswith("Robust")
    pixels = np.random.default_rng(3).integers(0, 256, (2, 32, 32, 3), np.uint8)
    x = np.asarray(models.normalise(pixels, made.entry)).transpose(0, 3, 1, 2)
    ours = made.tail(frozen, tuned, made.trunk(frozen, pixels))
    with torch.no_grad():
        found = model(torch.tensor(x)).logits.numpy()
    assert difference(found, ours["combined"]) < 1e-4
    assert difference(found, ours["clean"]) > 1e-2
