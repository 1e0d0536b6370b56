import numpy as np
import pytest

from robust_jax.evals.robustness import (
    ALEXNET_CLEAN_ERROR,
    ALEXNET_ERROR,
    ALEXNET_FLIP_PROBABILITY,
)
from robust_jax.evals.sets import Measured
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
ALONG = np.array([[0, 1, 1, 0, 0], [2, 2, 2, 2, 2], [3, 4, 5, 3, 3]])


def plain(outputs, name="clean", kind=""):
    return Measured({"set": name}, outputs, LABELS, kind)


def corrupted(outputs, severity, corruption="fog", name="corruption", kind=""):
    where = {"set": name, "corruption": corruption, "severity": severity}
    return Measured(where, outputs, LABELS, kind)


def flipping(outputs, perturbation, name="perturbation"):
    return Measured({"set": name, "perturbation": perturbation}, outputs, LABELS[:3])


def wrong(share):
    """Answers of `original` of which a share, in quarters, is wrong."""
    return {"original/label": np.where(np.arange(4) < 4 * share, LABELS + 1, LABELS)}


def _summary():
    rows = results.rows([plain(CLEAN), corrupted(FOG, 1), corrupted(CLEAN, 2)], seed=3)
    return rows, results.method_summaries(rows)


def summary_of(*measured, **options):
    return results.method_summaries(results.rows(measured, seed=0), **options)


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
    assert "f_correct_severe" not in ours  # of severities of at least 3
    assert ours["heads"] == {"clean": {"clean_accuracy": 0.75, "corrupted_accuracy": 0.625}}
    scores = np.concatenate([FOG["ours/routing_score"], CLEAN["ours/routing_score"]])
    pairs = np.sign(scores[None] - CLEAN["ours/routing_score"][:, None])
    assert ours["routing_auroc"] == pytest.approx((pairs + 1).mean() / 2)


def test_severe_corruptions_and_those_for_validation_by_hand():
    measured = [corrupted(CLEAN if s > 4 else FOG, s) for s in (1, 3, 5)]
    ours = summary_of(plain(CLEAN), *measured, corrupted(CLEAN, 5, "spatter"))["ours"]
    assert ours["f_correct_shift"] == pytest.approx((0.75 + 0.75 + 0.25) / 3)
    assert ours["f_correct_severe"] == pytest.approx((0.75 + 0.25) / 2)
    # Of the clean head: half of fog's answers are right at 1 and 3, three quarters at 5.
    assert ours["heads"]["clean"]["corrupted_accuracy"] == pytest.approx(
        np.mean([np.mean(FOG["ours/clean_label"] == LABELS)] * 2 + [0.75])
    )


def test_mean_corruption_error_of_five_severities():
    measured = [corrupted(FOG if s > 3 else CLEAN, s) for s in range(1, 6)]
    original = summary_of(plain(CLEAN), *measured, imagenet=True)["original"]
    assert original["mean_corruption_error"] == pytest.approx((3 * 0.25 + 2 * 0.5) / 5)
    assert "mce" not in original  # it needs all of the fifteen


def test_mce_of_imagenet_by_hand():
    fifteen = [
        corrupted(wrong(0.5), severity, name) for name in ALEXNET_ERROR for severity in range(1, 6)
    ]
    extra = [corrupted(wrong(1), severity, "spatter") for severity in range(1, 6)]
    found = summary_of(plain(wrong(0.25)), *fifteen, *extra, imagenet=True)["original"]
    assert found["corrupted_accuracy"] == found["mean_corruption_error"] == 0.5
    assert found["mce"] == pytest.approx(np.mean([0.5 / e for e in ALEXNET_ERROR.values()]))
    relative = [0.25 / (e - 0.4348) for e in ALEXNET_ERROR.values()]
    assert found["relative_mce"] == pytest.approx(np.mean(relative))
    assert found["accuracy_by_corruption"]["spatter"] == [0] * 5
    elsewhere = summary_of(plain(wrong(0.25)), *fifteen)["original"]
    assert "mce" not in elsewhere and "relative_mce" not in elsewhere


def test_certainty_by_hand():
    outputs = {
        "original/label": np.array([0, 1, 2, 1]),
        "original/confidence": np.array([0.9, 0.8, 0.7, 0.6]),
        "original/nll": np.array([0.1, 0.2, 0.3, 2.0]),
        "original/brier": np.array([0.02, 0.08, 0.18, 1.5]),
    }
    found = summary_of(plain(outputs))["original"]
    assert found["clean_nll"] == pytest.approx(0.65)
    assert found["clean_brier"] == pytest.approx(0.445)
    assert found["clean_ece"] == pytest.approx((0.1 + 0.2 + 0.3 + 0.6) / 4)
    assert found["clean_aurc"] == pytest.approx(0.25 / 4)  # the last one answered is wrong


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
    measured = [flipping({"teacher/label": ALONG}, n) for n in ("translate", "gaussian_noise")]
    rows = results.rows(measured, seed=3)
    value = {row["perturbation"]: row["value"] for row in rows}
    assert value["translate"] == pytest.approx((2 / 4 + 0 + 3 / 4) / 3)  # .416667
    assert value["gaussian_noise"] == pytest.approx((2 / 4 + 0 + 2 / 4) / 3)  # with frame 1
    assert all(row["low"] <= row["value"] <= row["high"] and row["n"] == 3 for row in rows)
    summary = results.method_summaries(rows)["teacher"]
    assert summary["mean_flip_probability"] == pytest.approx(np.mean(list(value.values())))


def test_mfr_and_top5_distance():
    top5 = np.tile(np.arange(5), (3, 2, 1))
    top5[0, 1] = [1, 0, 2, 3, 4]  # of three sequences one swaps its two best classes: 2 / 3
    outputs = {"original/label": top5[..., 0], "original/top5": top5}
    measured = [flipping(outputs, name) for name in ALEXNET_FLIP_PROBABILITY]
    still = np.tile(np.arange(5), (3, 5, 1))
    extra = flipping({"original/label": ALONG, "original/top5": still}, "spatter")
    found = summary_of(*measured, extra, imagenet=True)["original"]
    assert found["mean_flip_probability"] == pytest.approx(1 / 3)
    expected = np.mean([1 / 3 / p for p in ALEXNET_FLIP_PROBABILITY.values()])
    assert found["mfr"] == pytest.approx(expected)
    assert found["mean_top5_distance"] == pytest.approx(2 / 3)
    # CIFAR-P counts spatter in the place of snow.
    cifar = [one for one in measured if one.where["perturbation"] != "snow"]
    found = summary_of(*cifar, extra)["original"]
    assert found["mean_flip_probability"] == pytest.approx((9 / 3 + 0.416667) / 10, abs=1e-6)
    assert found["mean_top5_distance"] == pytest.approx(0.6)


def test_benchmarks_stand_apart_from_the_own_sets():
    fifteen = [
        corrupted(wrong(0.5), severity, name, "mine", "imagenet_c")
        for name in ALEXNET_ERROR
        for severity in range(1, 6)
    ]
    read = [plain(FOG, "hard", "imagenet_a"), *fifteen]
    read += [corrupted(FOG, 2, name="imagenet_c", kind="folder_c")]
    found = summary_of(plain(CLEAN), corrupted(FOG, 1), *read)
    ours, original = found["ours"], found["original"]
    assert ours["corrupted_accuracy"] == 0.5 and ours["f_correct_shift"] == 0.75
    read = ours["benchmarks"]
    assert read["hard"]["accuracy"] == 0.5
    assert read["hard"]["f_correct"] == 0.75
    assert read["imagenet_c"]["corrupted_accuracy"] == 0.5
    pairs = np.sign(FOG["ours/routing_score"][None] - CLEAN["ours/routing_score"][:, None])
    assert read["hard"]["routing_auroc"] == pytest.approx((pairs + 1).mean() / 2)
    # The kind says which benchmark it is, not what it is called.
    stored = original["benchmarks"]["mine"]
    assert stored["mce"] == pytest.approx(np.mean([0.5 / e for e in ALEXNET_ERROR.values()]))
    assert "mce" not in original and "mce" not in read["imagenet_c"]
    assert "relative_mce" not in stored  # the clean images are not known to be ImageNet's
    whole = summary_of(plain(wrong(0.25)), *fifteen, imagenet=True)["original"]["benchmarks"]
    relative = [0.25 / (e - ALEXNET_CLEAN_ERROR) for e in ALEXNET_ERROR.values()]
    assert whole["mine"]["relative_mce"] == pytest.approx(np.mean(relative))


@pytest.mark.parametrize(
    ("kind", "routed"),
    [("imagenet_200_a", 0.25), ("imagenet_r", 0.75), ("folder", None), ("imagenet2012", None)],
)
def test_which_head_is_meant_depends_on_the_benchmark(kind, routed):
    found = summary_of(plain(CLEAN), plain(FOG, "read", kind))["ours"]["benchmarks"]["read"]
    assert found.get("f_correct") == routed
    assert ("routing_auroc" in found) == (kind == "imagenet_r")


def test_the_corruptions_for_validation_are_in_no_average():
    good = {**FOG, "ours/head": np.ones(4, int), "ours/routing_score": np.full(4, 9.0)}
    extra = corrupted(good, 1, "speckle_noise")
    one, both = (
        summary_of(plain(CLEAN), corrupted(FOG, 1), *more)["ours"] for more in ([], [extra])
    )
    assert both.pop("accuracy_by_corruption") == {"fog": [0.5], "speckle_noise": [0.5]}
    del one["accuracy_by_corruption"]
    assert one == both
    alone = summary_of(plain(CLEAN), extra)["ours"]
    assert alone["f_correct_shift"] == 1 and alone["routing_auroc"] == 1


def test_spatter_counts_only_in_the_place_of_snow():
    found = summary_of(
        flipping({"original/label": ALONG}, "translate"),
        flipping({"original/label": np.zeros((3, 5), int)}, "spatter"),
    )["original"]
    assert found["mean_flip_probability"] == pytest.approx(0.416667, abs=1e-6)
