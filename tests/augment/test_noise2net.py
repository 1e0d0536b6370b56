"""Noise2Net against a statement of it in NumPy, and what makes it safe to use on batches."""

import jax
import key_decides
import numpy as np
import pytest
import scipy.signal
from key_decides import keys
from pillow_ops import photo

from robust_jax.augment import noise2net as module
from robust_jax.augment.noise2net import Networks, distort, draw, noise2net, noise2net_pixels


def norm(x):
    return (x - x.mean((0, 1))) / np.sqrt(x.var((0, 1)) + 1e-5)


def convolve(x, kernel, is_wide, dilation):
    """float64[h, w, 16], channel by channel, with the dilated kernel written out."""
    if is_wide:
        written_out = np.zeros((2 * dilation + 1, 2 * dilation + 1, 16, 16))
        written_out[::dilation, ::dilation] = kernel
    else:
        written_out = np.asarray(kernel, np.float64)[1:2, 1:2]
    y = np.zeros(x.shape)
    for i in range(16):
        for o in range(16):
            taps = written_out[:, :, i, o]
            y[..., o] += scipy.signal.correlate2d(x[..., i], taps, mode="same")
    return y


def block(x, expand, kernels, is_wide, dilations, project):
    """One Res2Net block with the names of the paper (Gao et al. 2019, equation 1)."""
    x1, x2, x3, x4 = np.split(np.maximum(norm(x @ np.asarray(expand, np.float64)), 0), 4, -1)
    convs = list(zip(kernels, is_wide, dilations, strict=True))
    y1 = np.maximum(norm(convolve(x1, *convs[0])), 0)
    y2 = np.maximum(norm(convolve(x2 + y1, *convs[1])), 0)
    y3 = np.maximum(norm(convolve(x3 + y2, *convs[2])), 0)
    return norm(np.concatenate([y1, y2, y3, x4], -1) @ np.asarray(project, np.float64))


def of_numpy(image, network):
    """The network of one image, in float64."""
    x = np.asarray(image, np.float64)
    for n in range(4):
        parts = network.expand, network.kernels, network.is_wide, network.dilations
        x = x + network.epsilon * block(x, *(part[n] for part in parts), network.project[n])
    return x


def normalised(count, sides=(14, 11)):
    images = np.stack([photo(*sides, i) for i in range(count)])
    return images.astype(np.float32) / 127.5 - 1


def test_networks_equal_their_statement_in_numpy():
    networks = jax.tree.map(np.asarray, draw(keys(3)))
    combinations = {
        (w, d) for w, d in zip(networks.is_wide.flat, networks.dilations.flat, strict=True)
    }
    assert combinations == {(w, d) for w in (False, True) for d in (1, 2, 3)}
    images = normalised(3)
    results = np.asarray(jax.jit(distort)(images, networks))
    for i, (image, result) in enumerate(zip(images, results, strict=True)):
        expected = of_numpy(image, Networks(*(part[i] for part in networks)))
        np.testing.assert_allclose(result, expected, atol=2e-4)


def test_a_batch_at_once_is_one_by_one(monkeypatch):
    # What runs on an accelerator: shifts and products in place of convolutions.
    images, networks = normalised(4), draw(keys(4))
    one_by_one = np.asarray(jax.jit(distort)(images, networks))
    monkeypatch.setattr(module, "each_image", jax.vmap)
    monkeypatch.setattr(jax.lax, "platform_dependent", lambda *args, cpu, default: default(*args))
    at_once = jax.jit(lambda *args: distort(*args))(images, networks)
    np.testing.assert_allclose(at_once, one_by_one, atol=2e-4)


def test_networks_have_the_published_distributions():
    d = jax.tree.map(np.asarray, draw(keys(200)))
    assert 0.375 <= d.epsilon.min() < 0.385
    assert 0.74 < d.epsilon.max() <= 0.75
    assert d.is_wide.shape == d.dilations.shape == (200, 4, 3)
    assert abs(d.is_wide.mean() - 0.5) < 0.04
    np.testing.assert_allclose(np.bincount(d.dilations.ravel())[1:] / 2400, 1 / 3, atol=0.04)
    # Uniform within 1 / sqrt(fan_in).
    for weights, fan_in in (
        (d.expand, 3),
        (d.project, 64),
        (d.kernels[d.is_wide], 144),
        (d.kernels[~d.is_wide], 16),
    ):
        limit = fan_in**-0.5
        assert np.abs(weights).max() <= limit
        np.testing.assert_allclose(weights.std(), limit / 3**0.5, rtol=0.02)
        assert abs(weights.mean()) < 0.02 * limit


def test_an_image_and_its_key_decide_on_any_batch_and_any_devices():
    key_decides.check(noise2net_pixels, np.stack([photo(16, 12, i) for i in range(8)]))


def test_images_change_but_keep_their_structure():
    images = np.stack([photo(24, 24, max(i, 1)) for i in range(12)])
    result = np.asarray(jax.jit(noise2net_pixels)(images, keys(12)))
    change = np.abs(result.astype(float) - images).mean((1, 2, 3))
    assert change.min() > 10
    assert change.max() < 90
    assert result.std((1, 2)).min() > 10
    for image, distorted in zip(images, result, strict=True):
        together = np.corrcoef(image.ravel().astype(float), distorted.ravel().astype(float))
        assert together[0, 1] > 0.2
    # The first two are one image with two keys.
    assert np.abs(result[0].astype(int) - result[1]).mean() > 10


def test_a_smaller_epsilon_distorts_less():
    images, networks, run = normalised(4), draw(keys(4)), jax.jit(distort)
    large, small = (
        np.abs(np.asarray(run(images, networks._replace(epsilon=eps * networks.epsilon))) - images)
        for eps in (1, 0.01)
    )
    assert (large.mean((1, 2, 3)) > 20 * small.mean((1, 2, 3))).all()
    assert small.mean((1, 2, 3)).min() > 0


def test_mistakes_are_errors():
    with pytest.raises(ValueError, match="max_eps is out of range; got 0; use a number above 0"):
        noise2net(normalised(1), keys(1), max_eps=0)
    with pytest.raises(ValueError, match=r"must be float32\[b, h, w, 3\]; got uint8.*; convert"):
        noise2net(np.zeros((1, 8, 8, 3), np.uint8), keys(1))
    with pytest.raises(ValueError, match=r"must be uint8\[b, h, w, 3\]; got float32.*; convert"):
        noise2net_pixels(normalised(1), keys(1))
    with pytest.raises(ValueError, match=r"one typed key an image; got .* for 2 images"):
        noise2net(normalised(2), keys(3))
