"""The gate against what is known of two normal distributions."""

import jax
import numpy as np
import pytest
import sklearn.metrics

from robust_jax.method.gate import fit_gate


def test_separates_and_its_seed_fixes_it():
    rng = np.random.default_rng(0)
    shift = np.array([1.5, 0, 0, 0])
    scale = np.array([1, 100, 0.01, 0])  # a constant input must not divide by zero
    clean, shifted = (scale * (rng.normal(size=(200, 4)) + m) for m in (0, shift))
    gate, _ = fit_gate(clean, shifted, seed=3)
    again, _ = fit_gate(clean, shifted, seed=3)
    np.testing.assert_array_equal(gate.weights, again.weights)
    held_out = [scale * (rng.normal(size=(500, 4)) + m) for m in (0, shift)]
    odds = np.asarray(jax.jit(lambda gate, x: gate(x))(gate, np.concatenate(held_out)))
    # The Bayes optimum of two unit normals 1.5 apart is 0.856.
    assert sklearn.metrics.roc_auc_score(np.repeat([0, 1], 500), odds) > 0.82
    assert ((odds > 0) == np.repeat([False, True], 500)).mean() > 0.74


def test_counts_both_kinds_the_same():
    rng = np.random.default_rng(0)
    gate, _ = fit_gate(rng.normal(0, 1, (900, 1)), rng.normal(1, 1, (90, 1)))
    # The odds are even half way between the two means, however many images each has.
    assert gate(np.array([[0.5]], np.float32)) == pytest.approx(0, abs=0.2)


@pytest.mark.parametrize("seed", range(3))
def test_unseen_log_odds_are_those_of_new_images(seed):
    # More inputs than images: a gate knows its own images too well.
    rng = np.random.default_rng(seed)
    clean, shifted = rng.normal(size=(2, 40, 60))
    shifted[:, 0] += 1
    gate, unseen = fit_gate(clean, shifted)
    own, fresh = (np.mean(np.asarray(gate(x)) < 0) for x in (clean, rng.normal(size=(2000, 60))))
    assert unseen.shape == (40,)
    assert own > fresh + 0.15
    assert np.mean(unseen < 0) == pytest.approx(fresh, abs=0.16)  # two deviations of 40 images


def test_needs_images_of_each_kind():
    with pytest.raises(ValueError, match=r"got \(2, 4\) and \(9, 4\)"):
        fit_gate(np.zeros((2, 4)), np.zeros((9, 4)))
