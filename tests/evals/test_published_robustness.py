"""Per-corruption errors and flips of published models give their published mCE and mFR.

ResNeXt-101 32x8d, and those trained on weakly labelled photographs (WSL; Mahajan et al. 2018), as
evaluated by Orhan 2019 (arXiv:1907.07640). The numbers are those of the files in `results/` of
github.com/eminorhan/resnext-wsl, in the order of the paper's corruptions and perturbations.
"""

import pytest

from robust_jax.evals import robustness

# Percent, the mean over the five severities.
ERRORS = {
    "32x8d": "60.0148 61.7548 65.7424 53.1404 65.6848 51.8344 56.8676 60.1100 "
    "54.6248 49.4664 28.2292 56.1248 47.5676 43.9596 38.7024",
    "32x8d_wsl": "43.7376 45.0660 47.2140 43.6356 59.5836 42.9864 50.1672 45.7008 "
    "42.4968 34.5828 21.1504 35.0904 43.2460 28.5920 30.7104",
    "32x16d_wsl": "40.4264 42.2000 46.1048 42.0632 58.7112 39.6952 45.9844 41.6524 "
    "39.4664 31.4128 19.7388 33.8156 41.8096 27.5052 28.3796",
    "32x32d_wsl": "38.7892 40.2124 41.6788 40.1732 56.0180 39.5816 45.1848 40.3848 "
    "38.0872 30.0472 18.5832 32.2772 40.8244 26.7624 28.3012",
    "32x48d_wsl": "36.5868 38.4364 39.8076 39.1164 54.8180 37.5004 44.4944 39.6656 "
    "37.8044 29.9156 18.3760 32.1096 40.2592 25.6256 26.9004",
}
# Percent, with frame 1 as the reference of the noises.
FLIPS = {
    "32x8d": "10.6260 13.1047 4.4635 3.5177 5.7836 2.6098 4.0235 5.5901 3.3125 8.8676",
    "32x8d_wsl": "7.4879 8.8866 4.0096 3.4847 5.2250 2.0071 3.4951 4.8085 3.0269 6.6761",
    "32x16d_wsl": "6.4769 7.7934 3.3303 2.8186 4.2929 1.7811 2.8993 4.1729 2.5667 5.5847",
    "32x32d_wsl": "6.0229 7.1107 3.0450 2.5539 3.8391 1.6424 2.5989 3.7272 2.3662 4.9381",
    "32x48d_wsl": "5.8465 6.9914 2.8425 2.3230 3.6669 1.5357 2.4161 3.4686 2.1485 4.6195",
}
MCE = {
    "32x8d": 66.65,
    "32x8d_wsl": 51.74,
    "32x16d_wsl": 48.79,
    "32x32d_wsl": 46.99,
    "32x48d_wsl": 45.70,
}
MFR = {
    "32x8d": 46.15,
    "32x8d_wsl": 38.76,
    "32x16d_wsl": 32.73,
    "32x32d_wsl": 29.72,
    "32x48d_wsl": 27.83,
}


def fractions(numbers, names):
    return {name: float(x) / 100 for name, x in zip(names, numbers.split(), strict=True)}


@pytest.mark.parametrize("model", MCE)
def test_published_mce(model):
    errors = fractions(ERRORS[model], robustness.ALEXNET_ERROR)
    spread = {name: [error] * 5 for name, error in errors.items()}
    assert round(100 * robustness.mce(spread), 2) == MCE[model]


@pytest.mark.parametrize("model", MFR)
def test_published_mfr(model):
    flips = fractions(FLIPS[model], robustness.ALEXNET_FLIP_PROBABILITY)
    assert round(100 * robustness.mfr(flips), 2) == MFR[model]
