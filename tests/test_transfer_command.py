import dataclasses
import json
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
from PIL import Image
from runs import ROOT, copy_run, networks, tuned

from robust_jax import config as config_lib
from robust_jax import models, transfer, weights
from robust_jax.checkpoint import save_tree
from robust_jax.stages import before_after
from robust_jax.weights import files, loading

pytest_plugins = ["finished_run"]

COLOURS = ("red", "green", "blue")
VIEWS = {key: config_lib.base().data[key] for key in ("train_ops", "eval_ops")}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Noisy colours of changing sizes: 10 training and 6 test images of each."""
    root, rng = tmp_path_factory.mktemp("data") / "colours", np.random.default_rng(0)
    for part, count in (("train", 10), ("val", 6)):
        for channel, name in enumerate(COLOURS):
            (root / part / name).mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 150, (36 + i, 45 - i, 3), np.uint8)
                pixels += rng.integers(0, 60, 3, np.uint8)  # a tint that misleads
                pixels[..., channel] += 20
                Image.fromarray(pixels).save(root / part / name / f"{i}.png")
    return root


def command(network, images, out, *options):
    return transfer.main([str(network), "--data", f"folder:{images}", "--out", str(out), *options])


def stored(out):
    return json.loads((out / "transfer.json").read_text())


@pytest.mark.slow
def test_probes_and_fine_tunes_before_and_after(shaken, images, tmp_path, capsys):
    options = ["--protocol", "linear_probe", "full_finetune", "--epochs", "0.6"]
    options += ["--batch_size", "8"]
    assert command(shaken, images, tmp_path, *options) == 0
    said, found = capsys.readouterr().out, stored(tmp_path)
    assert "30 training and 18 test images" in said
    rows = {(row["protocol"], row["method"]): row for row in found["rows"]}
    assert len(found["rows"]) == len(rows) == 4
    for (protocol, method), row in rows.items():
        assert row["dataset"] == f"folder:{images}" and row["seed"] == 0
        assert (
            {"value", "low", "high", "n"} == row["accuracy"].keys() == row["mean_per_class"].keys()
        )
        assert row["accuracy"]["n"] == 18 and row["seconds"] > 0
        assert ("C" in row) == (protocol == "linear_probe")
        # As many test images of each class: both means are one.
        assert row["mean_per_class"]["value"] == pytest.approx(row["accuracy"]["value"])
        kept = np.load(tmp_path / "answers" / f"{row['key']}.npz")
        assert np.mean(kept["answers"] == kept["labels"]) == pytest.approx(row["accuracy"]["value"])
        assert method in ("original", "ours")
    for one in found["differences"]:
        before, after = (
            rows[one["protocol"], m]["accuracy"]["value"] for m in ("original", "ours")
        )
        assert one["value"] == pytest.approx(after - before)
        assert one["low"] <= one["value"] <= one["high"]
    table = said[said.index("dataset") :].splitlines()
    assert table[0].split() == ["dataset", "protocol", "metric", "before", "after", "difference"]
    assert len(table) == 2 + 4  # two protocols by two metrics
    value = 100 * rows["linear_probe", "original"]["accuracy"]["value"]
    assert f"linear_probe   accuracy        {value:.1f} [" in table[2]
    assert not list((tmp_path / "full_finetune").iterdir())

    # Nothing is done twice.
    shutil.rmtree(tmp_path / "features")
    command(shaken, images, tmp_path, *options)
    assert capsys.readouterr().out.count("done before") == 4
    assert stored(tmp_path) == found and not (tmp_path / "features").exists()

    # What differs is done again and takes the place of what was.
    command(shaken, images, tmp_path, *options, "--solver", "jax")
    assert capsys.readouterr().out.count("full_finetune, ") == 2
    rows = stored(tmp_path)["rows"]
    assert [row["protocol"] for row in rows] == ["full_finetune"] * 2 + ["linear_probe"] * 2
    assert rows[:2] == found["rows"][2:] and {row["solver"] for row in rows[2:]} == {"jax"}
    assert len(list((tmp_path / "answers").iterdir())) == 4

    other = copy_run(shaken, tmp_path / "other")
    save_tree(other / "distill/ours/tuned", jax.tree.map(np.zeros_like, tuned(other)))
    with pytest.raises(ValueError, match=r"holds transfers of other networks; got .*/other'"):
        command(other, images, tmp_path)
    # All heads share the tail, so another head is the same network.
    command(shaken, images, tmp_path, "--solver", "jax", "--head", "clean")
    assert capsys.readouterr().out.count("done before") == 2


def test_features_are_those_before_the_classifier(shaken):
    pair = before_after.of_run(shaken, "unclean", VIEWS)
    pixels = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)
    found = pair.features(pair.variables, {"image": pixels, "label": np.zeros(4, np.int32)})
    net = networks(shaken)
    x = models.normalise(jax.numpy.asarray(pixels), net.student_entry)
    want = net.student_model.apply(net.variables("pretrain"), x, stop="head")
    np.testing.assert_allclose(found["original"], want, rtol=1e-4, atol=1e-4)
    assert found["ours"].shape == want.shape and not np.allclose(found["ours"], want, atol=0.1)
    assert pair.ops["eval_ops"] == "decode|resize_small(32, 'bilinear')|central_crop(32)"


def write_weights(path, monkeypatch):
    """A file of a tiny network of the zoo."""
    row = models.entry("vit_s16")
    small = {"width": 32, "depth": 2, "num_heads": 2, "mlp_dim": 64, "patch_size": 8}
    row = dataclasses.replace(
        row, name="tiny_vit", kwargs={**row.kwargs, **small}, input_size=32, resize=40
    )
    monkeypatch.setitem(models.MODELS, "tiny_vit", row)
    model = models.build("tiny_vit", 7)
    variables = jax.jit(model.init)(jax.random.key(3), model.example_input())
    form = weights.formats(row)["timm"]
    files.write_safetensors(str(path), loading.to_tensors(variables, form, model))
    return model, variables, row


def test_plain_weights_have_a_before_only(images, tmp_path, monkeypatch, capsys):
    model, variables, row = write_weights(tmp_path / "w.safetensors", monkeypatch)
    file = str(tmp_path / "w.safetensors")
    command(file, images, tmp_path / "out", "--model", "tiny_vit")
    found = stored(tmp_path / "out")
    assert [row["method"] for row in found["rows"]] == ["original"] and not found["differences"]
    table = capsys.readouterr().out.splitlines()[-2:]
    assert all(line.endswith(" -") for line in table)
    pair = before_after.of_weights(file, "tiny_vit", VIEWS, out=tmp_path)
    assert pair.ops["eval_ops"] == "decode|resize_small(40, 'bicubic')|central_crop(32)"
    pixels = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)
    said = pair.features(pair.variables, {"image": pixels, "label": np.zeros(4, np.int32)})
    want = model.apply(variables, models.normalise(pixels, row), stop="head")
    np.testing.assert_allclose(said["original"], want, rtol=1e-4, atol=1e-4)


def one_class(root):
    for part in ("train", "val"):
        for name in COLOURS[1:]:
            shutil.rmtree(root / part / name)


def test_mistakes_are_told(shaken, images, tmp_path):
    with pytest.raises(ValueError, match=r"unknown head; got 'claen'; use .*did you mean 'clean'"):
        command(shaken, images, tmp_path, "--head", "claen")
    with pytest.raises(ValueError, match=r"no run in this directory; got .*nowhere"):
        command(tmp_path / "nowhere", images, tmp_path)
    begun = copy_run(shaken, tmp_path / "begun", without=("distill",))
    with pytest.raises(ValueError, match=r"stage 'distill' has not finished in .*begun"):
        command(begun, images, tmp_path)
    shutil.copytree(images, tmp_path / "one")
    one_class(tmp_path / "one")
    with pytest.raises(ValueError, match=r"one class only; got red in .*one/train; give at least"):
        command(shaken, tmp_path / "one", tmp_path)
    with pytest.raises(
        ValueError, match=r"no such dataset; got 'foldr:x'; .*did you mean 'folder'"
    ):
        transfer.main([str(shaken), "--data", "foldr:x", "--out", str(tmp_path)])
    with pytest.raises(ValueError, match=r"unknown solver; got 'svm'"):
        command(shaken, images, tmp_path, "--solver", "svm")
    with pytest.raises(ValueError, match=r"--batch_size must be a multiple .*got 6 on 4 devices"):
        command(shaken, images, tmp_path, "--protocol", "full_finetune", "--batch_size", "6")
    assert not (tmp_path / "transfer.json").exists()


def test_splits_of_tfds_by_custom():
    options = transfer.parser().parse_args(["run", "--data", "x", "--out", "out"])
    flowers = transfer.data_section("tfds:oxford_flowers102:2.1.1", options)
    assert (flowers.name, flowers.train_split) == ("oxford_flowers102:2.1.1", "train+validation")
    assert transfer.data_section("tfds:cifar100", options).train_split == "train"
    options.train_split, options.test_split = "train[:10%]", "validation"
    chosen = transfer.data_section("tfds:sun397", options)
    assert (chosen.train_split, chosen.val_split) == ("train[:10%]", "validation")


def test_help_does_not_wait_for_jax():
    code = (
        "import sys; from robust_jax import transfer as t; t.parser(); print('jax' in sys.modules)"
    )
    said = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert said.stdout.strip() == "False", said.stderr
