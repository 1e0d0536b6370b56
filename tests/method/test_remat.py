"""Stages computed again in the backward pass: the same numbers in less memory."""

import functools

import jax
import numpy as np
import optax
import pytest
from small_students import CLASSES, KD, images, network, pairs, student

from robust_jax import models
from robust_jax.method import distillation, supervised
from robust_jax.state import TrainState

pytestmark = pytest.mark.slow

SGD = optax.sgd(1e-2, momentum=0.9)
# XLA for CPUs takes away the barriers that stop it from merging both computations of a stage. A
# compiler that keeps them, as those for GPUs and TPUs do, is what this makes of it.
KEEP_BARRIERS = {"xla_disable_hlo_passes": "cse_barrier_expander"}
NAMES = ("vit_tiny8", "resnet_small")


def initial(variables):
    others = {kind: tree for kind, tree in variables.items() if kind != "params"}
    return TrainState.create(variables["params"], SGD, others)


def batch(count):
    return {"image": images(count), "label": np.arange(count, dtype=np.int32) % CLASSES}


def check_close(found, wanted):
    difference = optax.tree.norm(jax.tree.map(lambda a, b: a - b, found, wanted))
    assert float(difference) <= 1e-6 * float(optax.tree.norm(wanted))


def programs(name, count, **fields):
    """The compiled step of full fine-tuning without and with remat, and its arguments."""
    model, entry, variables = network(name, **fields)
    args = (initial(variables), {}, batch(count))
    steps = [jax.jit(supervised.make_step(model, entry, SGD, remat=remat)) for remat in (0, 1)]
    return [step.lower(*args).compile(KEEP_BARRIERS) for step in steps], args


@pytest.mark.parametrize("name", NAMES)
def test_full_fine_tuning_has_the_same_loss_gradients_and_statistics(name):
    (plain, remat), args = programs(name, 6, **({} if "vit" in name else {"depths": (1, 1)}))
    wanted, found = plain(*args), remat(*args)
    assert found[0].model_state.keys() == wanted[0].model_state.keys()
    for part in ("params", "opt_state"):  # the state of SGD is the gradients
        check_close(getattr(found[0], part), getattr(wanted[0], part))
    if name == "resnet_small":
        check_close(found[0].model_state, wanted[0].model_state)
        before = args[0].model_state["batch_stats"]["stem"]["bn"]["mean"]
        assert np.abs(found[0].model_state["batch_stats"]["stem"]["bn"]["mean"] - before).max() > 0
    for metric, value in wanted[1].items():
        assert float(found[1][metric]) == pytest.approx(float(value), rel=1e-6), metric


@pytest.mark.parametrize("name", NAMES)
def test_the_variables_are_the_same(name):
    model, entry, variables = network(name)
    x = models.normalise(images(2), entry)
    plain, remat = (
        jax.eval_shape(functools.partial(model.init, remat=remat), jax.random.key(3), x)
        for remat in (False, True)
    )
    assert plain == remat
    apply = jax.jit(model.apply, static_argnames="remat")
    np.testing.assert_array_equal(apply(variables, x, remat=True), apply(variables, x))


@pytest.mark.parametrize(
    ("name", "fields", "limit"),
    [("vit_tiny8", {"depth": 6, "width": 96, "mlp_dim": 384}, 0.4), ("resnet_small", {}, 0.8)],
)
def test_full_fine_tuning_needs_less_memory(name, fields, limit):
    (plain, remat), _ = programs(name, 32, **fields)
    bytes_plain, bytes_remat = (p.memory_analysis().temp_size_in_bytes for p in (plain, remat))
    assert bytes_remat < limit * bytes_plain, (bytes_remat, bytes_plain)
    flops = [p.cost_analysis()["flops"] for p in (plain, remat)]
    assert 1.05 < flops[1] / flops[0] < 1.45


@pytest.mark.parametrize(
    ("name", "fields", "amount"),
    [("vit_tiny8", {"depth": 5}, 140_000), ("resnet_small", {}, 60_000)],
)
def test_the_tuned_tail_has_the_same_loss_and_gradients_in_less_memory(name, fields, amount):
    made, variables = student(name, amount, **fields)
    assert made.plan.boundary != "head"
    tuned = jax.jit(made.init)(jax.random.key(2), variables)
    found, memory = [], []
    kd = {**KD, "clean_anchor": 0.0}  # the original model's activations are not kept either way
    frozen, views = {"student": variables, "teacher": variables}, pairs(32)
    teacher = (made.model, made.entry)
    known = jax.jit(lambda f, b: distillation.features(made, f, b, teacher))(frozen, views)
    args = (
        TrainState.create(tuned, SGD),
        {"student": variables},
        {**known, "label": views["label"]},
    )
    for remat in (False, True):
        step = distillation.make_step(made, SGD, kd, seed=0, teacher=None, remat=remat)
        program = jax.jit(step).lower(*args).compile(KEEP_BARRIERS)
        found.append(program(*args))
        memory.append(program.memory_analysis().temp_size_in_bytes)
    check_close(found[1][0].params, found[0][0].params)
    check_close(found[1][0].opt_state, found[0][0].opt_state)
    assert float(found[1][1]["loss"]) == pytest.approx(float(found[0][1]["loss"]), rel=1e-6)
    assert memory[1] < 0.8 * memory[0], memory
