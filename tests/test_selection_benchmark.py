import json
import subprocess
import sys

import pytest
from runs import ROOT


@pytest.mark.slow
def test_selection_prints_a_table_and_writes_json(tmp_path):
    file = tmp_path / "selection.json"
    options = ["--model", "vit_tiny8", "--batch", "4", "--rounds", "1", "--seconds", "0.01"]
    command = [sys.executable, "benchmarks/selection.py", *options, "--json", str(file)]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    said = json.loads(file.read_text())
    assert set(said) == {"machine", "rows", "ratios"}
    rows = {(row["program"], row["batch"]): row for row in said["rows"]}
    names = ("forward", "selection", "heads", "dropout x 10")
    assert list(rows) == [(name, batch) for batch in (4, 1) for name in names]
    for batch in (4, 1):
        forward, selection, heads, ten = (rows[name, batch] for name in names)
        assert min(forward["ms"], heads["ms"]) > 0
        # The trunk runs once.
        assert forward["gflop"] < selection["gflop"] < 1.15 * forward["gflop"]
        assert heads["gflop"] < selection["gflop"] < ten["gflop"] / 5
        for other, row in (("forward", forward), ("ten_forwards", ten)):
            name = f"selection_over_{other}_b{batch}"
            assert said["ratios"].pop(name) == pytest.approx(selection["ms"] / row["ms"])
            assert name in found.stdout
    assert not said["ratios"]
