"""Plain weights as they are evaluated."""

import jax
import numpy as np
import pytest
import tiny_networks

from robust_jax import models
from robust_jax.evals import subsets
from robust_jax.stages import evaluated
from robust_jax.zero_shot.head import ZeroShotHead

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
LABELS = np.array([0, 2, 1], np.int32)


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    tiny_networks.add(monkeypatch)


def said(found, subset=None):
    batch = {"image": IMAGES, "label": LABELS}
    return jax.device_get(found.function_of(subset)(found.arrays, batch))


def test_a_network_answers_as_it_does(tmp_path):
    variables = tiny_networks.write(tmp_path / "w.safetensors", "tiny_vit", "timm", 3)
    found = evaluated.of_weights(str(tmp_path / "w.safetensors"), "tiny_vit")
    assert found.class_names == ("0", "1", "2") and found.image_size == 32
    assert found.eval_ops == "decode|resize_small(32, 'bicubic')|central_crop(32)"
    entry = models.entry("tiny_vit")
    pixels = models.normalise(IMAGES, entry)
    logits = np.asarray(models.build("tiny_vit", 3).apply(variables, pixels), np.float64)
    probs = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    answers = said(found)
    np.testing.assert_array_equal(answers["original/label"], probs.argmax(1))
    nll = -np.log(probs[np.arange(3), LABELS])
    np.testing.assert_allclose(answers["original/nll"], nll, rtol=1e-4)
    np.testing.assert_allclose(answers["original/confidence"], probs.max(1), rtol=1e-4)


def test_only_the_classes_of_a_subset_are_answered(tmp_path):
    variables = tiny_networks.write(tmp_path / "w.safetensors", "tiny_vit", "timm", 4)
    found = evaluated.of_weights(str(tmp_path / "w.safetensors"), "tiny_vit")
    subset = subsets.Subset("few", ("a", "b", "c"), np.array([[1, 1], [3, 0], [2, 2]]))
    pixels = models.normalise(IMAGES, models.entry("tiny_vit"))
    logits = np.asarray(models.build("tiny_vit", 4).apply(variables, pixels))
    few = np.stack([logits[:, 1], logits[:, [3, 0]].max(1), logits[:, 2]], 1)
    answers = said(found, subset)
    np.testing.assert_array_equal(answers["original/label"], few.argmax(1))


def test_a_zero_shot_head_is_the_classifier_of_an_image_tower(tmp_path):
    tiny_networks.write(tmp_path / "w.safetensors", "tiny_clip", "huggingface", 3)
    path = str(tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match=r"no classifier; got .*; give --zero_shot_head"):
        evaluated.of_weights(path, "tiny_clip")
    kernel = np.random.default_rng(1).standard_normal((16, 3)).astype(np.float32)
    ZeroShotHead(kernel, ("ant", "bee", "cat"), {}).save(tmp_path / "head.npz")
    found = evaluated.of_weights(path, "tiny_clip", str(tmp_path / "head.npz"))
    assert found.class_names == ("ant", "bee", "cat")
    bare = {"params": {k: v for k, v in found.arrays["params"].items() if k != "head"}}
    pixels = models.normalise(IMAGES, models.entry("tiny_clip"))
    z = np.asarray(models.build("tiny_clip", 3).apply(bare, pixels, stop="head"))
    cosine = z / np.linalg.norm(z, axis=1, keepdims=True) @ kernel
    np.testing.assert_array_equal(said(found)["original/label"], cosine.argmax(1))
    ZeroShotHead(kernel[:8], ("ant", "bee", "cat"), {}).save(tmp_path / "narrow.npz")
    with pytest.raises(ValueError, match=r"does not fit; got \[8, 3\] in .* for 16 features"):
        evaluated.of_weights(path, "tiny_clip", str(tmp_path / "narrow.npz"))
