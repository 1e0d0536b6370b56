import re
import subprocess
import sys

import pytest
from runs import ROOT

from robust_jax import export, model_card, models, writers
from robust_jax.stages.answering import Answering

pytest_plugins = ["finished_run"]


@pytest.fixture(scope="module")
def out(finished, tmp_path_factory):
    target = tmp_path_factory.mktemp("exported") / "out"
    export.export_run(finished, target)
    return target


def test_the_card(out, finished):
    text = (out / "README.md").read_text()
    assert text.startswith("---\npipeline_tag: image-classification\n")
    summary = writers.read_json(finished / "summary.json")
    ours, data = summary["methods"]["ours"], summary["dataset"]
    row = next(line for line in text.splitlines() if line.startswith("| ours |"))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    accuracies = (ours["clean_accuracy"], ours["corrupted_accuracy"])
    assert cells[1:3] == [f"{100 * accuracy:.1f}" for accuracy in accuracies]
    assert f"digits ({data['train_images']:,} images" in text and "evaluated on 64. Seed 0," in text
    assert "student vit_tiny8: trained from scratch" in text
    assert (
        "mean over gaussian_noise, defocus_blur, fog, jpeg_compression at severities 1, 5" in text
    )
    shares = [f"{100 * ours[f'f_correct_{kind}']:.1f}" for kind in ("clean", "shift")]
    assert f"was {' and '.join(shares)};" in text
    assert "| `method.tuned_params` | `0.05` |" in text
    assert "`decode\\|random_crop({size}, pad=2)`" in text
    for name in re.findall(r"^\| `([\w.]+\.\w+)` \| (?:the|class|all)", text, re.MULTILINE):
        assert (out / name).exists()


@pytest.mark.slow
def test_the_cards_code_runs(out):
    (code,) = re.findall(r"```python\n(.*?)```", (out / "README.md").read_text(), re.DOTALL)
    found = subprocess.run([sys.executable, "-c", code], cwd=out, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr


def test_sources_and_folders_of_the_card(finished):
    answering = Answering.restore(finished)
    config = answering.networks.config
    config.student.weights = "/home/somebody/clip/ViT-B-16.pt"
    config.evaluate.sets = ("imagenet_r:/data/imagenet-r", "imagenet_a:gs://bucket/a")
    entry = models.entry("clip_vit_b16")
    answering.networks.student_entry = entry
    text = model_card.card(
        answering,
        model_card.about(answering, "fixed", ("cpu",), {}),
        writers.read_json(finished / "summary.json"),
        pretrain={"weights_format": "openai_clip"},
        form="timm",
        unsaid=["gelu='erf', read as 'tanh'"],
    )
    assert "weights `ViT-B-16.pt` (format openai_clip). Their licence is that of their" in text
    assert "usually MIT; LAION's vary; check it" in text
    assert "`['imagenet_r:imagenet-r', 'imagenet_a:gs://bucket/a']`" in text
    assert "in the format timm; the format does not say gelu='erf', read as 'tanh'" in text
    assert "/home" not in text and "/data" not in text


def test_licences_are_those_of_the_document():
    text = (ROOT / "docs" / "models.md").read_text()
    (table,) = re.findall(r"^\| models \|.*usual licence.*\n((?:\|.*\n)+)", text, re.MULTILINE)
    rows = re.findall(r"^\| (`.+)$", table, re.MULTILINE)
    known = {}
    for row in rows:
        names, *_, licence = (cell.strip() for cell in row.strip(" |").split("|"))
        known |= dict.fromkeys(re.findall(r"`(\w+)`", names), licence)
    for name, entry in models.MODELS.items():
        if entry.weights and name in known:
            begin = next(b for b in model_card.USUAL_LICENCES if name.startswith(b))
            assert model_card.USUAL_LICENCES[begin] == known[name]
    assert {"clip_vit_b16", "vit_b16", "resnet18"} <= known.keys()
