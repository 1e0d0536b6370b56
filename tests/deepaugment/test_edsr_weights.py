import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import signal, special

from robust_jax.deepaugment import edsr_weights
from robust_jax.deepaugment import perturbations as shared

C = 4  # channels of 16 blocks, the published depth: the published block numbers apply
KEYS = jax.random.split(jax.random.key(0), 24)
THIRDS, FOURTHS, ALL = {0, 3, 6, 9}, {1, 5, 9}, set(range(15))


@functools.cache
def body():
    draw = np.random.default_rng(0)
    shapes = {"kernel": (16, 2, 3, 3, C, C), "bias": (16, 2, C)}
    return {k: draw.normal(size=shape).astype(np.float32) for k, shape in shapes.items()}


@functools.cache
def all_results(name, faithful):
    change = edsr_weights.CHANGES[name]
    found = jax.jit(jax.vmap(lambda key: change(key, jax.tree.map(jnp.asarray, body()), faithful)))(
        KEYS
    )
    return np.asarray(found["kernel"]), np.asarray(found["bias"])


def as_file(kernel):
    """[..., h, w, i, o] -> [..., o, i, h, w]"""
    return np.moveaxis(kernel, (-1, -2), (-4, -3))


def results(name, faithful=True):
    """[(block, old, new, old bias, new bias)] by key, kernels f32[2, o, i, h, w]."""
    kernel, bias = body()["kernel"], body()["bias"]
    found = []
    for w, b in zip(*all_results(name, faithful), strict=True):
        moved = np.any(w != kernel, axis=(1, 2, 3, 4, 5)) | np.any(b != bias, axis=(1, 2))
        (i,) = np.flatnonzero(moved)
        found.append((int(i), as_file(kernel[i]), as_file(w[i]), bias[i], b[i]))
    return found


def blocks(rows):
    return {row[0] for row in rows}


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
    for _, w, w2, b, b2 in rows:
        np.testing.assert_array_equal(w[0], w2[0])
        np.testing.assert_array_equal(b, b2)
        ratio = w2[1] / w[1]
        slope = np.ptp(ratio)  # 4 u
        low = 1 if faithful else 1 - slope / 2
        assert abs(ratio.min() - low) <= 0.1 * slope
        assert slope <= 4


def test_add_noise():
    rows = results("add_noise")
    assert blocks(rows) <= ALL and len(blocks(rows)) > 8
    noise = np.stack([w2 - w for _, w, w2, *_ in rows])
    assert np.all(noise[:, 0] == 0)
    assert np.abs(noise[:, 1]).max() <= 0.5 + 1e-6
    np.testing.assert_allclose(noise[:, 1].std(), 1 / np.sqrt(12), rtol=0.05)


def convolution_matrix(w):
    """The matrix of kernel taps [9 i] -> one new input channel [9 o], for w f32[o, i, 3, 3]."""
    columns = []
    for i, r, s in np.ndindex(w.shape[1], 3, 3):
        tap = np.zeros((3, 3))
        tap[r, s] = 1
        columns.append([signal.correlate2d(w[o, i], tap, "same") for o in range(len(w))])
    return np.asarray(columns).reshape(len(columns), -1).T


def recovered(w, w2):
    """The kernel [new input, i, 3, 3] that was convolved with w, by solving for it."""
    matrix = convolution_matrix(w.astype(np.float64))
    flat = w2.swapaxes(0, 1).reshape(w.shape[1], -1).T
    found, *_ = np.linalg.lstsq(matrix, flat.astype(np.float64), rcond=None)
    assert np.linalg.cond(matrix) < 1e3
    np.testing.assert_allclose(matrix @ found, flat, atol=1e-3)
    return found.T.reshape(w.shape[1], w.shape[1], 3, 3)


def solvable(rows, convolution):
    """The rows whose kernel can be told from the result: a square system, not always well posed."""
    kept = [r for r in rows if np.linalg.cond(convolution_matrix(r[1][convolution])) < 1e3]
    assert kept
    return kept


@pytest.mark.parametrize("faithful", [True, False])
def test_convolve_shifts(faithful):
    rows = results("convolve_shifts", faithful)
    assert blocks(rows) == FOURTHS
    for _, w, w2, b, b2 in solvable(rows, 0):
        np.testing.assert_array_equal(w[1], w2[1])
        np.testing.assert_array_equal(b, b2)
        taps = np.round(recovered(w[0], w2[0]), 2)
        assert set(np.abs(taps).ravel()) == {0, 1}
        if faithful:  # one shift of each input, the same for all
            np.testing.assert_array_equal(taps, np.broadcast_to(taps[:1], taps.shape))
            np.testing.assert_array_equal(np.abs(taps).sum((2, 3)), 1)
        else:
            np.testing.assert_array_equal(np.abs(taps).sum((2, 3)), np.eye(C))


@pytest.mark.parametrize("faithful", [True, False])
def test_convolve_noise(faithful):
    rows = results("convolve_noise", faithful)
    assert blocks(rows) == THIRDS
    for _, w, w2, *_ in solvable(rows, 0):
        noise = 6 * recovered(w[0], w2[0])
        np.testing.assert_array_equal(w[1], w2[1])
        spread = np.ptp(noise)  # 2 u
        assert spread <= 2.05
        low = -1 if faithful else -spread / 2
        assert abs(noise.min() - low) < 0.1
    assert max(np.ptp(6 * recovered(r[1][0], r[2][0])) for r in solvable(rows, 0)) > 0.5


def test_convolve_dirichlet():
    rows, maxima = results("convolve_dirichlet"), []
    assert blocks(rows) == FOURTHS
    for _, w, w2, *_ in solvable(rows, 1):
        taps = recovered(w[1], w2[1])
        np.testing.assert_array_equal(w[0], w2[0])
        assert taps.min() > -1e-2
        np.testing.assert_allclose(taps.sum((2, 3)), 1, atol=1e-2)
        maxima.append(taps.max((2, 3)))
    assert np.mean(maxima) > 0.6  # at 0.1, one tap has most of it: 0.33 at 1


@pytest.mark.parametrize(
    "name, second",
    [
        ("rotate_kernels", True),
        ("sign_mask", False),
        ("zero_mask", False),
        ("negate_filters", False),
        ("keep_largest_tap", True),
    ],
)
def test_five_draws(name, second):
    """Each kernel that changed, changed as by one draw, or by several where it was drawn again."""
    old = as_file(body()["kernel"])
    singles, counts, convolutions = 0, [], set()
    kernel, bias = all_results(name, False)
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
                singles += any(np.array_equal(w2, v) for v in variants)
                np.testing.assert_allclose(np.sort(w2, None), np.sort(w, None))
            elif name == "negate_filters":
                negated = [np.array_equal(w2[k], -w[k]) for k in range(C)]
                assert all(n or np.array_equal(w2[k], w[k]) for k, n in enumerate(negated))
                singles += sum(negated) == C // 2
            elif name == "keep_largest_tap":
                assert np.all((w2 != 0).sum((2, 3)) <= 1)
                # Nine negative taps: a second time takes a zero for the largest one.
                singles += np.array_equal(w2.sum((2, 3)), w.max((2, 3)))
            else:
                share = {"sign_mask": w2 == -w, "zero_mask": w2 == 0}[name].mean()
                assert np.all((w2 == w) | (w2 == (-w if name == "sign_mask" else 0)))
                singles += 0.35 < share < 0.65
    assert convolutions == ({0, 1} if second else {0})
    assert max(counts) == 5 and np.mean(counts) > 3.5
    assert singles >= 0.6 * sum(counts)


def test_negate_filters_faithful_draws_with_replacement():
    counts = shared.filter_counts(jax.random.key(0), 64, 32, faithful=True)
    assert counts.sum() == 32 and counts.max() > 1
    counts = shared.filter_counts(jax.random.key(0), 64, 32, faithful=False)
    assert counts.sum() == 32 and counts.max() == 1


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
