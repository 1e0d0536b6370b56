import numpy as np
import pytest
from scipy.special import softmax
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from robust_jax import sharding
from robust_jax.method import probe


def blobs(n, rng, spread=1.0, k=4, d=12):
    centres = np.random.default_rng(0).normal(size=(k, d))
    labels = rng.integers(k, size=n)
    z = centres[labels] + spread * rng.normal(size=(n, d))
    # Features of very different scales, and one that is always zero.
    z = (z + np.linspace(-2, 2, d)) * np.logspace(-3, 3, d)
    z[:, 5] = 0
    return z.astype(np.float32), labels


def test_equals_scikit_learn_at_the_same_penalty(monkeypatch):
    rng = np.random.default_rng(1)
    z, labels = blobs(300, rng)
    monkeypatch.setattr(probe, "PENALTIES", (1e-2,))
    head, chosen = probe.fit(z, labels, (z, labels), 4)
    kept = np.delete(z.astype(np.float64), 5, axis=1)
    scaled = kept / np.sqrt(np.mean(kept**2, axis=0))
    # C counts the sum over examples, the penalty their mean.
    want = LogisticRegression(C=1 / (300 * 1e-2), tol=1e-8, max_iter=2000).fit(scaled, labels)
    logits = z.astype(np.float64) @ head["kernel"].astype(np.float64) + head["bias"]
    probs = np.exp(logits - logits.max(axis=1, keepdims=True))
    probs /= probs.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(probs, want.predict_proba(scaled), atol=2e-3)
    assert chosen["penalty"] == 1e-2
    assert not head["kernel"][5].any()


def test_held_out_images_choose_the_penalty():
    rng = np.random.default_rng(2)
    z, labels = blobs(60, rng, spread=4.0)  # few and noisy: a strong penalty is better
    held_out = blobs(4000, rng, spread=4.0)
    head, chosen = probe.fit(z, labels, held_out, 4)
    assert chosen["penalty"] > probe.PENALTIES[-1]
    answers = (held_out[0] @ head["kernel"] + head["bias"]).argmax(axis=1)
    # Folding the scale into the kernel may turn a tie.
    assert chosen["held_out_accuracy"] == pytest.approx(np.mean(answers == held_out[1]), abs=2e-3)
    assert chosen["held_out_accuracy"] > 0.3


def objective(found, z, labels, penalty):
    """In double precision."""
    kernel, bias = np.float64(found.kernel), np.float64(found.bias)
    entropy = log_loss(labels, softmax(z @ kernel + bias, axis=1), labels=range(len(bias)))
    return entropy + penalty / 2 * np.sum(kernel**2)


@pytest.mark.parametrize("c", [1e-4, 1e-2, 1.0, 100.0])
def test_solvers_reach_the_same_minimum(c):
    z, labels = load_digits(return_X_y=True)
    z = ((z - z.mean()) / z.std()).astype(np.float32)[:1001]  # uneven over the devices
    labels = labels[:1001]
    penalty = 1 / (c * len(labels))
    one = probe.ScikitLearn(z, labels, 10).fit(penalty)
    other = probe.FullBatch(z, labels, 10, sharding.make_mesh()).fit(penalty)
    assert one.converged and other.converged
    values = [objective(found, z, labels, penalty) for found in (one, other)]
    assert values[1] == pytest.approx(values[0], rel=1e-4)
    assert np.mean(one.answers(z) == other.answers(z)) >= 0.999


def test_solvers_agree_on_two_classes():
    rng = np.random.default_rng(3)
    z = rng.normal(size=(200, 6)).astype(np.float32)
    labels = (z @ rng.normal(size=6) + rng.normal(size=200) > 0.3).astype(int)
    fits = [make(z, labels, 2).fit(0.05) for make in probe.SOLVERS.values()]
    np.testing.assert_allclose(fits[0].kernel, fits[1].kernel, atol=1e-4)
    differences = [found.bias[1] - found.bias[0] for found in fits]
    assert differences[0] == pytest.approx(differences[1], abs=1e-4)


def test_a_solver_begins_where_it_ended_and_ends_at_the_same_minimum():
    z, labels = blobs(200, np.random.default_rng(4))
    z = z / np.abs(z).max(axis=0).clip(1e-9)
    for make in probe.SOLVERS.values():
        warm = make(z, labels, 4)
        for penalty in (1.0, 1e-4, 1e-2):
            last = warm.fit(penalty)
        fresh = make(z, labels, 4).fit(1e-2)
        np.testing.assert_allclose(last.kernel, fresh.kernel, atol=1e-3)


def test_steps_are_limited_and_it_is_told(monkeypatch):
    monkeypatch.setattr(probe, "MAX_STEPS", 3)
    z, labels = blobs(200, np.random.default_rng(4))
    assert not any(make(z, labels, 4).fit(1e-6).converged for make in probe.SOLVERS.values())


def test_choice_of_the_solver():
    assert probe.choose_solver("auto", np.empty((1000, 100))) == "sklearn"
    assert probe.choose_solver("auto", np.broadcast_to(0.0, (50_000, 768))) == "jax"
    assert probe.choose_solver("jax", np.empty(0)) == "jax"
    with pytest.raises(ValueError, match=r"unknown solver; got 'svm'; use auto or one of sklearn"):
        probe.choose_solver("svm", np.empty(0))
    with pytest.raises(ValueError, match=r"classes that it sees; got 2 of 3; .*'jax'"):
        probe.ScikitLearn(np.zeros((4, 2)), np.array([0, 1, 0, 1]), 3)
