"""What bf16 has of its own on a GPU or everywhere: attention, activations, cutting patches."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robust_jax import models
from robust_jax.models import attention
from robust_jax.models.vit import Embed

SCALE = 0.3


def heads(queries=7, tokens=7, channels=16, dtype=jnp.bfloat16):
    rng = np.random.default_rng(0)
    shapes = [(2, n, 3, channels) for n in (queries, tokens, tokens)]
    return [jnp.asarray(rng.standard_normal(shape), dtype) for shape in shapes]


def by_numpy(query, key, value, scale, mask=None):
    query, key, value = (np.asarray(x, np.float64) for x in (query, key, value))
    scores = np.einsum("bqhc,bnhc->bhqn", query, key) * scale
    scores = scores if mask is None else np.where(mask, scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return np.einsum("bhqn,bnhc->bqhc", weights / weights.sum(-1, keepdims=True), value)


class Gpu:
    """A device as JAX shows it."""

    def __init__(self, capability):
        self.compute_capability = capability


@pytest.fixture
def on_gpu(monkeypatch):
    """JAX's first device is a GPU; cuDNN's attention marks its result and says how it was asked."""
    asked = []

    def marked(query, key, value, **options):
        asked.append(options)
        return attention._attend(query, key, value, options["scale"], None) + 1

    monkeypatch.setattr(jax, "devices", lambda: [Gpu("9.0")])
    monkeypatch.setattr(jax.nn, "dot_product_attention", marked)
    return asked


@pytest.mark.parametrize(
    ("capability", "dtype", "channels", "has"),
    [
        ("9.0", jnp.bfloat16, 64, True),
        ("8.0", jnp.float16, 128, True),
        ("10.0", jnp.bfloat16, 64, True),
        ("7.5", jnp.bfloat16, 64, False),
        ("gfx942", jnp.bfloat16, 64, False),
        ("9.0", jnp.float32, 64, False),
        ("9.0", jnp.bfloat16, 60, False),
        ("9.0", jnp.bfloat16, 136, False),
    ],
)
def test_which_heads_cudnn_can_do(monkeypatch, capability, dtype, channels, has):
    monkeypatch.setattr(jax, "devices", lambda: [Gpu(capability)])
    assert attention.has_fused_attention(jnp.dtype(dtype), channels) is has


def test_there_is_none_on_a_cpu():
    assert not attention.has_fused_attention(jnp.dtype(jnp.bfloat16), 64)


@pytest.mark.parametrize("platform", ["cuda", "cpu"])
def test_a_program_for_a_gpu_asks_cudnn_and_one_for_a_cpu_does_not(on_gpu, platform):
    def program(query, key, value):
        return attention.attend(query, key, value, SCALE)

    traced = jax.jit(program).trace(*heads())
    assert on_gpu == [{"scale": SCALE, "implementation": "cudnn"}]
    text = traced.lower(lowering_platforms=(platform,)).as_text()
    marks = text.count("stablehlo.add")
    # The softmax of neither adds anything but inside a reduction.
    plain = jax.jit(lambda *x: attention._attend(*x, SCALE, None)).lower(*heads()).as_text()
    assert marks - plain.count("stablehlo.add") == (platform == "cuda")


def test_jax_takes_what_cudnn_is_asked_for(monkeypatch):
    # What only a machine with a GPU can answer; the rest is JAX's own.
    checks = "jax._src.cudnn.fused_attention_stablehlo"
    monkeypatch.setattr(f"{checks}.check_cudnn_version", lambda: 91000)
    monkeypatch.setattr(f"{checks}.check_compute_capability", lambda capability: True)
    monkeypatch.setattr(f"{checks}.is_cuda_compute_capability_equal", lambda capability: False)
    monkeypatch.setattr(jax, "devices", lambda: [Gpu("9.0")])

    def loss(query, key, value):
        return jnp.sum(attention.attend(query, key, value, SCALE).astype(jnp.float32))

    traced = jax.jit(jax.grad(loss)).trace(*heads())  # an odd number of tokens
    assert traced.lower(lowering_platforms=("cuda",)).as_text().count("cudnn$fmha") == 0
    for program, calls in ((loss, 1), (jax.value_and_grad(loss), 1)):
        traced = jax.jit(program).trace(*heads())
        assert traced.lower(lowering_platforms=("cuda",)).as_text().count("cudnn$fmha") == calls
        assert "cudnn" not in traced.lower(lowering_platforms=("cpu",)).as_text()


@pytest.mark.parametrize(
    "case", ["one query", "mask", "float32"], ids=["one_query", "mask", "float32"]
)
def test_cudnn_is_not_asked_for_what_it_cannot_or_need_not_do(on_gpu, case):
    query, key, value = heads(
        queries=1 if case == "one query" else 7,
        dtype=jnp.float32 if case == "float32" else jnp.bfloat16,
    )
    mask = jnp.tri(7, dtype=bool) if case == "mask" else None
    found = attention.attend(query, key, value, SCALE, mask)
    assert not on_gpu
    np.testing.assert_allclose(
        np.asarray(found, np.float64), by_numpy(query, key, value, SCALE, mask), atol=0.02
    )


def test_on_a_cpu_beside_a_gpu_values_and_gradients_are_those_of_softmax(on_gpu):
    arrays = heads()
    weights = jnp.asarray(np.random.default_rng(1).standard_normal(arrays[0].shape), jnp.float32)

    def loss(attend):
        return lambda *qkv: jnp.sum(attend(*qkv, SCALE).astype(jnp.float32) * weights)

    found = jax.jit(attention.attend, static_argnums=3)(*arrays, SCALE)
    assert on_gpu and found.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(found, np.float64), by_numpy(*arrays, SCALE), atol=0.02)
    gradients = jax.jit(jax.grad(loss(attention.attend), argnums=(0, 1, 2)))(*arrays)
    for i, gradient in enumerate(gradients):
        assert gradient.dtype == jnp.bfloat16
        direction = np.random.default_rng(2).standard_normal(arrays[0].shape)
        moved = [np.asarray(x, np.float64) for x in arrays]
        change = []
        for step in (1e-4, -1e-4):
            moved[i] = np.asarray(arrays[i], np.float64) + step * direction
            change.append(np.sum(by_numpy(*moved, SCALE) * np.asarray(weights, np.float64)))
        expected = (change[0] - change[1]) / 2e-4
        size = np.linalg.norm(np.asarray(gradient, np.float64)) * np.linalg.norm(direction)
        got = np.sum(np.asarray(gradient, np.float64) * direction)
        assert abs(got - expected) < 0.003 * size


def test_every_block_of_a_vit_but_the_last_asks_cudnn(on_gpu):
    model = models.build("vit_tiny8", 5, dtype="bfloat16")
    jax.eval_shape(model.init, jax.random.key(0), model.example_input())
    assert len(on_gpu) == model.depth - 1  # the last has one query
    on_gpu.clear()
    text = models.build_text("clip_vit_b32", dtype="bfloat16", depth=2)
    jax.eval_shape(text.init, jax.random.key(0), text.example_input())
    assert not on_gpu  # causal


PHI = {
    "erf": lambda y: 0.5 * (1 + math.erf(y / math.sqrt(2))),
    "tanh": lambda y: 0.5 * (1 + math.tanh(math.sqrt(2 / math.pi) * (y + 0.044715 * y**3))),
    "quick": lambda y: 1 / (1 + math.exp(-1.702 * y)),
}


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("name", attention.GELU)
def test_activations_of_half_precision_round_once(name, dtype):
    x = jnp.linspace(-6, 6, 4001).astype(dtype)
    expected = np.array([y * PHI[name](y) for y in np.asarray(x, np.float64)])
    found = jax.jit(attention.GELU[name])(x)
    assert found.dtype == dtype
    # Half a unit in the last place, and a little for what f32 is off.
    half_a_unit = 0.5 * float(jnp.finfo(dtype).eps)
    np.testing.assert_allclose(
        np.asarray(found, np.float64), expected, rtol=1.01 * half_a_unit, atol=2e-6
    )


@pytest.mark.parametrize("name", attention.GELU)
def test_activations_of_f32_are_as_the_weights_were_trained(name):
    published = {
        "erf": lambda x: nn.gelu(x, approximate=False),
        "tanh": lambda x: nn.gelu(x, approximate=True),
        "quick": lambda x: x * nn.sigmoid(1.702 * x),
    }
    x = jnp.linspace(-8, 8, 4001)
    found = jax.jit(attention.GELU[name])(x)
    np.testing.assert_array_equal(found, jax.jit(published[name])(x))


@pytest.mark.parametrize("bias", [True, False])
def test_patches_of_half_precision_are_a_product_with_the_same_parameters(bias):
    size, patch, width = 12, 4, 8

    def embed(dtype):
        return Embed(size, patch, width, cls_token=True, patch_bias=bias, dtype=dtype)

    rng = np.random.default_rng(3)
    images = jnp.asarray(rng.standard_normal((2, size, size, 3)), jnp.bfloat16)
    init = {
        dtype: embed(dtype).init(jax.random.key(0), images) for dtype in ("float32", "bfloat16")
    }
    jax.tree.map(np.testing.assert_array_equal, init["float32"], init["bfloat16"])
    rounded = jax.tree.map(
        lambda x: np.asarray(x + 0.1 * rng.standard_normal(x.shape), jnp.bfloat16), init["float32"]
    )
    params = jax.tree.map(lambda x: np.asarray(x, np.float64), rounded["params"])
    expected = np.zeros((2, 1 + (size // patch) ** 2, width))
    expected[:, 0] = params["cls"][0]
    for i in range(size // patch):
        for j in range(size // patch):
            cut = np.asarray(images, np.float64)[:, patch * i :, patch * j :][:, :patch, :patch]
            token = np.tensordot(cut, params["patch"]["kernel"], 3)
            expected[:, 1 + i * (size // patch) + j] = token + params["patch"].get("bias", 0)
    expected += params["pos"]
    f32 = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), rounded)
    for dtype, off, convolutions in (("float32", 1e-4, 1), ("bfloat16", 0.02, 0)):
        run = jax.jit(embed(dtype).apply)
        found = np.asarray(run(f32, images.astype(jnp.float32)), np.float64)
        np.testing.assert_allclose(found, expected, atol=off, rtol=off)
        text = run.lower(f32, images).as_text()
        assert text.count("stablehlo.convolution") == convolutions
