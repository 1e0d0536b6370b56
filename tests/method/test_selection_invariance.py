"""The answers to images do not depend on how many come at once, in which parts, or on how many
devices; and what a big batch needs is bounded."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import small_students
from jax.sharding import NamedSharding, PartitionSpec
from runs import quick_config

from robust_jax import sharding
from robust_jax.method.calibration import Calibration
from robust_jax.method.selection import HEADS, SelectionConfig, mc_logits, predict
from robust_jax.stages import answers, routing
from robust_jax.stages.networks import Networks

IMAGES = 64
COLLECTIVES = ("all-gather", "all-to-all", "collective-permute", "all-reduce", "reduce-scatter")


def new_networks(workdir, classes=10, **changes):
    """Networks of the quick start on one device, with a choice by dropout; nothing is trained."""
    names = tuple(map(str, range(classes)))
    config = quick_config(selection__score="product", selection__keep_clean=0.0, **changes)
    found = Networks(config, workdir, names)
    found.mesh = sharding.make_mesh(jax.devices()[:1])
    return found


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    return new_networks(tmp_path_factory.mktemp("run"))


def shaken(tree, scale=0.1):
    noise = np.random.default_rng(5)
    return jax.tree.map(lambda x: np.float32(x + scale * noise.standard_normal(x.shape)), tree)


@pytest.fixture(scope="module")
def arrays(networks):
    """Frozen and tuned arrays far from where they began, so that heads differ."""
    model = networks.student_model
    frozen = jax.jit(model.init)(jax.random.key(0), model.example_input())
    tuned = networks.student(HEADS).init(jax.random.key(1), frozen)
    return shaken(frozen, 0.03), shaken(tuned)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (IMAGES, 32, 32, 3), np.uint8)


@pytest.fixture(scope="module")
def z(networks, arrays, images):
    return np.asarray(jax.jit(networks.student(HEADS).trunk)(arrays[0], images))


def chooser(networks, sample, devices=1, left_out=()):
    """(arrays, z) -> the answers but those left out, batch axis first."""
    config = routing.selection_config(networks, "ours")

    def choose(arrays, z):
        def of(z):
            said = predict(sample(*arrays, z), config)
            by_head = ("head_probs", "uncertainty", "kl")
            return {
                name: value.swapaxes(0, 1) if name in by_head else value
                for name, value in said.items()
                if name not in left_out
            }

        return routing.in_parts(of, z, devices)

    return jax.jit(choose)


@pytest.fixture(scope="module")
def whole(networks, arrays, z):
    """The answers to all images at once, which a part holds."""
    assert routing.PART >= IMAGES
    found = jax.device_get(chooser(networks, routing.sampler(networks))(arrays, z))
    assert 0.1 < found["head"].mean() < 0.9 and len(set(found["label"])) > 3
    return found


def assert_same(found, expected):
    assert set(found) == set(expected)
    for name in found:
        if name.endswith(("label", "head", "top5")):
            np.testing.assert_array_equal(found[name], expected[name], err_msg=name)
            continue
        # A difference of logarithms: of smaller numbers than one.
        atol = 1e-4 if name.endswith("routing_score") else 1e-6
        np.testing.assert_allclose(found[name], expected[name], rtol=2e-5, atol=atol, err_msg=name)


def in_batches(function, rows, size):
    parts = [function(rows[i : i + size]) for i in range(0, len(rows), size)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


@pytest.mark.parametrize("size", [1, 3, 16])
def test_batch_sizes_do_not_change_the_answers(networks, arrays, images, whole, size):
    choose = chooser(networks, routing.sampler(networks))
    trunk = jax.jit(networks.student(HEADS).trunk)
    found = in_batches(lambda x: choose(arrays, trunk(arrays[0], x)), images, size)
    assert_same(found, whole)


@pytest.mark.parametrize("part", [1, 7, 32, 63])
def test_parts_of_a_batch_do_not_change_the_answers(networks, arrays, z, whole, part, monkeypatch):
    monkeypatch.setattr(routing, "PART", part)
    found = chooser(networks, routing.sampler(networks))(arrays, z)
    assert_same(jax.device_get(found), whole)


@pytest.mark.parametrize("chunk", [1, 4, 10])
def test_chunks_of_the_samples_do_not_change_the_answers(networks, arrays, z, whole, chunk):
    student, key = networks.student(HEADS), jax.random.key(networks.config.seed)

    def sample(frozen, tuned, z):
        def tail(z, key):
            return student.tail(frozen, tuned, z, key, shared_masks=True)

        return mc_logits(tail, z, key, 10, chunk)

    assert_same(jax.device_get(chooser(networks, sample)(arrays, z)), whole)


@pytest.mark.parametrize("fsdp", [1, 2])
@pytest.mark.parametrize("part", [64, 7])
def test_devices_do_not_change_the_answers_and_keep_their_rows(
    networks, arrays, z, whole, part, fsdp, monkeypatch
):
    monkeypatch.setattr(routing, "PART", part)
    mesh = sharding.make_mesh(fsdp=fsdp)
    split = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
    placed = jax.device_put(arrays, NamedSharding(mesh, PartitionSpec()))
    choose = chooser(networks, routing.sampler(networks), mesh.size)
    program = choose.lower(placed, jax.device_put(z, split)).compile()
    text = program.as_text()
    assert not [kind for kind in COLLECTIVES if kind in text]
    found = program(placed, jax.device_put(z, split))
    for values in found.values():
        assert values.sharding.is_equivalent_to(split, values.ndim)
    assert_same(jax.device_get(found), whole)


def routed(networks, arrays, images, labels):
    """The function of the evaluation and its arrays, calibrated on the images."""
    trees = {"student": arrays[0], "tuned": {"ours": arrays[1]}}
    batch = {"clean": images, "aug": images[::-1], "label": labels}
    trees["calibration"] = routing.calibrate(
        networks,
        routing.routed_methods(networks, trees["tuned"]),
        [(batch, len(labels))],
        trees,
        jnp.asarray,
    )
    assert all(isinstance(one, Calibration) for one in trees["calibration"].values())
    return answers.answers(networks, trees), trees


def test_the_evaluation_answers_in_parts(networks, arrays, images, whole, monkeypatch):
    # Half of them right: temperatures that divide all differences away would show nothing.
    labels = np.where(np.arange(IMAGES) % 2, whole["label"], 3).astype(np.int32)
    function, trees = routed(networks, arrays, images, labels)
    expected = jax.device_get(function(trees, {"image": images, "label": labels}))
    assert 0 < expected["ours/head"].mean() < 1
    monkeypatch.setattr(routing, "PART", 9)
    parts = answers.answers(networks, trees)
    found = jax.device_get(parts(trees, {"image": images, "label": labels}))
    assert_same(found, expected)
    alone = in_batches(
        lambda i: jax.device_get(function(trees, {"image": images[i], "label": labels[i]})),
        np.arange(IMAGES),
        16,
    )
    assert_same(alone, expected)
    # No more than a part's logits at once: 64 rows in parts of at most 9 are 8 of 8.
    text = str(jax.make_jaxpr(parts)(trees, {"image": images, "label": labels}))
    assert "f32[3,10,8,10]" in text and "f32[3,10,64,10]" not in text


@pytest.mark.parametrize("devices", [1, 4])
def test_memory_of_a_big_batch_is_bounded(tmp_path, devices):
    networks = new_networks(tmp_path, classes=1000)
    frozen = networks.shapes(networks.student_model)
    student = networks.student(HEADS)
    tuned = jax.eval_shape(student.init, jax.random.key(0), frozen)
    mesh = sharding.make_mesh(jax.devices()[:devices])
    split = NamedSharding(mesh, PartitionSpec("data"))
    z = jax.eval_shape(student.trunk, frozen, jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.uint8))

    def temporary(batch):
        # As the evaluation, which does not keep what every head says.
        choose = chooser(networks, routing.sampler(networks), devices, ("head_probs",))
        rows = jax.ShapeDtypeStruct((batch, *z.shape[1:]), z.dtype, sharding=split)
        compiled = choose.lower((frozen, tuned), rows).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    logits = 3 * 10 * 4096 * 1000 * 4
    answer = 4096 * 1000 * 4 // devices
    assert temporary(4096) < logits / 10
    assert temporary(4096) - temporary(2048) < 1.5 * answer


def test_freed_layers_run_once_for_all_samples():
    student, frozen = small_students.student("vit_tiny8", 30_000)
    plan, d, k, b = student.plan, student.model.feature_width, student.num_classes, 16
    assert any("mlp" in path for path in plan.freed) and plan.adapter_width
    tuned = jax.eval_shape(student.init, jax.random.key(1), frozen)
    z = jax.eval_shape(student.trunk, frozen, small_students.images(b))

    def flops(samples):
        def draw(tuned, z):
            def tail(z, key):
                return student.tail(frozen, tuned, z, key, shared_masks=True)

            return mc_logits(tail, z, jax.random.key(0), samples)

        return jax.jit(draw).lower(tuned, z).compile().cost_analysis()["flops"]

    # What dropout reaches: the way up of the adapter, the classifier and the three heads.
    reached = 2 * b * (d * plan.adapter_width + d * k + 3 * plan.head_rank * (d + k))
    freed = 2 * b * sum(x.size for x in jax.tree.leaves(tuned["shared"]["tail"]))
    each = (flops(11) - flops(1)) / 10
    assert reached <= each < reached + freed / 4, (reached, freed, each)


def test_statistics_of_bfloat16_are_float32(tmp_path, arrays, z):
    networks = new_networks(tmp_path, student__dtype="bfloat16")
    sample = routing.sampler(networks)
    low = jnp.asarray(z, jnp.bfloat16)
    logits = jax.jit(sample)(*arrays, low)
    found = predict(logits, SelectionConfig())
    assert logits.dtype == jnp.float32
    for name in ("probs", "uncertainty", "kl", "routing_score"):
        assert found[name].dtype == jnp.float32, name
    probs = scipy.special.softmax(np.asarray(logits, np.float64), axis=-1)
    mean = probs.mean(1)
    entropy = scipy.stats.entropy
    information = entropy(mean, axis=-1) - entropy(probs, axis=-1).mean(1)
    np.testing.assert_allclose(found["uncertainty"], information, atol=1e-5)
    np.testing.assert_allclose(found["kl"], entropy(mean[2], mean[:2], axis=-1), atol=1e-5)


def test_stored_bfloat16_activations_are_computed_with_in_float32(networks, arrays, z):
    low = jnp.asarray(z, jnp.bfloat16)
    choose = chooser(networks, routing.sampler(networks))
    assert_same(choose(arrays, low), choose(arrays, low.astype(jnp.float32)))
