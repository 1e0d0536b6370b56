import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robust_jax import costs
from robust_jax.augment.batching import keys_of
from robust_jax.augment.noise2net import noise2net_pixels
from robust_jax.sharding import make_mesh, shard_batch

X, W = np.zeros((8, 16), np.float32), np.zeros((16, 32), np.float32)
SQUARE = np.zeros((16, 16), np.float32)


def count(fn, *args, calls=1):
    return costs.flops(calls, fn, *args)["flops"]


def test_a_dense_layer():
    expected = 2 * 8 * 16 * 32
    assert count(jnp.matmul, X, W) == expected
    assert count(jax.jit(jnp.matmul), X, W, calls=3) == 3 * expected
    backward = count(jax.grad(lambda w: jnp.square(X @ w).sum()), W)
    assert backward == pytest.approx(2 * expected, rel=0.1)
    assert count(lambda x: x, X) == 0


def test_a_convolution_without_its_padding():
    images, kernel = np.zeros((2, 32, 32, 3), np.float32), np.zeros((3, 3, 3, 8), np.float32)

    def convolve(x, w):
        numbers = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=numbers)

    rows = 32 * 3 - 2  # pairs of a row and a row of the kernel on it
    assert count(convolve, images, kernel) == 2 * 2 * rows**2 * 3 * 8


def test_loops_count_as_often_as_they_run():
    once = 2 * 8 * 16 * 16

    def loop(x, length):
        return jax.lax.scan(lambda x, _: (x @ SQUARE, None), x, length=length)[0]

    def nested(x):
        return jax.lax.map(lambda x: jax.jit(lambda x: loop(x, 5))(x), x)

    for length in (1, 7):
        assert count(lambda x, n=length: loop(x, n), X) == pytest.approx(length * once, rel=0.01)
    assert count(nested, np.stack([X] * 3)) == pytest.approx(15 * once, rel=0.01)

    def choice(i, x):
        return jax.lax.switch(i, [lambda x: x, lambda x: loop(x, 4), lambda x: loop(x, 9)], x)

    assert count(choice, np.int32(0), X) == pytest.approx(9 * once, rel=0.01)

    def by_platform(x):
        return jax.lax.platform_dependent(
            x, tpu=lambda x: loop(x, 20), cpu=lambda x: loop(x, 2), default=lambda x: loop(x, 30)
        )

    assert count(by_platform, X) == pytest.approx(2 * once, rel=0.01)


def test_noise2net():
    """Twelve convolutions of 16 planes dominate; a batch costs as much as its images."""

    def run(images, seeds):
        return noise2net_pixels(images, keys_of(seeds))

    one, five = (
        count(run, np.zeros((b, 32, 32, 3), np.uint8), np.zeros((b, 2), np.int32)) for b in (1, 5)
    )
    assert one == pytest.approx(12 * 2 * 32 * 32 * 9 * 16 * 16, rel=0.1)
    assert five == pytest.approx(5 * one, rel=0.01)


def test_placement_does_not_matter():
    placed = shard_batch({"x": X}, make_mesh())["x"]
    assert len(placed.devices()) == 4
    assert count(jnp.matmul, placed, W) == count(jnp.matmul, X, W)


def test_without_a_cpu_nothing_is_counted(monkeypatch):
    def none(**_):
        raise RuntimeError("Unknown backend cpu")

    monkeypatch.setattr(jax, "local_devices", none)
    assert costs.flops(1, jnp.matmul, X, W) == {}


def test_sums():
    assert costs.added({"flops": 1.0}, {"flops": 2.0, "seconds": 5.0}) == {"flops": 3.0}
    assert costs.added({"flops": 1.0}, {"seconds": 5.0}) == {}


def test_seconds_add_up_by_name(tmp_path):
    path = tmp_path / "cache" / "spent.json"
    assert costs.spent(path) == {}
    costs.spend(path, one=1.5)
    costs.spend(path, one=2.0, other=1.0)
    assert costs.spent(path) == {"one": 3.5, "other": 1.0}
