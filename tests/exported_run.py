"""A pytest plugin: an exported run, and what its predictor says of a hundred images.

Test modules that need it say `pytest_plugins = ["finished_run", "exported_run"]`.
"""

import json

import jax
import numpy as np
import pytest
from runs import quick_config

from robust_jax import export, load
from robust_jax.data import sources
from robust_jax.evals.classification import EvalSet
from robust_jax.stages.answering import Answering


@pytest.fixture(scope="module")
def images():
    val = EvalSet(sources.load(quick_config().data, "val"), "decode", 100)
    return next(val.batches(100))[0]


@pytest.fixture(scope="module")
def classifier(shaken):
    return load(shaken)


@pytest.fixture(scope="module")
def routed(shaken, classifier, images):
    """The run, its threshold moved to where both heads answer and rounding decides nothing."""
    answering = Answering.restore(shaken)
    seen = jax.jit(answering.observe)(answering.arrays, images)
    middle = np.sort(answering.arrays[2].gate(seen["statistics"]))[25:75]
    gap = np.diff(middle).argmax()
    stored = shaken / "evaluate" / "calibration" / "ours.json"
    threshold = float(middle[gap : gap + 2].mean())
    stored.write_text(json.dumps({**json.loads(stored.read_text()), "threshold": threshold}))
    classifier._arrays = jax.device_put(Answering.restore(shaken).arrays)  # compiled already
    return shaken


@pytest.fixture(scope="module")
def said(routed, classifier, images):
    return vars(classifier.answer(images))


@pytest.fixture(scope="module")
def out(routed, tmp_path_factory):
    """The export of the run; do not write into it."""
    target = tmp_path_factory.mktemp("exported") / "out"
    assert export.main([str(routed), str(target)]) == 0
    return target
