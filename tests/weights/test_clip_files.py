"""What files of CLIP hold beside the tensors of one tower."""

import importlib.util

import cases_clip
import numpy as np
import pytest

from robust_jax.models.resnet import ResNet
from robust_jax.weights import loading
from robust_jax.weights.clip import FORMATS

# OpenAI's class fixes heads of 64 for a ViT, and an MLP of 4 widths.
VIT = cases_clip.VIT.clone(width=64, num_heads=1, mlp_dim=256)
TEXT = cases_clip.TEXT.clone(width=64, num_heads=1)
RESNET = cases_clip.RESNET


def openai_file(image):
    if importlib.util.find_spec("clip") is None:
        pytest.skip("needs clip-anytorch")
    layers = image.depths if image is RESNET else image.depth
    model = cases_clip.openai().CLIP(
        embed_dim=TEXT.embed_dim,
        image_resolution=image.image_size,
        vision_layers=layers,
        vision_width=image.base_width if image is RESNET else image.width,
        vision_patch_size=8,
        context_length=TEXT.context,
        vocab_size=TEXT.vocab_size,
        transformer_width=TEXT.width,
        transformer_heads=TEXT.num_heads,
        transformer_layers=TEXT.depth,
    )
    tensors = {name: value.numpy() for name, value in model.state_dict().items()}
    sizes = ("input_resolution", "context_length", "vocab_size")  # in OpenAI's own files
    return {**tensors, **{name: np.array(1) for name in sizes}}


def huggingface_file(image):
    transformers = pytest.importorskip("transformers")
    both = {"num_hidden_layers": image.depth, "num_attention_heads": 1, "hidden_size": image.width}
    both |= {"intermediate_size": image.mlp_dim}
    size = {"image_size": image.image_size, "patch_size": image.patch_size}
    table = {"vocab_size": TEXT.vocab_size, "max_position_embeddings": TEXT.context}
    table |= {"bos_token_id": 0, "eos_token_id": 2}
    config = transformers.CLIPConfig(
        text_config={**both, **table},
        vision_config={**both, **size},
        projection_dim=TEXT.embed_dim,
    )
    model = transformers.CLIPModel(config)
    tensors = {name: value.detach().numpy() for name, value in model.state_dict().items()}
    buffers = ("text_model.embeddings.position_ids", "vision_model.embeddings.position_ids")
    return {**tensors, **{name: np.arange(3)[None] for name in buffers}}  # in older files


@pytest.mark.parametrize(
    ("fmt", "make", "image"),
    [
        ("openai_clip", openai_file, VIT),
        ("openai_clip", openai_file, RESNET),
        ("huggingface", huggingface_file, VIT),
    ],
    ids=["openai_vit", "openai_resnet", "huggingface_vit"],
)
def test_a_whole_file_is_shared_by_its_two_towers(fmt, make, image):
    pytest.importorskip("torch")
    fmt, file = FORMATS[fmt], make(image)
    variables, report = loading.load_tensors(file, fmt, image, classifier="new", text_model=TEXT)
    text_variables, _ = loading.load_text(file, fmt, TEXT, model=image)
    assert report.initialised == ("params/head/bias", "params/head/kernel")
    variables["params"].pop("head")
    written = loading.to_tensors(variables, fmt, image)
    written |= loading.to_tensors(text_variables, fmt, TEXT, text=True)
    assert len(written) > 50
    for name, value in written.items():
        np.testing.assert_array_equal(value, file[name], err_msg=name)
    more = {**file, "more": np.zeros(1)}
    with pytest.raises(ValueError, match=r"0 missing tensors .* 1 additional ones \(more\)"):
        loading.load_tensors(more, fmt, image, classifier="new", text_model=TEXT)


def test_the_prefix_of_data_parallel_training_is_dropped():
    rename = FORMATS["openai_clip"].rename
    assert list(rename({"module.visual.proj": np.zeros(1), "logit_scale": np.zeros(())})) == [
        "visual.proj",
        "logit_scale",
    ]


@pytest.mark.parametrize(
    ("fmt", "config", "fields"),
    [
        ("openai_clip", {}, {}),
        ("openai_clip", {"model_cfg": {"vision_cfg": {"layers": 12}}}, {"gelu": "erf"}),
        (
            "openai_clip",
            {"model_cfg": {"quick_gelu": True, "vision_cfg": {"layers": 12}}},
            {"gelu": "quick"},
        ),
        ("openai_clip", {"model_cfg": {"vision_cfg": {"layers": [3, 4, 6, 3]}}}, {}),
        ("huggingface", {}, {}),
        (
            "huggingface",
            {"vision_config": {"hidden_act": "gelu", "layer_norm_eps": 1e-6}, "hidden_act": "x"},
            {"gelu": "erf", "norm_eps": 1e-6},
        ),
        ("huggingface", {"hidden_act": "quick_gelu"}, {"gelu": "quick"}),
    ],
)
def test_configurations_give_the_fields_the_weights_need(fmt, config, fields):
    assert FORMATS[fmt].overrides(config) == fields


def test_what_does_not_fit_is_named():
    with pytest.raises(ValueError, match=r"got hidden_act='relu'; use one of quick_gelu"):
        FORMATS["huggingface"].overrides({"vision_config": {"hidden_act": "relu"}})
    with pytest.raises(ValueError, match=r"got a ModifiedResNet; use an OpenAI"):
        FORMATS["huggingface"].tensors(cases_clip.RESNET)
    resnet = ResNet(num_classes=2, image_size=32, depths=(1,), block="basic")
    with pytest.raises(ValueError, match=r"got a ResNet"):
        FORMATS["openai_clip"].tensors(resnet)
    with pytest.raises(ValueError, match=r"text tower; got a ViT"):
        FORMATS["openai_clip"].text(cases_clip.VIT)
