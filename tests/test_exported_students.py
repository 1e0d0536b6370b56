"""Students of every kind as programs, and the code of docs/export.md."""

import re
import subprocess
import sys
from types import SimpleNamespace

import jax
import jax.export
import numpy as np
import pytest
import tiny_networks
from PIL import Image
from programs import alone, assert_agree, first
from runs import ROOT, quick_config, run

from robust_jax import export, load, models
from robust_jax.zero_shot.head import ZeroShotHead

pytest_plugins = ["finished_run", "exported_run"]


@pytest.mark.parametrize(
    "name",
    ["vit_ti16", "dinov2_vits14", "resnet18", "efficientnet_lite0", "clip_rn50", "swin_tiny"],
)
def test_every_family_takes_any_number_of_images(name):
    model, entry = models.build(name, 7), models.entry(name)
    (b,) = jax.export.symbolic_shape("b")
    images = jax.ShapeDtypeStruct((b, entry.input_size, entry.input_size, 3), np.float32)
    assert str(jax.eval_shape(model.apply, models.shapes(model), images).shape) == "(b, 7)"


# Heads learn to differ: rounding does not decide which one answers.
LONGER = {"distill__total_steps": 60, "distill__learning_rate": 0.02}


def finish(config, tmp_path, images):
    """Trains and exports a student: its card, its predictor's answers, the program's by batch."""
    workdir, out = tmp_path / "run", tmp_path / "out"
    run(config, workdir)
    export.export_run(workdir, out)
    return SimpleNamespace(
        card=(out / "README.md").read_text(),
        said=vars(load(workdir).answer(images)),
        found=alone(out / "model.stablehlo", images, (7, 100), tmp_path),
    )


@pytest.mark.slow
def test_a_zero_shot_clip(tmp_path, images, monkeypatch):
    tiny_networks.add(monkeypatch)
    tiny_networks.write(tmp_path / "w.safetensors", "tiny_clip", "huggingface", 10)
    rng = np.random.default_rng(0)
    kernel = rng.standard_normal((16, 10)).astype(np.float32)
    kernel *= 20 / np.linalg.norm(kernel, axis=0)
    names = tuple(f"class {i}" for i in range(10))
    ZeroShotHead(kernel, names, {}).save(tmp_path / "head.npz")
    config = quick_config(
        student__name="tiny_clip",
        student__weights=str(tmp_path / "w.safetensors"),
        student__classifier="zero_shot",
        student__zero_shot_head=str(tmp_path / "head.npz"),
        method__tuned_params="6000",
        baselines__methods=(),
        **LONGER,
    )
    made = finish(config, tmp_path, images)
    for size, answers in made.found.items():
        assert_agree(answers, first(made.said, size))
    assert made.said["probs"].max() > 0.2
    assert "derived from texts, by the text tower, in `head.npz`" in made.card
    assert "weights `w.safetensors` (format huggingface)" in made.card
    assert str(tmp_path) not in made.card


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_resnet(tmp_path, images, dtype):
    config = quick_config(
        student__name="resnet_small",
        student__dtype=dtype,
        selection__score="product",
        selection__candidates="all",
        baselines__methods=(),
        **LONGER,
    )
    made = finish(config, tmp_path, images)
    assert made.said["kl"].shape == (100, 3) and len(set(made.said["head"])) > 1
    for size, answers in made.found.items():
        if dtype == "float32":
            assert_agree(answers, first(made.said, size))
        else:  # each compiled program rounds in other places
            expected = made.said["head_probs"][:size]
            np.testing.assert_allclose(answers["head_probs"], expected, atol=5e-3)
    assert "# resnet_small, made robust on digits" in made.card


@pytest.mark.slow
def test_the_documents_code_runs(routed, tmp_path):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "quickstart").symlink_to(routed)
    x, y = np.meshgrid(np.linspace(0, 255, 90), np.linspace(0, 255, 60))
    Image.fromarray(np.uint8(np.stack([x, y, 255 - x], -1))).save(tmp_path / "image.png")
    text = (ROOT / "docs" / "export.md").read_text()
    (command, *_) = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 3
    newer = tuple(map(int, jax.__version__.split(".")[:2])) > (0, 10)
    if newer:  # TensorFlow 2.21 cannot read its programs, as the document says
        blocks.pop()
    for line in command.strip().splitlines():
        arguments = line.partition("#")[0].split()
        program, *rest = arguments
        assert program == "python"
        found = subprocess.run(
            [sys.executable, *rest], cwd=tmp_path, capture_output=True, text=True
        )
        assert found.returncode == 0, found.stderr
    code = "\n".join(blocks)
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert found.returncode == 0, found.stderr
    assert (tmp_path / "exported" / "saved_model" / "saved_model.pb").exists() != newer
