import subprocess
import sys

import pytest

from robust_jax.data import registry


@pytest.fixture
def trace_op():
    """An op that notes its arguments and seed, for as long as the test runs."""

    @registry.register("trace_op")
    def trace_op(first, second=2, *, third=3):
        def fn(features, seed):
            note = (first, second, third, tuple(seed.numpy()))
            return features | {"notes": [*features.get("notes", []), note]}

        return fn

    yield
    del registry._FACTORIES["trace_op"]


def test_parses_names_and_literals():
    parsed = registry.parse("decode | resize((4, 5), method='a|b', antialias=False)|flip_lr()")
    assert parsed == [
        ("decode", (), {}),
        ("resize", ((4, 5),), {"method": "a|b", "antialias": False}),
        ("flip_lr", (), {}),
    ]
    assert registry.parse("a(-1, 1.5, None, [2])") == [("a", (-1, 1.5, None, [2]), {})]
    assert registry.parse(" ") == []


def test_ops_run_in_order_with_their_own_seeds(trace_op):
    import tensorflow as tf

    fn = registry.build("trace_op(1)|trace_op(2, third=[4])|trace_op('x', 5)")
    notes = fn({}, tf.constant([7, 8], tf.int32))["notes"]
    assert [note[:3] for note in notes] == [(1, 2, 3), (2, 2, [4]), ("x", 5, 3)]
    expected = [
        tuple(tf.random.experimental.stateless_fold_in(tf.constant([7, 8]), i).numpy())
        for i in range(3)
    ]
    assert [note[3] for note in notes] == expected
    assert len(set(expected)) == 3


def test_empty_string_is_the_identity():
    import tensorflow as tf

    features = {"image": tf.constant([1, 2]), "label": 3}
    assert registry.build("")(features, tf.constant([0, 0])) is features


@pytest.mark.parametrize(
    "ops",
    ["decode|", "resize(", "resize(__import__('os'))", "a.b(1)", "f(**{'a': 1})", "1", "f(*[1])"],
)
def test_what_is_not_an_ops_string_is_told(ops):
    with pytest.raises(ValueError, match=r"cannot read the ops string .*; got .*; write names"):
        registry.build(ops)


def test_unknown_op_is_told_with_the_nearest_and_all():
    message = r"unknown op; got 'flip_rl'; did you mean 'flip_lr'\? choose among: .*decode.*resize"
    with pytest.raises(ValueError, match=message):
        registry.build("decode|flip_rl")


@pytest.mark.parametrize(
    ("ops", "message"),
    [
        ("resize()", r"op 'resize' \(missing a required argument: 'size'\); got resize\(\)"),
        ("resize(8, sice=3)", r"unexpected keyword.*use resize\(size, method='bilinear'"),
        ("resize(0)", r"op 'resize' \(a size is one positive integer.*got resize\(0\)"),
        ("resize(8, 'cubic')", r"'bilinear' or 'bicubic'"),
        ("random_crop(8, pad=-1)", r"pad is at least 0.*use random_crop\(size, pad=0\)"),
        ("inception_crop(8, area=(0, 1))", r"area is \(smallest, largest\)"),
        ("value_range(1, -1)", r"lo is below hi"),
        ("standardise((0, 0, 0), (1, 1, 0))", r"std is above 0"),
    ],
)
def test_bad_arguments_are_told_with_the_signature(ops, message):
    with pytest.raises(ValueError, match=message):
        registry.build(ops)


def test_two_ops_with_one_name_are_an_error(trace_op):
    with pytest.raises(ValueError, match=r"two ops with one name; got 'trace_op'"):
        registry.register("trace_op")(lambda: None)


def test_import_needs_no_tensorflow():
    code = (
        "import sys, robust_jax.data.registry, robust_jax.data.sources, robust_jax.data.folder, "
        "robust_jax.data.elements; sys.exit('tensorflow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
