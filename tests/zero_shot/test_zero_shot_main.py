import dataclasses
import gzip

import jax
import numpy as np
import pytest

from robust_jax import models
from robust_jax.weights import find, formats, loading
from robust_jax.zero_shot import ZeroShotHead, bert_tokenizer, clip_tokenizer, tokenizers
from robust_jax.zero_shot.__main__ import main
from robust_jax.zero_shot.head import file_hash, text_hash

pytest.importorskip("tokenizers")
pytest.importorskip("ftfy")

WORDS = ("[PAD]", "[UNK]", "[CLS]", "a", "photo", "of", "cat", "house", "dog")
IMAGE = {"width": 16, "depth": 1, "num_heads": 2, "mlp_dim": 16, "patch_size": 16, "projection": 6}
TEXT = {"width": 16, "depth": 1, "num_heads": 2, "embed_dim": 6}


@pytest.fixture
def made(tmp_path, monkeypatch, variables_of):
    """A tiny model of the table with made weights: the file, the text tower and its variables."""

    def make(name, **text):
        row = models.entry(name)
        kwargs = {**row.kwargs, **IMAGE}
        row = dataclasses.replace(row, input_size=32, kwargs=kwargs, text_kwargs={**TEXT, **text})
        monkeypatch.setitem(models.MODELS, name, row)
        (key, *_), found = row.weights, {}
        towers = models.build(name, 1), models.build_text(name)
        for is_text, tower in enumerate(towers):
            variables = variables_of(tower)
            fmt = formats(row)[key]
            if not is_text:
                variables["params"].pop("head")
            found |= loading.to_tensors(variables, fmt, tower, text=bool(is_text))
        path = tmp_path / "weights.npz"
        np.savez(path, **found)
        return str(path), towers[1], variables

    return make


@pytest.fixture
def variables_of():
    def make(model):
        abstract = jax.eval_shape(model.init, jax.random.key(0), model.example_input())
        rng = np.random.default_rng(1)
        return jax.tree.map(lambda a: rng.standard_normal(a.shape).astype(np.float32), abstract)

    return make


def expected(tower, variables, tokenizer, prompts_by_class):
    columns = []
    for texts in prompts_by_class:
        z = np.asarray(jax.jit(tower.apply)(variables, tokenizer(texts)))
        mean = (z / np.linalg.norm(z, axis=1, keepdims=True)).mean(axis=0)
        columns.append(mean / np.linalg.norm(mean))
    return np.exp(variables["params"]["logit_scale"]) * np.stack(columns, axis=1)


def test_lit_from_its_file_to_the_head(made, tmp_path, capsys):
    path, tower, variables = made("lit_b16b", vocab_size=len(WORDS), mlp_dim=16)
    vocabulary, classes, output = (tmp_path / n for n in ("vocab.txt", "classes.txt", "head.npz"))
    vocabulary.write_text("\n".join(WORDS) + "\n")
    classes.write_text("Cat, House-Cat\nDog!\n")
    arguments = f"--model lit_b16b --weights {path} --classes {classes} --output {output}".split()
    assert main([*arguments, "--templates", "photo", "--vocabulary", str(vocabulary)]) == 0
    assert capsys.readouterr().out.endswith("head.npz: 2 classes, 1 templates, kernel [6, 2]\n")
    head = ZeroShotHead.load(output)
    # LiT's texts have no punctuation and no capitals.
    assert head.class_names == ("cat, housecat", "dog")
    texts = [["a photo of a cat", "a photo of a housecat"], ["a photo of a dog"]]
    want = expected(tower, variables, bert_tokenizer(str(vocabulary)), texts)
    np.testing.assert_allclose(head.kernel, want, rtol=1e-3, atol=1e-4)
    assert head.provenance["model"] == "lit_b16b"
    # The image tower of the same file gives embeddings as wide as the head is high.
    image = find(path, "lit_b16b")
    model = models.build("lit_b16b", 2, head="cosine")
    loaded, _ = image.load(model, classifier="new")
    loaded["params"]["head"]["kernel"] = head.kernel
    assert jax.jit(model.apply)(loaded, model.example_input()).shape == (1, 2)
    assert head.provenance["template_set"] == "photo"
    assert head.provenance["templates_sha256"] == text_hash(["a photo of a {}"])
    assert head.provenance["weights"] == path
    assert head.provenance["weights_sha256"] == file_hash(path)


def test_clip_from_its_file_to_the_head(made, tmp_path, monkeypatch):
    monkeypatch.setattr(tokenizers, "CLIP_MERGES", 1)
    path, tower, variables = made("clip_vit_b16", vocab_size=515)
    vocabulary, classes, output = (tmp_path / n for n in ("merges.gz", "classes.txt", "head.npz"))
    vocabulary.write_bytes(gzip.compress(b"version\nc a\n"))
    classes.write_text("Cat\nDog!\n")
    arguments = f"--model clip_vit_b16 --weights {path} --classes {classes} --output {output}"
    main([*arguments.split(), "--templates", "none", "--vocabulary", str(vocabulary)])
    head = ZeroShotHead.load(output)
    assert head.class_names == ("Cat", "Dog!")
    want = expected(tower, variables, clip_tokenizer(str(vocabulary)), [["Cat"], ["Dog!"]])
    np.testing.assert_allclose(head.kernel, want, rtol=1e-3, atol=1e-4)


def test_mistakes_are_found_before_the_weights_are_read(tmp_path):
    arguments = ["--model", "clip_vit_b16", "--weights", "missing", "--output", "head.npz"]
    with pytest.raises(ValueError, match=r"cannot read this file .*'nothing'; give class names"):
        main([*arguments, "--classes", "nothing", "--templates", "photo"])
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    # CLIP's vocabulary comes with a package that need not be there; it is looked for first.
    message = r"no such weights; got 'missing'|is not on this machine; got none of open_clip_torch"
    with pytest.raises(ValueError, match=message):
        main([*arguments, "--classes", str(tmp_path / "classes.txt"), "--templates", "photo"])


def test_a_model_without_text_tower_is_refused(tmp_path):
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    arguments = ["--classes", str(tmp_path / "classes.txt"), "--templates", "photo"]
    with pytest.raises(ValueError, match="no text tower; got 'vit_b16'; use one of"):
        main([*arguments, "--model", "vit_b16", "--weights", "missing", "--output", "head.npz"])
