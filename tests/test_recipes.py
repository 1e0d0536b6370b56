"""Recipes of teachers: valid configs with the published settings."""

import pytest

from configs import folder, recipes
from robust_jax import config as config_lib
from robust_jax import validation


@pytest.mark.parametrize("name", ["", *recipes.RECIPES])
def test_every_recipe_is_valid(name):
    config = folder.get_config(f"recipe={name}")
    validation.validate(config, config_lib.base())
    runlocal = folder.get_config(f"recipe={name},runlocal")
    validation.validate(runlocal, config_lib.base())
    assert runlocal.teacher.total_steps == 4


def test_published_settings():
    cifar, imagenet, deep, both = (
        folder.get_config(f"recipe={name}").teacher
        for name in (
            "augmix_cifar",
            "augmix_imagenet",
            "deepaugment_imagenet",
            "deepaugment_augmix_imagenet",
        )
    )
    assert (cifar.learning_rate, cifar.weight_decay, cifar.batch_size) == (0.1, 5e-4, 128)
    assert (cifar.schedule, cifar.total_epochs, cifar.jsd_weight) == ("cosine", 100, 12)
    assert (imagenet.learning_rate, imagenet.weight_decay, imagenet.schedule) == (0.1, 1e-4, "step")
    assert (imagenet.batch_size, imagenet.loss) == (256, "augmix_jsd")
    # Three sets of equal size, 30 epochs of them together.
    assert deep.mixture.to_dict() == {
        "clean": 1, "augment_ops": 0, "deepaugment": 2, "noise2net": 0, "chained": 0,
    }  # fmt: skip
    assert (deep.total_epochs, deep.batch_size, deep.loss) == (90, 1024, "cross_entropy")
    assert (both.mixture.augment_ops, both.mixture.chained, both.loss) == (1, 2, "augmix_jsd")


def test_an_unknown_recipe_is_told():
    with pytest.raises(ValueError, match=r"unknown recipe; got 'augmux'; use one of small, "):
        folder.get_config("recipe=augmux")
