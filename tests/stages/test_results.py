import numpy as np
import pytest

from robust_jax.stages import results

LABELS = np.array([0, 1, 2, 0])
CLEAN = {
    "original/label": np.array([0, 1, 2, 1]),
    "ours/label": np.array([0, 1, 2, 0]),
    "ours/head": np.array([0, 0, 1, 0]),
    "ours/routing_score": np.array([0.1, 0.2, 0.9, 0.3]),
    "ours/clean_label": np.array([0, 1, 0, 0]),
}
FOG = {
    "original/label": np.array([1, 1, 2, 1]),
    "ours/label": np.array([0, 1, 0, 1]),
    "ours/head": np.array([1, 1, 1, 0]),
    "ours/routing_score": np.array([0.8, 0.7, 0.95, 0.15]),
    "ours/clean_label": np.array([1, 1, 0, 0]),
}


def _summary():
    rows = results.rows({"clean": CLEAN, "fog-1": FOG, "fog-2": CLEAN}, LABELS, seed=3)
    return rows, results.method_summaries(rows)


def test_rows_say_what_was_measured():
    rows, _ = _summary()
    fog = [r for r in rows if r["method"] == "original" and r.get("corruption") == "fog"]
    assert [(r["severity"], r["value"], r["n"], r["seed"]) for r in fog] == [
        (1, 0.5, 4, 3),
        (2, 0.75, 4, 3),
    ]
    assert all(r["low"] <= r["value"] <= r["high"] for r in fog)
    heads = [r for r in rows if r["metric"] == "accuracy_clean_head" and r["set"] == "clean"]
    assert [r["value"] for r in heads] == [0.75]


def test_summary_by_hand():
    _, summary = _summary()
    ours = summary["ours"]
    assert ours["clean_accuracy"] == 1.0
    assert ours["corrupted_accuracy"] == pytest.approx((0.5 + 1.0) / 2)
    assert "mean_corruption_error" not in ours  # it needs all five severities
    assert ours["f_correct_clean"] == 0.75
    assert ours["f_correct_shift"] == pytest.approx((0.75 + 0.25) / 2)
    assert ours["accuracy_by_corruption"] == {"fog": [0.5, 1.0]}
    scores = np.concatenate([FOG["ours/routing_score"], CLEAN["ours/routing_score"]])
    pairs = np.sign(scores[None] - CLEAN["ours/routing_score"][:, None])
    assert ours["routing_auroc"] == pytest.approx((pairs + 1).mean() / 2)


def test_mean_corruption_error_of_five_severities():
    found = {"clean": CLEAN} | {f"fog-{s}": FOG if s > 3 else CLEAN for s in range(1, 6)}
    summary = results.method_summaries(results.rows(found, LABELS, seed=0))
    assert summary["original"]["mean_corruption_error"] == pytest.approx((3 * 0.25 + 2 * 0.5) / 5)


def test_routing_auroc_has_an_interval():
    rows, _ = _summary()
    (row,) = [r for r in rows if r["metric"] == "routing_auroc"]
    assert 0 <= row["low"] < row["value"] < row["high"] <= 1 and row["n"] == 4


def test_absent_metrics_are_absent():
    _, summary = _summary()
    assert set(summary["original"]) == {
        "clean_accuracy",
        "corrupted_accuracy",
        "accuracy_by_corruption",
    }


def test_flips_by_hand():
    along = np.array([[0, 1, 1, 0, 0], [2, 2, 2, 2, 2], [3, 4, 5, 3, 3]])
    rows = results.flip_rows(
        {"translate": {"teacher/label": along}, "gaussian_noise": {"teacher/label": along}}, seed=3
    )
    value = {row["perturbation"]: row["value"] for row in rows}
    assert value["translate"] == pytest.approx((2 / 4 + 0 + 3 / 4) / 3)  # .416667
    assert value["gaussian_noise"] == pytest.approx((2 / 4 + 0 + 2 / 4) / 3)  # with frame 1
    assert all(row["low"] <= row["value"] <= row["high"] and row["n"] == 3 for row in rows)
    summary = results.method_summaries(rows)["teacher"]
    assert summary["mean_flip_probability"] == pytest.approx(np.mean(list(value.values())))
