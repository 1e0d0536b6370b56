import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robust_jax.models import build

SMALL = {
    "vit_cls": ("vit_tiny8", {"width": 24, "depth": 2, "mlp_dim": 40}),
    "vit_gap": ("vit_tiny8", {"width": 24, "depth": 2, "mlp_dim": 40, "pool": "gap"}),
    "basic": ("resnet20", {"depths": (1, 2), "base_width": 4}),
    "dino": ("vit_tiny8", {"width": 24, "depth": 2, "mlp_dim": 40, "layer_scale": True}),
    "clip": (
        "clip_vit_b32",
        {
            "width": 24,
            "depth": 2,
            "num_heads": 3,
            "mlp_dim": 40,
            "patch_size": 8,
            "projection": 12,
            "image_size": 32,
        },
    ),
    "clip_rn": (
        "clip_rn50",
        {"depths": (2, 1), "base_width": 4, "num_heads": 4, "embed_dim": 12, "image_size": 32},
    ),
    "swin": (
        "unicl_swin_tiny",
        {
            "embed_dim": 8,
            "depths": (2, 1),
            "num_heads": (1, 2),
            "window": 3,
            "projection": 6,
            "image_size": 32,
        },
    ),
    "bottleneck": ("resnet50", {"depths": (2, 1), "base_width": 4, "image_size": 32}),
}


@pytest.fixture(params=SMALL)
def model(request):
    name, overrides = SMALL[request.param]
    return build(name, 5, **overrides)


@pytest.fixture
def images():
    return jax.random.normal(jax.random.key(7), (3, 32, 32, 3))


def only(variables, stages):
    return {kind: {s: tree[s] for s in stages if s in tree} for kind, tree in variables.items()}


def paths(tree):
    return ["/".join(k.key for k in path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)]


def test_every_split_gives_the_whole_bit_for_bit(model, images, variables_of):
    variables = variables_of(model)
    whole = model.apply(variables, images)
    assert whole.shape == (3, 5) and whole.dtype == jnp.float32
    assert float(jnp.std(whole)) > 0.1
    for boundary in model.stage_names:
        trunk, tail = model.stage_slice(stop=boundary), model.stage_slice(start=boundary)
        z = model.apply(only(variables, trunk), images, stop=boundary)
        split = model.apply(only(variables, tail), z, start=boundary)
        np.testing.assert_array_equal(split, whole, err_msg=boundary)


def test_stages_one_at_a_time_give_the_whole(model, images, variables_of):
    variables = variables_of(model)
    x, names = images, model.stage_names
    for start, stop in zip(names, (*names[1:], None), strict=True):
        x = model.apply(only(variables, (start,)), x, start=start, stop=stop)
    np.testing.assert_array_equal(x, model.apply(variables, images))


def test_the_feature_is_pooled_f32(model, images, variables_of):
    z = model.apply(variables_of(model), images, stop=model.feature_stage)
    assert z.shape == (3, model.feature_width) and z.dtype == jnp.float32


def test_an_empty_slice_is_the_identity(model, images):
    first = model.stage_names[0]
    np.testing.assert_array_equal(model.apply({}, images, stop=first), images)


def test_an_image_does_not_depend_on_its_batch(model, images, variables_of):
    variables = variables_of(model)
    apply = jax.jit(model.apply)
    together = apply(variables, images)
    alone = jnp.concatenate([apply(variables, image[None]) for image in images])
    np.testing.assert_allclose(together, alone, rtol=1e-5, atol=1e-5)


def test_bfloat16_keeps_f32_parameters_and_stays_close(model, images, variables_of):
    half = model.clone(dtype=jnp.bfloat16)
    params = jax.eval_shape(half.init, jax.random.key(0), half.example_input())
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    variables = variables_of(model)
    inside = functools.partial(half.apply, stop=model.stage_names[2])
    assert jax.eval_shape(inside, variables, images).dtype == jnp.bfloat16
    got, want = jax.jit(half.apply)(variables, images), jax.jit(model.apply)(variables, images)
    assert got.dtype == jnp.float32 and bool(jnp.isfinite(got).all())
    assert 0 < float(jnp.abs(got - want).max()) < 0.1 * float(jnp.abs(want).max())


def test_freeable_names_every_inner_parameter_once(model):
    params = jax.eval_shape(model.init, jax.random.key(0), model.example_input())["params"]
    first, last = model.stage_names[0], model.stage_names[-1]
    inner = paths({stage: tree for stage, tree in params.items() if stage not in (first, last)})
    freed = []
    for group in model.freeable():
        for prefix in group:
            here = [path for path in inner if path == prefix or path.startswith(prefix + "/")]
            assert here, f"{prefix} names no parameter"
            freed += here
    assert sorted(freed) == sorted(inner)


def test_freeable_runs_from_the_end_to_the_start(model):
    order = [model.stage_names.index(group[0].split("/")[0]) for group in model.freeable()]
    assert order == sorted(order, reverse=True)


def test_wrong_bounds_are_named(model, images):
    with pytest.raises(ValueError, match=r"no such stage; got 'neck'; use one of .*head"):
        model.apply({}, images, start="neck")
    first = model.stage_names[0]
    with pytest.raises(ValueError, match=rf"forwards; got start='head' after stop='{first}'"):
        model.apply({}, images, start="head", stop=first)
