"""Small networks and students with parameters as if trained, and batches for them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from robust_jax import models
from robust_jax.method import budget
from robust_jax.method.selection import HEADS
from robust_jax.method.student import Student

CLASSES = 10
KD = {
    "weight": 0.5,
    "temperature": 2.0,
    "weighting": "teacher_entropy",
    "heads": HEADS,
    "clean_anchor": 0.1,
}
FIELDS = {
    "vit_tiny8": {"width": 48, "depth": 2, "mlp_dim": 192},
    "resnet_small": {"base_width": 8, "depths": (1, 1, 1, 1)},
}


@functools.cache
def network(name, dtype="float32", **fields):
    """A model, its entry, and variables without the zeros and ones of a new one."""
    model = models.build(name, CLASSES, dtype=dtype, **(FIELDS[name] | fields))
    variables = jax.jit(model.init)(jax.random.key(1), model.example_input())
    variables = jax.tree.map(
        lambda x: x + 0.05 * jnp.abs(jax.random.normal(jax.random.key(x.size), x.shape)), variables
    )
    return model, models.entry(name), variables


def student(name, amount, share="tail", rate=0.25, **fields):
    """A student and the variables of its original model."""
    model, entry, variables = network(name, **fields)
    plan = budget.resolve(
        model, variables["params"], amount, num_classes=CLASSES, heads_share=0.2, share=share
    )
    return Student(model, entry, plan, CLASSES, HEADS, share, rate), variables


def images(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 32, 32, 3), np.uint8)


def pairs(count, seed=0):
    """A batch of the three-head step."""
    label = np.random.default_rng(seed).integers(0, CLASSES, count, np.int32)
    return {"clean": images(count, 2 * seed), "aug": images(count, 2 * seed + 1), "label": label}
