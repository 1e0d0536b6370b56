"""Distorted copies have the same pixels whatever number of devices makes them."""

import jax
import numpy as np
import pytest
from pillow_ops import photo

from robust_jax import distort, sharding
from robust_jax.augment.augmix import augmix
from robust_jax.augment.batching import on_mesh
from robust_jax.deepaugment.cae import CAE
from robust_jax.deepaugment.edsr import EDSR

B = 8
MODELS = {"cae": CAE(width=4, code=8, blocks=1), "edsr": EDSR(width=4, blocks=2)}
SECTION = {"faithful": False, "edsr_shrink": 2}


@pytest.fixture(autouse=True)
def quick_compilation():
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def images():
    return np.stack([photo(16, 20, i) for i in range(B)])


def seeds():
    return np.stack([np.full(B, 2**31 - 1), np.arange(B)], 1).astype(np.int32)


def check(make, *args):
    """Compares a batched function of one device with that of four, and gives its answer."""
    one, four = (
        make(sharding.make_mesh(jax.devices()[:count]))(images(), *args) for count in (1, 4)
    )
    assert len(one.sharding.device_set) == 1
    assert len(four.sharding.device_set) == 4
    assert one.dtype == np.uint8
    assert one.shape == images().shape
    np.testing.assert_array_equal(one, four)
    return np.asarray(one)


def random_params(model):
    draw = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: distort.published.init_params(model, 0))
    return jax.tree.map(lambda s: draw.normal(size=s.shape, scale=0.2).astype(np.float32), shapes)


@pytest.mark.parametrize("kind", ["cae", pytest.param("edsr", marks=pytest.mark.slow)])
def test_deepaugment(kind):
    network = distort.Network(MODELS[kind], random_params(MODELS[kind]), {})
    run, params, _ = distort._deepaugment(kind, network, SECTION)
    made = check(lambda mesh: on_mesh(run, mesh, params), seeds())
    assert len({image.tobytes() for image in made}) == B


def test_noise2net():
    run, params, _ = distort._noise2net(0.75)
    made = check(lambda mesh: on_mesh(run, mesh, params), seeds())
    change = np.abs(made.astype(int) - images()).mean((1, 2, 3))
    assert change.min() > 5


def test_augmix():
    keys = jax.random.split(jax.random.key(0), B)
    made = check(lambda mesh: on_mesh(lambda *args: augmix(*args, severity=3), mesh), keys)
    assert (made != images()).any()


def test_what_made_the_images_is_told():
    """The manifest of copies holds it, so that other networks are noticed."""
    network = distort.Network
    params = {kind: random_params(model) for kind, model in MODELS.items()}
    found = [
        distort._deepaugment("edsr", network(MODELS["edsr"], params["edsr"], {}), section)[2]
        for section in (SECTION, SECTION | {"edsr_shrink": 4}, SECTION | {"faithful": True})
    ]
    other = jax.tree.map(lambda x: x + 1, params["edsr"])
    found.append(distort._deepaugment("edsr", network(MODELS["edsr"], other, {}), SECTION)[2])
    assert [{k: v for k, v in f.items() if k not in ("model", "weights")} for f in found] == [
        {"faithful": False, "shrink": 2},
        {"faithful": False, "shrink": 4},
        {"faithful": True, "shrink": 2},
        {"faithful": False, "shrink": 2},
    ]
    assert found[0]["weights"] == found[1]["weights"] != found[3]["weights"]
    cae = distort._deepaugment("cae", network(MODELS["cae"], params["cae"], {}), SECTION)[2]
    assert cae.keys() == {"model", "weights", "faithful"}
    assert cae["model"] != found[0]["model"]
