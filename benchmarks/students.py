"""The student that benchmarks measure: random weights, the budget "auto", heads on one tail."""

from typing import Any

import jax

from robust_jax import models
from robust_jax.method import budget
from robust_jax.method.selection import HEADS
from robust_jax.method.student import Student

RATE = 0.25  # of dropout
# Cross-entropy alone: nothing is measured of a teacher.
KD = {
    "weight": 0.0,
    "temperature": 1.0,
    "weighting": "none",
    "heads": HEADS,
    "clean_anchor": 0.0,
}


def build(
    name: str, num_classes: int, heads: tuple[str, ...] = HEADS, **options: Any
) -> tuple[Student, dict[str, Any]]:
    """Returns a student and the variables of its network.

    Args:
      name: key of `models.MODELS`.
      num_classes: k.
      heads: that it has.
      **options: of `models.build`.
    """
    model = models.build(name, num_classes, **options)
    variables = dict(jax.jit(model.init)(jax.random.key(0), model.example_input()))
    size = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    plan = budget.resolve(
        model,
        variables["params"],
        budget.target("auto", name, size),
        num_classes=num_classes,
        heads_share=0.2,
        share="tail",
    )
    return Student(model, models.entry(name), plan, num_classes, heads, "tail", RATE), variables
