"""What networks in bf16 compute in f32: softmax, the statistics of norms, and the end."""

import jax
import jax.numpy as jnp
import pytest
from test_stages import SMALL

from robust_jax.models import build


def operations(jaxpr):
    """(operation, dtype of its floating-point inputs) of a program and its parts."""
    for equation in jaxpr.eqns:
        for value in equation.invars:
            if jnp.issubdtype(value.aval.dtype, jnp.floating):
                yield equation.primitive.name, str(value.aval.dtype)
        for part in jax.tree.leaves(equation.params, is_leaf=lambda x: hasattr(x, "eqns")):
            if hasattr(part, "eqns"):
                yield from operations(part)


@pytest.mark.parametrize("name", SMALL)
def test_softmax_and_statistics_are_f32(name):
    base, overrides = SMALL[name]
    model = build(base, 5, dtype="bfloat16", **overrides)
    variables = jax.eval_shape(model.init, jax.random.key(0), model.example_input())
    images = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
    collections = [kind for kind in variables if kind != "params"]

    def apply(variables, images):
        return model.apply(variables, images, train=True, mutable=collections)

    found = set(operations(jax.make_jaxpr(apply)(variables, images).jaxpr))
    # The products are bf16, so the network is what it says.
    assert {("dot_general", "bfloat16"), ("conv_general_dilated", "bfloat16")} & found
    # exp: softmax. rsqrt: norms, of statistics that reduce_sum and square made.
    f32 = {"exp", "rsqrt", "sqrt", "reduce_sum", "square", "reduce_max", "integer_pow"}
    assert {op for op, dtype in found if op in f32 and dtype == "float32"} >= {"rsqrt"}
    assert not {(op, "bfloat16") for op in f32} & found
    logits, changed = jax.eval_shape(apply, variables, images)
    assert {leaf.dtype for leaf in jax.tree.leaves((logits, changed))} == {jnp.dtype("float32")}


@pytest.mark.parametrize("name", SMALL)
def test_gradients_are_f32(name):
    base, overrides = SMALL[name]
    model = build(base, 5, dtype="bfloat16", **overrides)
    variables = jax.eval_shape(model.init, jax.random.key(0), model.example_input())
    images = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
    grads = jax.eval_shape(
        jax.grad(lambda v, x: model.apply(v, x).sum().astype(jnp.float32)), variables, images
    )
    assert {leaf.dtype for leaf in jax.tree.leaves(grads)} == {jnp.dtype("float32")}
