import importlib
import json
import subprocess
import sys

import jax
import numpy as np
import pytest
from runs import ROOT

from robust_jax import models


@pytest.fixture
def gpu_programs(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("gpu_programs")


@pytest.mark.parametrize(
    ("name", "changes", "stop"),
    [
        ("vit_b16", {}, None),
        ("vit_b16", {}, "block_11_mlp"),
        ("vit_l16", {"patch_size": 14}, None),
        ("clip_vit_b32", {}, None),
        ("vit_b16", {"pool": "gap"}, None),
    ],
)
def test_operations_counted_by_hand_are_those_xla_counts(gpu_programs, name, changes, stop):
    model = models.build(name, 1000, **changes)

    def run(variables, images):
        return model.apply(variables, images, stop=stop)

    traced = jax.jit(run).trace(models.shapes(model), model.example_input())
    xla = traced.lower().cost_analysis()["flops"]
    by_hand = gpu_programs.flops(model, stop)
    # XLA counts norms, softmax and activations too.
    assert by_hand < xla < 1.02 * by_hand


def test_published_operations_of_a_vit(gpu_programs):
    # timm's results-imagenet.csv: 17.58 billion multiplications for the 197 tokens with CLS.
    model = models.build("vit_b16", 1000, pool="gap")
    assert gpu_programs.flops(model) == pytest.approx(2 * 17.5e9, rel=0.01)


def test_steps_find_their_rows_in_the_cache(gpu_programs):
    case = gpu_programs.Case.make("vit_tiny8")
    programs = case.steps(batch=4, cached=8, scanned=2)
    step, (state, frozen, first) = programs["cached"]
    scan, (_, _, cache, rows) = programs["cached, scan"]
    assert {name: len(part) for name, part in cache.items()} == dict.fromkeys(first, 8)
    second = {name: part[rows[1]] for name, part in cache.items()}
    step = jax.jit(step)
    expected = step(step(state, frozen, first)[0], frozen, second)[0]
    found = jax.jit(scan)(state, frozen, cache, rows)[0]
    assert int(found.step) == 2
    for a, b in zip(jax.tree.leaves(found.params), jax.tree.leaves(expected.params), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)
    moved = jax.tree.map(lambda a, b: float(abs(a - b).max()), found.params, state.params)
    assert max(jax.tree.leaves(moved)) > 1e-3


# Machines with an accelerator need not have what training from images needs.
WITHOUT = """
import sys
sys.modules.update(dict.fromkeys(["tensorflow", "ml_collections", "clu"]))
sys.path.insert(0, "benchmarks")
sys.argv = ["gpu.py", *sys.argv[1:]]
import gpu
gpu.main()
"""


@pytest.mark.slow
def test_gpu_prints_rows_and_writes_json(tmp_path):
    file = tmp_path / "gpu.json"
    command = [sys.executable, "-c", WITHOUT, "--quick", "--rounds", "1", "--json", str(file)]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    said = json.loads(file.read_text())
    assert set(said) == {"machine", "rows", "ratios"}
    programs = ["trunk b2", "trunk b4", "full", "split", "cached", "cached, scan"]
    programs += [f"{way} b{b}" for b in (1, 16) for way in ("forward", "selection")]
    views = ["augmix 32 px", "noise2net 32 px"]
    expected = ["matmul 64x64x64", *(f"vit_tiny8 {program}" for program in programs), *views]
    rows = {row["program"]: row for row in said["rows"]}
    assert list(rows) == expected
    for name, row in rows.items():
        assert row["examples_per_second"] == pytest.approx(1e3 * row["examples"] / row["ms"])
        assert f"program {name}; examples {row['examples']};" in found.stdout
    full = rows["vit_tiny8 full"]["ms"]
    peak = rows["matmul 64x64x64"]["tflop_per_second"]
    trunks = [rows[f"vit_tiny8 trunk b{b}"]["tflop_per_second"] for b in (2, 4)]
    assert said["ratios"] == pytest.approx(
        {
            "trunk_mfu_vit_tiny8": max(trunks) / peak,
            "split_over_full_vit_tiny8": rows["vit_tiny8 split"]["ms"] / full,
            "cached_over_full_vit_tiny8": rows["vit_tiny8 cached"]["ms"] / full,
            "cached_scan_over_full_vit_tiny8": rows["vit_tiny8 cached, scan"]["ms"] / 2 / full,
            **{
                f"selection_over_forward_b{b}_vit_tiny8": rows[f"vit_tiny8 selection b{b}"]["ms"]
                / rows[f"vit_tiny8 forward b{b}"]["ms"]
                for b in (1, 16)
            },
        }
    )
