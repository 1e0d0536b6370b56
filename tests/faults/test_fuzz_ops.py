"""Any text as an ops string, and any literal as an op's argument."""

import hypothesis.strategies as st
import pytest
from fuzzing import fuzz, only_house_errors

from robust_jax.data import registry

NAMES = [
    *("decode", "resize", "resize_small", "central_crop", "random_crop", "inception_crop"),
    *("crop_border", "flip_lr", "value_range", "standardise", "augmix", "gaussian_noise", "fog"),
    "nothing",
]
LITERALS = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-3, 40),
        st.integers(),
        st.floats(),
        st.text(max_size=6),
        st.just(10**400),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(st.text(max_size=2), inner, max_size=2),
    ),
    max_leaves=4,
)
KEYWORDS = [
    *("size", "method", "antialias", "pad", "area", "ratio", "lo", "hi", "mean", "std"),
    *("severity", "width", "depth", "alpha", "all_ops", "x"),
]
CALLS = st.tuples(
    st.sampled_from(NAMES),
    st.lists(LITERALS.map(repr), max_size=3),
    st.lists(st.tuples(st.sampled_from(KEYWORDS), LITERALS.map(repr)).map("=".join), max_size=3),
).map(lambda call: f"{call[0]}({', '.join([*call[1], *call[2]])})")
SYNTAX = st.text(alphabet="decodfp_lr|(){}[],=*'\"-+0123456789. \n\0\\#:@", max_size=40)
DEEP = st.tuples(st.sampled_from(["(", "[", "{", "-", "a|", "a(", "~", "a("]), st.integers(1, 9999))
STRINGS = st.one_of(
    st.lists(CALLS, min_size=1, max_size=3).map("|".join),
    st.lists(CALLS | SYNTAX, max_size=4).map("|".join),
    SYNTAX,
    st.text(max_size=30),
    DEEP.map(lambda pair: pair[0] * pair[1] + "a"),
)


@fuzz(STRINGS)
def test_any_text(ops, folder):
    only_house_errors(registry.parse, ops)
    only_house_errors(registry.build, ops)


@pytest.mark.parametrize(
    "ops",
    [
        "resize({[]: 1})",
        "resize({[]})",
        "resize(8, pad=1, pad=2)",
        "-" * 9000 + "1",
    ],
    ids=["unhashable key", "unhashable member", "twice", "nested"],
)
def test_what_python_reads_otherwise_is_told(ops):
    with pytest.raises(ValueError, match=r"cannot read the ops string .*; got .*; write names"):
        registry.build(ops)


@pytest.mark.parametrize(
    "ops",
    [
        f"value_range(0.5, 1{'0' * 400}, 1)",
        "inception_crop(8, area=())",
    ],
    ids=["endless", "empty"],
)
def test_arguments_that_fail_in_an_op_are_told(ops):
    with pytest.raises(ValueError, match=r"bad arguments of op .*; got .*; use "):
        registry.build(ops)
