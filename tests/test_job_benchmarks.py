"""benchmarks/cache.py, pipeline.py and scaling.py: what they time, and what they write."""

import importlib
import json
import subprocess
import sys

import jax
import numpy as np
import pytest
from runs import ROOT

from robust_jax import sharding, writers

MODEL = "vit_tiny8"


@pytest.fixture
def load(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module


def run(tmp_path, name, *options):
    """Runs a benchmark; returns its JSON, whose ratios are also printed, and what it printed."""
    file = tmp_path / "found.json"
    command = [sys.executable, f"benchmarks/{name}.py", "--quick", *options, "--json", str(file)]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    said = json.loads(file.read_text())
    assert set(said) == {"machine", "rows", "ratios"}
    for ratio, value in said["ratios"].items():
        assert f"{ratio}: {value:.4f}" in found.stdout
    return said, found.stdout


@pytest.mark.slow
def test_cache(tmp_path):
    said, printed = run(tmp_path, "cache", "--epochs", "2")
    rows = {row["part"]: row for row in said["rows"]}
    ways = ("device", "memory", "disk", "streaming")
    assert list(rows) == ["teacher", "cache", "tail", *ways, "full", "full, one view"]
    for row in rows.values():
        assert row["examples_per_second"] == pytest.approx(32e3 / row["ms_per_step"])
        cached = row["part"] in ("cache", "tail", "device", "memory", "disk")
        assert (row["megabytes"] > 0) == cached
    job = rows["cache"]["seconds"] + rows["tail"]["seconds"]
    full, one_view = rows["full"], rows["full, one view"]
    assert said["ratios"] == {
        "job_over_full_finetune": pytest.approx(job / full["seconds"]),
        "job_over_full_finetune_one_view": pytest.approx(job / one_view["seconds"]),
        "job_with_teacher_over_full_finetune": pytest.approx(
            (job + rows["teacher"]["seconds"]) / full["seconds"]
        ),
        **{
            f"{way}_over_device": pytest.approx(
                rows[way]["ms_per_step"] / rows["device"]["ms_per_step"]
            )
            for way in ways[1:]
        },
    }
    # 1,294 images and 259 pairs in batches of 32: two epochs each.
    assert full["steps"] == one_view["steps"] == round(2 * 1294 / 32)
    assert rows["tail"]["steps"] == round(2 * 259 / 32)
    for row in (full, one_view):
        assert row["seconds"] == pytest.approx(row["steps"] * row["ms_per_step"] / 1e3)
    # The job counts whole stages: compiling, and building each element once.
    for part in ("cache", "tail"):
        assert rows[part]["seconds"] > rows[part]["compile_seconds"] > 0
    assert "extrapolated: full fine-tuning from 6 steps to 2 epochs, the teacher from 6" in printed


def test_a_step_is_timed_between_metrics(load, tmp_path):
    benchmark = load("cache")
    # 100 s until the first metrics, then 3 s a step; the writer is told rates.
    with writers.Scalars(tmp_path, "toy") as scalars:
        for step in range(20, 420, 20):
            rate = 8 * step / (100 + 3 * (step - 20))
            scalars.write(step, {"images_per_second": rate})
    found = benchmark.Run(None, tmp_path).step_seconds("toy", 8)
    assert found == pytest.approx(3, rel=1e-5)


@pytest.mark.slow
def test_pipeline(tmp_path):
    said, _ = run(tmp_path, "pipeline", "--model", MODEL)
    rate = {(row["way"], row["size"]): row["images_per_second"] for row in said["rows"]}
    pairs = [f"{who}, {what}" for what in ("clean", "+ augmix") for who in ("ours", "plain")]
    ways = [(way, size) for size in (32, 224) for way in (*pairs, "ours, in memory")]
    assert list(rate) == [*ways, ("split step", 32)]
    assert min(rate.values()) > 0
    expected = {"pipeline_over_split_step": rate["ours, + augmix", 32] / rate["split step", 32]}
    for size in (32, 224):
        for name, way in (("pipeline", "clean"), ("pipeline_augmix", "+ augmix")):
            ratio = rate[f"ours, {way}", size] / rate[f"plain, {way}", size]
            expected[f"{name}_over_plain_tfdata_{size}"] = ratio
    assert said["ratios"] == pytest.approx(expected)


def test_all_batches_but_the_first_are_timed(load, monkeypatch):
    benchmark, clock = load("pipeline"), [0.0]
    monkeypatch.setattr(benchmark.time, "perf_counter", lambda: clock[0])

    def batches():
        for took in (100, 1, 2, 3):
            clock[0] += took
            yield

    assert benchmark.seconds_of(batches(), 12) == 0.5


def test_a_split_step_of_a_size_that_is_not_timed(load, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["pipeline.py", "--model", "efficientnet_lite2"])
    with pytest.raises(ValueError, match="got 'efficientnet_lite2', which wants 260"):
        load("pipeline").main()


@pytest.mark.slow
def test_scaling(tmp_path):
    said, printed = run(tmp_path, "scaling", "--model", MODEL)
    assert "fake devices share" in printed.splitlines()[0]
    rows = {
        (row["step"], row["devices"], row["processes"], row["fsdp"]): row for row in said["rows"]
    }
    topologies = ((1, 1, 1), (2, 1, 1), (2, 1, 2), (8, 1, 1), (8, 1, 8), (2, 2, 1))
    assert list(rows) == [(s, *t) for s in ("full", "split", "cached") for t in topologies]
    for step in ("full", "split", "cached"):
        held = {topology: rows[step, *topology]["state_mib"] for topology in topologies}
        # More devices hold more copies, unless they share one; small arrays are never split.
        assert held[1, 1, 1] == held[2, 1, 1] == held[8, 1, 1] == held[2, 2, 1]
        assert held[1, 1, 1] / 2 < held[2, 1, 2] < 0.6 * held[1, 1, 1]
        assert held[1, 1, 1] / 8 < held[8, 1, 8] < 0.2 * held[1, 1, 1]
    ms = {key: row["ms"] for key, row in rows.items()}
    held = {key: row["state_mib"] for key, row in rows.items()}
    assert said["ratios"] == {
        "cached_8_over_1_devices": pytest.approx(ms["cached", 8, 1, 1] / ms["cached", 1, 1, 1]),
        "full_2_over_1_devices": pytest.approx(ms["full", 2, 1, 1] / ms["full", 1, 1, 1]),
        "full_2_processes_over_1": pytest.approx(ms["full", 2, 2, 1] / ms["full", 2, 1, 1]),
        "state_bytes_fsdp8_over_1": pytest.approx(held["full", 8, 1, 8] / held["full", 8, 1, 1]),
    }


@pytest.mark.parametrize("fsdp", [pytest.param(1, marks=pytest.mark.slow), 4])
def test_a_cached_call_is_steps_on_rows_of_the_cache(load, fsdp):
    scaling, mesh = load("scaling"), sharding.make_mesh(fsdp=fsdp)
    step, arguments = load("steps").variants(MODEL, 16, scaling.CLASSES)["cached"]
    state, frozen, batch = arguments
    compiled, *placed = scaling.program("cached", step, arguments, mesh)
    found, _ = compiled(*placed)
    one = jax.jit(step)
    for row in np.asarray(placed[2]["row"]):
        state, _ = one(state, frozen, {name: values[row] for name, values in batch.items()})
    assert int(found.step) == int(state.step) == scaling.CALLS
    # Adam divides gradients by their size: rounding of small ones shows.
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-3), found.params, state.params
    )


def test_a_process_that_ends_early_is_told(load):
    command = [sys.executable, "-c", "print('hello'); raise SystemExit(3)"]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process,
        pytest.raises(RuntimeError, match="ended early; got exit status 3"),
    ):
        load("scaling").answer([process])
