"""Metrics of predictions: accuracy, calibration, routing. Numpy in, fractions out.

Those of corruption and perturbation benchmarks are in `robust_jax.evals.robustness`.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

_Z_95 = 1.959963984540054
_MOST_PARTS = 10**6  # bins, blocks
_ROUNDING = 1e-3  # of probabilities that were summed in half precision


class Estimate(NamedTuple):
    """A fraction with its 95 % interval and the number n of images it was counted over."""

    value: float
    low: float
    high: float
    n: int


def proportion(successes: int, count: int) -> Estimate:
    """A fraction with its Wilson (1927) score interval, which stays in [0, 1] for small counts."""
    if not (_is_count(successes) and _is_count(count) and successes <= count and count > 0):
        raise ValueError(
            f"a fraction needs 0 <= successes <= count and count > 0; got {successes!r:.40} of "
            f"{count!r:.40}; count every image once"
        )
    value = successes / count
    shrink = 1 + _Z_95**2 / count
    centre = (value + _Z_95**2 / (2 * count)) / shrink
    half = _Z_95 * np.sqrt(value * (1 - value) / count + _Z_95**2 / (4 * count**2)) / shrink
    # Exactly 0 and 1 at the ends, which rounding would miss.
    low = 0.0 if successes == 0 else float(centre - half)
    high = 1.0 if successes == count else float(centre + half)
    return Estimate(value, low, high, int(count))


def mean(values: ArrayLike) -> Estimate:
    """The mean of one number an image, f[n], with a normal interval within the values' range."""
    values = _numbers(values, "a mean")
    # What is larger has no square, which its interval needs.
    if values.ndim != 1 or not values.size or not (np.abs(values) < 1e150).all():
        raise ValueError(
            f"a mean needs one finite number an image; got shape {values.shape}; give f[n], n >= 1"
        )
    # The mean of equal numbers may be rounded to another one.
    average = float(np.clip(values.mean(), values.min(), values.max()))
    half = _Z_95 * float(values.std()) / np.sqrt(values.size)
    low, high = max(values.min(), average - half), min(values.max(), average + half)
    return Estimate(average, float(low), float(high), values.size)


def accuracy(predictions: ArrayLike, labels: ArrayLike) -> Estimate:
    """The fraction predicted right. Args: predictions, labels: int[b]."""
    predictions, labels = _whole(predictions, "accuracy"), _whole(labels, "accuracy")
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
    if domain not in tuple(right):
        raise ValueError(f"unknown domain; got {domain!r}; choose from {', '.join(right)}")
    heads = _whole(heads, "routing")
    return proportion(int((heads == right[domain]).sum()), heads.size)


def ece(confidence: ArrayLike, correct: ArrayLike, bins: int = 15) -> Estimate:
    """Expected calibration error (Guo et al. 2017), over equal bins (low, high] of confidence.

    The interval is the normal one at the signs of the bins' gaps that were found; of few images the
    error itself is biased upwards.

    Args: confidence: f[n], of the answers; correct: bool[n]; bins: at least 1.
    """
    if not _is_count(bins) or not 1 <= bins <= _MOST_PARTS:
        raise ValueError(f"ECE needs bins; got {bins!r:.40}; use 1 or more (15 is usual)")
    confidence, correct = _check_answers(confidence, correct)
    if confidence.min() < 0 or confidence.max() > 1 + _ROUNDING:
        raise ValueError(
            f"a confidence is a probability; got {confidence.min()} to {confidence.max()}; give "
            "softmax outputs, not logits"
        )
    gaps = correct - confidence
    bin_of = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    sums = np.bincount(bin_of, weights=gaps, minlength=bins)
    found = mean(np.sign(sums)[bin_of] * gaps)
    return found._replace(low=max(0.0, found.low))


def auroc(negatives: ArrayLike, positives: ArrayLike) -> float:
    """The probability that a positive scores above a negative; a tie counts one half. Exact.

    Args: negatives, positives: f[n], f[m]; for routing, the scores of clean and of shifted images.
    """
    negatives = _numbers(negatives, "AUROC").ravel()
    positives = _numbers(positives, "AUROC").ravel()
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
    counts = num_negatives, num_positives
    if not isinstance(area, int | float | np.floating) or not 0 <= area <= 1:
        raise ValueError(f"an AUROC lies in [0, 1]; got {area!r:.40}; give that of `auroc`")
    if not all(_is_count(count) and count > 0 for count in counts):
        raise ValueError(
            f"the interval of an AUROC needs cases of both kinds; got {counts!r:.80}; count them"
        )
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
    uncertainty, correct = _check_answers(uncertainty, correct)
    _, group, counts = np.unique(uncertainty, return_inverse=True, return_counts=True)
    group_error = np.bincount(group, weights=~correct) / counts
    answered = np.arange(1, correct.size + 1)
    risk = np.cumsum(np.repeat(group_error, counts)) / answered
    return RiskCoverage(answered / correct.size, risk, float(risk.mean()))


def aurc(uncertainty: ArrayLike, correct: ArrayLike, blocks: int = 10) -> Estimate:
    """The area under the risk-coverage curve, with the interval of a delete-a-block jackknife.

    Args: uncertainty, correct: as for `risk_coverage`; blocks: at least 2, of images in turn.
    """
    if not _is_count(blocks) or not 2 <= blocks <= _MOST_PARTS:
        raise ValueError(f"a jackknife needs blocks; got {blocks!r:.40}; use 2 or more (10)")
    uncertainty, correct = _check_answers(uncertainty, correct)
    area, count = risk_coverage(uncertainty, correct).aurc, len(correct)
    parts = min(blocks, count)
    block = np.arange(count) % parts
    kept = [block != one for one in range(parts)] if parts > 1 else []
    areas = [risk_coverage(uncertainty[k], correct[k]).aurc for k in kept]
    half = _Z_95 * np.sqrt((parts - 1) * np.var(areas)) if areas else 1.0
    return Estimate(area, max(0.0, float(area - half)), min(1.0, float(area + half)), count)


def _check_answers(score: ArrayLike, correct: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    score, correct = _numbers(score, "a score"), _whole(correct, "right or wrong")
    if score.shape != correct.shape or score.ndim != 1 or not correct.size:
        raise ValueError(
            f"expected f[n] and bool[n], one of each an image; got shapes {score.shape} and "
            f"{correct.shape}; drop the padding and give at least one image"
        )
    if np.isnan(score).any() or (correct.astype(bool) != correct).any():
        raise ValueError(
            f"expected a score and right (1) or wrong (0) for each image; got "
            f"{np.isnan(score).sum()} NaN and values up to {correct.max()}; check the logits"
        )
    return score, correct.astype(bool)


def _numbers(values: ArrayLike, what: str) -> np.ndarray:
    """Returns f64, of numbers or truth values of any shape."""
    return _plain(values, "biuf", f"{what} needs numbers").astype(np.float64)


def _whole(values: ArrayLike, what: str) -> np.ndarray:
    """Returns whole numbers or truth values of any shape."""
    values = _plain(values, "biuf", f"{what} needs whole numbers")
    if values.size and values.dtype.kind == "f":  # an empty list counts as floats
        raise ValueError(
            f"{what} needs whole numbers; got {values.dtype}{list(values.shape)}; give an array of "
            "integers"
        )
    return values


def _plain(values: ArrayLike, kinds: str, needs: str) -> np.ndarray:
    try:
        found = np.asarray(values)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ValueError(f"{needs}; got what is no array ({error}); give an array") from error
    if found.dtype.kind not in kinds:
        raise ValueError(f"{needs}; got {found.dtype}{list(found.shape)}; give an array of them")
    return found


def _is_count(value: Any) -> bool:
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    return whole and 0 <= value < 2**53
