"""Metrics of predictions against scipy, scikit-learn and loops."""

import hypothesis
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pytest
import scipy.special
import scipy.stats
import sklearn.metrics

from robust_jax.evals import metrics

SCORES = hnp.arrays(np.float64, st.integers(1, 30), elements=st.integers(-4, 4).map(float))


def predictions(seed=0, b=200, k=5):
    rng = np.random.default_rng(seed)
    logits = 2 * rng.normal(size=(b, k))
    return scipy.special.softmax(logits, axis=-1), rng.integers(0, k, b)


@pytest.mark.parametrize(("successes", "count"), [(0, 7), (7, 7), (3, 7), (871, 1000)])
def test_wilson_interval_equals_scipy(successes, count):
    got = metrics.proportion(successes, count)
    expected = scipy.stats.binomtest(successes, count).proportion_ci(method="wilson")
    np.testing.assert_allclose((got.low, got.high), expected, atol=1e-12)
    assert (got.value, got.n) == (successes / count, count)
    assert 0 <= got.low <= got.value <= got.high <= 1


def test_accuracy():
    assert metrics.accuracy([1, 2, 3, 4], [1, 2, 0, 4])[0] == 0.75


def test_f_correct_of_an_oracle_and_of_a_constant_router():
    assert metrics.f_correct([0, 0, 0], "clean").value == 1
    assert metrics.f_correct([1, 1], "shift").value == 1
    heads = np.array([0, 1, 1, 2])
    assert metrics.f_correct(heads, "clean").value == 0.25
    assert metrics.f_correct(heads, "shift").value == 0.5


def test_mean_has_a_normal_interval_within_the_values():
    values = np.random.default_rng(0).exponential(size=400)
    got = metrics.mean(values)
    half = scipy.stats.norm.ppf(0.975) * values.std() / 20
    assert got.value == pytest.approx(values.mean()) and got.n == 400
    assert (got.low, got.high) == (
        pytest.approx(values.mean() - half),
        pytest.approx(values.mean() + half),
    )
    assert metrics.mean([1.0, 1.0, 0.0]).high == 1.0
    equal = [0.40228624957798276] * 3  # whose mean NumPy rounds to a smaller number
    assert np.mean(equal) < equal[0] == metrics.mean(equal).value == metrics.mean(equal).low


@pytest.mark.parametrize("bins", [1, 10, 15])
def test_ece_equals_a_loop_over_bins(bins):
    probs, labels = predictions()
    confidence, correct = probs.max(axis=1), probs.argmax(axis=1) == labels
    expected = 0.0
    for i in range(bins):
        inside = (confidence > i / bins) & (confidence <= (i + 1) / bins)
        if inside.any():
            gap = correct[inside].mean() - confidence[inside].mean()
            expected += inside.mean() * abs(gap)
    got = metrics.ece(confidence, correct, bins)
    assert got.value == pytest.approx(expected)
    assert 0 <= got.low < got.value < got.high


def test_ece_of_calibrated_and_of_certain_predictions():
    assert metrics.ece(np.ones(4), np.ones(4, bool)).value == 0
    assert metrics.ece(np.ones(4), np.zeros(4, bool)).value == 1


def test_intervals_of_ece_and_aurc_cover_the_value_of_the_population():
    rng = np.random.default_rng(0)
    hits = {"ece": 0, "aurc": 0}
    for _ in range(200):
        confidence = rng.uniform(0.5, 1, 1000)
        correct = rng.random(1000) < confidence - 0.2  # so the gap is .2 in every bin
        ece, aurc = metrics.ece(confidence, correct, 5), metrics.aurc(-confidence, correct)
        hits["ece"] += ece.low <= 0.2 <= ece.high
        # Risk among the surest part c is .2 + c / 4: its mean over c is .325.
        hits["aurc"] += aurc.low <= 0.325 <= aurc.high
    assert 180 <= hits["ece"] <= 199
    assert 175 <= hits["aurc"] <= 199


@hypothesis.given(SCORES, SCORES)
def test_auroc_equals_sklearn_with_ties(negatives, positives):
    labels = np.repeat([0, 1], [negatives.size, positives.size])
    expected = sklearn.metrics.roc_auc_score(labels, np.concatenate([negatives, positives]))
    assert metrics.auroc(negatives, positives) == pytest.approx(expected, abs=1e-12)


@hypothesis.given(SCORES, SCORES, st.randoms(use_true_random=False))
def test_auroc_invariants(negatives, positives, random):
    value = metrics.auroc(negatives, positives)
    shuffled = list(positives)
    random.shuffle(shuffled)
    assert metrics.auroc(negatives, shuffled) == value
    assert metrics.auroc(np.exp(negatives), np.exp(positives)) == value
    assert metrics.auroc(positives, negatives) == pytest.approx(1 - value)


@hypothesis.given(SCORES, st.randoms(use_true_random=False))
def test_risk_coverage_invariants(uncertainty, random):
    correct = np.array([random.random() < 0.5 for _ in uncertainty])
    got = metrics.risk_coverage(uncertainty, correct)
    assert got.coverage[-1] == 1
    assert got.risk[-1] == pytest.approx(1 - correct.mean())
    order = list(range(correct.size))
    random.shuffle(order)
    again = metrics.risk_coverage(uncertainty[order], correct[order])
    assert again.aurc == pytest.approx(got.aurc)
    # No order of answering is better than all the right ones first.
    assert metrics.risk_coverage(~correct, correct).aurc <= got.aurc + 1e-12


def test_risk_coverage_by_hand():
    got = metrics.risk_coverage([0.1, 0.4, 0.2, 0.3], [True, False, False, True])
    np.testing.assert_allclose(got.risk, [0, 1 / 2, 1 / 3, 2 / 4])
    assert got.aurc == pytest.approx((0 + 1 / 2 + 1 / 3 + 1 / 2) / 4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: metrics.proportion(3, 2), "got 3 of 2"),
        (lambda: metrics.proportion(0, 0), "got 0 of 0"),
        (lambda: metrics.accuracy([1], [1, 2]), r"got shapes \(1,\) and \(2,\)"),
        (lambda: metrics.f_correct([0], "shifted"), "got 'shifted'; choose from clean, shift"),
        (lambda: metrics.mean([0.1, np.inf]), r"one finite number an image; got shape \(2,\)"),
        (lambda: metrics.ece([1.0], [True, False]), r"got shapes \(1,\) and \(2,\)"),
        (lambda: metrics.ece([1.0], [True], bins=0), "got 0; use 1 or more"),
        (lambda: metrics.auroc([], [1.0]), "got 0 negatives and 1 positives"),
        (lambda: metrics.auroc([np.nan], [1.0]), "got 1 NaN"),
        (lambda: metrics.risk_coverage([0.1], [True, False]), r"got shapes \(1,\) and \(2,\)"),
    ],
)
def test_promised_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_auroc_interval():
    # Standard error by hand for area .8 and 50 + 50 cases: Q1 = .66667, Q2 = .71111.
    low, high = metrics.auroc_interval(0.8, 50, 50)
    error = np.sqrt((0.16 + 49 * (0.8 / 1.2 - 0.64) + 49 * (1.28 / 1.8 - 0.64)) / 2500)
    assert low == pytest.approx(0.8 - 1.959964 * error)
    assert high == pytest.approx(0.8 + 1.959964 * error)
    assert metrics.auroc_interval(1.0, 9, 9) == (1.0, 1.0)
