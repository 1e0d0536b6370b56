import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robust_jax.deepaugment import cae_weights, published
from robust_jax.deepaugment.cae import CAE, binarise
from robust_jax.deepaugment.edsr import EDSR, pixel_shuffle

SMALL_CAE, SMALL_EDSR = CAE(width=8, code=6, blocks=2, detail=5), EDSR(width=8, blocks=4)


def file_of(model, seed=0):
    """A published file of these sizes, from the shapes that PyTorch gives its tensors."""
    draw = np.random.default_rng(seed)
    tensors = {}
    for row in published.rows(model):
        stem, _, kind = row.name.rpartition(".")
        shape = torch_shape(model, stem)
        shape = shape if kind == "weight" else (shape[bias_axis(model, stem)],)
        tensors[row.name] = draw.normal(size=shape, scale=0.1).astype(np.float32)
    return tensors


def bias_axis(model, stem):
    return 1 if stem in ("d_up_conv_1.3", "d_up_conv_2.3") else 0


def torch_shape(model, stem):
    w = model.width
    if isinstance(model, EDSR):
        return {
            "head.0": (w, 3, 3, 3),
            "tail.0.0": (4 * w, w, 3, 3),
            "tail.0.2": (4 * w, w, 3, 3),
            "tail.1": (3, w, 3, 3),
        }.get(stem, (w, w, 3, 3))
    return {
        "e_conv_1.1": (w, 3, 5, 5),
        "e_conv_2.1": (2 * w, w, 5, 5),
        "e_conv_3.0": (model.code, 2 * w, 5, 5),
        "d_up_conv_1.0": (w, model.code, 3, 3),
        "d_up_conv_1.3": (w, 2 * w, 2, 2),
        "d_up_conv_2.0": (w // 2, 2 * w, 3, 3),
        "d_up_conv_2.3": (w // 2, 4 * w, 2, 2),
        "d_up_conv_3.0": (model.detail, 4 * w, 3, 3),
        "d_up_conv_3.3": (3, model.detail, 3, 3),
    }.get(stem, (2 * w, 2 * w, 3, 3))


def test_published_sizes():
    layers = [layer.name for layer in CAE().layers()]
    assert len(layers) == 21
    assert layers[8] == "e_conv_3_0" and layers[13] == "d_block_2_1"
    expected = {"flip_filters": range(11, 16), "gelu_filters": range(10, 14)}
    for name in cae_weights.CHANGES:
        found = [layers.index(layer) for layer in cae_weights.layers_of(CAE(), name)]
        assert found == list(expected.get(name, range(8, 14))), name
    for model, count in ((CAE(), 2_241_859), (EDSR(), 1_517_571)):
        shapes = jax.eval_shape(lambda model=model: published.init_params(model, 0))
        total = sum(leaf.size for leaf in jax.tree.leaves(shapes))
        assert total == sum(t.size for t in file_of(model).values()) == count


def test_cae_agrees_with_torch():
    torch = pytest.importorskip("torch")
    from torch_networks import TorchCAE

    tensors = file_of(SMALL_CAE)
    reference = TorchCAE(8, 6, 2, 5)
    reference.load_state_dict({k: torch.tensor(v) for k, v in tensors.items()}, strict=True)
    variables = {"params": published.load(SMALL_CAE, tensors)}
    draw = np.random.default_rng(1)
    images = draw.random((2, 20, 24, 3), np.float32)
    bits = draw.integers(0, 2, (2, 5, 6, 6)).astype(np.float32)
    with torch.no_grad():
        code = reference.encode(torch.tensor(images.transpose(0, 3, 1, 2)))
        decoded = reference.decode(torch.tensor(bits.transpose(0, 3, 1, 2)))
    for ours, theirs in (
        (SMALL_CAE.apply(variables, images, method="encode"), code),
        (SMALL_CAE.apply(variables, bits, method="decode"), decoded),
    ):
        np.testing.assert_allclose(ours, theirs.numpy().transpose(0, 2, 3, 1), atol=2e-5)


@pytest.mark.parametrize("change", ["", "negate", "relu", "skip", "chained_skip"])
def test_edsr_agrees_with_torch(change):
    torch = pytest.importorskip("torch")
    from torch_networks import TorchEDSR

    reference = TorchEDSR(8, 4)
    tensors = file_of(SMALL_EDSR)
    loaded = reference.load_state_dict({k: torch.tensor(v) for k, v in tensors.items()}, False)
    assert {name.split(".")[0] for name in loaded.missing_keys} == {"sub_mean", "add_mean"}
    whole = {name: t.numpy() for name, t in reference.state_dict().items()}
    variables = {"params": published.load(SMALL_EDSR, whole)}
    images = 255 * np.random.default_rng(1).random((2, 5, 6, 3), np.float32)
    options = {}
    if change == "negate":
        options["middle"] = jnp.negative
    elif change == "relu":
        options["middle"] = jax.nn.relu
    elif change:
        options["keep"] = jnp.asarray([True, True, False, True, False])
        options["chained"] = jnp.asarray(change == "chained_skip")
    ours = SMALL_EDSR.apply(variables, images, **options)
    with torch.no_grad():
        inputs = torch.tensor(images.transpose(0, 3, 1, 2))
        theirs = reference(inputs, change, SMALL_EDSR.cut, skipped=(2, 4)).numpy()
    np.testing.assert_allclose(ours, theirs.transpose(0, 2, 3, 1), rtol=1e-4, atol=1e-2)


def test_pixel_shuffle_by_hand():
    x = np.arange(2 * 3 * 8).reshape(1, 2, 3, 8)
    y = np.asarray(pixel_shuffle(jnp.asarray(x)))
    assert y.shape == (1, 4, 6, 2)
    for row, column, channel in np.ndindex(4, 6, 2):
        source = 4 * channel + 2 * (row % 2) + column % 2
        assert y[0, row, column, channel] == x[0, row // 2, column // 2, source]


def test_binarise():
    code = jnp.linspace(-1.5, 1.5, 31)
    keys = jax.random.split(jax.random.key(0), 4000)
    bits = np.asarray(jax.vmap(lambda key: binarise(key, code))(keys))
    np.testing.assert_allclose(np.abs(bits - 0.5), 0.5, atol=1e-6)
    expected = np.clip((1 + np.asarray(code)) / 2, 0, 1)
    np.testing.assert_allclose(bits.mean(0), expected, atol=0.04)
    grad = jax.grad(lambda code: binarise(keys[0], code).sum())(code)
    np.testing.assert_allclose(grad, 0.5)  # of the probability


@pytest.mark.parametrize("model", [SMALL_CAE, SMALL_EDSR])
def test_a_file_that_does_not_fit_is_refused(model):
    tensors = file_of(model)
    first = next(iter(tensors))
    with pytest.raises(ValueError, match=rf"1 missing tensors \({first}\) and 1 additional"):
        published.load(model, {**{k: v for k, v in tensors.items() if k != first}, "x": np.ones(1)})
    with pytest.raises(ValueError, match="1 tensors have another shape"):
        published.load(model, {**tensors, first: tensors[first][:1]})
    prefixed = published.load(model, {f"module.{k}": v for k, v in tensors.items()})
    jax.tree.map(np.testing.assert_array_equal, prefixed, published.load(model, tensors))


def test_edsr_of_another_mean_is_refused():
    tensors = file_of(SMALL_EDSR)
    with pytest.raises(ValueError, match="another mean colour"):
        published.load(SMALL_EDSR, {**tensors, "sub_mean.bias": np.zeros(3, np.float32)})


def test_wrong_sizes_are_refused():
    with pytest.raises(ValueError, match=r"got width=7, .* use an even width"):
        published.init_params(CAE(width=7), 0)
