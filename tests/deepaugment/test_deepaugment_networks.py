import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robust_jax.deepaugment import cae_weights, published
from robust_jax.deepaugment.cae import CAE, binarise
from robust_jax.deepaugment.edsr import EDSR, pixel_shuffle
from robust_jax.weights import files

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


def test_edsr_agrees_with_torch():
    torch = pytest.importorskip("torch")
    from torch_networks import TorchEDSR

    reference = TorchEDSR(8, 4)
    tensors = file_of(SMALL_EDSR)
    loaded = reference.load_state_dict({k: torch.tensor(v) for k, v in tensors.items()}, False)
    assert {name.split(".")[0] for name in loaded.missing_keys} == {"sub_mean", "add_mean"}
    whole = {name: t.numpy() for name, t in reference.state_dict().items()}
    variables = {"params": published.load(SMALL_EDSR, whole)}
    images = 255 * np.random.default_rng(1).random((2, 5, 6, 3), np.float32)
    ours = SMALL_EDSR.apply(variables, images)
    with torch.no_grad():
        theirs = reference(torch.tensor(images.transpose(0, 3, 1, 2))).numpy()
    np.testing.assert_allclose(ours, theirs.transpose(0, 2, 3, 1), rtol=1e-4, atol=1e-2)


def numpy_edsr(tensors, image, body):
    """EDSR on f32[h, w, 3], from the tensors of its file.

    Args:
      body: (features, its modules as functions) -> (features that skip it, its result).
    """

    def conv(name, x):
        padded = np.pad(x, ((1, 1), (1, 1), (0, 0)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (0, 1))
        weight, bias = tensors[f"{name}.weight"], tensors[f"{name}.bias"]
        return np.einsum("hwirs,oirs->hwo", windows, weight) + bias

    def block(i):
        return lambda x: x + conv(f"body.{i}.body.2", np.maximum(conv(f"body.{i}.body.0", x), 0))

    mean = 255 * np.asarray([0.4488, 0.4371, 0.4040])
    modules = [*(block(i) for i in range(4)), lambda x: conv("body.4", x)]
    skip, result = body(conv("head.0", image - mean), modules)
    y = skip + result
    for name in ("tail.0.0", "tail.0.2"):
        y = conv(name, y)
        h, w, c = y.shape
        y = y.reshape(h, w, c // 4, 2, 2).transpose(0, 3, 1, 4, 2).reshape(2 * h, 2 * w, c // 4)
    return conv("tail.1", y) + mean


def chain(x, modules):
    return functools.reduce(lambda x, module: module(x), modules, x)


SKIPPED = np.asarray([True, True, False, True, False])  # modules 2 and 4 are left out


@pytest.mark.parametrize(
    "options, body",
    [
        ({}, lambda x, m: (x, chain(x, m))),
        ({"before": jnp.negative}, lambda x, m: (-x, chain(-x, m))),
        ({"middle": jnp.negative}, lambda x, m: (x, chain(-m[0](x), m[1:]))),
        # The published code uses the last one only of those that are left.
        ({"keep": SKIPPED, "chained": np.False_}, lambda x, m: (x, m[3](x))),
        ({"keep": SKIPPED, "chained": np.True_}, lambda x, m: (x, chain(x, [m[0], m[1], m[3]]))),
    ],
    ids=["plain", "before", "middle", "skip_faithful", "skip_chained"],
)
def test_distorted_edsr_in_numpy(options, body):
    tensors = file_of(SMALL_EDSR)
    image = 255 * np.random.default_rng(1).random((5, 6, 3), np.float32)
    params = published.load(SMALL_EDSR, tensors)
    run = jax.jit(lambda image: SMALL_EDSR.apply({"params": params}, image[None], **options)[0])
    expected = numpy_edsr(tensors, image.astype(np.float64), body)
    np.testing.assert_allclose(run(image), expected, rtol=1e-4, atol=1e-2)


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


def published_names(model):
    """The names of the published files, written out once more."""
    if isinstance(model, EDSR):
        stems = ["head.0", "body.16", "tail.0.0", "tail.0.2", "tail.1"]
        stems += [f"body.{i}.body.{j}" for i in range(16) for j in (0, 2)]
    else:
        stems = ["e_conv_1.1", "e_conv_2.1", "e_conv_3.0"]
        stems += [f"d_up_conv_{i}.{j}" for i in (1, 2, 3) for j in (0, 3)]
        stems += [f"{side}_block_{i}.{j}" for side in "ed" for i in (1, 2, 3) for j in (1, 4)]
    return {f"{stem}.{kind}" for stem in stems for kind in ("weight", "bias")}


@pytest.mark.parametrize("model", [CAE(), EDSR()])
def test_each_tensor_of_a_published_file_finds_its_place(model):
    tensors = file_of(model)
    assert tensors.keys() == published_names(model)
    params = published.load(model, tensors)
    if isinstance(model, EDSR):
        body = params.pop("body")
        ours = {"head": "head.0", "body_end": "body.16", "tail": "tail.1"}
        ours |= {"up_1": "tail.0.0", "up_2": "tail.0.2"}
        for i, j in np.ndindex(16, 2):
            params[f"{i}.{j}"] = {kind: body[kind][i, j] for kind in body}
            ours[f"{i}.{j}"] = f"body.{i}.body.{2 * j}"
    else:
        ours = {name: f"{name[:-2]}.{name[-1]}" for name in params}
    for name, leaves in params.items():
        theirs = tensors[f"{ours[name]}.weight"].transpose(2, 3, 1, 0)
        np.testing.assert_array_equal(leaves["kernel"], theirs)
        np.testing.assert_array_equal(leaves["bias"], tensors[f"{ours[name]}.bias"])
    assert 2 * len(params) == len(tensors)


def test_a_state_file_is_loaded(tmp_path):
    torch = pytest.importorskip("torch")
    tensors = file_of(SMALL_CAE)
    path = tmp_path / "model_final.state"
    saved = {f"module.{name}": torch.tensor(t) for name, t in tensors.items()}
    torch.save(saved, path, _use_new_zipfile_serialization=False)
    found = published.load(SMALL_CAE, files.read(path).tensors)
    jax.tree.map(np.testing.assert_array_equal, found, published.load(SMALL_CAE, tensors))


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
