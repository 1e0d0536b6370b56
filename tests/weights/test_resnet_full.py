import jax
import numpy as np
import parity
import pytest
from cases_efficientnet import reference

from robust_jax.models import build
from robust_jax.models.efficientnet import EfficientNet
from robust_jax.weights import loading
from robust_jax.weights.resnet import FORMATS


@pytest.mark.slow
def test_resnet50_equals_transformers():
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("torch")
    config = transformers.ResNetConfig(downsample_in_bottleneck=False, num_labels=1000)
    whole = reference(transformers.ResNetForImageClassification(config))
    tensors = {name: parity.made(name, shape) for name, shape in whole.shapes.items()}
    x = np.random.RandomState(0).standard_normal((2, 3, 224, 224)).astype(np.float32)
    model = build("resnet50", 1000)
    variables, report = loading.load_tensors(tensors, FORMATS["huggingface"], model)
    assert not report.initialised
    got = np.asarray(jax.jit(model.apply)(variables, x.transpose(0, 2, 3, 1)))
    assert parity.difference(got, whole.run(tensors, x)) <= 1e-4


def test_the_backbone_alone_loads_under_a_new_classifier():
    model = build("resnet20", 5, depths=(1, 1), base_width=4)
    fmt = FORMATS["huggingface"]
    shapes = jax.eval_shape(model.init, jax.random.key(0), model.example_input())
    ones = jax.tree.map(lambda leaf: np.ones(leaf.shape, np.float32), shapes)
    whole = loading.to_tensors(ones, fmt, model)
    backbone = {
        name.removeprefix("resnet."): tensor
        for name, tensor in whole.items()
        if not name.startswith("classifier.")
    }
    assert all(name.startswith(("embedder.", "encoder.")) for name in backbone)
    variables, report = loading.load_tensors(backbone, fmt, model, classifier="new")
    assert set(report.initialised) == {"params/head/kernel", "params/head/bias"}
    assert not np.any(variables["params"]["head"]["kernel"])
    assert np.all(variables["params"]["stem"]["conv"]["kernel"] == 1)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("downsample_in_bottleneck", True),
        ("downsample_in_first_stage", True),
        ("hidden_act", "gelu"),
    ],
)
def test_variants_that_compute_otherwise_are_refused(field, value):
    with pytest.raises(ValueError, match=rf"got {field}={value!r} in its config.json"):
        FORMATS["huggingface"].overrides({field: value})
    assert FORMATS["huggingface"].overrides({"hidden_act": "relu"}) == {}


@pytest.mark.parametrize("fmt", FORMATS)
def test_other_networks_are_refused(fmt):
    with pytest.raises(ValueError, match=r"a ResNet's; got EfficientNet"):
        FORMATS[fmt].tensors(EfficientNet(10, 32))
