"""Any budget: a plan within it, or a documented error."""

import functools

import hypothesis.strategies as st
import jax
import pytest
from fuzzing import ANYTHING, SCALARS, fuzz, only_house_errors

from robust_jax import models
from robust_jax.method import budget

MODELS = ("vit_tiny8", "resnet_small")


@functools.cache
def network(name):
    model = models.build(name, 10)
    return model, models.shapes(model)["params"]


TEXTS = st.one_of(
    ANYTHING,
    st.floats().map(str),
    st.integers().map(str),
    st.floats(0, 2).map(str),
    st.sampled_from(["1e400", "1_000", "0x10", "infinity", "-0", "1e-320", " 5 ", "paper", "auto"]),
)


@fuzz(st.tuples(TEXTS, st.sampled_from(["vit_b16", "vit_tiny8", ""]), SCALARS | st.just(10**7)))
def test_any_target(case, folder):
    text, name, total = case
    found = only_house_errors(budget.target, text, name, total)
    assert found is None or found >= 0


SPENDING = st.tuples(
    st.sampled_from(MODELS),
    st.one_of(st.integers(1, 10**7), SCALARS),
    st.fixed_dictionaries(
        {
            "num_classes": st.one_of(st.integers(1, 2000), SCALARS),
            "heads_share": st.one_of(st.floats(0, 1), SCALARS),
            "share": st.one_of(st.sampled_from(["tail", "none"]), ANYTHING),
        }
    ),
)


@fuzz(SPENDING)
def test_any_budget(case, folder):
    name, amount, options = case
    model, params = network(name)
    plan = only_house_errors(budget.resolve, model, params, amount, **options)
    if plan is not None:
        assert 0 < plan.tuned_params <= amount
        assert plan.head_rank >= budget.MIN_HEAD_RANK and plan.adapter_width >= 0
        assert plan.total_params == sum(leaf.size for leaf in jax.tree.leaves(params))
        assert budget.format_table(plan, model, params)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"budget": -1}, "whole numbers above 0"),
        ({"budget": float("nan")}, "got nan parameters"),
        ({"budget": 10**400}, "whole numbers above 0"),
        ({"num_classes": 0}, "and 0 classes"),
        ({"num_classes": "ten"}, "and 'ten' classes"),
        ({"heads_share": 0}, "method.heads_share .*; got 0; use"),
        ({"heads_share": float("nan")}, "method.heads_share .*; got nan; use"),
        ({"share": "heads"}, "unknown share; got 'heads'; use one of tail, none"),
        ({"share": None}, "unknown share; got None"),
    ],
)
def test_what_is_no_budget_is_told(change, message):
    model, params = network("vit_tiny8")
    options = {"budget": 10**5, "num_classes": 10, "heads_share": 0.2, "share": "tail"} | change
    with pytest.raises(ValueError, match=message):
        budget.resolve(model, params, **options)
