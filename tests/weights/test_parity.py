"""Every family equals another implementation on the same weights and inputs."""

import importlib

import jax
import numpy as np
import parity
import pytest

from robust_jax.weights import loading

CASES = parity.cases()
TOLERANCE = 1e-4  # of the largest output, in f32


def fmt(case):
    return importlib.import_module(f"robust_jax.weights.{case.family}").FORMATS[case.format]


def rows(case):
    return (fmt(case).text if case.text else fmt(case).tensors)(case.model())


def load(case, tensors):
    """Returns the variables, without a classifier where the format has none."""
    if case.text:
        return loading.load_text(tensors, fmt(case), case.model())
    has_classifier = any(row.path.startswith(loading.HEAD) for row in rows(case))
    variables, report = loading.load_tensors(
        tensors, fmt(case), case.model(), classifier="load" if has_classifier else "new"
    )
    if not has_classifier:
        del variables["params"]["head"]
    return variables, report


def answer(case, tensors):
    model = case.model()
    variables, _ = load(case, tensors)
    x = parity.inputs(case, model)
    if case.text:
        return np.asarray(jax.jit(model.apply)(variables, x.astype(np.int32)))
    x = x.transpose(0, 2, 3, 1)
    return np.asarray(jax.jit(lambda v, x: model.apply(v, x, stop=case.stop))(variables, x))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_equals_the_stored_output(case):
    shapes, want = parity.stored(case)
    tensors = {name: parity.made(name, shape) for name, shape in shapes.items()}
    got = answer(case, tensors)
    assert got.shape == want.shape
    assert np.abs(want[0] - want[1]).max() > 1e-2 * np.abs(want).max()  # the input matters
    assert parity.difference(got, want) <= TOLERANCE


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_equals_the_live_output(case):
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    try:
        reference = case.reference()
    except ModuleNotFoundError as error:  # some need packages that bring no dependencies
        pytest.skip(str(error))
    shapes, stored = parity.stored(case)
    assert {name: tuple(shape) for name, shape in reference.shapes.items()} == shapes
    tensors = {name: parity.made(name, shape) for name, shape in shapes.items()}
    want = reference.run(tensors, parity.inputs(case, case.model()))
    assert parity.difference(stored, want) <= 1e-5
    assert parity.difference(answer(case, tensors), want) <= TOLERANCE


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_writing_gives_back_every_tensor(case):
    shapes, _ = parity.stored(case)
    tensors = {name: parity.made(name, shape) for name, shape in shapes.items()}
    variables, report = load(case, tensors)
    written = loading.to_tensors(variables, fmt(case), case.model(), text=case.text)
    spelled = fmt(case).rename(tensors)
    resized = {entry.split(" ")[0] for entry in report.resized}
    skip = {row.name for row in rows(case) if row.path in resized}
    assert written.keys() == {row.name for row in rows(case)}
    for name in written.keys() - skip:
        np.testing.assert_array_equal(written[name], spelled[name], err_msg=name)
