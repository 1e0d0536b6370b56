import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from robust_jax import models
from robust_jax.method import budget, distillation
from robust_jax.method.selection import HEADS, mc_logits
from robust_jax.method.student import Student
from robust_jax.models import normalise
from robust_jax.state import TrainState

KD = {
    "weight": 0.5,
    "temperature": 2.0,
    "weighting": "none",
    "heads": HEADS,
    "clean_anchor": 0.1,
}
SMALL = {
    "vit_tiny8": {"width": 48, "depth": 2, "mlp_dim": 192},
    "resnet_small": {"base_width": 8, "depths": (1, 1, 1, 1)},
}
CASES = [
    pytest.param("vit_tiny8", 9_000, "tail", marks=pytest.mark.slow),
    ("vit_tiny8", 30_000, "tail"),  # the boundary lies inside the last block
    ("vit_tiny8", 15_000, "none"),
    pytest.param("resnet_small", 10_000, "tail", marks=pytest.mark.slow),
    ("resnet_small", 60_000, "tail"),
]


def _student(name, amount, share, heads=HEADS, rate=0.25):
    model, entry = models.build(name, 10, **SMALL[name]), models.entry(name)
    variables = model.init(jax.random.key(1), model.example_input())
    variables = jax.tree.map(  # a trained model has no zeros left, and variances are positive
        lambda x: x + 0.05 * jnp.abs(jax.random.normal(jax.random.key(x.size), x.shape)), variables
    )
    plan = budget.resolve(
        model, variables["params"], amount, num_classes=10, heads_share=0.2, share=share
    )
    student = Student(model, entry, plan, 10, heads, share, rate)
    return student, variables, student.init(jax.random.key(2), variables)


def _images(count=6, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 32, 32, 3), np.uint8)


@pytest.mark.parametrize(("name", "amount", "share"), CASES)
def test_step_0_is_the_original_model_bit_for_bit(name, amount, share):
    student, frozen, tuned = _student(name, amount, share)
    images = jnp.asarray(_images())
    expected = student.model.apply(frozen, normalise(images, student.entry))
    assert float(jnp.std(expected)) > 0.01
    z = student.trunk(frozen, images)
    np.testing.assert_array_equal(student.original(frozen, z), expected)
    for logits in student.tail(frozen, tuned, z).values():
        np.testing.assert_array_equal(logits, expected)


@pytest.mark.parametrize(("name", "amount", "share"), CASES)
def test_observe_gives_z_and_statistics_of_the_first_stages(name, amount, share):
    student, frozen, _ = _student(name, amount, share)
    images, model = jnp.asarray(_images()), student.model
    z, statistics = student.observe(frozen, images, 2)
    np.testing.assert_allclose(z, student.trunk(frozen, images), rtol=1e-5, atol=1e-5)
    expected = []
    for stop in model.stage_names[1:3]:
        x = np.asarray(model.apply(frozen, normalise(images, student.entry), stop=stop))
        x = x.reshape(len(x), -1, x.shape[-1])
        expected += [x.mean(1), x.std(1)]
    np.testing.assert_allclose(statistics, np.concatenate(expected, 1), rtol=1e-4, atol=1e-5)
    # Of more stages than lie before the boundary, those that do.
    z, every = student.observe(frozen, images, 1000)
    np.testing.assert_allclose(z, student.trunk(frozen, images), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(every[:, : statistics.shape[1]], statistics, rtol=1e-4, atol=1e-5)
    widths = [
        model.apply(frozen, normalise(images, student.entry), stop=stop).shape[-1]
        for stop in model.stage_names[1 : 1 + model.stage_names.index(student.plan.boundary)]
    ]
    assert every.shape == (len(images), 2 * sum(widths))


def _trained(student, frozen, tuned, steps=3, weight_decay=0.1):
    optimizer = optax.adamw(1e-2, weight_decay=weight_decay)
    teacher = (student.model, student.entry)
    step = jax.jit(
        distillation.make_step(student, optimizer, KD, seed=0, teacher=teacher), donate_argnums=0
    )
    state = TrainState.create(tuned, optimizer)
    arrays = {"student": frozen, "teacher": frozen}
    for i in range(steps):
        batch = {
            "clean": _images(seed=2 * i),
            "aug": _images(seed=2 * i + 1),
            "label": np.arange(6, dtype=np.int32),
        }
        state, metrics = step(state, arrays, batch)
    return state, metrics


@pytest.mark.parametrize(("name", "amount", "share"), [CASES[1], CASES[2], CASES[4]])
def test_training_leaves_frozen_parameters_alone(name, amount, share):
    student, frozen, tuned = _student(name, amount, share)
    before = jax.tree.map(np.array, frozen)
    sizes = {leaf.shape for leaf in jax.tree.leaves(tuned)}
    started = jax.tree.map(np.array, tuned)
    state, metrics = _trained(student, frozen, tuned)
    jax.tree.map(np.testing.assert_array_equal, before, jax.tree.map(np.array, frozen))
    assert np.isfinite(metrics["loss"])
    # The moments have exactly the tuned tree, twice; nothing frozen is in the optimizer.
    moments = [leaf for leaf in jax.tree.leaves(state.opt_state) if leaf.ndim]
    assert sum(m.size for m in moments) == 2 * sum(x.size for x in jax.tree.leaves(started))
    assert {m.shape for m in moments} <= sizes
    changed = jax.tree.map(lambda a, b: bool((a != b).any()), started, state.params)
    assert all(jax.tree.leaves(changed))


def test_split_step_flops_stay_under_two_fifths_of_full_fine_tuning():
    model = models.build("vit_tiny8", 10, depth=12, width=96, mlp_dim=384)
    variables = jax.eval_shape(model.init, jax.random.key(0), model.example_input())
    params = variables["params"]
    per_block = sum(
        leaf.size for s in ("attn", "mlp") for leaf in jax.tree.leaves(params[f"block_11_{s}"])
    )
    # Heads of a fifth, the norm and all of the last block: 11 of 12 blocks are frozen.
    plan = budget.resolve(
        model, params, round(1.3 * per_block), num_classes=10, heads_share=0.2, share="tail"
    )
    assert plan.boundary == "block_11_attn"
    student = Student(model, models.entry("vit_tiny8"), plan, 10, HEADS, "tail", 0.25)
    kd = {**KD, "weight": 0.0, "clean_anchor": 0.0}
    optimizer = optax.adam(1e-3)
    tuned = jax.eval_shape(student.init, jax.random.key(0), variables)
    state = jax.eval_shape(lambda t: TrainState.create(t, optimizer), tuned)
    image = jax.ShapeDtypeStruct((16, 32, 32, 3), jnp.uint8)
    label = jax.ShapeDtypeStruct((16,), jnp.int32)
    step = distillation.make_step(student, optimizer, kd, seed=0, teacher=None)
    split = jax.jit(step).lower(
        state, {"student": variables}, {"clean": image, "aug": image, "label": label}
    )

    def full_step(params, opt_state, images, labels):
        def loss(params):
            logits = model.apply({"params": params}, normalise(images, student.entry))
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

        updates, opt_state = optimizer.update(jax.grad(loss)(params), opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    full = jax.jit(full_step).lower(
        params,
        jax.eval_shape(optimizer.init, params),
        jax.ShapeDtypeStruct((32, 32, 32, 3), jnp.uint8),
        jax.ShapeDtypeStruct((32,), jnp.int32),
    )
    ratio = split.cost_analysis()["flops"] / full.cost_analysis()["flops"]
    assert 0.2 < ratio < 0.40, ratio


def test_mc_samples_do_not_depend_on_the_batch():
    student, frozen, tuned = _student("vit_tiny8", 15_000, "tail")
    state, _ = _trained(student, frozen, tuned)
    z = student.trunk(frozen, jnp.asarray(_images(8)))

    def tail(z, key):
        return student.tail(frozen, state.params, z, key, shared_masks=True)

    whole = mc_logits(tail, z, jax.random.key(3), 10)
    assert whole.shape == (3, 10, 8, 10)
    assert float(whole.std(1).mean()) > 1e-3
    parts = [mc_logits(tail, z[i : i + 2], jax.random.key(3), 10) for i in range(0, 8, 2)]
    np.testing.assert_allclose(np.concatenate(parts, axis=2), whole, atol=1e-5)


def test_dropout_keeps_three_quarters():
    from robust_jax.method.heads import dropout

    x = jnp.ones((2000, 50))
    dropped = dropout(x, 0.25, jax.random.key(0), shared=False)
    assert float((dropped > 0).mean()) == pytest.approx(0.75, abs=0.01)
    assert float(dropped.mean()) == pytest.approx(1.0, abs=0.02)
    shared = dropout(x, 0.25, jax.random.key(0), shared=True)
    assert bool((shared == shared[:1]).all())


def test_heads_see_the_same_masks():
    student, frozen, tuned = _student("vit_tiny8", 9_000, "tail")
    z = student.trunk(frozen, jnp.asarray(_images()))
    logits = student.tail(frozen, tuned, z, jax.random.key(0))
    # Untrained heads are identical, so with equal masks their logits are too.
    np.testing.assert_array_equal(logits["clean"], logits["unclean"])
    np.testing.assert_array_equal(logits["clean"], logits["combined"])


def test_one_head_student_and_no_teacher():
    student, frozen, tuned = _student("vit_tiny8", 9_000, "tail", heads=("combined",))
    optimizer = optax.adam(1e-2)
    kd = {**KD, "weight": 0.0, "clean_anchor": 0.0}
    step = distillation.make_step(student, optimizer, kd, seed=0, teacher=None)
    batch = {"clean": _images(), "aug": _images(seed=1), "label": np.arange(6, dtype=np.int32)}
    # No teacher in the frozen tree: calling one would be a KeyError.
    state, metrics = jax.jit(step)(TrainState.create(tuned, optimizer), {"student": frozen}, batch)
    assert int(state.step) == 1
    assert set(metrics) >= {"loss", "loss_combined_clean", "loss_combined_aug"}


def test_cached_features_train_like_images():
    student, frozen, tuned = _student("vit_tiny8", 9_000, "tail")
    optimizer = optax.adam(1e-2)
    teacher = (student.model, student.entry)
    arrays = {"student": frozen, "teacher": frozen}
    batch = {"clean": _images(), "aug": _images(seed=1), "label": np.arange(6, dtype=np.int32)}
    step = distillation.make_step(student, optimizer, KD, seed=0, teacher=teacher)
    streamed, _ = step(TrainState.create(tuned, optimizer), arrays, batch)
    known = distillation.features(student, arrays, batch, teacher)
    cached, _ = step(
        TrainState.create(tuned, optimizer),
        {"student": frozen},
        {**known, "label": batch["label"]},
    )
    jax.tree.map(np.testing.assert_array_equal, streamed.params, cached.params)
