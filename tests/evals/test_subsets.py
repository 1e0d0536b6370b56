"""The class subsets: checksums of the published tables, and what restriction means."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robust_jax.evals import subsets

SUBSETS = [subsets.imagenet_a, subsets.imagenet_r, subsets.objectnet]


def test_wnids_are_the_thousand_in_order():
    wnids = subsets.imagenet_wnids()
    assert len(wnids) == 1000 and list(wnids) == sorted(set(wnids))
    # tench, goldfish, ..., toilet tissue
    assert (wnids[0], wnids[1], wnids[999]) == ("n01440764", "n01443537", "n15075141")


def test_imagenet_a_and_r_have_the_published_checksums():
    a, r = subsets.imagenet_a(), subsets.imagenet_r()
    assert a.table.shape == r.table.shape == (200, 1)
    assert (a.table.sum(), r.table.sum()) == (102178, 86135)
    assert len(np.intersect1d(a.table, r.table)) == 86
    for subset in (a, r):
        assert (np.diff(subset.table[:, 0]) > 0).all()  # labels are numbered by sorted WordNet id
        assert list(subset.class_names) == sorted(subset.class_names)
    assert a.class_names[0] == "n01498041"  # stingray
    assert r.class_names[0] == "n01443537"  # goldfish


def test_objectnet_has_the_published_checksums():
    subset = subsets.objectnet()
    groups = [set(row) for row in subset.table.tolist()]
    ids = [i for group in groups for i in group]
    assert len(groups) == 113 and list(subset.class_names) == sorted(set(subset.class_names))
    assert len(ids) == len(set(ids)) == 125 and sum(ids) == 85300
    assert sum(len(group) > 1 for group in groups) == 9
    named = dict(zip(subset.class_names, groups, strict=True))
    assert named["banana"] == {954} and named["chair"] == {423, 559, 765}


@pytest.mark.parametrize("subset", SUBSETS)
def test_restriction_equals_a_loop(subset):
    subset = subset()
    logits = np.random.default_rng(0).normal(size=(2, 3, 1000)).astype(np.float32)
    restricted = subset.restrict(logits)
    assert restricted.shape == (2, 3, len(subset.class_names))
    for k, row in enumerate(subset.table):
        expected = np.maximum.reduce([logits[..., i] for i in row])
        np.testing.assert_array_equal(restricted[..., k], expected)
    traced = jax.jit(subset.restrict)(jnp.asarray(logits))
    np.testing.assert_array_equal(traced, restricted)


@pytest.mark.parametrize("subset", SUBSETS)
def test_other_classes_never_change_the_prediction(subset):
    subset, rng = subset(), np.random.default_rng(1)
    logits = rng.normal(size=(50, 1000))
    answers = subset.restrict(logits).argmax(-1)
    others = np.setdiff1d(np.arange(1000), subset.table)
    assert len(others) == 1000 - len(np.unique(subset.table))
    logits[:, others] = 9 + rng.permuted(logits[:, others], axis=1)
    np.testing.assert_array_equal(subset.restrict(logits).argmax(-1), answers)
    assert (logits.argmax(-1) != subset.table[answers, 0]).all()


@pytest.mark.parametrize("subset", SUBSETS)
def test_the_row_of_a_class_undoes_the_table(subset):
    subset = subset()
    for k, row in enumerate(subset.table):
        assert (subset.row[row] == k).all()
    assert (subset.row < 0).sum() == 1000 - len(np.unique(subset.table))


def test_missing_labels_are_told(monkeypatch):
    monkeypatch.setattr(subsets.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"in any installed package; run `pip install tensorfl"):
        subsets.imagenet_wnids.__wrapped__()
