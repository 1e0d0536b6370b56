"""Metrics of ImageNet-C and -P against golden numbers and scipy."""

import numpy as np
import pytest
import scipy.stats

from robust_jax.evals import robustness

SEQUENCES = [[0, 1, 1, 0, 0], [2] * 5, [3, 4, 5, 3, 3]]


def test_mce_golden():
    errors = {name: [0.3] * 5 for name in robustness.ALEXNET_ERROR}
    assert 100 * robustness.mce(errors) == pytest.approx(38.8035, abs=1e-4)
    assert 100 * robustness.relative_mce(errors, 0.1) == pytest.approx(65.1234, abs=1e-4)
    assert robustness.mean_corruption_error(errors) == pytest.approx(0.3)


def test_alexnet_against_itself_is_one():
    errors = {name: [error] * 5 for name, error in robustness.ALEXNET_ERROR.items()}
    assert robustness.mce(errors) == pytest.approx(1)
    assert robustness.relative_mce(errors, robustness.ALEXNET_CLEAN_ERROR) == pytest.approx(1)
    assert robustness.mfr(robustness.ALEXNET_FLIP_PROBABILITY) == pytest.approx(1)


def test_only_the_sum_over_severities_counts():
    errors = {name: [0.1, 0.2, 0.3, 0.4, 0.5] for name in robustness.ALEXNET_ERROR}
    assert 100 * robustness.mce(errors) == pytest.approx(38.8035, abs=1e-4)


def test_mfr_is_a_mean_of_ratios():
    half = {name: p / 2 for name, p in robustness.ALEXNET_FLIP_PROBABILITY.items()}
    half["scale"] *= 3
    assert robustness.mfr(half) == pytest.approx((9 * 0.5 + 1.5) / 10)


def test_flip_probability_golden():
    rates = robustness.flip_rates(SEQUENCES)
    assert np.mean(rates) == pytest.approx(0.416667, abs=1e-6)
    assert np.mean(robustness.flip_rates(SEQUENCES, noise=True)) == pytest.approx(1 / 3)
    assert robustness.flip_rates([[0, 1], [2, 2, 2]]) == [1, 0]


def logits_of(order):
    """Logits of 60 classes that rank them in `order`."""
    logits = np.empty(60)
    logits[order] = np.arange(60, 0, -1)
    return logits


def swapped(i, j):
    order = np.arange(60)
    order[[i - 1, j - 1]] = j - 1, i - 1
    return order


@pytest.mark.parametrize(
    ("order", "distance"),
    [
        (np.arange(60), 0),
        (swapped(1, 2), 2),
        (swapped(5, 6), 1),
        (swapped(1, 10), 5),
        (np.r_[4:-1:-1, 5:60], 12),
        (np.arange(60)[::-1], 15),
        (swapped(6, 51), 0),
    ],
)
def test_top5_distance_golden(order, distance):
    frames = np.stack([logits_of(np.arange(60)), logits_of(order)])
    top5 = np.argsort(-frames, axis=1, kind="stable")[:, :5]
    assert robustness.top5_distances([top5]) == [distance]
    assert robustness.top5_distances([top5], noise=True) == [distance]


@pytest.mark.parametrize("noise", [False, True])
def test_top5_distance_equals_a_loop_over_ranks(noise):
    logits = np.random.default_rng(0).normal(size=(3, 6, 12)).round(1)
    distances = []
    for frames in logits:
        along = []
        ranks = [scipy.stats.rankdata(-frame, "ordinal") for frame in frames]
        for j in range(1, 6):
            before, after = ranks[0 if noise else j - 1], ranks[j]
            sigma = [after[np.flatnonzero(before == i)[0]] for i in range(1, 6)]
            along.append(sum(abs(i - min(sigma[i] - 1, 5)) for i in range(5)))
        distances.append(np.mean(along))
    top5 = np.argsort(-logits, axis=2, kind="stable")[:, :, :5]
    assert robustness.top5_distances(top5, noise) == pytest.approx(distances)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: robustness.mce({"fog": [0.1] * 5}), r"missing \['brightness', .* extra \[\]"),
        (lambda: robustness.relative_mce({"x": [0.1] * 5}, 0.1), r"extra \['x'\]; evaluate"),
        (lambda: robustness.mean_corruption_error({"fog": [0.1] * 4}), "fog needs 5 errors"),
        (lambda: robustness.mean_corruption_error({"fog": [30.0] * 5}), r"errors in \[0, 1\]"),
        (lambda: robustness.mean_corruption_error({}), "no corruption was evaluated"),
        (lambda: robustness.mfr({"tilt": 0.1}), "mFR is defined on exactly 10 names"),
        (lambda: robustness.flip_rates([]), "no sequence was evaluated"),
        (lambda: robustness.flip_rates([[1]]), r"\[f\], f >= 2; got shape \(1,\)"),
        (lambda: robustness.top5_distances([np.ones((3, 4))]), r"f >= 2; got shape \(3, 4\)"),
    ],
)
def test_promised_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()
