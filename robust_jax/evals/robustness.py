"""Metrics of ImageNet-C and ImageNet-P (Hendrycks & Dietterich 2019). Numpy in, fractions out.

A published mCE of 38.8 is 0.388 here. AlexNet normalisers exist for ImageNet-C and -P only;
elsewhere report `mean_corruption_error` and the mean flip probability under those names.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

IMAGENET_C_SIZE = 224  # side of its images, and of ImageNet-P's
# AlexNet's error on ImageNet-C, averaged over the five severities, and on clean ImageNet: the
# values of the authors' evaluation code (github.com/hendrycks/robustness, per severity in its
# issue 10).
ALEXNET_ERROR = {
    "gaussian_noise": 0.886428,
    "shot_noise": 0.894468,
    "impulse_noise": 0.922640,
    "defocus_blur": 0.819880,
    "glass_blur": 0.826268,
    "motion_blur": 0.785948,
    "zoom_blur": 0.798360,
    "snow": 0.866816,
    "frost": 0.826572,
    "fog": 0.819324,
    "brightness": 0.564592,
    "contrast": 0.853204,
    "elastic_transform": 0.646056,
    "pixelate": 0.717840,
    "jpeg_compression": 0.606500,
}
ALEXNET_CLEAN_ERROR = 0.4348

# AlexNet's flip probability on ImageNet-P. The authors' code does not hold it (their issue 49
# links a sheet); these give the published mFR of 27.8 for the flips that ResNeXt-101 32x48d WSL
# ships.
ALEXNET_FLIP_PROBABILITY = {
    "gaussian_noise": 0.2365,
    "shot_noise": 0.3006,
    "motion_blur": 0.0930,
    "zoom_blur": 0.0594,
    "snow": 0.1193,
    "brightness": 0.0489,
    "translate": 0.1101,
    "rotate": 0.1310,
    "tilt": 0.0705,
    "scale": 0.2353,
}

SEVERITIES = 5


def mean_corruption_error(errors: Mapping[str, Sequence[float]]) -> float:
    """Mean over corruptions of the mean error over severities; not normalised by AlexNet.

    Args: errors: corruption -> five errors in [0, 1], severity 1 first.
    """
    return float(np.mean(list(_average_errors(errors).values())))


def mce(errors: Mapping[str, Sequence[float]]) -> float:
    """mCE of ImageNet-C: the mean over the 15 corruptions of error relative to AlexNet's.

    Args: errors: as in `mean_corruption_error`, of exactly the corruptions of `ALEXNET_ERROR`.
    Returns: 1 for AlexNet; times 100 is what papers print.
    """
    average = _average_errors(errors)
    _check_names(average, ALEXNET_ERROR, "mCE", "mean_corruption_error")
    return float(np.mean([average[c] / alexnet for c, alexnet in ALEXNET_ERROR.items()]))


def relative_mce(errors: Mapping[str, Sequence[float]], clean_error: float) -> float:
    """Relative mCE of ImageNet-C: as `mce`, on what each corruption adds to the clean error.

    Args: errors: as in `mce`; clean_error: in [0, 1].
    """
    average = _average_errors(errors)
    _check_names(average, ALEXNET_ERROR, "relative mCE", "mean_corruption_error")
    ratios = [
        (average[c] - clean_error) / (alexnet - ALEXNET_CLEAN_ERROR)
        for c, alexnet in ALEXNET_ERROR.items()
    ]
    return float(np.mean(ratios))


def flip_rates(predictions: Sequence[ArrayLike], noise: bool = False) -> list[float]:
    """The fraction of each sequence's frames whose prediction flips; its mean is FP of ImageNet-P.

    Args:
      predictions: one int[f] per sequence, f at least 2; lengths may differ.
      noise: frames of a noise sequence are independent draws, not steps, and are compared with
        frame 1 (the clean image) instead of the frame before.
    """
    sequences = [np.asarray(frames) for frames in predictions]
    _check_frames([frames.shape for frames in sequences], ndim=1)
    return [
        float(np.mean(frames[1:] != (frames[0] if noise else frames[:-1]))) for frames in sequences
    ]


def mfr(flip_probabilities: Mapping[str, float]) -> float:
    """Mean flip rate of ImageNet-P: flip probability relative to AlexNet's.

    Args: flip_probabilities: perturbation -> [0, 1], exactly those of `ALEXNET_FLIP_PROBABILITY`.
    Returns: 1 for AlexNet; times 100 is what papers print.
    """
    _check_names(flip_probabilities, ALEXNET_FLIP_PROBABILITY, "mFR", "the mean flip probability")
    ratios = [flip_probabilities[p] / alexnet for p, alexnet in ALEXNET_FLIP_PROBABILITY.items()]
    return float(np.mean(ratios))


def top5_distances(top5: Sequence[ArrayLike], noise: bool = False) -> list[float]:
    """T5D of ImageNet-P, not normalised: how far the five best classes move between frames.

    `Σ_{i=1..5} |(i-1) - min(σ(i)-1, 5)|`, where σ(i) is the new rank of the class ranked i. Mean
    over the frames of each sequence.

    Args:
      top5: one int[f, 5] per sequence, f at least 2: the classes, best first.
      noise: as in `flip_rates`.

    Returns:
      One distance in [0, 15] per sequence.
    """
    sequences = [np.asarray(frames) for frames in top5]
    _check_frames([frames.shape for frames in sequences], ndim=2)
    return [_sequence_top5_distance(frames, noise) for frames in sequences]


def _sequence_top5_distance(top5: np.ndarray, noise: bool) -> float:
    before, after = (top5[:1] if noise else top5[:-1]), top5[1:]
    same = before[:, :, None] == after[:, None, :]
    new_rank = np.where(same.any(2), same.argmax(2), 5)  # 5 stands for all lower ranks
    return float(np.abs(np.arange(5) - new_rank).sum(axis=1).mean())


def _average_errors(errors: Mapping[str, Sequence[float]]) -> dict[str, float]:
    if not errors:
        raise ValueError("no corruption was evaluated; got no errors; evaluate at least one")
    for name, values in errors.items():
        if len(values) != SEVERITIES or not all(0 <= value <= 1 for value in values):
            raise ValueError(
                f"{name} needs {SEVERITIES} errors in [0, 1], one a severity; got {list(values)}; "
                "evaluate every severity and give fractions"
            )
    return {name: float(np.mean(values)) for name, values in errors.items()}


def _check_names(
    got: Mapping[str, float], expected: Mapping[str, float], metric: str, alternative: str
) -> None:
    if set(got) != set(expected):
        raise ValueError(
            f"{metric} is defined on exactly {len(expected)} names; got "
            f"missing {sorted(set(expected) - set(got))}, extra {sorted(set(got) - set(expected))};"
            f" evaluate those, or report {alternative}"
        )


def _check_frames(shapes: Sequence[tuple[int, ...]], ndim: int) -> None:
    if not shapes:
        raise ValueError("no sequence was evaluated; got none; give at least one")
    for shape in shapes:
        if len(shape) != ndim or shape[0] < 2 or (ndim == 2 and shape[1] != 5):
            axes = "[f], f >= 2" if ndim == 1 else "[f, 5], f >= 2"
            raise ValueError(f"a sequence is {axes}; got shape {shape}; give one array a sequence")
