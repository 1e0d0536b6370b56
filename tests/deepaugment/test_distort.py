import functools

import jax
import numpy as np
import pytest

from robust_jax.deepaugment import published
from robust_jax.deepaugment.cae import CAE
from robust_jax.deepaugment.distort import ACTIVATION_CHANGES, WEIGHT_CHANGES, distort
from robust_jax.deepaugment.edsr import EDSR

MODELS = {"cae": CAE(width=4, code=8, blocks=1), "edsr": EDSR(width=4, blocks=2)}
B = 6


@functools.cache
def params_of(kind):
    draw = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: published.init_params(MODELS[kind], 0))
    return jax.tree.map(lambda s: draw.normal(size=s.shape, scale=0.2).astype(np.float32), shapes)


def images(seed=0, side=(18, 17)):
    smooth = np.random.default_rng(seed).random((B, *side, 3)).cumsum(1).cumsum(2)
    return (255 * smooth / smooth.max((1, 2), keepdims=True)).astype(np.uint8)


def seeds(first=0):
    return np.stack([np.full(B, 7), np.arange(first, first + B)], 1).astype(np.int32)


def run(kind, pixels=None, numbers=None, **options):
    pixels = images() if pixels is None else pixels
    numbers = seeds() if numbers is None else numbers
    return np.asarray(distort(kind, MODELS[kind], params_of(kind), pixels, numbers, **options))


@pytest.mark.parametrize("kind", MODELS)
def test_an_image_depends_on_its_pixels_and_its_seed_only(kind):
    out = run(kind)
    assert out.dtype == np.uint8 and out.shape == images().shape
    order = np.asarray([3, 1, 5, 0, 2, 4])
    np.testing.assert_array_equal(run(kind, images()[order], seeds()[order]), out[order])
    others, numbers = images(seed=1), seeds(100)
    others[2], numbers[4] = images()[2], seeds()[2]
    others[4] = images()[2]
    again = run(kind, others, numbers)
    np.testing.assert_array_equal(again[4], out[2])  # in another place, among other images
    assert np.any(again[2] != out[2])  # another seed
    assert all(np.any(a != b) for a, b in zip(out, run(kind, images(seed=1)), strict=True))


@pytest.mark.parametrize("kind", MODELS)
def test_nothing_perturbed(kind):
    out = run(kind, weights="none", activations="none")
    if kind == "edsr":
        np.testing.assert_array_equal(
            out, run(kind, numbers=seeds(100), weights="none", activations="none")
        )
        pixels = np.pad(images(), ((0, 0), (0, 2), (0, 3), (0, 0)), mode="edge").astype(np.float32)
        small = jax.image.resize(pixels, (B, 5, 5, 3), "linear")
        expected = MODELS[kind].apply({"params": params_of(kind)}, small)
        expected = np.clip(np.asarray(expected), 0, 255)[:, :18, :17]
        assert np.abs(out - expected).max() <= 0.51
        cut = run(kind, weights="none", activations="none", faithful=True)
        assert (cut - expected).min() >= -1.01 and (cut - expected).max() <= 0.01
    else:  # bits are drawn
        assert np.any(out != run(kind, numbers=seeds(100), weights="none", activations="none"))


@pytest.mark.parametrize(
    "kind, weights, activations",
    [
        ("cae", "flip_filters", "none"),
        ("cae", "none", "scale_bits"),
        ("edsr", "convolve_noise", "none"),
        ("edsr", "none", "skip_blocks"),
    ],
)
def test_faithful_differs(kind, weights, activations):
    options = {"weights": weights, "activations": activations}
    faithful, meant = (run(kind, faithful=value, **options) for value in (True, False))
    floor = run(kind, faithful=True, weights="none", activations="none").astype(int)
    assert np.abs(faithful - floor).max() > 1  # more than the rounding
    # This decoder of random weights answers weakly to its inner layers.
    assert np.abs(faithful.astype(int) - meant).max() > (0 if kind == "cae" else 1)


def test_shrink_keeps_detail():
    pixels = images(side=(16, 16))
    sharp, coarse = (
        run("edsr", pixels, weights="none", activations="none", shrink=shrink) for shrink in (2, 4)
    )
    assert sharp.shape == coarse.shape == pixels.shape
    assert np.any(sharp != coarse)


def test_every_perturbation_has_a_name():
    assert {k: len(v) for k, v in WEIGHT_CHANGES.items()} == {"cae": 9, "edsr": 17}
    assert {k: len(v) for k, v in ACTIVATION_CHANGES.items()} == {"cae": 9, "edsr": 7}


@pytest.mark.parametrize(
    "change, message",
    [
        ({"kind": "gan"}, "unknown kind of network; got 'gan'"),
        ({"model": MODELS["edsr"]}, "of another kind; got EDSR for 'cae'"),
        ({"images": images().astype(np.float32)}, r"uint8\[b, h, w, 3\]; got float32"),
        ({"images": images(side=(12, 18))}, "too small"),
        ({"seeds": seeds()[:3]}, r"one seed of two integers an image; got \[3, 2\] for 6"),
        ({"weights": "laplace_4"}, "unknown perturbation of cae; got 'laplace_4'; use drawn, none"),
        ({"activations": "skip_blocks"}, "unknown perturbation of cae"),
        ({"shrink": 2}, "got shrink=2 for cae"),
    ],
)
def test_errors(change, message):
    given = {
        "kind": "cae",
        "model": MODELS["cae"],
        "params": params_of("cae"),
        "images": images(),
        "seeds": seeds(),
        **change,
    }
    with pytest.raises(ValueError, match=message):
        distort(**given)
