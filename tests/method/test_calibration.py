"""Calibration against grid searches, brute force and scikit-learn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from robust_jax.method import calibration, selection
from robust_jax.method.selection import HEADS, SelectionConfig


def sampled(seed, b=600, k=4, s=5, sharpness=1.0, noise=0.1):
    """Logits that are right about their labels at temperature `sharpness`: [s, b, k], [b]."""
    rng = np.random.default_rng(seed)
    logits = 2 * rng.normal(size=(b, k))
    labels = (logits + rng.gumbel(size=(b, k))).argmax(axis=1)
    return (sharpness * (logits + noise * rng.normal(size=(s, b, k)))).astype(np.float32), labels


@pytest.mark.parametrize("sharpness", [0.4, 1.0, 3.0])
def test_temperature_undoes_overconfidence(sharpness):
    logits, labels = sampled(0, b=4000, sharpness=sharpness)
    assert calibration.fit_temperature(logits, labels) == pytest.approx(sharpness, rel=0.1)


def test_temperature_is_the_best_of_a_grid():
    logits, labels = sampled(1, noise=1.0, sharpness=2.0)
    grid = np.linspace(0.5, 5, 451)
    nll = [
        -np.log(
            scipy.special.softmax(logits / t, -1).mean(0)[np.arange(labels.size), labels]
        ).mean()
        for t in grid
    ]
    best = grid[np.argmin(nll)]
    assert calibration.fit_temperature(logits, labels) == pytest.approx(best, abs=0.011)


def test_separable_data_stay_in_bounds():
    logits = np.eye(3, dtype=np.float32)[None] * 5
    assert np.exp(-3) <= calibration.fit_temperature(logits, np.arange(3)) < 0.2


@pytest.mark.parametrize("seed", range(5))
def test_threshold_is_the_best_of_all(seed):
    rng = np.random.default_rng(seed)
    # Rounded, so that ties within and between the kinds are frequent.
    clean, shifted = rng.normal(0, 1, 40).round(1), rng.normal(0.7, 1, 25).round(1)
    got = calibration.fit_threshold(clean, shifted)

    def f_correct(t):
        return ((clean <= t).mean() + (shifted > t).mean()) / 2

    every = np.concatenate([clean, shifted, [-9, 9]])
    assert f_correct(got) == pytest.approx(max(f_correct(t) for t in every))
    assert got not in every


def test_threshold_is_a_midpoint():
    assert calibration.fit_threshold([0.0, 1.0], [3.0, 4.0]) == 2.0
    assert calibration.fit_threshold([0.0], [0.0]) in (-1.0, 1.0)


def held_out(seed=0, b=300):
    """Heads whose mutual information tells clean from shifted: three with noise of their own."""
    clean, shifted = [], []
    for i, (on_clean, on_shifted) in enumerate([(0.1, 2.0), (1.0, 0.5), (0.3, 0.3)]):
        clean.append(sampled(seed, b, sharpness=2, noise=on_clean)[0])
        shifted.append(sampled(seed + 1, b, sharpness=1 + i, noise=on_shifted)[0])
    labels = sampled(seed, b)[1], sampled(seed + 1, b)[1]
    return np.stack(clean), labels[0], np.stack(shifted), labels[1]


def pooled(data):
    """Logits and labels of both kinds of images together."""
    return np.concatenate([data[0], data[2]], axis=2), np.concatenate([data[1], data[3]])


@pytest.mark.parametrize("score", ["product", "uncertainty", "max_logit"])
def test_calibrate_raises_f_correct(score):
    config = SelectionConfig(score=score)
    data = held_out()
    temperatures = calibration.fit_temperatures(*pooled(data))
    fitted = calibration.calibrate(data[0], data[2], temperatures, config)
    unset = calibration.Calibration(fitted.temperatures, config=config)

    def f_correct(c):
        heads = [selection.predict(jnp.asarray(x), config, c)["head"] for x in (data[0], data[2])]
        return (np.mean(heads[0] == 0) + np.mean(heads[1] == 1)) / 2

    assert f_correct(fitted) >= f_correct(unset)
    assert set(fitted.temperatures) == set(HEADS)
    if score != "max_logit":
        assert f_correct(fitted) > 0.7
    logits, labels = pooled(data)
    assert temperatures["unclean"] == calibration.fit_temperature(logits[1], labels)
    assert fitted.temperatures == temperatures


def test_calibrated_gate_routes_and_survives_json():
    config = SelectionConfig(score="gate")
    data = held_out()
    rng = np.random.default_rng(0)
    statistics = [rng.normal(size=(300, 8)) + m for m in (0, 0.8)]
    temperatures = calibration.fit_temperatures(*pooled(data))
    fitted = calibration.calibrate(data[0], data[2], temperatures, config, *statistics)
    read = calibration.Calibration.from_json(fitted.to_json())
    assert read.config == config and read.temperatures == fitted.temperatures
    for logits, seen, right in ((data[0], statistics[0], 0), (data[2], statistics[1], 1)):
        answers = [
            jax.jit(selection.predict, static_argnums=1)(logits, config, c, jnp.asarray(seen))
            for c in (fitted, read)
        ]
        assert (answers[0]["head"] == right).mean() > 0.85
        np.testing.assert_array_equal(answers[0]["routing_score"], answers[1]["routing_score"])


@pytest.mark.parametrize("score", ["product", "gate"])
def test_a_threshold_keeps_a_share_of_clean_images(score):
    config = SelectionConfig(score=score, keep_clean=0.9)
    fit, fresh = held_out(), held_out(seed=2, b=2000)
    rng = np.random.default_rng(0)
    statistics = [rng.normal(size=(300, 8)) + m for m in (0, 0.8)]
    temperatures = calibration.fit_temperatures(*pooled(fit))
    fitted = calibration.calibrate(fit[0], fit[2], temperatures, config, *statistics)
    seen = jnp.asarray(rng.normal(size=(2000, 8)))
    heads = selection.predict(jnp.asarray(fresh[0]), config, fitted, seen)["head"]
    # Three deviations of a quantile of 300 images and of a share of 2,000.
    assert np.mean(heads == 0) == pytest.approx(0.9, abs=0.055)


def test_keeping_threshold_keeps_no_less():
    scores = np.array([3.0, 1.0, 2.0, 4.0])
    for share, most in ((0.25, 1), (0.5, 3), (0.51, 3), (1.0, 4)):
        got = calibration.keeping_threshold(scores, share)
        assert got <= most and (scores <= got).mean() >= share
    for wrong in (0.0, 1.1):
        with pytest.raises(ValueError, match=r"a share in \(0, 1\]"):
            calibration.keeping_threshold(scores, wrong)
    with pytest.raises(ValueError, match="give those of held-out clean images"):
        calibration.keeping_threshold(np.array([]), 0.5)


def test_json_without_gate():
    fitted = calibration.Calibration(dict.fromkeys(HEADS, 1 / 3), threshold=0.1 + 0.2)
    assert calibration.Calibration.from_json(fitted.to_json()) == fitted


def test_promised_errors():
    with pytest.raises(ValueError, match=r"got \(2, 3\) and \(2,\)"):
        calibration.fit_temperature(np.zeros((2, 3)), np.zeros(2, int))
    with pytest.raises(ValueError, match="0 clean and 1 shifted"):
        calibration.fit_threshold([], [1.0])
    with pytest.raises(ValueError, match="must be finite"):
        calibration.fit_threshold([np.nan], [1.0])
    with pytest.raises(ValueError, match="pass statistics_clean and statistics_shifted"):
        clean, _, shifted, _ = held_out(b=10)
        temperatures = dict.fromkeys(HEADS, 1.0)
        calibration.calibrate(clean, shifted, temperatures, SelectionConfig(score="gate"))
    with pytest.raises(ValueError, match="not a calibration"):
        calibration.Calibration.from_json('{"temperatures": {}}')
