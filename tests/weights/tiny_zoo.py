"""Networks of every family that are small enough to test, and students made of them."""

import dataclasses

import jax
import numpy as np

from robust_jax import models
from robust_jax.method import budget
from robust_jax.method.student import Student
from robust_jax.weights.network import Network

VIT = {"width": 32, "depth": 2, "num_heads": 2, "mlp_dim": 64, "patch_size": 8}
WORDS = {"width": 16, "depth": 1, "num_heads": 2, "embed_dim": 16, "vocab_size": 40, "context": 9}
TINY = {  # name -> name in the zoo, and what differs
    "tiny_vit": ("vit_s16", VIT),
    "tiny_dinov2": ("dinov2_vits14", VIT),
    "tiny_clip": ("clip_vit_b16", {**VIT, "projection": 16}),
    "tiny_clip_resnet": (
        "clip_rn50",
        {"depths": (1, 1, 1, 1), "num_heads": 4, "embed_dim": 16, "base_width": 8},
    ),
    "tiny_resnet": ("resnet50", {"depths": (1, 1), "base_width": 8}),
    "tiny_basic": ("resnet18", {"depths": (1, 2), "base_width": 8}),
    "tiny_swin": (
        "swin_tiny",
        {"embed_dim": 8, "depths": (1, 2), "num_heads": (1, 2), "window": 2},
    ),
    "tiny_efficientnet": ("efficientnet_lite0", {}),
}


def add(monkeypatch):
    """Makes the names known during a test."""
    for name, (like, changes) in TINY.items():
        row = models.entry(like)
        words = {**row.text_kwargs, **WORDS} if row.text_family else {}
        row = dataclasses.replace(
            row,
            name=name,
            kwargs={**row.kwargs, **changes},
            text_kwargs=words,
            input_size=32,
            resize=36,
        )
        monkeypatch.setitem(models.MODELS, name, row)


def made_network(name, num_classes=10, image_size=32, seed=0, text=True, **fields):
    """A network of the zoo with random arrays; without a classifier for 0 classes."""
    row = models.entry(name)
    row = dataclasses.replace(row, kwargs={**row.kwargs, **fields})
    model = models.build(row, max(1, num_classes), image_size=image_size)
    rng = np.random.default_rng(seed)

    def filled(module, example):
        shapes = jax.eval_shape(module.init, jax.random.key(0), example)

        def values(path, shape):
            noise = rng.standard_normal(shape.shape).astype(np.float32)
            last = jax.tree_util.keystr(path[-1:], simple=True)
            if last == "var":
                return np.exp(0.3 * noise)
            # Large enough to be seen, and small enough to stay away from overflow.
            return 1 + 0.3 * noise if last == "scale" else 0.2 * noise

        return jax.tree_util.tree_map_with_path(values, shapes)

    tower = models.build_text(row) if row.text_family and text else None
    words = (tower, filled(tower, np.zeros((1, 3), np.int32))) if tower else None
    network = Network(row, model, filled(model, model.example_input()), words)
    return network if num_classes else network.without_classifier()


def made_student(given, share="tail", part=0.3):
    """A student whose heads are random, and its trees."""
    model, row, frozen = given.model, given.entry, given.variables
    count = 10
    total = sum(leaf.size for leaf in jax.tree.leaves(frozen["params"]))
    plan = budget.resolve(
        model,
        frozen["params"],
        round(part * total),
        num_classes=count,
        heads_share=0.4,
        share=share,
    )
    made = Student(model, row, plan, count, ("clean", "unclean", "combined"), share, 0.25)
    tuned = jax.device_get(made.init(jax.random.key(0), frozen))
    rng = np.random.default_rng(5)
    shaken = jax.tree.map(lambda a: a + 0.1 * rng.standard_normal(a.shape).astype(a.dtype), tuned)
    return made, frozen, shaken
