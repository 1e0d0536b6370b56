import jax
import jax.numpy as jnp
import numpy as np
import pytest
from edsr_results import ALL, THIRDS, C, all_results, as_file, blocks, body, results
from scipy import special

from robust_jax.deepaugment import edsr_weights


def gelu(x):
    return x * (1 + special.erf(x / np.sqrt(2))) / 2


SIMPLE = {
    "flip_filters": (THIRDS, lambda w, b: (w[:, ::-1], b[:, ::-1])),
    "negate_convolution": (
        {1, 4, 7},
        lambda w, b: (np.stack([-w[0], w[1]]), np.stack([-b[0], b[1]])),
    ),
    "zero_convolution": (
        THIRDS,
        lambda w, b: (np.stack([0 * w[0], w[1]]), np.stack([0 * b[0], b[1]])),
    ),
    "gelu_kernels": (THIRDS, lambda w, b: (-gelu(w), b)),
    "laplace_4": (
        THIRDS,
        lambda w, b: (np.stack([w[0] * [[0, 1, 0], [1, -4, 1], [0, 1, 0]], w[1]]), b),
    ),
    "laplace_8": (
        THIRDS,
        lambda w, b: (np.stack([w[0] * [[-1, -1, -1], [-1, 8, -1], [-1, -1, -1]], w[1]]), b),
    ),
    "mirror_and_negate": (THIRDS, lambda w, b: (np.stack([w[0][..., ::-1], -w[1]]), b)),
}


@pytest.mark.parametrize("name", SIMPLE)
def test_changes_without_draws(name):
    expected_blocks, change = SIMPLE[name]
    rows = results(name)
    assert blocks(rows) == expected_blocks
    for _, w, w2, b, b2 in rows:
        expected_w, expected_b = change(w, b)
        np.testing.assert_allclose(w2, expected_w, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(b2, expected_b)


@pytest.mark.parametrize("faithful", [True, False])
def test_scale_weights(faithful):
    rows = results("scale_weights", faithful)
    assert blocks(rows) == THIRDS
    slopes = []
    for _, w, w2, b, b2 in rows:
        np.testing.assert_array_equal(w[0], w2[0])
        np.testing.assert_array_equal(b, b2)
        ratio = w2[1] / w[1]
        slope = np.ptp(ratio)  # 4 u
        low = 1 if faithful else 1 - slope / 2
        assert abs(ratio.min() - low) <= 0.1 * slope
        slopes.append(slope)
    assert 4 > max(slopes) > 3.5 and min(slopes) < 1


def test_add_noise():
    rows = results("add_noise")
    assert blocks(rows) <= ALL and len(blocks(rows)) > 8
    noise = np.stack([w2 - w for _, w, w2, *_ in rows])
    assert np.all(noise[:, 0] == 0)
    assert np.abs(noise[:, 1]).max() <= 0.5 + 1e-6
    np.testing.assert_allclose(noise[:, 1].std(), 1 / np.sqrt(12), rtol=0.05)
    np.testing.assert_allclose(noise[:, 1].std(), 1 / np.sqrt(12), rtol=0.05)


@pytest.mark.parametrize(
    "name, faithful",
    [
        ("rotate_kernels", False),
        ("sign_mask", False),
        ("zero_mask", False),
        ("negate_filters", False),
        ("negate_filters", True),
        ("keep_largest_tap", False),
    ],
)
def test_five_draws(name, faithful):
    """Each kernel that changed, changed as by one draw, or by several where it was drawn again."""
    old = as_file(body()["kernel"])
    singles, counts, convolutions = 0, [], set()
    turns, negatives = set(), set()
    kernel, bias = all_results(name, faithful)
    np.testing.assert_array_equal(bias, np.broadcast_to(body()["bias"], bias.shape))
    for new in as_file(kernel):
        moved = np.argwhere(np.any(new != old, axis=(2, 3, 4, 5)))
        counts.append(len(moved))
        assert {int(i) for i, _ in moved} <= ALL
        convolutions |= {int(j) for _, j in moved}
        for i, j in moved:
            w, w2 = old[i, j], new[i, j]
            if name == "rotate_kernels":
                variants = [np.rot90(w, k, p) for k in (1, 2, 3) for p in ((2, 3), (0, 1))]
                turned = [np.array_equal(w2, v) for v in variants]
                singles += any(turned)
                turns |= set(np.flatnonzero(turned))
                np.testing.assert_allclose(np.sort(w2, None), np.sort(w, None))
            elif name == "negate_filters":
                negated = [np.array_equal(w2[k], -w[k]) for k in range(C)]
                assert all(n or np.array_equal(w2[k], w[k]) for k, n in enumerate(negated))
                singles += sum(negated) <= C // 2
                negatives.add(sum(negated))
            elif name == "keep_largest_tap":
                assert np.all((w2 != 0).sum((2, 3)) <= 1)
                # Nine negative taps: a second time takes a zero for the largest one.
                singles += np.array_equal(w2.sum((2, 3)), w.max((2, 3)))
            else:
                share = {"sign_mask": w2 == -w, "zero_mask": w2 == 0}[name].mean()
                assert np.all((w2 == w) | (w2 == (-w if name == "sign_mask" else 0)))
                singles += 0.35 < share < 0.65
    second = name in ("rotate_kernels", "keep_largest_tap")
    assert convolutions == ({0, 1} if second else {0})
    assert turns == (set(range(6)) if name == "rotate_kernels" else set())
    if name == "negate_filters":  # one drawn twice is negated once
        assert (1 in negatives) == faithful and C // 2 in negatives
    assert max(counts) == 5 and np.mean(counts) > 3.5
    assert singles >= 0.6 * sum(counts)


def test_blocks_of_other_depths():
    assert edsr_weights.blocks_of((0, 3, 6, 9), 16) == [0, 3, 6, 9]
    assert edsr_weights.blocks_of((1, 5, 9), 4) == [0, 1, 2]
    assert edsr_weights.blocks_of(tuple(range(15)), 1) == [0]


def test_three_are_drawn():
    names = ["negate_convolution", "zero_convolution", "flip_filters"]

    def run(key):
        params = {"body": jax.tree.map(jnp.asarray, body())}
        return edsr_weights.perturb(key, params, names, faithful=True)["body"]["kernel"]

    old = body()["kernel"]
    found = np.asarray(jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(1), 60)))
    moved = np.any(found != old, axis=(2, 3, 4, 5, 6)).sum(1)
    assert set(moved) >= {2, 3} and moved.max() == 3
