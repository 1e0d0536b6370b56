"""One optimizer step over a batch in parts is that over the batch at once."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from small_students import CLASSES, KD, images, network, pairs, student

from robust_jax import models, sharding
from robust_jax.method import distillation, losses, supervised
from robust_jax.state import TrainState

SGD = optax.sgd(1e-2, momentum=0.9)  # its state is the sum of the gradients


def whole(variables):
    others = {kind: tree for kind, tree in variables.items() if kind != "params"}
    return TrainState.create(variables["params"], SGD, others)


def labelled(count, seed=0):
    views = {"image": images(count, seed), "aug1": images(count, seed + 50)}
    label = np.arange(count, dtype=np.int32) % CLASSES
    return {**views, "aug2": images(count, seed + 90), "label": label}


def taught(made, variables, count, seeds, *, cached):
    """What the three-head step does not tune, and batches for it."""
    frozen, teacher = {"student": variables, "teacher": variables}, (made.model, made.entry)
    batches = [pairs(count, seed) for seed in seeds]
    if not cached:
        return frozen, batches
    features = jax.jit(lambda batch: distillation.features(made, frozen, batch, teacher))
    return {"student": variables}, [{**features(b), "label": b["label"]} for b in batches]


def error(found, wanted):
    """Norm of the difference of two trees, relative to theirs."""
    difference = jax.tree.map(lambda a, b: a - b, found, wanted)
    return float(optax.tree.norm(difference) / optax.tree.norm(wanted))


def check_equal(found, wanted):
    for name in ("params", "opt_state"):
        assert 0 < error(getattr(found[0], name), getattr(wanted[0], name)) < 1e-6, name
    assert found[1].keys() == wanted[1].keys()
    for name, value in wanted[1].items():
        assert float(found[1][name]) == pytest.approx(float(value), rel=1e-6, abs=2e-7), name


@pytest.mark.parametrize(
    "loss",
    [pytest.param(v, marks=pytest.mark.slow) if v == "augmix_jsd" else v for v in supervised.VIEWS],
)
def test_full_fine_tuning_in_parts_takes_the_same_steps(loss):
    model, entry, variables = network("vit_tiny8")
    found = []
    for parts in (1, 4):
        step = jax.jit(supervised.make_step(model, entry, SGD, loss=loss, accum_steps=parts))
        state = whole(variables)
        for i in range(3):
            state, metrics = step(state, {}, labelled(8, i))
        found.append((state, metrics))
    check_equal(found[1], found[0])


@pytest.mark.parametrize(
    ("share", "cached"),
    [
        ("tail", False),
        pytest.param("none", True, marks=pytest.mark.slow),
        pytest.param("tail", True, marks=pytest.mark.slow),
        pytest.param("none", False, marks=pytest.mark.slow),
    ],
)
def test_tuning_in_parts_takes_the_same_steps(share, cached):
    made, variables = student("vit_tiny8", 30_000, share, rate=0.0)
    tuned = jax.jit(made.init)(jax.random.key(2), variables)
    frozen, batches = taught(made, variables, 6, range(3), cached=cached)
    found = []
    for parts in (1, 3):
        teacher = None if cached else (made.model, made.entry)
        options = {"seed": 0, "teacher": teacher, "accum_steps": parts}
        step = jax.jit(distillation.make_step(made, SGD, KD, **options))
        state = TrainState.create(tuned, SGD)
        for batch in batches:
            state, metrics = step(state, frozen, batch)
        found.append((state, metrics))
    assert {"loss_unclean_aug", "anchor_clean"} <= found[0][1].keys()
    check_equal(found[1], found[0])


def test_each_part_draws_dropout_masks_of_its_own():
    made, variables = student("vit_tiny8", 30_000)
    tuned = jax.jit(made.init)(jax.random.key(2), variables)
    frozen, (batch,) = taught(made, variables, 2, [0], cached=True)
    kd = {**KD, "weight": 0.0, "clean_anchor": 0.0}
    step = distillation.make_step(made, SGD, kd, seed=5, teacher=None, accum_steps=2)
    _, metrics = jax.jit(step)(TrainState.create(tuned, SGD), frozen, batch)
    step_key, expected = jax.random.fold_in(jax.random.key(5), 0), []
    for i in range(2):
        z = jnp.stack([batch["z_clean"][i], batch["z_aug"][i]])
        logits = jax.jit(made.tail)(variables, tuned, z, jax.random.fold_in(step_key, i))
        one = losses.three_head_loss(
            {head: value[:1] for head, value in logits.items()},
            {head: value[1:] for head, value in logits.items()},
            batch["label"][i : i + 1],
            None,
            None,
            kd,
        )
        expected.append(float(one[0]))
    assert float(metrics["loss"]) == pytest.approx(np.mean(expected), rel=1e-5)


def test_batch_norm_statistics_are_updated_part_after_part():
    model, entry, variables = network("resnet_small", depths=(1, 1))
    batch = labelled(8)
    step = jax.jit(supervised.make_step(model, entry, SGD, accum_steps=2))
    state, _ = step(whole(variables), {}, batch)
    apply = jax.jit(functools.partial(model.apply, train=True, mutable=["batch_stats"]))
    statistics = variables["batch_stats"]
    for i in range(2):
        _, changed = apply(
            {"params": variables["params"], "batch_stats": statistics},
            models.normalise(batch["image"][i::2], entry),
        )
        statistics = changed["batch_stats"]
    for found, wanted in zip(
        jax.tree.leaves(state.model_state["batch_stats"]), jax.tree.leaves(statistics), strict=True
    ):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_one_part_is_the_step_without_a_loop():
    model, entry, variables = network("vit_tiny8")
    state, batch = whole(variables), labelled(4)
    texts = {
        parts: str(
            jax.make_jaxpr(supervised.make_step(model, entry, SGD, accum_steps=parts))(
                state, {}, batch
            )
        )
        for parts in (1, 2)
    }
    assert " scan[" in texts[2] and " scan[" not in texts[1]


def memory(step, *args):
    return jax.jit(step).lower(*args).compile().memory_analysis().temp_size_in_bytes


@pytest.mark.slow
def test_full_fine_tuning_in_parts_needs_the_memory_of_one():
    model, entry, variables = network("vit_tiny8")
    args = (whole(variables), {}, labelled(64))
    found = {
        parts: memory(supervised.make_step(model, entry, SGD, accum_steps=parts), *args)
        for parts in (1, 8)
    }
    assert found[8] < 0.25 * found[1], found


@pytest.mark.slow
def test_tuning_on_images_in_parts_needs_the_memory_of_one():
    made, variables = student("vit_tiny8", 30_000)
    state = TrainState.create(jax.jit(made.init)(jax.random.key(2), variables), SGD)
    frozen, (batch,) = taught(made, variables, 64, [0], cached=False)
    options = {"seed": 0, "teacher": (made.model, made.entry)}
    found = {
        parts: memory(
            distillation.make_step(made, SGD, KD, **options, accum_steps=parts),
            *(state, frozen, batch),
        )
        for parts in (1, 8)
    }
    assert found[8] < 0.4 * found[1], found


def test_on_a_mesh_only_sums_leave_a_device():
    model, entry, variables = network("vit_tiny8")
    mesh, batch = sharding.make_mesh(), labelled(16)
    step = jax.jit(supervised.make_step(model, entry, SGD, accum_steps=2))
    alone, _ = step(whole(variables), {}, batch)
    everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    state = jax.device_put(whole(variables), everywhere)
    program = step.lower(state, {}, sharding.shard_batch(batch, mesh)).compile()
    text = program.as_text()
    assert "all-reduce" in text
    assert not re.findall("all-to-all|collective-permute|all-gather|reduce-scatter", text)
    together, _ = program(state, {}, sharding.shard_batch(batch, mesh))
    assert error(together.params, alone.params) < 1e-6


@pytest.mark.parametrize("parts", [3, 16])
def test_parts_that_do_not_divide_the_batch_are_refused_before_compiling(parts):
    made, variables = student("vit_tiny8", 30_000)
    tuned = jax.eval_shape(made.init, jax.random.key(2), variables)
    frozen, (batch,) = taught(made, variables, 8, [0], cached=False)
    full = supervised.make_step(made.model, made.entry, SGD, accum_steps=parts)
    tail = distillation.make_step(made, SGD, KD, seed=0, teacher=None, accum_steps=parts)
    state = jax.eval_shape(lambda tuned: TrainState.create(tuned, SGD), tuned)
    for step, args in (
        (full, (whole(variables), {}, labelled(8))),
        (tail, (state, frozen, batch)),
    ):
        with pytest.raises(ValueError, match=rf"split evenly; got 8 rows in {parts} parts"):
            jax.jit(step).lower(*args)


def test_no_part_is_refused_at_once():
    model, entry, _ = network("vit_tiny8")
    with pytest.raises(ValueError, match=r"accum_steps counts .*; got 0; use 1 or more"):
        supervised.make_step(model, entry, SGD, accum_steps=0)
    with pytest.raises(ValueError, match=r"accum_steps counts .*; got -1; use 1 or more"):
        distillation.make_step(None, SGD, KD, seed=0, teacher=None, accum_steps=-1)
