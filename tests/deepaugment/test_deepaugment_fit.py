import dataclasses

import jax
import numpy as np
import pytest

from robust_jax import sharding
from robust_jax.deepaugment import fit as fit_lib
from robust_jax.deepaugment.cae import CAE
from robust_jax.deepaugment.edsr import EDSR
from robust_jax.deepaugment.fit import RECIPES, Recipe, fit, psnr

TINY = {
    "cae": Recipe(CAE(width=8, code=16, blocks=1), 300, 16, 4e-3),
    "edsr": Recipe(EDSR(width=8, blocks=1), 150, 16, 8e-3),
}


def smooth_images(count=200, side=16):
    """Soft blobs of two colours, which a small network can learn in seconds."""
    draw = np.random.default_rng(0)
    axis = np.linspace(-1, 1, side)
    centre, width = draw.uniform(-1, 1, (2, count, 1, 1)), draw.uniform(0.3, 1, (count, 1, 1))
    distance = (axis[:, None] - centre[0]) ** 2 + (axis - centre[1]) ** 2
    blob = np.exp(-distance / width**2)[..., None]
    colours = draw.uniform(0, 255, (2, count, 1, 1, 3))
    return (blob * colours[0] + (1 - blob) * colours[1]).astype(np.uint8)


def one_device():
    return sharding.make_mesh(jax.devices()[:1])


@pytest.mark.parametrize("kind", [pytest.param("cae", marks=pytest.mark.slow), "edsr"])
def test_fit_learns(kind, tmp_path):
    jax.config.update("jax_disable_most_optimizations", False)  # here it is steps that take time
    images = smooth_images()
    recipe = TINY[kind]
    params, facts = fit(kind, images, recipe=recipe, seed=0, workdir=tmp_path, mesh=one_device())
    flat = np.broadcast_to(images.mean((0, 1, 2)), images.shape)  # the mean colour of all
    assert facts["psnr"] > psnr(images, flat) + 3
    assert facts["psnr_trivial"] > 20
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))


def test_same_seed_same_network(tmp_path):
    images = smooth_images(40)
    recipe = dataclasses.replace(TINY["edsr"], total_steps=4)
    first, second, other = (
        jax.tree.leaves(
            fit(
                "edsr", images, recipe=recipe, seed=seed, workdir=tmp_path / name, mesh=one_device()
            )[0]
        )
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)
    assert any(np.any(a != b) for a, b in zip(first, other, strict=True))


def test_patches_are_cut_from_the_images_and_half_are_mirrored():
    images = np.arange(3 * 40 * 36 * 3, dtype=np.uint8).reshape(3, 40, 36, 3)
    images[:] = np.arange(40)[:, None, None] * 6 + np.arange(36)[:, None] // 2
    batches = fit_lib._patches(images, np.arange(3), 32, seed=0)
    drawn = [batch["image"] for batch in batches(0, 3)]
    assert drawn[0].shape == (32, 32, 32, 3)
    np.testing.assert_array_equal(drawn[2], next(iter(batches(2, 3)))["image"])
    rising = [image[0, -1, 0] > image[0, 0, 0] for image in np.concatenate(drawn)]
    assert 0.3 < np.mean(rising) < 0.7


def test_psnr_by_hand():
    images = np.full((2, 4, 4, 3), 100, np.uint8)
    restored = np.stack([np.full((4, 4, 3), 110.0), np.full((4, 4, 3), 101.0)])
    expected = (20 * np.log10(25.5) + 20 * np.log10(255)) / 2
    np.testing.assert_allclose(psnr(images, restored.astype(np.float32)), expected, rtol=1e-6)


def test_errors(tmp_path):
    images = smooth_images(12)
    with pytest.raises(ValueError, match="of another kind; got EDSR for 'cae'"):
        fit("cae", images, recipe=TINY["edsr"], seed=0, workdir=tmp_path)
    for kind, given, message in (
        ("gan", images, "unknown kind"),
        ("cae", images.astype(np.float32), "got float32"),
        ("cae", images[:4], "at least 10 images"),
        ("edsr", images[:, :8], "sides of 16 or more"),
    ):
        with pytest.raises(ValueError, match=message):
            fit(kind, given, seed=0, workdir=tmp_path)


def test_the_recipes_are_small():
    for kind, recipe in RECIPES.items():
        assert recipe.batch_size % 8 == 0, kind
