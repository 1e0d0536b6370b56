"""Metrics of predictions: accuracy, calibration, routing. Numpy in, fractions out.

Those of corruption and perturbation benchmarks are in `robust_jax.evals.robustness`.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

_Z_95 = 1.959963984540054


class Estimate(NamedTuple):
    """A fraction with its 95 % interval and the number n of images it was counted over."""

    value: float
    low: float
    high: float
    n: int


def proportion(successes: int, count: int) -> Estimate:
    """A fraction with its Wilson (1927) score interval, which stays in [0, 1] for small counts."""
    if not 0 <= successes <= count or count == 0:
        raise ValueError(
            f"a fraction needs 0 <= successes <= count and count > 0; got {successes} of {count}; "
            "count every image once"
        )
    value = successes / count
    shrink = 1 + _Z_95**2 / count
    centre = (value + _Z_95**2 / (2 * count)) / shrink
    half = _Z_95 * np.sqrt(value * (1 - value) / count + _Z_95**2 / (4 * count**2)) / shrink
    # Exactly 0 and 1 at the ends, which rounding would miss.
    low = 0.0 if successes == 0 else float(centre - half)
    high = 1.0 if successes == count else float(centre + half)
    return Estimate(value, low, high, int(count))


def mean_fraction(fractions: ArrayLike) -> Estimate:
    """The mean of one fraction an image, f[n], with a normal interval cut at 0 and 1."""
    values = np.asarray(fractions, np.float64)
    if values.ndim != 1 or not values.size or values.min() < 0 or values.max() > 1:
        raise ValueError(
            f"a mean needs one fraction in [0, 1] an image; got shape {values.shape}; give f[n]"
        )
    mean = float(values.mean())
    half = _Z_95 * float(values.std()) / np.sqrt(values.size)
    return Estimate(mean, max(0.0, mean - half), min(1.0, mean + half), values.size)


def accuracy(predictions: ArrayLike, labels: ArrayLike) -> Estimate:
    """The fraction predicted right. Args: predictions, labels: int[b]."""
    predictions, labels = np.asarray(predictions), np.asarray(labels)
    if predictions.shape != labels.shape or predictions.ndim != 1:
        raise ValueError(
            f"accuracy compares int[b] with int[b]; got shapes {predictions.shape} and "
            f"{labels.shape}; take the argmax and drop the padding first"
        )
    return proportion(int((predictions == labels).sum()), predictions.size)


def f_correct(heads: ArrayLike, domain: str) -> Estimate:
    """The fraction sent to the right head: clean in distribution, unclean under a shift.

    The paper's supplementary, section 1.1. The combined head, where it may answer, is never right.

    Args:
      heads: int[b], 0 clean, 1 unclean, 2 combined.
      domain: `clean` or `shift`.
    """
    right = {"clean": 0, "shift": 1}
    if domain not in right:
        raise ValueError(f"unknown domain; got {domain!r}; choose from {', '.join(right)}")
    heads = np.asarray(heads)
    return proportion(int((heads == right[domain]).sum()), heads.size)


def nll(probs: ArrayLike, labels: ArrayLike) -> float:
    """Mean negative log-likelihood, natural log. Args: probs: f[b, k]; labels: int[b]."""
    probs, labels = _check_probs(probs, labels)
    true = probs[np.arange(labels.size), labels]
    # A probability that underflowed counts as the smallest float32, not as infinitely wrong.
    return float(-np.log(np.maximum(true, np.finfo(np.float32).tiny)).mean())


def brier(probs: ArrayLike, labels: ArrayLike) -> float:
    """Mean over images of the squared distance to the one-hot label, summed over classes: [0, 2].

    Args: probs: f[b, k]; labels: int[b].
    """
    probs, labels = _check_probs(probs, labels)
    true = probs[np.arange(labels.size), labels]
    return float(((probs**2).sum(axis=1) - 2 * true + 1).mean())


def ece(probs: ArrayLike, labels: ArrayLike, bins: int = 15) -> float:
    """Expected calibration error (Guo et al. 2017), over equal bins (low, high] of confidence.

    Args: probs: f[b, k]; labels: int[b]; bins: at least 1.
    """
    if bins < 1:
        raise ValueError(f"ECE needs bins; got {bins}; use 1 or more (15 is usual)")
    probs, labels = _check_probs(probs, labels)
    confidence = probs.max(axis=1)
    correct = probs.argmax(axis=1) == labels
    bin_of = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    gap = np.bincount(bin_of, weights=correct - confidence, minlength=bins)
    return float(np.abs(gap).sum() / labels.size)


def auroc(negatives: ArrayLike, positives: ArrayLike) -> float:
    """The probability that a positive scores above a negative; a tie counts one half. Exact.

    Args: negatives, positives: f[n], f[m]; for routing, the scores of clean and of shifted images.
    """
    negatives, positives = np.asarray(negatives).ravel(), np.asarray(positives).ravel()
    if not negatives.size or not positives.size:
        raise ValueError(
            f"AUROC needs both kinds; got {negatives.size} negatives and {positives.size} "
            "positives; give at least one of each"
        )
    scores = np.concatenate([negatives, positives])
    if np.isnan(scores).any():
        raise ValueError(f"AUROC ranks scores; got {np.isnan(scores).sum()} NaN; check the logits")
    _, group, counts = np.unique(scores, return_inverse=True, return_counts=True)
    mean_rank = np.cumsum(counts) - (counts - 1) / 2
    ranks = mean_rank[group][negatives.size :].sum()
    pairs_won = ranks - positives.size * (positives.size + 1) / 2
    return float(pairs_won / (negatives.size * positives.size))


def auroc_interval(area: float, num_negatives: int, num_positives: int) -> tuple[float, float]:
    """The 95 % interval of an AUROC (Hanley & McNeil 1982), clipped to [0, 1].

    Args:
      area: the AUROC.
      num_negatives, num_positives: independent cases; versions of one image are one case.
    """
    one = area / (2 - area)
    two = 2 * area**2 / (1 + area)
    spread = area * (1 - area)
    spread += (num_positives - 1) * (one - area**2) + (num_negatives - 1) * (two - area**2)
    half = 1.959964 * np.sqrt(max(spread, 0.0) / (num_negatives * num_positives))
    return max(0.0, float(area - half)), min(1.0, float(area + half))


class RiskCoverage(NamedTuple):
    """Error among the surest images, as more are answered; `aurc` is its mean over coverage."""

    coverage: np.ndarray
    risk: np.ndarray
    aurc: float


def risk_coverage(uncertainty: ArrayLike, correct: ArrayLike) -> RiskCoverage:
    """The risk-coverage curve of selective prediction (Geifman & El-Yaniv 2017), and its area.

    Images of equal uncertainty share their error, so their order in the data does not matter.

    Args:
      uncertainty: f[b], the smallest is answered first.
      correct: bool[b].

    Returns:
      coverage f[b] = 1/b … 1, risk f[b], and their area in [0, 1].
    """
    uncertainty, correct = np.asarray(uncertainty), np.asarray(correct)
    if uncertainty.shape != correct.shape or uncertainty.ndim != 1 or not correct.size:
        raise ValueError(
            f"risk and coverage need f[b] and bool[b]; got shapes {uncertainty.shape} and "
            f"{correct.shape}; give one value of each per image"
        )
    _, group, counts = np.unique(uncertainty, return_inverse=True, return_counts=True)
    group_error = np.bincount(group, weights=~correct.astype(bool)) / counts
    answered = np.arange(1, correct.size + 1)
    risk = np.cumsum(np.repeat(group_error, counts)) / answered
    return RiskCoverage(answered / correct.size, risk, float(risk.mean()))


def _check_probs(probs: ArrayLike, labels: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    probs, labels = np.asarray(probs, np.float64), np.asarray(labels)
    if probs.ndim != 2 or labels.shape != probs.shape[:1] or not labels.size:
        raise ValueError(
            f"expected probs f[b, k] and labels int[b]; got shapes {probs.shape} and "
            f"{labels.shape}; drop the padding and give at least one image"
        )
    if not np.allclose(probs.sum(axis=1), 1, atol=1e-3):
        raise ValueError(
            f"probabilities must sum to 1; got a sum of {probs.sum(axis=1).max():.4g}; "
            "apply softmax to logits first"
        )
    return probs, labels
