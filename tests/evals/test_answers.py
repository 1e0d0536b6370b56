import jax
import numpy as np
import pytest
import scipy.special
import scipy.stats
import sklearn.metrics

from robust_jax.evals.answers import summarise


def answers(b=200, k=7):
    rng = np.random.default_rng(0)
    probs = scipy.special.softmax(2 * rng.normal(size=(b, k)), axis=-1).astype(np.float32)
    return probs, rng.integers(0, k, b)


def test_against_sklearn_and_ranks():
    probs, labels = answers()
    got = jax.device_get(jax.jit(summarise)(probs, labels))
    np.testing.assert_array_equal(got["label"], probs.argmax(1))
    np.testing.assert_array_equal(got["confidence"], probs.max(1))
    assert got["nll"].mean() == pytest.approx(sklearn.metrics.log_loss(labels, probs), rel=1e-5)
    squares = ((probs - np.eye(7)[labels]) ** 2).sum(axis=1)
    np.testing.assert_allclose(got["brier"], squares, atol=1e-6)
    ranks = scipy.stats.rankdata(-probs, "ordinal", axis=1)
    for row, rank in zip(got["top5"], ranks, strict=True):
        np.testing.assert_array_equal(rank[row], [1, 2, 3, 4, 5])


def test_equal_probabilities_rank_in_class_order():
    got = summarise(np.full((1, 6), 1 / 6, np.float32), np.array([0]))
    np.testing.assert_array_equal(got["top5"], [[0, 1, 2, 3, 4]])


def test_few_classes_have_no_top5_and_a_certain_mistake_is_finite():
    got = summarise(np.array([[1.0, 0.0]], np.float32), np.array([1]))
    assert set(got) == {"label", "confidence", "nll", "brier"}
    assert got["nll"][0] == pytest.approx(-np.log(np.finfo(np.float32).tiny))
    assert got["brier"][0] == 2
