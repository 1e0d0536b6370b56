import json
import pkgutil
import subprocess
import sys

import pytest
from runs import ROOT

import robust_jax

# What cannot be imported without TensorFlow: it decodes or augments images,
PIXELS = {
    "data.augmix",
    "data.augmix_ops",
    "data.corruption_ops",
    "data.ops",
    "data.pipeline",
    "data.randaugment",
    "data.reading",
    "data.stored.videos",
}
# or visits them batch by batch. Nothing else may begin with the seconds that TensorFlow takes.
VISITS_IMAGES = {
    "evals.benchmarks",
    "evals.classification",
    "evals.features",
    "evals.perturbation",
    "evals.sets",
    "evals.stored_frames",
    "evals.stored_images",
    "evals.transfer",
    "evals.written_sets",
    "plan",
    "stages.answers",
    "stages.baselines",
    "stages.before_after",
    "stages.classifier",
    "stages.evaluate",
    "stages.evaluated",
    "stages.pictures",
    "stages.pretrain",
    "stages.probe",
    "stages.report",
    "stages.results",
    "stages.teacher",
    "stages.transfer_rows",
    "stages.wise_ft",
    "sweep",
}
NEEDS_TORCH = {"weights.hf_student"}  # and an installation that may not be there
# Imports modules where TensorFlow cannot be found, and prints why each failed that did.
WITHOUT_TENSORFLOW = """
import importlib, json, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name in ("tensorflow", "tensorflow_datasets"):
            raise ImportError(f"no {name}")

sys.meta_path.insert(0, Absent())
failed = {}
for name in json.loads(sys.argv[1]):
    try:
        importlib.import_module(f"robust_jax.{name}")
    except ImportError as error:
        failed[name] = str(error)
print(json.dumps(failed))
"""


def python(code, *args):
    command = [sys.executable, "-c", code, *args]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return json.loads(ended.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def names():
    """All modules of the package."""
    prefix = "robust_jax."
    found = {m.name for m in pkgutil.walk_packages(robust_jax.__path__, prefix)}
    return {name.removeprefix(prefix) for name in found if not name.endswith("__main__")}


def test_the_package_imports_nothing_slow():
    loaded = python("import json, sys, robust_jax; print(json.dumps(sorted(sys.modules)))")
    assert not {"jax", "tensorflow", "flax", "numpy", "scipy"} & set(loaded)


def test_the_command_line_imports_no_tensorflow_before_its_flags_are_read():
    loaded = python("import json, sys, robust_jax.main; print(json.dumps(sorted(sys.modules)))")
    assert not {"tensorflow", "sklearn", "orbax.checkpoint"} & set(loaded)


def test_only_what_visits_images_needs_tensorflow(names):
    free = sorted(names - PIXELS - VISITS_IMAGES - NEEDS_TORCH)
    assert python(WITHOUT_TENSORFLOW, json.dumps(free)) == {}
    for needed in ("predict", "train", "data.cache", "stages.distill", "method.selection"):
        assert needed in free


def test_the_lists_name_modules_that_need_it(names):
    listed = sorted(PIXELS | VISITS_IMAGES)
    assert set(listed) <= names
    assert set(python(WITHOUT_TENSORFLOW, json.dumps(listed))) == set(listed)
