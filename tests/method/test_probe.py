import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

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
