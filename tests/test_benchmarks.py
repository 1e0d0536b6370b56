import json
import subprocess
import sys

import pytest
from runs import ROOT

from robust_jax.corruptions import CORRUPTIONS


@pytest.mark.slow
def test_steps_prints_a_table_and_writes_json(tmp_path):
    file = tmp_path / "steps.json"
    options = ["--model", "vit_tiny8", "--batch", "4", "--rounds", "1", "--json", str(file)]
    command = [sys.executable, "benchmarks/steps.py", *options]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert "cached_over_full" in found.stdout
    said = json.loads(file.read_text())
    assert set(said) == {"machine", "rows", "ratios"}
    assert set(said["ratios"]) == {
        "cached_over_full",
        "split_over_full",
        "split_over_full_memory",
        "masked_over_full",
        "split_over_masked",
    }
    assert [row["step"] for row in said["rows"]] == ["full", "masked", "split", "cached"]
    full, masked, split, cached = said["rows"]
    assert said["ratios"]["split_over_masked"] == split["ms"] / masked["ms"]
    # A mask saves no gradient: what is frozen still costs its backward pass, and is updated.
    assert cached["gflop"] < split["gflop"] < 0.6 * masked["gflop"]
    assert masked["gflop"] == pytest.approx(full["gflop"], rel=0.15)
    assert split["temporary_mib"] < 0.5 * masked["temporary_mib"]
    assert split["state_mib"] == cached["state_mib"] < masked["state_mib"] < full["state_mib"]


@pytest.mark.slow
def test_augment_prints_a_table_and_writes_json(tmp_path):
    file = tmp_path / "augment.json"
    options = ["--quick", "--rounds", "1", "--json", str(file)]
    command = [sys.executable, "benchmarks/augment.py", *options]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert "augmix, pipeline" in found.stdout
    said = json.loads(file.read_text())
    assert set(said) == {"machine", "rows", "ratios"}
    rate = {(row["way"], row["size"]): row["images_per_second"] for row in said["rows"]}
    assert min(rate.values()) > 0
    ways = ("augmix, pil", "augmix, pipeline", "augmix, jax", "noise2net, jax")
    assert set(rate) == {(way, size) for way in ways for size in (224, 32)}
    for size in (224, 32):
        ratio = rate["augmix, pipeline", size] / rate["augmix, pil", size]
        assert said["ratios"][f"augmix_speedup_over_pil_{size}"] == ratio
    assert len(said["ratios"]) == 2


@pytest.mark.slow
def test_corruptions_prints_a_table_and_writes_json(tmp_path):
    pytest.importorskip("imagecorruptions", exc_type=ImportError)
    file = tmp_path / "corruptions.json"
    command = [sys.executable, "benchmarks/corruptions.py", "--quick", "--json", str(file)]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    said = json.loads(file.read_text())
    assert set(said) == {"machine", "rows", "ratios"}
    assert [row["corruption"] for row in said["rows"]] == list(CORRUPTIONS)
    total = {"ours": 0.0, "imaug": 0.0}
    for row in said["rows"]:
        for way in total:
            total[way] += row["seconds"][way]
            assert row[f"{way}_images_per_second"] == pytest.approx(5 / row["seconds"][way])
        assert row["speedup"] == row["seconds"]["imaug"] / row["seconds"]["ours"]
        assert f"{row['corruption']:<17}" in found.stdout
    ratio = total["imaug"] / total["ours"]
    assert said["ratios"] == {"corruptions_speedup_over_imaug_224": pytest.approx(ratio)}
