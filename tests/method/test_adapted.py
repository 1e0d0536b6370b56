import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robust_jax import models
from robust_jax.method import budget
from robust_jax.method.adapted import Adapted, robustified
from robust_jax.method.selection import HEADS
from robust_jax.method.student import Student
from robust_jax.models import normalise

SMALL = {
    "vit_tiny8": {"width": 48, "depth": 2, "mlp_dim": 192},
    "resnet_small": {"base_width": 8, "depths": (1, 1, 1, 1)},
}
IMAGES = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), np.uint8)


def shaken(tree, seed, scale=0.1):
    """As if trained: no zeros, no two copies alike."""
    leaves, form = jax.tree.flatten(tree)
    rng = np.random.default_rng(seed)
    return form.unflatten([x + scale * jnp.abs(rng.normal(size=x.shape)) for x in leaves])


CASES = [
    ("vit_tiny8", "tail", 30_000),
    ("vit_tiny8", "none", 60_000),
    ("resnet_small", "tail", 60_000),
]


@pytest.fixture(scope="module", params=CASES, ids=lambda case: "-".join(map(str, case)))
def tuned_student(request):
    name, share, amount = request.param
    model, entry = models.build(name, 10, **SMALL[name]), models.entry(name)
    init = jax.jit(model.init)
    frozen = shaken(init(jax.random.key(1), model.example_input()), 0, 0.03)
    plan = budget.resolve(
        model, frozen["params"], amount, num_classes=10, heads_share=0.2, share=share
    )
    assert plan.freed and plan.adapter_width
    student = Student(model, entry, plan, 10, HEADS, share, 0.25)
    tuned = student.init(jax.random.key(2), frozen)
    # The last matrices of the heads stay zero, so that their logits tell the feature.
    return student, frozen, {**tuned, "shared": shaken(tuned["shared"], 1)}


def test_feature_is_that_of_the_tuned_student(tuned_student):
    student, frozen, tuned = tuned_student
    z = student.trunk(frozen, jnp.asarray(IMAGES))
    want = student.tail(frozen, tuned, z)
    said = []
    for head in HEADS:
        network, variables = robustified(student, frozen, tuned, head)
        x = normalise(jnp.asarray(IMAGES), student.entry)
        said.append(network.apply(variables, x))
        np.testing.assert_allclose(said[-1], want[head], rtol=1e-4, atol=1e-4)
        feature = network.apply(variables, z, start=student.plan.boundary, stop="head")
        last = variables["params"]["head"]
        logits = feature @ last["kernel"] + last["bias"]
        np.testing.assert_allclose(logits, want[head], rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(
            network.apply(variables, x, stop=student.plan.boundary), z, rtol=1e-4, atol=1e-4
        )
    assert float(jnp.abs(said[0] - student.original(frozen, z)).max()) > 1e-2
    alike = bool(jnp.array_equal(said[0], said[1]))
    assert alike == (student.share == "tail")


def test_statistics_of_the_batch_are_returned(tuned_student):
    student, frozen, tuned = tuned_student
    network, variables = robustified(student, frozen, tuned, "clean")
    x = normalise(jnp.asarray(IMAGES), student.entry)
    names = [name for name in variables if name != "params"]
    logits, state = network.apply(variables, x, train=True, mutable=names)
    plain, wanted = student.model.apply(variables, x, train=True, mutable=names)
    jax.tree.map(np.testing.assert_array_equal, state, wanted)
    assert logits.shape == plain.shape
    assert not np.allclose(logits, plain)  # the adapter


def test_without_an_adapter_it_is_the_network(tuned_student):
    student, frozen, _ = tuned_student
    x = normalise(jnp.asarray(IMAGES), student.entry)
    np.testing.assert_array_equal(
        Adapted(student.model).apply(frozen, x), student.model.apply(frozen, x)
    )
    plan = dataclasses.replace(student.plan, adapter_width=0)
    bare = dataclasses.replace(student, plan=plan)
    tuned = bare.init(jax.random.key(0), frozen)
    assert robustified(bare, frozen, tuned, "clean")[0].adapter is None
