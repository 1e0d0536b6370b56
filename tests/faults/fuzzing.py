"""What the fuzz tests share: few cases in the quick suite, a thousand in the slow one."""

import functools
import re

import hypothesis
import hypothesis.strategies as st
import pytest

HOUSE = re.compile(r"(?s).+; got .+; .+|.+; got .+")  # what is wrong; got X; do Y
QUICK, THOROUGH = 40, 1000


def fuzz(strategy):
    """Runs a test of one case with QUICK examples, and with THOROUGH ones as a slow test."""

    def decorate(test):
        @pytest.mark.parametrize("cases", [QUICK, pytest.param(THOROUGH, marks=pytest.mark.slow)])
        @functools.wraps(test, assigned=("__name__", "__doc__", "__module__"))
        def run(cases, tmp_path_factory):
            folder = tmp_path_factory.mktemp("fuzz")
            settings = hypothesis.settings(
                max_examples=cases,
                deadline=None,
                database=None,
                derandomize=True,
                suppress_health_check=list(hypothesis.HealthCheck),
            )

            @settings
            @hypothesis.given(strategy)
            def case(value):
                test(value, folder)

            case()

        del run.__wrapped__  # pytest would take its arguments for fixtures
        return run

    return decorate


def only_house_errors(call, *args, **kwargs):
    """Returns what a call returns, or None after a ValueError in the house's form."""
    try:
        return call(*args, **kwargs)
    except ValueError as error:
        assert type(error) is ValueError, repr(error)
        assert HOUSE.search(str(error)), str(error)
        return None


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-3, 12),
    st.sampled_from([2**31, 2**63, -(2**63), 10**400, 10**4000]),
    st.floats(),
    st.complex_numbers(),
    st.text(max_size=20),
    st.binary(max_size=8),
    st.sampled_from(["all", "stop", "skip:3", "skip:99999999999999", "auto", "paper", "none"]),
)
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(st.text("abcé_ \0", max_size=5), inner, max_size=3),
    ),
    max_leaves=8,
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=5,
)
