import jax
import pytest

from robust_jax import models
from robust_jax.method import budget


def _params(name, num_classes, **kwargs):
    model = models.build(name, num_classes, **kwargs)
    return model, jax.eval_shape(model.init, jax.random.key(0), model.example_input())["params"]


def _total(params):
    return sum(leaf.size for leaf in jax.tree.leaves(params))


# Table 5 of the paper's supplement, with the heads' rank, the adapter's width and the stage where
# the tail begins, as our rule resolves them.
TABLE_5 = {
    "resnet101": (2.1, 46, 150, "stage4_block2"),
    "resnet152": (2.6, 57, 248, "stage4_block2"),
    "vit_small_legacy48m": (2.3, 86, 43, "block_07_mlp"),
    "vit_b16": (3.1, 116, 76, "block_11_mlp"),
    "clip_rn50": (3.9, 128, 496, "attn_pool"),
    "clip_rn101": (4.1, 180, 2174, "attn_pool"),
    "clip_vit_b16": (4.3, 189, 666, "block_11_mlp"),
    "clip_vit_l14_336": (5.6, 210, 2401, "norm"),
    "lit_b16b": (4.4, 165, 368, "block_11_mlp"),
}


@pytest.mark.parametrize("name", TABLE_5)
def test_table_5(name):
    millions, rank, width, boundary = TABLE_5[name]
    model, params = _params(name, 1000)
    amount = budget.target("paper", name, _total(params))
    plan = budget.resolve(model, params, amount, num_classes=1000, heads_share=0.2, share="tail")
    assert plan.tuned_params == pytest.approx(millions * 1e6, rel=0.01)
    assert plan.head_params / plan.tuned_params == pytest.approx(0.2, abs=0.01)
    assert (plan.head_rank, plan.adapter_width, plan.boundary) == (rank, width, boundary)


@pytest.mark.parametrize("name", [name for name in TABLE_5 if name.startswith(("clip", "lit"))])
def test_table_5_with_an_open_vocabulary(name):
    model, params = _params(name, 1000, head="cosine")
    amount = budget.target("paper", name, _total(params))
    plans = [
        budget.resolve(model, params, amount, num_classes=k, heads_share=0.2, share="tail")
        for k in (10, 1000)
    ]
    assert plans[0] == plans[1]
    assert plans[0].tuned_params == pytest.approx(TABLE_5[name][0] * 1e6, rel=0.01)
    assert plans[0].head_params / plans[0].tuned_params == pytest.approx(0.2, abs=0.01)


def test_vit_b16_frees_norm_and_fc2():
    model, params = _params("vit_b16", 1000)
    plan = budget.resolve(model, params, 3_100_000, num_classes=1000, heads_share=0.2, share="tail")
    assert plan.boundary == "block_11_mlp"
    assert {path.rpartition("/")[0] for path in plan.freed} == {"norm", "block_11_mlp/fc2"}
    assert plan.head_rank == 116


@pytest.mark.parametrize("share", ["tail", "none"])
def test_plan_counts_what_a_student_has(share):
    from robust_jax.method.student import Student

    model, params = _params("vit_tiny8", 10)
    plan = budget.resolve(model, params, 150_000, num_classes=10, heads_share=0.2, share=share)
    for heads in (("combined",), ("clean", "unclean", "combined")):
        student = Student(model, models.entry("vit_tiny8"), plan, 10, heads, share, 0.25)
        tuned = jax.eval_shape(student.init, jax.random.key(0), {"params": params})
        assert _total(tuned) == plan.tuned_with_heads(len(heads))
    assert plan.tuned_params <= 150_000


def test_auto_follows_the_fit():
    assert budget.target("auto", "resnet101", 44_549_160) == pytest.approx(2.1e6, rel=0.08)
    assert budget.target("auto", "vit_tiny", 1_000_000) == 47_000


@pytest.mark.parametrize(("text", "expected"), [("0.1", 100_000), ("2500", 2500), ("2.5e3", 2500)])
def test_counts_and_fractions(text, expected):
    assert budget.target(text, "vit_tiny", 1_000_000) == expected


@pytest.mark.parametrize("text", ["papr", "0", "-3", "1000000", "nan"])
def test_bad_budget(text):
    with pytest.raises(ValueError, match=r"method\.tuned_params must be .* got"):
        budget.target(text, "vit_tiny", 1_000_000)


def test_paper_has_no_budget_for_others():
    with pytest.raises(ValueError, match="Table 5 has no budget for this student; got 'vit_tiny'"):
        budget.target("paper", "vit_tiny", 1_000_000)


def test_too_small_for_heads():
    model, params = _params("vit_tiny8", 10)
    with pytest.raises(ValueError, match="too small for three heads; got 1000 parameters"):
        budget.resolve(model, params, 1000, num_classes=10, heads_share=0.2, share="tail")


def test_table_text_adds_up():
    model, params = _params("resnet_small", 10)
    plan = budget.resolve(model, params, 60_000, num_classes=10, heads_share=0.2, share="tail")
    lines = budget.format_table(plan, model, params).splitlines()[1:-1]
    state = [(int(line[54:66].replace(",", "")), line.split()[-1]) for line in lines]
    assert sum(n for n, kind in state if kind == "tuned") == plan.tuned_params
    added = (
        plan.head_params
        + plan.shared_params
        - sum(leaf.size for path, leaf in _flat(params).items() if path in plan.freed)
    )
    assert sum(n for n, _ in state) == plan.total_params + added


def _flat(params):
    import flax.traverse_util

    return flax.traverse_util.flatten_dict(params, sep="/")
