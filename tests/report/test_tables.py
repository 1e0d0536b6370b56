import numpy as np
import pytest
from scipy.stats import binomtest

from robust_jax import report
from robust_jax.report import tables, terminal


@pytest.mark.parametrize(("hits", "n"), [(0, 7), (3, 7), (7, 7), (361, 500), (99_991, 100_000)])
def test_wilson_equals_scipy(hits, n):
    expected = binomtest(hits, n).proportion_ci(method="wilson")
    np.testing.assert_allclose(tables.wilson(hits / n, n), expected, atol=1e-6)


def test_difference_equals_newcombes_published_example():
    # Newcombe 1998, table II, method 10: 56/70 against 48/80 and 9/10 against 3/10.
    np.testing.assert_allclose(
        tables.difference(56 / 70, 70, 48 / 80, 80), (0.0524, 0.3339), atol=5e-5
    )
    np.testing.assert_allclose(
        tables.difference(9 / 10, 10, 3 / 10, 10), (0.1705, 0.8090), atol=5e-5
    )


def test_difference_covers_the_truth_in_95_of_100_cases():
    rng = np.random.default_rng(0)
    a, b = rng.binomial(200, 0.7, 2000), rng.binomial(150, 0.6, 2000)
    intervals = [tables.difference(x / 200, 200, y / 150, 150) for x, y in zip(a, b, strict=True)]
    covered = np.mean([low <= 0.1 <= high for low, high in intervals])
    assert 0.93 < covered < 0.97


def test_percent_given_as_accuracy_is_refused():
    with pytest.raises(ValueError, match=r"got 93.5, n = 10; give accuracies as fractions"):
        tables.wilson(93.5, 10)


def test_a_winner_needs_an_interval_above_every_other():
    assert tables.winner({"a": (0.9, 400), "b": (0.8, 400)}) == "a"
    assert tables.winner({"a": (0.9, 400), "b": (0.89, 400)}) is None
    assert tables.winner({"a": (0.9, 400), "b": (0.5, 400), "c": (0.91, 400)}) is None
    assert tables.winner({"a": (0.9, 400), "b": (0.8, None)}) is None
    assert tables.winner({"a": (0.9, 400)}) is None


def test_method_table_orders_and_labels(run):
    summary, _ = run
    summary["methods"] = {"mine": {}, "ours_no_kd": {}, **summary["methods"]}
    rows = tables.method_table(summary)
    labels = [row["label"] for row in rows]
    assert labels == ["original", "APT", "ours", "ours (w/o KD)", "mine"]


def test_methods_are_aligned_and_never_shows_absent_as_zero(run):
    summary, _ = run
    del summary["methods"]["apt"]["clean_accuracy"]
    lines = terminal.methods(summary).splitlines()
    heading, rule, original, apt, ours = lines
    assert original.split() == ["original", "93.0", "50.0", "-", "0", "/", "21.7M", "-"]
    assert apt.split() == ["APT", "-", "66.0", "-", "1.23M", "/", "21.7M", "31"]
    assert ours.split() == [
        "ours",
        "91.0",
        "68.0",
        "70.0",
        "/",
        "60.0",
        "1.23M",
        "/",
        "21.7M",
        "36",
    ]
    ends = [i for i, c in enumerate(rule + " ") if c == " " and rule[i - 1] == "-"]
    for line in (heading, apt, ours):
        assert all(line[: end + 1].ljust(end + 1)[end] == " " for end in ends)
        assert line[ends[1] - 1] != " "


def test_half_measured_pair_shows_the_half(run):
    summary, _ = run
    del summary["methods"]["ours"]["f_correct_shift"]
    assert "70.0 / -" in terminal.methods(summary)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (999, "999"),
        (999_700, "1M"),
        (1_234_567, "1.23M"),
        (304_000_000, "304M"),
        (2.5e9, "2.5B"),
    ],
)
def test_parameter_counts(value, text):
    assert report.count(value) == text


def test_short_times_are_not_rounded_to_zero():
    assert [report.seconds(s) for s in (0.0421, 3.14, 2912.4)] == ["0.0421", "3.14", "2,912"]


def test_category_table_is_a_mean_of_means(run):
    summary, _ = run
    summary["methods"]["ours"]["accuracy_by_corruption"] = {
        "gaussian_noise": [0.2, 0.4],
        "shot_noise": [0.5],
        "fog": [0.9],
        "spatter": [0.1],
    }
    row = tables.category_table(summary)[-1]
    means = {k: round(v, 6) for k, v in row.items() if k not in ("method", "label")}
    assert means == {"noise": 0.4, "weather": 0.9, "extra": 0.1}


def test_severity_curves_leave_validation_corruptions_out(run):
    summary, results = run
    extra = {**results[-1], "corruption": "spatter", "severity": 5, "value": 0.0}
    curves = tables.severity_curves(summary, [*results, extra])
    assert curves["ours"] == pytest.approx({0: 0.91, 1: 0.76, 2: 0.72, 3: 0.68, 4: 0.64, 5: 0.6})


def test_an_image_counts_once_however_often_it_was_shown(run):
    _, results = run
    counts = tables.image_counts([*results, {**results[0], "metric": "f_correct", "n": 1}])
    assert counts["original", "clean"] == counts["ours", "corruption"] == 400


def test_conclusion_says_what_the_intervals_allow(run):
    summary, results = run
    text = " ".join(tables.conclusion(summary, results))
    assert (
        "On corrupted images ours is more accurate than original; not told apart from APT." in text
    )
    assert "On clean images ours is not told apart from original, APT." in text
    assert "130.0 in all" in text
    summary["methods"]["apt"]["corrupted_accuracy"] = 0.9
    assert "less accurate than APT" in tables.conclusion(summary, results)[0]


def test_no_verdict_without_the_number_of_images(run):
    summary, _ = run
    rows = tables.compare(summary, [], "clean")
    assert rows and not any("verdict" in row or "interval" in row for row in rows)


def test_slower_than_full_fine_tuning_is_said(run):
    summary, results = run
    summary["methods"]["full_finetune"] = {"train_seconds": 12.0}
    assert "36 s against 12 s for full fine-tuning: 3.0 times more." in " ".join(
        tables.conclusion(summary, results)
    )
