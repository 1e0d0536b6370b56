"""Networks in every format and back, and students of every kind."""

import dataclasses
import json

import jax
import numpy as np
import pytest
import tiny_zoo
from safetensors import safe_open
from tiny_zoo import made_network, made_student

from robust_jax import models, weights
from robust_jax.weights import export, files, native, network, student


@pytest.fixture(autouse=True)
def zoo(monkeypatch):
    tiny_zoo.add(monkeypatch)


def equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


FORMATS = [
    ("tiny_vit", "timm", 7),
    ("tiny_vit", "huggingface", 7),
    ("tiny_vit", "big_vision", 7),
    ("tiny_dinov2", "timm", 7),
    ("tiny_dinov2", "huggingface", 0),
    ("tiny_clip", "openai_clip", 0),
    ("tiny_clip", "huggingface", 0),
    ("tiny_clip_resnet", "openai_clip", 0),
    ("tiny_resnet", "timm", 7),
    ("tiny_basic", "huggingface", 7),
    ("tiny_swin", "timm", 7),
    ("tiny_swin", "huggingface", 7),
    ("tiny_efficientnet", "efficientnet_lite_pytorch", 7),
]


@pytest.mark.parametrize(("name", "form", "num_classes"), FORMATS)
def test_every_format_to_ours_and_back(name, form, num_classes, tmp_path):
    given = made_network(name, num_classes, 64 if "vit" in name else 32)
    files.write_safetensors(tmp_path / "in.safetensors", export.to_tensors(given, form))
    read = network.read(str(tmp_path / "in.safetensors"), name)
    assert read.model.image_size == given.model.image_size
    assert read.has_classifier == bool(num_classes) and not read.left
    equal(read.variables, given.variables)
    assert export.write(tmp_path / "ours", read, "robust_jax") == []
    ours = network.read(str(tmp_path / "ours"))
    assert dataclasses.replace(ours, variables={}, text=None) == dataclasses.replace(
        read, variables={}, text=None
    )
    equal(ours.variables, given.variables)
    if given.text:
        equal(ours.text[1], given.text[1])
    export.write(tmp_path / "back", ours, form)
    equal(files.read(tmp_path / "back").tensors, files.read(tmp_path / "in.safetensors").tensors)


def test_from_one_project_to_another(tmp_path):
    given = made_network("tiny_vit", 7)
    for form in ("timm", "huggingface", "big_vision", "timm"):
        unsaid = export.write(tmp_path / form, given, form)
        # big_vision's ViT has the tanh GELU, and timm's has the erf one.
        assert unsaid == (["gelu='erf', read as 'tanh'"] if form == "big_vision" else [])
        read = network.read(str(tmp_path / form), "tiny_vit")
        equal(read.variables, given.variables)
        assert read.entry.mean == given.entry.mean
    tanh = network.read(str(tmp_path / "big_vision"), "tiny_vit")
    assert export.write(tmp_path / "hf", tanh, "huggingface") == []
    assert network.read(str(tmp_path / "hf"), "tiny_vit").model == tanh.model
    assert export.write(tmp_path / "lost", tanh, "timm") == ["gelu='tanh', read as 'erf'"]


def test_what_a_file_says_of_classes_and_holds_besides(tmp_path):
    given = made_network("tiny_vit", 3)
    given = dataclasses.replace(given, class_names=("ant", "bee", "cat"))
    tensors = export.to_tensors(given, "huggingface")
    more = {"vit.pooler.dense.bias": np.zeros(32, np.float32)}
    export.write(tmp_path / "hf", given, "huggingface", tensors | more)
    read = network.read(str(tmp_path / "hf"), "tiny_vit")
    assert read.class_names == ("ant", "bee", "cat")
    assert read.left == ("vit.pooler.dense.bias",)
    export.write(tmp_path / "ours", read, "robust_jax")
    assert network.read(str(tmp_path / "ours"), "tiny_vit").class_names == read.class_names
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    assert config["id2label"] == {"0": "ant", "1": "bee", "2": "cat"}


def test_the_first_format_has_a_place_for_everything():
    def first(*args, **fields):
        return export.choose(made_network(*args, **fields))

    assert first("tiny_vit") == "huggingface"
    assert first("tiny_vit", pool="gap") == "timm"
    assert first("tiny_dinov2", 0) == "huggingface"
    assert first("tiny_dinov2", 10) == "timm"
    assert first("tiny_clip", 0) == "huggingface"
    assert first("tiny_clip_resnet", 0) == "openai_clip"
    assert first("tiny_efficientnet") == "efficientnet_lite_pytorch"
    assert first("vit_tiny8") == "huggingface"
    assert first("resnet_small") == "robust_jax"


def test_formats_that_do_not_fit_are_refused():
    dino = made_network("tiny_dinov2", 10)
    with pytest.raises(ValueError, match=r"no place for the classifier; got 'huggingface' for 'ti"):
        export.choose(dino, "huggingface")
    message = r"does not come in the format; got 'onnx' for 'tiny_dinov2'; use one of huggingface, "
    with pytest.raises(ValueError, match=message + r"timm, robust_jax"):
        export.choose(dino, "onnx")
    with pytest.raises(ValueError, match=r"got 'huggingface' for 'resnet_small'; .* robust_jax"):
        export.choose(made_network("resnet_small"), "huggingface")


def test_files_of_our_own_are_checked(tmp_path):
    export.write(tmp_path, made_network("tiny_vit"), "robust_jax")
    path = str(tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"of another model; got .* of 'tiny_vit' for 'vit_b16'"):
        network.read(path, "vit_b16")
    tensors, about = files.read(path).tensors, native.metadata(path)
    files.write_safetensors(path, tensors, {**about, "version": "2"})
    with pytest.raises(ValueError, match=r"a file of another version; got '2'; read it with"):
        network.read(path)
    del tensors["params/norm/scale"]
    files.write_safetensors(path, tensors, about)
    with pytest.raises(ValueError, match=r"1 missing tensors \(params/norm/scale\)"):
        network.read(path)
    with pytest.raises(ValueError, match=r"no heads of a student .* got .* of format 'robust_jax'"):
        native.Heads.load(path)
    (tmp_path / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(ValueError, match=r"cannot read this safetensors file"):
        network.read(path)


@pytest.mark.parametrize("share", ["tail", "none"])
@pytest.mark.parametrize("part", [0.3, 0.9])
def test_heads_come_back_as_they_were(share, part, tmp_path):
    made, frozen, tuned = made_student(made_network("tiny_vit"), share, part)
    names = tuple("abcdefghij")
    student.write(tmp_path, made, frozen, tuned, head="unclean", class_names=names)
    heads = native.Heads.load(tmp_path / "heads.safetensors")
    equal(heads.tuned, tuned)
    equal(heads.classifier, frozen["params"]["head"])
    assert (heads.entry, heads.plan, heads.share) == (made.entry, made.plan, share)
    assert (heads.rate, heads.image_size, heads.class_names) == (0.25, 32, names)
    if share == "none":
        assert not np.array_equal(*(tree["tail"]["norm"]["bias"] for tree in two(heads)))
    # A student that tunes nothing of the network itself.
    plan = dataclasses.replace(made.plan, freed=())
    copies = tuned["shared"] if share == "none" else {"": tuned["shared"]}
    bare = {head: {**tree, "tail": {}} for head, tree in copies.items()}
    tree = {**tuned, "shared": bare if share == "none" else bare[""]}
    dataclasses.replace(heads, tuned=tree, plan=plan).save(tmp_path / "bare.safetensors")
    equal(native.Heads.load(tmp_path / "bare.safetensors").tuned, tree)


def two(heads):
    return heads.tuned["shared"]["clean"], heads.tuned["shared"]["unclean"]


def test_a_zero_shot_student_needs_no_code(tmp_path):
    given = made_network("tiny_clip", 10, text=False)
    model = models.build(given.entry, 10, image_size=32, head="cosine")
    kernel = given.variables["params"]["head"]["kernel"]
    params = {**given.variables["params"], "head": {"kernel": kernel}}
    given = dataclasses.replace(given, model=model, variables={"params": params})
    made, frozen, tuned = made_student(given)
    written, form, unsaid = student.write(
        tmp_path, made, frozen, tuned, head="clean", class_names="abcdefghij"
    )
    assert (form, unsaid, written.has_classifier) == ("huggingface", [], False)
    assert {path.name for path in tmp_path.iterdir()} == {
        "config.json",
        "heads.safetensors",
        "model.safetensors",
        "preprocessor_config.json",
    }
    heads = native.Heads.load(tmp_path / "heads.safetensors")
    equal(heads.classifier, {"kernel": kernel})
    read = weights.find(str(tmp_path), "tiny_clip").load(model, classifier="new")[0]["params"]
    equal(read["norm"], tuned["shared"]["tail"]["norm"])
    equal(read["embed"], frozen["params"]["embed"])


def test_the_file_is_marked_for_transformers(tmp_path):
    export.write(tmp_path, made_network("tiny_vit"), "timm")
    with safe_open(tmp_path / "model.safetensors", "np") as file:
        assert file.metadata() == {"format": "pt"}
