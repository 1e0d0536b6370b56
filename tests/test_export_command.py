import hashlib
import json
import shutil
import subprocess
import sys

import jax
import jax.export
import numpy as np
import pytest
from programs import alone, assert_agree, first
from runs import CLASSES, ROOT, copy_run

from robust_jax import convert, export, model_card
from robust_jax.weights import files

pytest_plugins = ["finished_run", "exported_run"]


def program(path):
    return jax.export.deserialize(bytearray((path / "model.stablehlo").read_bytes()))


def told(path):
    return json.loads((path / "model.json").read_text())


def test_answers_are_the_predictors_with_nothing_but_jax(out, images, said, tmp_path):
    assert len(images) == 100 and 0.2 < said["head"].mean() < 0.8
    for size, found in alone(out / "model.stablehlo", images, (1, 7, 100), tmp_path).items():
        assert_agree(found, first(said, size))


def test_a_key_may_be_passed(routed, images, said, tmp_path):
    export.main([str(routed), str(tmp_path / "out"), "--rng=passed"])
    exported, about = program(tmp_path / "out"), told(tmp_path / "out")
    assert about["inputs"]["key"] == "uint32[2]" and about["key"] == [0, 0]
    own = exported.call(images, np.array(about["key"], np.uint32))
    assert_agree(jax.device_get(own), said)
    other = exported.call(images, np.array([0, 1], np.uint32))
    assert np.abs(other["probs"] - said["probs"]).max() > 1e-3
    text = (tmp_path / "out" / "README.md").read_text()
    assert "answer = exported.call(images, np.array([0, 0], np.uint32))\n" in text


def test_what_the_program_says_of_itself(out, said):
    exported, about = program(out), told(out)
    assert exported.platforms == tuple(about["platforms"]) == ("cpu", "cuda", "tpu")
    (images,) = exported.in_avals
    assert (str(images.shape), str(images.dtype)) == ("(b, 32, 32, 3)", "uint8")
    assert set(about["outputs"]) == said.keys() - {"class_name"}
    assert about["outputs"]["kl"].startswith("f32[b, 2]")
    assert about["outputs"]["head_probs"].startswith("f32[b, 3, 10]")
    assert about["class_names"] == list(CLASSES) and about["image_size"] == 32
    assert about["preprocessing"]["ops"] == "decode|resize(32)"
    assert about["versions"]["export"]["jax"] == jax.__version__
    assert about["versions"]["run"]["git_commit"]
    with pytest.raises(ValueError, match="32"):
        exported.call(np.zeros((2, 48, 48, 3), np.uint8))


def test_the_same_run_gives_the_same_files_without_paths_of_this_machine(out, routed, tmp_path):
    again = shutil.copytree(out, tmp_path / "again")
    before = (again / "model.stablehlo").stat().st_ino
    export.main([str(routed), str(again)])  # an export as it was written is replaced
    assert (again / "model.stablehlo").stat().st_ino != before
    assert {path.name for path in tmp_path.iterdir()} == {"again"}
    sums = dict(line.split("  ")[::-1] for line in (again / "SHA256SUMS").read_text().splitlines())
    for name in sums:
        if not name.endswith(".safetensors"):  # whose library shuffles the texts in the header
            assert (out / name).read_bytes() == (again / name).read_bytes(), name
    assert sums.keys() == {path.name for path in out.iterdir()} - {"SHA256SUMS"}
    for name, sha256 in sums.items():
        data = (again / name).read_bytes()
        assert hashlib.sha256(data).hexdigest() == sha256
        for place in (str(ROOT), sys.prefix, str(routed.parent)):
            assert place.encode() not in data, name


def test_weights_are_those_of_the_combined_head(out, routed, tmp_path):
    convert.convert_run(routed, tmp_path, head="combined")
    for path in tmp_path.iterdir():
        if path.suffix == ".safetensors":
            tensors = files.read(path).tensors
            jax.tree.map(
                np.testing.assert_array_equal, files.read(out / path.name).tensors, tensors
            )
        else:
            assert (out / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("name", ["added", "changed", "missing", "file", "other"])
def test_what_is_not_an_export_is_kept(out, routed, tmp_path, name):
    target = tmp_path / "target"
    if name in ("added", "changed", "missing"):
        shutil.copytree(out, target)
    if name == "added":
        (target / "notes.txt").write_text("mine")
    elif name == "changed":
        (target / "README.md").write_text("# mine")
    elif name == "missing":
        (target / "model.json").unlink()
    elif name == "file":
        target.write_text("mine")
    else:
        target.mkdir()
        (target / "thesis.tex").write_text("mine")
    messages = {
        "added": r"no export as it was written \(notes\.txt\); got '.*target'; name a new",
        "changed": r"\(README\.md\)",
        "missing": r"\(model\.json\)",
        "file": r"OUT is no directory; got '.*target'; name a new one",
        "other": r"\(thesis\.tex\)",
    }
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match=messages[name]):
        export.export_run(routed, target)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_an_error_leaves_what_was_there(out, routed, tmp_path, monkeypatch):
    target = shutil.copytree(out, tmp_path / "target")

    def fail(*args, **kwargs):
        raise RuntimeError("struck")

    monkeypatch.setattr(model_card, "card", fail)
    for path in (target, tmp_path / "new"):
        with pytest.raises(RuntimeError, match="struck"):
            export.export_run(routed, path)
    assert [path.name for path in tmp_path.iterdir()] == ["target"]
    assert (target / "SHA256SUMS").read_bytes() == (out / "SHA256SUMS").read_bytes()


def test_mistakes_are_told(routed, tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"no run in this directory; got .*empty; give the --work"):
        export.export_run(tmp_path / "empty", tmp_path / "out")
    for stage in ("distill", "report"):
        begun = copy_run(routed, tmp_path / f"without_{stage}")
        (begun / "stages" / f"{stage}.json").unlink()
        with pytest.raises(
            ValueError, match=rf"stage '{stage}' has not finished in .*{stage}; add"
        ):
            export.export_run(begun, tmp_path / "out")
    begun = copy_run(routed, tmp_path / "begun")
    (begun / "summary.json").unlink()
    with pytest.raises(ValueError, match=r"no summary\.json; got .*begun; run the stage 'report'"):
        export.export_run(begun, tmp_path / "out")
    with pytest.raises(ValueError, match=r"no such rng; got 'free'; use one of fixed, passed"):
        export.main([str(routed), str(tmp_path / "out"), "--rng=free"])
    with pytest.raises(ValueError, match=r"OUT must be local; got 'gs://bucket/out'; copy it"):
        export.export_run(routed, "gs://bucket/out")
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    with pytest.raises(ValueError, match=r"are made on the CPU; got 'gpu'; use `python -m robust"):
        export.export_run(routed, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_help_does_not_wait_for_jax():
    code = """
import sys
from robust_jax import export
try:
    export.main(["--help"])
finally:
    assert not {"jax", "flax", "numpy", "tensorflow"} & set(sys.modules)
"""
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert "--rng" in found.stdout
