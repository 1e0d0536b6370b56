import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robust_jax.models import (
    FAMILIES,
    MODELS,
    build,
    entry,
    normalise,
    parameter_count,
    stage_parameter_counts,
    text_parameter_count,
)

# Without the head, and with one of 1000 classes: counted on timm's and torchvision's networks.
PUBLISHED = {
    "resnet18": (11_176_512, 11_689_512),
    "resnet34": (21_284_672, 21_797_672),
    "resnet50": (23_508_032, 25_557_032),
    "resnet101": (42_500_160, 44_549_160),
    "resnet152": (58_143_808, 60_192_808),
    "vit_ti16": (5_524_416, 5_717_416),
    "vit_s16": (21_665_664, 22_050_664),
    "vit_b16": (85_798_656, 86_567_656),
    "vit_b32": (87_455_232, 88_224_232),
    "swin_tiny": (27_519_354, 28_288_354),
    "vit_small_legacy48m": (47_985_408, 48_754_408),
}


# Two towers: the image network without a classifier, and all of it with the text tower.
TWO_TOWERS = {
    "clip_rn50": (38_316_896, 102_007_137),
    "clip_rn101": (56_259_936, 119_688_033),
    "clip_vit_b32": (87_849_216, 151_277_313),
    "clip_vit_b16": (86_192_640, 149_620_737),
    "clip_vit_l14_336": (304_293_888, 427_944_193),
    "lit_b16b": (86_389_248, 195_871_489),
    "lit_b16b_2": (85_798_656, 195_280_897),
}


@pytest.mark.parametrize("name", TWO_TOWERS)
def test_counts_of_two_towers_are_the_published_ones(name):
    counts = stage_parameter_counts(name)
    image = sum(counts.values()) - counts["head"]
    assert (image, parameter_count(name)) == TWO_TOWERS[name]


def test_count_of_unicl():
    counts = stage_parameter_counts("unicl_swin_tiny")
    # Published without the projections and the scale of the logits.
    assert sum(counts.values()) - counts["head"] - counts["proj"] == 27_519_354
    assert text_parameter_count("unicl_swin_tiny") - 512 * 512 - 1 == 63_165_952
    assert parameter_count("unicl_swin_tiny") == 91_340_667


@pytest.mark.parametrize(
    # As timm counts them; the files of Hugging Face have a mask token beside it.
    ("name", "count"),
    [("dinov2_vits14", 22_056_576 - 384), ("dinov2_vitb14", 86_580_480 - 768)],
)
def test_counts_of_dinov2_are_those_of_its_own_grid(name, count):
    counts = stage_parameter_counts(name)
    assert sum(counts.values()) - counts["head"] == count


@pytest.mark.parametrize("name", PUBLISHED)
def test_counts_are_the_published_ones(name):
    counts = stage_parameter_counts(name)
    total = sum(counts.values())
    assert (total - counts["head"], total) == PUBLISHED[name]


def test_a_count_follows_the_number_of_classes():
    assert parameter_count("resnet18", 1000) - parameter_count("resnet18", 10) == 990 * 513


@pytest.mark.parametrize("name", MODELS)
def test_entries_are_consistent(name):
    row = entry(name)
    assert row.name == name and row.family in FAMILIES
    model = build(name, 3)
    assert model.image_size == row.input_size
    assert model.stage_names[-1] == model.feature_stage
    logits = jax.eval_shape(model.init_with_output, jax.random.key(0), model.example_input())[0]
    assert logits.shape == (1, 3) and logits.dtype == jnp.float32


def test_small_networks_are_small():
    assert 1e6 < parameter_count("vit_tiny", 10) < 3e6
    assert 1e6 < parameter_count("vit_tiny8", 10) < 3e6
    assert parameter_count("resnet20", 10) < 3e5
    assert parameter_count("resnet_small", 10) < 1e6


def test_overrides_and_dtype_reach_the_model():
    model = build("vit_tiny", 7, image_size=64, dtype="bfloat16", pool="gap")
    assert (model.num_classes, model.image_size, model.pool) == (7, 64, "gap")
    assert model.dtype == jnp.bfloat16


def test_normalise_is_the_published_formula_on_device():
    images = np.random.default_rng(0).integers(0, 256, (2, 5, 4, 3), np.uint8)
    row = entry("resnet50")
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    got = jax.jit(lambda x: normalise(x, row))(images)
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, (images / 255 - mean) / std, atol=1e-6)
    bounds = normalise(
        jnp.array([0, 255], jnp.uint8).repeat(3).reshape(2, 1, 1, 3), entry("vit_b16")
    )
    np.testing.assert_allclose(bounds[:, 0, 0, 0], [-1, 1], atol=1e-6)


def test_normalise_refuses_what_is_not_pixels():
    with pytest.raises(ValueError, match=r"uint8\[b, h, w, 3\]; got float32\[1, 2, 2, 3\]"):
        normalise(jnp.zeros((1, 2, 2, 3)), entry("vit_b16"))
    with pytest.raises(ValueError, match=r"got uint8\[2, 2, 3\]"):
        normalise(jnp.zeros((2, 2, 3), jnp.uint8), entry("vit_b16"))


def test_mistakes_are_answered_with_the_nearest_name():
    with pytest.raises(ValueError, match=r"got 'resnet_50'; did you mean 'resnet50'\?.*vit_tiny8"):
        build("resnet_50", 10)
    with pytest.raises(ValueError, match=r"field of vit_tiny; got 'pol'; did you mean 'pool'\?"):
        build("vit_tiny", 10, pol="gap")
    with pytest.raises(ValueError, match=r"dtype; got 'float16'; did you mean"):
        build("vit_tiny", 10, dtype="float16")
    with pytest.raises(ValueError, match=r"got num_classes=0"):
        build("vit_tiny", 0)


def test_the_list_prints_json_lines():
    command = [sys.executable, "-m", "robust_jax.models", "--json"]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    rows = {row["name"]: row for row in map(json.loads, lines)}
    assert list(rows) == list(MODELS)
    assert (rows["vit_b16"]["params_image"], rows["vit_b16"]["params_total"]) == PUBLISHED[
        "vit_b16"
    ]
    assert rows["resnet18"]["mean"] == [0.485, 0.456, 0.406]
    assert "timm" in rows["resnet18"]["weights"] and rows["vit_tiny"]["weights"] == []
