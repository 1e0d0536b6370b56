"""A made-up run with every method kind, 15 corruptions and the arrays of a three-head method."""

import json

import numpy as np
import pytest

from robust_jax.report import CATEGORIES

NAMES = [n for group in ("noise", "blur", "weather", "digital") for n in CATEGORIES[group]]
N = 400


def measurement(method, value, corruption=None, severity=None, metric="accuracy"):
    row = {"method": method, "metric": metric, "set": "corruption" if corruption else "clean"}
    if corruption:
        row |= {"corruption": corruption, "severity": severity}
    return row | {"value": value, "n": N, "low": value - 0.04, "high": value + 0.04, "seed": 3}


@pytest.fixture
def run():
    """summary and results of a run; a test may change them before writing."""
    methods, results = {}, []
    accuracies = {"original": (0.93, 0.50), "apt": (0.92, 0.66), "ours": (0.91, 0.68)}
    for method, (clean, corrupted) in accuracies.items():
        table = {n: [corrupted + 0.04 * (2 - s) for s in range(5)] for n in NAMES}
        methods[method] = {
            "clean_accuracy": clean,
            "corrupted_accuracy": corrupted,
            "tuned_params": 0 if method == "original" else 1_234_567,
            "total_params": 21_700_000,
            "accuracy_by_corruption": table,
        }
        results.append(measurement(method, clean))
        results += [
            measurement(method, value, name, s + 1)
            for name, values in table.items()
            for s, value in enumerate(values)
        ]
    methods["apt"]["train_seconds"] = 31.0
    methods["ours"] |= {"train_seconds": 36.0, "f_correct_clean": 0.7, "f_correct_shift": 0.6}
    dataset = {"name": "digits", "classes": ["zero", "one"], "train_images": 9, "eval_images": N}
    summary = {"config": {"seed": 3}, "dataset": dataset, "methods": methods}
    return summary, results


@pytest.fixture
def arrays():
    """routing.npz and examples.npz as dictionaries."""
    rng = np.random.default_rng(0)
    routing = {
        "clean": rng.normal(0, 1, 80).astype(np.float32),
        "shifted": rng.normal(1, 1, 120).astype(np.float32),
        "threshold": np.float32(0.5),
    }
    examples = {
        "images": rng.integers(0, 256, (4, 16, 12, 3), dtype=np.uint8),
        "labels": np.array([0, 1, 0, 1]),
        "original": np.array([0, 0, 1, 1]),
        "ours": np.array([0, 1, 0, 0]),
        "head": np.array([0, 1, 2, 1]),
        "caption": np.array(["fog, severity 3"] * 4),
    }
    return {"routing": routing, "examples": examples}


@pytest.fixture
def write_run(tmp_path):
    """Writes a run's files to a fresh working directory."""

    def write_files(summary, results, arrays=None):
        (tmp_path / "summary.json").write_text(json.dumps(summary))
        (tmp_path / "results.jsonl").write_text("".join(json.dumps(r) + "\n" for r in results))
        for name, content in (arrays or {}).items():
            (tmp_path / "evaluate").mkdir(exist_ok=True)
            np.savez(tmp_path / "evaluate" / f"{name}.npz", **content)
        return tmp_path

    return write_files
