"""How elements draw the way in which their augmented view is made."""

import numpy as np
import pytest
import scipy.stats

from robust_jax.data.mixture import RECORD, WAYS, Mixture

COPIES = ("cae_0", "cae_1", "edsr_0", "edsr_1", "noise2net_0", "noise2net_1")
WEIGHTS = {"clean": 1, "augment_ops": 3, "deepaugment": 2.5, "noise2net": 1.5, "chained": 2}
ALL = Mixture(WEIGHTS, COPIES)


def seeds(count=4000, first=7):
    return np.stack([np.full(count, first), np.arange(count)], 1).astype(np.int32)


def names(mixture, seeds):
    """The copies that are drawn, by name, and whether the ops follow."""
    copies, follow = mixture.draw(seeds)
    assert copies.dtype == np.int32
    assert follow.dtype == bool
    assert copies.shape == follow.shape == seeds.shape[:1]
    return np.array([*mixture.copies, ""])[copies], follow  # RECORD is the last


@pytest.mark.parametrize("first", [0, 7, 2**31 - 1])
def test_draws_have_the_weights_and_copies_of_a_kind_come_as_often(first):
    copies, follow = names(ALL, seeds(first=first))
    expected = {("", False): 1.0, ("", True): 3.0}
    for name in COPIES[:4]:
        expected |= {(name, False): 2.5 / 4, (name, True): 2.0 / 4}
    for name in COPIES[4:]:
        expected[name, False] = 1.5 / 2
    pairs, found = np.unique(list(zip(copies, follow, strict=True)), axis=0, return_counts=True)
    counts = {(name, ops == "True"): n for (name, ops), n in zip(pairs, found, strict=True)}
    assert counts.keys() == expected.keys()
    shares = np.array([expected[pair] for pair in counts]) / 10
    assert scipy.stats.chisquare(list(counts.values()), 4000 * shares).pvalue > 1e-3


def test_neighbouring_seeds_draw_independently():
    mixture = Mixture({"clean": 1, "augment_ops": 1})
    _, follow = mixture.draw(seeds())
    for lag in (1, 2, 3):
        assert abs(np.corrcoef(follow[:-lag], follow[lag:])[0, 1]) < 0.06
    others = [mixture.draw(seeds(first=first))[1] for first in (7, 8)]
    assert abs(np.corrcoef(*others)[0, 1]) < 0.06


def test_a_draw_is_a_function_of_the_seed():
    copies, follow = ALL.draw(seeds())
    order = np.random.default_rng(0).permutation(4000)[:100]
    again = ALL.draw(seeds()[order])
    np.testing.assert_array_equal(again[0], copies[order])
    np.testing.assert_array_equal(again[1], follow[order])
    one = ALL.draw(seeds()[17:18])
    assert (one[0][0], one[1][0]) == (copies[17], follow[17])
    assert [len(part) for part in ALL.draw(seeds(0))] == [0, 0]


def test_golden_draws():
    """Runs go on as they began: these may not change."""
    copies, follow = ALL.draw(seeds(12))
    assert copies.tolist() == [1, -1, 0, -1, 4, 0, 0, 2, -1, -1, -1, 4]
    assert follow.tolist() == [1, 1, 0, 1, 0, 0, 0, 1, 1, 0, 0, 0]
    far = np.array([[2**31 - 1, 2**31 - 1], [0, 0], [0, 2**31 - 1]], np.int32)
    assert [part.tolist() for part in ALL.draw(far)] == [[1, -1, 2], [False, True, True]]


def test_weights_are_relative_and_zero_is_absent():
    tenfold = Mixture({name: 10 * weight for name, weight in WEIGHTS.items()}, COPIES)
    turned = Mixture(dict(reversed(WEIGHTS.items())), COPIES)
    some = {"clean": 2, "chained": 3}
    zeros = dict.fromkeys(WAYS, 0.0)
    for one, other in [
        (ALL, tenfold),
        (ALL, turned),
        (Mixture(some, COPIES), Mixture(zeros | some, COPIES)),
    ]:
        for left, right in zip(one.draw(seeds(300)), other.draw(seeds(300)), strict=True):
            np.testing.assert_array_equal(left, right)
    assert Mixture(zeros | some, COPIES).to_json() == Mixture(some, COPIES).to_json()


@pytest.mark.parametrize(
    ("way", "kinds", "ops"),
    [
        ("clean", {""}, False),
        ("augment_ops", {""}, True),
        ("deepaugment", {"cae_0", "cae_1", "edsr_0", "edsr_1"}, False),
        ("noise2net", {"noise2net_0", "noise2net_1"}, False),
        ("chained", {"cae_0", "cae_1", "edsr_0", "edsr_1"}, True),
    ],
)
def test_what_a_way_is(way, kinds, ops):
    mixture = Mixture({way: 0.25}, COPIES)
    copies, follow = names(mixture, seeds(200))
    assert set(copies) == kinds
    assert set(follow) == {ops}
    assert mixture.used == [way]
    assert mixture.always_ops == ops
    assert mixture.needs_copies == (kinds != {""})
    assert len(WAYS) == 5


def test_the_image_itself_is_no_copy():
    copies, _ = Mixture({"clean": 1}).draw(seeds(3))
    assert copies.tolist() == [RECORD] * 3


def test_one_kind_of_deepaugment_is_enough():
    copies, _ = names(Mixture({"chained": 1}, ("noise2net_0", "edsr_0")), seeds(50))
    assert set(copies) == {"edsr_0"}


def test_always_ops_and_needs_copies_of_a_mixture():
    assert Mixture({"augment_ops": 1, "chained": 1}, COPIES).always_ops
    assert not Mixture({"augment_ops": 1, "clean": 1}).always_ops
    assert Mixture({"augment_ops": 1, "clean": 0}).always_ops
    assert not Mixture({"augment_ops": 1, "chained": 0}, COPIES).needs_copies
    assert Mixture({"augment_ops": 1, "chained": 1}, COPIES).needs_copies


def test_to_json_tells_the_weights_and_the_copies_that_matter():
    assert ALL.to_json() == {"weights": WEIGHTS, "copies": list(COPIES)}
    plain = Mixture({"augment_ops": 1.0}, COPIES).to_json()
    assert plain == {"weights": {"augment_ops": 1.0}, "copies": []}


@pytest.mark.parametrize(
    ("weights", "copies", "message"),
    [
        ({"clean": 1, "mixup": 1}, (), r"unknown ways .*; got \['mixup'\]; use clean, augment_ops"),
        ({}, (), r"weights of at least 0 and one above 0; got {}; set for instance augment_ops to"),
        ({"clean": 0, "augment_ops": 0}, (), r"one above 0; got {'clean': 0, 'augment_ops': 0}"),
        ({"clean": 2, "augment_ops": -1}, (), "at least 0 and one above 0; got .* -1}; set"),
        ({"clean": float("inf")}, (), r"at least 0 and one above 0; got {'clean': inf}; set"),
        ({"clean": float("nan")}, (), r"at least 0 and one above 0; got {'clean': nan}; set"),
        ({"clean": 1, "augment_ops": float("nan")}, (), r"one above 0; got .*nan}; set"),
        (
            {"clean": 1, "chained": 1},
            (),
            r"nothing to draw chained from; got copies \[\]; add cae or edsr to distort.networks",
        ),
        (
            {"deepaugment": 1},
            ("noise2net_0",),
            r"nothing to draw deepaugment from; got copies \['noise2net_0'\]; add cae or edsr to",
        ),
        (
            {"noise2net": 1},
            ("cae_0",),
            r"draw noise2net from; .*; add noise2net to distort.networks, or set the weight to 0$",
        ),
    ],
)
def test_mistakes_are_told(weights, copies, message):
    with pytest.raises(ValueError, match=message):
        Mixture(weights, copies)
