import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robust_jax.deepaugment import cae_code

KEYS = jax.random.split(jax.random.key(0), 24)
C = 32


@functools.cache
def compiled(name, faithful):
    return jax.jit(jax.vmap(lambda key, code: cae_code.CHANGES[name](key, code, faithful)))


def code_of(h=6, w=5, c=C):
    return np.random.default_rng(0).uniform(0.1, 0.9, (h, w, c)).astype(np.float32)


def results(name, faithful=True, code=None):
    code = code_of() if code is None else code
    return code, np.asarray(
        compiled(name, faithful)(KEYS, np.broadcast_to(code, (24, *code.shape)))
    )


def kernels(name):
    """[taps f32[3, 3, i, o]] of a linear change, read off its answers to single ones."""
    deltas = np.zeros((C, 5, 5, C), np.float32)
    deltas[np.arange(C), 2, 2, np.arange(C)] = 1
    change = compiled(name, True)
    found = []
    for key in KEYS[:8]:
        out = np.asarray(change(jnp.repeat(key[None], C), deltas))  # [i, h, w, o]
        found.append(out[:, 1:4, 1:4][:, ::-1, ::-1].transpose(1, 2, 0, 3).copy())
    return found


@pytest.mark.parametrize("faithful", [True, False])
def test_scale_bits(faithful):
    bits = np.ones((8, 8, C), np.float32)
    _, found = results("scale_bits", faithful, bits)
    for factors in found:
        slope = np.ptp(factors)  # 4 u
        low = 3 if faithful else 3 - slope / 2
        assert low - 0.02 * slope <= factors.min() <= low + 0.02 * slope
        np.testing.assert_allclose(factors.mean(), low + slope / 2, atol=0.03 * slope)
    slopes = np.ptp(found, axis=(1, 2, 3))
    assert slopes.min() < 1 and 3.7 < slopes.max() < 4


@pytest.mark.parametrize("name, share, value", [("zero", 0.2, 0), ("negate", 0.1, -1)])
def test_positions(name, share, value):
    code, found = results(f"{name}_positions", code=code_of(20, 20))
    ratios = found / code
    np.testing.assert_array_equal(ratios, np.broadcast_to(ratios[..., :1], ratios.shape))
    assert set(np.unique(ratios)) == {value, 1}
    np.testing.assert_allclose((ratios == value).mean(), share, atol=0.02)


def test_permute_channels():
    code, found = results("permute_channels")
    orders = set()
    for out in found:
        np.testing.assert_array_equal(out[..., 10:], code[..., 10:])
        order = [int(np.argmin(np.abs(code - out[..., [k]]).sum((0, 1)))) for k in range(10)]
        assert sorted(order) == list(range(10))
        np.testing.assert_array_equal(out[..., :10], code[..., order])
        orders.add(tuple(order))
    assert len(orders) > 20 and {order[9] for order in orders} == set(range(10))


@pytest.mark.parametrize("faithful", [True, False])
def test_flip_some_channels(faithful):
    code, found = results("flip_some_channels", faithful)
    flips = {"rows": code[::-1], "columns": code[:, ::-1], "both": code[::-1, ::-1]}
    kinds, counts = set(), []
    for out in found:
        moved = np.any(out != code, axis=(0, 1))
        counts.append(int(moved.sum()))
        (kind,) = [k for k, f in flips.items() if np.array_equal(out[..., moved], f[..., moved])]
        kinds.add(kind)
    assert kinds == set(flips)
    # Of five drawn from 32 with replacement, two are the same in about one image of four.
    assert set(counts) == ({5, 3} if faithful else {5})


def test_flip_all_channels():
    code, found = results("flip_all_channels")
    flips = [code[::-1], code[:, ::-1], code[::-1, ::-1]]
    assert {[np.array_equal(out, f) for f in flips].index(True) for out in found} == {0, 1, 2}


def test_convolve_noise():
    for taps in kernels("convolve_noise"):
        noise = taps.copy()
        noise[1, 1] -= np.eye(C)
        assert np.abs(noise).max() <= 0.1 + 1e-5
        np.testing.assert_allclose(noise.std(), 0.2 / np.sqrt(12), rtol=0.02)


def test_mix_channels():
    mixed, places = [], set()
    for taps in kernels("mix_channels"):
        np.testing.assert_array_equal(taps[1, 1].diagonal(), 1)
        taps[1, 1] -= np.eye(C)
        assert set(np.unique(taps)) == {0, 1}
        assert np.all(taps.sum((0, 1, 2)) <= 1)  # one source of each channel
        mixed.append(taps.sum() / C)
        places |= {tuple(p) for p in np.argwhere(taps)[:, :2]}
    assert 0.35 < np.mean(mixed) < 0.65
    assert len(places) == 9


def test_shift_channels():
    changes = []
    for taps in kernels("shift_channels"):
        assert taps.sum() == C
        np.testing.assert_array_equal(taps.sum((0, 1)), np.eye(C))
        places = np.asarray([np.argwhere(taps[:, :, c, c])[0] for c in range(C)])
        changes.append(np.mean(np.any(places[1:] != places[:-1], axis=1)))
    np.testing.assert_allclose(np.mean(changes), 0.2 * 8 / 9, atol=0.06)


def perturbed(keys, code, names):
    run = jax.vmap(lambda key: cae_code.perturb(key, code, names, faithful=True))
    return np.round(jax.jit(run)(keys), 5)


def test_bits_come_after_every_change_but_one():
    keys = jax.random.split(jax.random.key(3), 400)
    scaled = 0
    for out in perturbed(keys, jnp.asarray(code_of(3, 3)), list(cae_code.CHANGES)):
        values = np.unique(out)
        scaled += values[1] >= 3
        assert values[0] == 0 and (values[1] >= 3 or values.tolist() == [0, 1])
    assert 0.08 < scaled / 400 < 0.15  # one of nine


@pytest.mark.parametrize("names", [["flip_all_channels"], []])
def test_a_sure_code(names):
    """Of -1 and 1 the bits are certain, so that they show the change."""
    code = np.sign(code_of() - 0.5)
    codes = [code[::-1], code[:, ::-1], code[::-1, ::-1]] if names else [code]
    found = [
        [np.array_equal(2 * out - 1, c) for c in codes] for out in perturbed(KEYS, code, names)
    ]
    assert np.sum(found, 1).tolist() == [1] * len(KEYS) and np.any(found, 0).all()


def test_small_codes_change_the_same_share():
    code, found = results("permute_channels", code=code_of(c=16))
    np.testing.assert_array_equal(found[..., 5:], np.broadcast_to(code, found.shape)[..., 5:])
    assert np.any(found[..., 4] != code[..., 4])
