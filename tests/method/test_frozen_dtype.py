"""Frozen parameters in bf16: half the bytes, the same student; what is tuned or averaged is f32."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from small_students import KD, images, network, pairs, student

from robust_jax.method import distillation, losses, selection
from robust_jax.method.frozen import cast_frozen
from robust_jax.state import TrainState

ADAM = optax.adamw(1e-2, weight_decay=0.1)
CASES = [
    ("vit_tiny8", 30_000, "tail", "linear"),
    pytest.param("vit_tiny8", 30_000, "none", "linear", marks=pytest.mark.slow),
    pytest.param("vit_tiny8", 30_000, "tail", "cosine", marks=pytest.mark.slow),
    ("resnet_small", 60_000, "tail", "linear"),
]


def size(tree):
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def by_path(tree):
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def dtypes(tree):
    return {str(leaf.dtype) for leaf in jax.tree.leaves(tree)}


def test_float32_is_the_tree_itself():
    variables = {"params": {"embed": {"kernel": np.ones((2, 2), np.float32)}}}
    assert cast_frozen(variables, "float32") is variables


def test_an_unknown_dtype_is_named():
    with pytest.raises(ValueError, match=r"frozen_dtype; got 'float16'; use one of float32, bf"):
        cast_frozen({}, "float16")


def test_a_vit_takes_half_the_bytes():
    _, _, variables = network("vit_tiny8", width=96, depth=6)
    saved = 1 - size(cast_frozen(variables, "bfloat16")) / size(variables)
    assert 0.45 < saved < 0.5


@pytest.mark.parametrize("name", ["vit_tiny8", "resnet_small"])
def test_vectors_and_the_classifier_stay_f32(name):
    _, _, variables = network(name)
    cast = by_path(cast_frozen(variables, "bfloat16"))
    kept = {path for path, leaf in cast.items() if leaf.dtype == jnp.float32}
    expected = {
        path
        for path, leaf in by_path(variables).items()
        if path.startswith(("params/head/", "batch_stats/"))
        or path.endswith(("bias", "scale"))
        or leaf.ndim < 2
    }
    assert kept == expected and "params/head/kernel" in kept
    assert {str(leaf.dtype) for path, leaf in cast.items() if path not in kept} == {"bfloat16"}


def test_shapes_are_cast_as_arrays_are_and_keep_their_sharding():
    _, _, variables = network("vit_tiny8")
    where = jax.sharding.SingleDeviceSharding(jax.devices()[3])
    shapes = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where), variables
    )
    cast = cast_frozen(shapes, "bfloat16")
    assert {leaf.sharding for leaf in jax.tree.leaves(cast)} == {where}
    wanted = jax.eval_shape(lambda tree: cast_frozen(tree, "bfloat16"), variables)
    assert dtypes(wanted) == {"float32", "bfloat16"}
    for found, leaf in zip(jax.tree.leaves(cast), jax.tree.leaves(wanted), strict=True):
        assert (found.shape, found.dtype) == (leaf.shape, leaf.dtype)


@pytest.mark.parametrize("name", ["vit_tiny8", "resnet_small"])
def test_the_trunk_is_the_same_within_the_rounding_of_bf16(name):
    made, variables = student(name, 10_000)
    trunk = jax.jit(made.trunk)
    wanted = trunk(variables, images(8))
    found = trunk(cast_frozen(variables, "bfloat16"), images(8))
    assert 1e-5 < float(jnp.linalg.norm(found - wanted) / jnp.linalg.norm(wanted)) < 0.02


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(("name", "amount", "share", "head"), CASES)
def test_step_0_is_the_frozen_model_bit_for_bit(name, amount, share, head, dtype):
    made, variables = student(name, amount, share, dtype=dtype, head=head)
    frozen = cast_frozen(variables, "bfloat16")
    assert made.plan.freed
    tuned = jax.jit(made.init)(jax.random.key(2), frozen)
    assert dtypes(tuned) == {"float32"}
    z = made.trunk(frozen, jnp.asarray(images(4)))
    expected = made.original(frozen, z)
    assert float(jnp.std(expected)) > 0.01
    for logits in made.tail(frozen, tuned, z).values():
        np.testing.assert_array_equal(logits, expected)


def stepped(made, variables, batch=6):
    """The state after two steps on images from a bf16 tree, and that before."""
    frozen = cast_frozen(variables, "bfloat16")
    teacher = (made.model, made.entry)
    step = jax.jit(distillation.make_step(made, ADAM, KD, seed=0, teacher=teacher))
    state = before = TrainState.create(jax.jit(made.init)(jax.random.key(2), frozen), ADAM)
    for i in range(2):
        state, metrics = step(state, {"student": frozen, "teacher": variables}, pairs(batch, i))
    return before, state, metrics


@pytest.mark.parametrize(("name", "amount", "share", "head"), CASES)
def test_no_frozen_parameter_is_in_the_optimizer_state(name, amount, share, head):
    made, variables = student(name, amount, share, head=head)
    before, state, _ = stepped(made, variables)
    names = [path.removeprefix("params/") for path in by_path({"params": variables["params"]})]
    freed = set(made.plan.freed)
    assert 0 < len(freed) < len(names)
    # What is tuned: the freed tensors, once or once a head, and what the student added.
    groups = [""] if share == "tail" else [f"{head}/" for head in made.heads]
    tails = {f"shared/{group}tail/{path}" for group in groups for path in freed}
    tuned = set(by_path(state.params))
    assert {path for path in tuned if "tail/" in path} == tails
    added = tuned - tails
    assert all(p.startswith("heads/") or "/adapter/" in f"/{p.split('/', 1)[1]}" for p in added)
    # Adam's two moments are those, twice and nothing else; the rest are counters.
    moments = [path for path, leaf in by_path(state.opt_state).items() if leaf.ndim]
    for moment in ("mu", "nu"):
        own = {path.split(f"/{moment}/")[1] for path in moments if f"/{moment}/" in path}
        assert own == tuned
    assert len(moments) == 2 * len(tuned)
    count = sum(leaf.size for leaf in jax.tree.leaves(state.opt_state) if leaf.ndim)
    assert count == 2 * sum(leaf.size for leaf in jax.tree.leaves(state.params))
    assert count < 2 * sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    # Arrays in f32 though the frozen tree is bf16, and all of them moved.
    for tree in (state.params, [leaf for leaf in jax.tree.leaves(state.opt_state) if leaf.ndim]):
        assert dtypes(tree) == {"float32"}
    changed = jax.tree.map(lambda a, b: bool((a != b).any()), before.params, state.params)
    assert all(jax.tree.leaves(changed))


def equations(jaxpr):
    """Every operation of a program, those of its parts too."""
    for equation in jaxpr.eqns:
        yield equation
        for value in jax.tree.leaves(equation.params, is_leaf=lambda x: hasattr(x, "eqns")):
            if hasattr(value, "eqns"):
                yield from equations(value)


def reals(fn, *args):
    """(operation, dtype) of all floating-point results of a function."""
    jaxpr = jax.make_jaxpr(fn)(*args).jaxpr
    return {
        (equation.primitive.name, str(out.aval.dtype))
        for equation in equations(jaxpr)
        for out in equation.outvars
        if jnp.issubdtype(out.aval.dtype, jnp.floating)
    }


@pytest.mark.parametrize("name", ["vit_tiny8", "resnet_small"])
def test_bf16_computes_losses_gradients_and_parameters_in_f32(name):
    made, variables = student(name, 60_000, dtype="bfloat16")
    tuned = jax.jit(made.init)(jax.random.key(2), variables)
    frozen = {"student": variables, "teacher": variables}
    step = distillation.make_step(made, ADAM, KD, seed=0, teacher=(made.model, made.entry))
    args = (TrainState.create(tuned, ADAM), frozen, pairs(4))
    found = reals(step, *args)
    assert {dtype for _, dtype in found} == {"float32", "bfloat16"}
    softmax_and_statistics = ("exp", "log", "log1p", "rsqrt", "sqrt", "reduce_max", "argmax")
    assert not {(op, "bfloat16") for op in softmax_and_statistics} & found
    state, metrics = jax.eval_shape(step, *args)
    assert dtypes((state.params, metrics)) == {"float32"}
    grads = jax.eval_shape(lambda s: s.update(s.params, ADAM, {})[0].opt_state, state)
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(grads) if leaf.ndim} == {"float32"}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_losses_of_bf16_logits_are_those_of_the_same_numbers_in_f32(dtype):
    rng = np.random.default_rng(0)
    logits = jnp.asarray(rng.normal(0, 3, (16, 5)), jnp.bfloat16)
    teacher = jnp.asarray(rng.normal(0, 3, (16, 5)), jnp.bfloat16)
    labels = jnp.asarray(rng.integers(0, 5, 16))

    def all_losses(logits, teacher):
        options = {"weight": 0.5, "temperature": 2.0, "weighting": "teacher_entropy"}
        return (
            losses.head_loss(logits, labels, teacher, **options),
            losses.jensen_shannon([logits, teacher, logits[::-1]]),
        )

    found = all_losses(logits.astype(dtype), teacher.astype(dtype))
    wanted = all_losses(logits.astype(jnp.float32), teacher.astype(jnp.float32))
    for a, b in zip(found, wanted, strict=True):
        assert a.dtype == jnp.float32
        np.testing.assert_array_equal(a, b)
    real = {d for op, d in reals(all_losses, logits, teacher) if op != "rev"}
    assert real == {"float32"}


def test_monte_carlo_statistics_of_a_bf16_tail_are_f32():
    made, variables = student("vit_tiny8", 60_000, dtype="bfloat16")
    tuned = jax.jit(made.init)(jax.random.key(2), variables)
    z = jax.jit(made.trunk)(variables, images(4))
    assert z.dtype == jnp.bfloat16

    def samples(z, key):
        return selection.mc_logits(
            lambda z, key: made.tail(variables, tuned, z, key, shared_masks=True), z, key, 4
        )

    logits = jax.jit(samples)(z, jax.random.key(0))
    assert logits.dtype == jnp.float32
    for uncertainty in selection.UNCERTAINTIES:
        config = selection.SelectionConfig(uncertainty=uncertainty)
        ops = reals(lambda logits, c=config: selection.predict(logits, c), logits)
        assert {dtype for _, dtype in ops} == {"float32"}
        answer = selection.predict(logits, config)
        assert dtypes({k: answer[k] for k in ("probs", "uncertainty", "kl", "routing_score")}) == {
            "float32"
        }
