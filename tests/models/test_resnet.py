import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view

from robust_jax.models import build

TINY = {
    "basic": {"block": "basic", "depths": (1, 2), "base_width": 4},
    "bottleneck": {"block": "bottleneck", "depths": (2, 1), "base_width": 4},
}


def windows(x, kernel, stride, fill=0.0):
    pad = (kernel // 2, kernel // 2)
    x = np.pad(x, ((0, 0), pad, pad, (0, 0)), constant_values=fill)
    return sliding_window_view(x, (kernel, kernel), axis=(1, 2))[:, ::stride, ::stride]


def conv(x, kernel, stride):
    return np.einsum("bhwcij,ijcd->bhwd", windows(x, len(kernel), stride), kernel)


def batch_norm(x, p, stats):
    return (x - stats["mean"]) / np.sqrt(stats["var"] + 1e-5) * p["scale"] + p["bias"]


def reference(variables, x, model):
    """The network in float64 numpy with torch's symmetric padding."""
    variables = jax.tree.map(lambda a: np.asarray(a, np.float64), variables)
    params, stats = variables["params"], variables["batch_stats"]

    def unit(x, stage, i, stride, conv_name="conv", bn_name="bn"):
        p = params[stage]
        x = conv(x, p[f"{conv_name}{i}"]["kernel"], stride)
        return batch_norm(x, p[f"{bn_name}{i}"], stats[stage][f"{bn_name}{i}"])

    stem_stride = {"imagenet": 2, "cifar": 1, "small": 2}[model.stem]
    x = np.maximum(unit(np.asarray(x, np.float64), "stem", "", stem_stride), 0)
    if model.stem == "imagenet":
        x = windows(x, 3, 2, -np.inf).max((-2, -1))
    for group, depth in enumerate(model.depths):
        for number in range(depth):
            stage = f"stage{group + 1}_block{number}"
            stride = 2 if group and not number else 1
            if model.block == "basic":
                y = np.maximum(unit(x, stage, 1, stride), 0)
                y = unit(y, stage, 2, 1)
            else:
                y = np.maximum(unit(x, stage, 1, 1), 0)
                y = np.maximum(unit(y, stage, 2, stride), 0)
                y = unit(y, stage, 3, 1)
            if y.shape != x.shape:
                x = unit(x, stage, "", stride, "downsample_conv", "downsample_bn")
            x = np.maximum(x + y, 0)
    x = x.mean((1, 2))
    return x @ params["head"]["kernel"] + params["head"]["bias"]


@pytest.mark.parametrize("stem", ["imagenet", "cifar", "small"])
@pytest.mark.parametrize("block", TINY)
def test_equals_the_numpy_network(block, stem, variables_of):
    model = build("resnet18", 5, image_size=32, stem=stem, **TINY[block])
    variables = variables_of(model)
    x = jax.random.normal(jax.random.key(3), (2, 32, 30, 3))
    want = reference(variables, x, model)
    got = jax.jit(model.apply)(variables, x)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)


def test_training_normalises_by_the_batch_and_moves_the_statistics(variables_of):
    model = build("resnet20", 5, depths=(1, 1), base_width=4)
    variables = variables_of(model)
    x = 2 + jax.random.normal(jax.random.key(4), (4, 32, 32, 3))
    _, new = model.apply(variables, x, train=True, mutable=["batch_stats"])
    kernel = np.asarray(variables["params"]["stem"]["conv"]["kernel"], np.float64)
    maps = conv(np.asarray(x, np.float64), kernel, 1)
    old = variables["batch_stats"]["stem"]["bn"]
    for name, batch in (("mean", maps.mean((0, 1, 2))), ("var", maps.var((0, 1, 2)))):
        want = 0.9 * np.asarray(old[name]) + 0.1 * batch
        np.testing.assert_allclose(new["batch_stats"]["stem"]["bn"][name], want, rtol=1e-4)
    moved = jax.tree.map(
        lambda a, b: bool((a != b).any()), variables["batch_stats"], new["batch_stats"]
    )
    assert all(jax.tree.leaves(moved))


def test_training_statistics_are_those_of_the_whole_batch_when_sharded(variables_of):
    model = build("resnet20", 5, depths=(1,), base_width=4)
    variables = variables_of(model)
    x = jax.random.normal(jax.random.key(5), (8, 32, 32, 3)) * jnp.arange(8.0)[:, None, None, None]
    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    sharded = jax.device_put(x, jax.NamedSharding(mesh, jax.P("data")))

    @jax.jit
    def step(x):
        return model.apply(variables, x, train=True, mutable=["batch_stats"])

    for got, want in zip(jax.tree.leaves(step(sharded)), jax.tree.leaves(step(x)), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_frozen_batch_norm_ignores_train(variables_of):
    model = build("resnet20", 5, depths=(1, 1), base_width=4, frozen_bn=True)
    variables = variables_of(model)
    x = jax.random.normal(jax.random.key(6), (4, 32, 32, 3))
    logits, new = model.apply(variables, x, train=True, mutable=["batch_stats"])
    np.testing.assert_array_equal(logits, model.apply(variables, x))
    jax.tree.map(
        np.testing.assert_array_equal, new.get("batch_stats", {}), variables["batch_stats"]
    )


@pytest.mark.parametrize("block", TINY)
def test_zero_init_starts_blocks_as_the_identity(block):
    for zero_init in (True, False):
        model = build("resnet18", 5, image_size=32, zero_init=zero_init, **TINY[block])
        name, width = ("stage2_block1", 8) if block == "basic" else ("stage1_block1", 16)
        after = model.stage_names[model.stage_names.index(name) + 1]
        x = jnp.linspace(0, 1, 2 * 4 * 4 * width).reshape(2, 4, 4, width)
        y, _ = model.init_with_output(jax.random.key(0), x, start=name, stop=after)
        assert bool((x == y).all()) == zero_init


def test_convolutions_start_at_the_he_deviation():
    model = build("resnet18_cifar", 10)
    x = jnp.zeros((1, 2, 2, 128))
    variables = model.init(jax.random.key(0), x, start="stage3_block0", stop="stage3_block1")
    kernel = variables["params"]["stage3_block0"]["conv1"]["kernel"]
    assert float(kernel.std()) == pytest.approx(np.sqrt(2 / (9 * 256)), rel=0.01)


def test_unknown_fields_are_named():
    with pytest.raises(ValueError, match=r"unknown stem; got 'deep'; use one of imagenet"):
        build("resnet18", 5, stem="deep")
    with pytest.raises(ValueError, match=r"unknown block; got 'plain'; use one of basic"):
        build("resnet18", 5, block="plain")
    with pytest.raises(ValueError, match=r"got image_size=0"):
        build("resnet18", 5, image_size=0)
