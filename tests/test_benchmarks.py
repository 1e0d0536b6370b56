import json
import subprocess
import sys

from runs import ROOT


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
    }
    assert [row["step"] for row in said["rows"]] == ["full", "split", "cached"]
    assert said["rows"][1]["gflop"] < said["rows"][0]["gflop"]
