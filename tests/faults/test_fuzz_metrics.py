"""Any input of any metric: an estimate in its range, or a documented error; no warning."""

import warnings

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pytest
from fuzzing import ANYTHING, SCALARS, fuzz, only_house_errors

from robust_jax.evals import metrics

ARRAYS = st.one_of(
    hnp.arrays(
        st.sampled_from(
            [np.bool_, np.int8, np.int64, np.uint64, np.float16, np.float64, np.complex64]
        ),
        hnp.array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=6),
    ),
    st.lists(st.floats(0, 1), max_size=6).map(np.array),
    st.lists(st.booleans(), max_size=6).map(np.array),
    st.just(np.array(["a", "b"])),
    st.just(np.array([{}, None], object)),
    ANYTHING,
)
PAIRS = st.integers(1, 6).flatmap(
    lambda n: st.tuples(
        hnp.arrays(np.float64, n, elements=st.floats(0, 1)), hnp.arrays(np.bool_, n)
    )
)
CALLS = {
    "proportion": (metrics.proportion, st.tuples(SCALARS, SCALARS)),
    "mean": (metrics.mean, st.tuples(ARRAYS)),
    "accuracy": (metrics.accuracy, st.tuples(ARRAYS, ARRAYS)),
    "f_correct": (
        metrics.f_correct,
        st.tuples(ARRAYS, st.one_of(st.sampled_from(["clean", "shift"]), SCALARS)),
    ),
    "ece": (
        metrics.ece,
        st.one_of(
            st.tuples(ARRAYS, ARRAYS),
            PAIRS.flatmap(lambda pair: st.tuples(st.just(pair[0]), st.just(pair[1]), SCALARS)),
        ),
    ),
    "auroc": (metrics.auroc, st.tuples(ARRAYS, ARRAYS)),
    "auroc_interval": (
        metrics.auroc_interval,
        st.tuples(SCALARS | st.floats(0, 1), SCALARS, SCALARS),
    ),
    "risk_coverage": (metrics.risk_coverage, st.one_of(st.tuples(ARRAYS, ARRAYS), PAIRS)),
    "aurc": (
        metrics.aurc,
        st.one_of(
            st.tuples(ARRAYS, ARRAYS),
            PAIRS.flatmap(lambda pair: st.tuples(st.just(pair[0]), st.just(pair[1]), SCALARS)),
        ),
    ),
}
FRACTIONS = ("proportion", "accuracy", "f_correct", "ece", "aurc")


@fuzz(st.sampled_from(sorted(CALLS)).flatmap(lambda name: st.tuples(st.just(name), CALLS[name][1])))
def test_any_input(case, folder):
    name, args = case
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = only_house_errors(CALLS[name][0], *args)
    if found is None:
        return
    if name in FRACTIONS:
        assert 0 <= found.low <= found.value <= found.high <= 1
    elif name == "mean":
        assert found.low <= found.value <= found.high
    elif name == "auroc":
        assert 0 <= found <= 1
    elif name == "auroc_interval":
        assert 0 <= found[0] <= args[0] <= found[1] <= 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: metrics.proportion(1.5, 2), "got 1.5 of 2"),
        (lambda: metrics.mean(["a"]), "a mean needs numbers; got <U1"),
        (lambda: metrics.mean([[1], [1, 2]]), "a mean needs numbers; got what is no array"),
        (lambda: metrics.mean([1e200, -1e200]), "a mean needs one finite number"),
        (lambda: metrics.accuracy(["a"], ["a"]), "accuracy needs whole numbers; got <U1"),
        (lambda: metrics.accuracy([0.2], [0.2]), r"accuracy needs whole numbers; got float64\[1\]"),
        (lambda: metrics.ece([7.0], [True]), "a confidence is a probability; got 7.0 to 7.0"),
        (lambda: metrics.ece([0.5], [True], 10**12), "ECE needs bins; got 1000000000000"),
        (lambda: metrics.ece([np.nan], [True]), "a score and right .* got 1 NaN"),
        (lambda: metrics.risk_coverage([np.nan], [True]), "a score and right .* got 1 NaN"),
        (lambda: metrics.risk_coverage([0.5], [3]), "values up to 3"),
        (lambda: metrics.aurc([0.5, 0.1], [True, False], 0), "a jackknife needs blocks; got 0"),
        (lambda: metrics.auroc_interval(2, 5, 5), r"an AUROC lies in \[0, 1\]; got 2"),
        (lambda: metrics.auroc_interval(0.5, 0, 5), "cases of both kinds; got \\(0, 5\\)"),
        (lambda: metrics.auroc([1j], [1.0]), "AUROC needs numbers; got complex128"),
    ],
)
def test_what_is_no_measurement_is_told(call, message):
    with pytest.raises(ValueError, match=message):
        call()
