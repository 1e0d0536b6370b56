import json
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robust_jax.models.classifier import CosineClassifier
from robust_jax.zero_shot import ZeroShotHead, build_head
from robust_jax.zero_shot.head import file_hash, text_hash
from robust_jax.zero_shot.prompts import prompts

NAMES = ("cat, house cat", "dog", "zebra")
TEMPLATES = ("a photo of a {}.", "the {}", "{}")
CONTEXT, EMBED = 40, 5


def tokenizer(texts):
    tokens = np.zeros((len(texts), CONTEXT), np.int32)
    for row, text in zip(tokens, texts, strict=True):
        row[: len(text)] = [ord(c) for c in text]
    return tokens


TABLE = np.random.default_rng(0).standard_normal((128, EMBED)).astype(np.float32)


def embed(tokens):
    place = np.cos(np.arange(tokens.shape[1]))
    return np.where((tokens > 0)[..., None], TABLE[tokens] * place[:, None], 0).sum(axis=1)


def direct(scale, names=NAMES, templates=TEMPLATES):
    columns = []
    for name in names:
        texts = [t.replace("{}", n) for n in name.split(", ") for t in templates]
        each = [embed(tokenizer([text]))[0].astype(np.float64) for text in texts]
        mean = np.mean([vector / np.linalg.norm(vector) for vector in each], axis=0)
        columns.append(np.exp(scale) * mean / np.linalg.norm(mean))
    return np.stack(columns, axis=1)


@pytest.fixture
def head():
    return build_head(embed, 1.5, tokenizer, NAMES, TEMPLATES, provenance={"model": "made"})


@pytest.mark.parametrize("batch_size", [1, 4, 5, 12, 100])
def test_equals_the_direct_computation(batch_size):
    shapes = set()

    def apply(tokens):
        shapes.add(tokens.shape)
        return embed(tokens)

    head = build_head(apply, 1.5, tokenizer, NAMES, TEMPLATES, batch_size=batch_size)
    assert head.kernel.dtype == np.float32 and head.kernel.shape == (EMBED, 3)
    np.testing.assert_allclose(head.kernel, direct(1.5), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(head.kernel, axis=0), np.exp(1.5), rtol=1e-6)
    # One shape, so one compilation, and no longer than the longest prompt.
    assert shapes == {(min(batch_size, 12), len("a photo of a house cat."))}


def test_provenance_says_what_it_was_made_of(head):
    assert head.class_names == NAMES
    assert head.provenance["model"] == "made"
    assert head.provenance["logit_scale"] == 1.5
    assert head.provenance["templates"] == 3
    assert head.provenance["templates_sha256"] == text_hash(TEMPLATES)
    assert head.provenance["class_names_sha256"] == text_hash(NAMES) != text_hash(NAMES[::-1])
    assert head.provenance["versions"]["jax"] == jax.__version__


def test_is_the_kernel_of_the_cosine_classifier(head):
    x = np.random.default_rng(1).standard_normal((4, EMBED)).astype(np.float32)
    got = CosineClassifier(3).apply({"params": {"kernel": head.kernel}}, x)
    cosines = x / np.linalg.norm(x, axis=1, keepdims=True) @ (direct(1.5) / np.exp(1.5))
    np.testing.assert_allclose(got, np.exp(1.5) * cosines, rtol=1e-4, atol=1e-5)


def test_a_file_gives_back_the_head(head, tmp_path):
    head.save(tmp_path / "new" / "head.npz")
    again = ZeroShotHead.load(tmp_path / "new" / "head.npz")
    np.testing.assert_array_equal(again.kernel, head.kernel)
    assert again.kernel.dtype == np.float32
    assert (again.class_names, again.provenance) == (head.class_names, head.provenance)
    one = ZeroShotHead(head.kernel[:, :1], ("Straße 猫 ",), {})
    one.save(tmp_path / "one.npz")
    assert ZeroShotHead.load(tmp_path / "one.npz").class_names == one.class_names


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"kernel": np.ones((EMBED, 3), np.float32)}, "its checksum differs"),
        ({"class_names": np.array(["a", "b", "c"])}, "its checksum differs"),
        ({"class_names": np.array(["cat, house cat", "zebra", "dog"])}, "its checksum differs"),
        ({"provenance": np.array(json.dumps({"model": "other"}))}, "its checksum differs"),
        ({"sha256": np.array("")}, "its checksum differs"),
        ({"kernel": np.ones((EMBED, 3))}, r"kernel float64\[5, 3\], 3 names"),
        ({"kernel": np.ones((EMBED, 2), np.float32)}, r"kernel float32\[5, 2\], 3 names"),
        ({"kernel": np.array([{}], object)}, "Object arrays cannot be loaded"),
        ({"sha256": None}, "it holds class_names, kernel, provenance"),
        ({"more": np.ones(1)}, "it holds class_names, kernel, more, provenance, sha256"),
    ],
)
def test_other_contents_are_refused(head, tmp_path, changed, message):
    path = tmp_path / "head.npz"
    head.save(path)
    with np.load(path) as file:
        arrays = {**file, **changed}
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    with pytest.raises(ValueError, match=rf"not a zero-shot head.*{message}.*head\.npz"):
        ZeroShotHead.load(path)


def test_damaged_files_are_refused(head, tmp_path):
    path = tmp_path / "head.npz"
    head.save(path)
    data = path.read_bytes()
    for damaged in (b"", data[:20], data[: len(data) // 2], data[:-1], b"<html>" + data[6:]):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="not a zero-shot head, or a damaged one"):
            ZeroShotHead.load(path)
    for place in range(0, len(data), 37):
        path.write_bytes(data[:place] + bytes([data[place] ^ 0x55]) + data[place + 1 :])
        try:
            again = ZeroShotHead.load(path)
        except ValueError as error:
            assert "not a zero-shot head" in str(error)
        else:  # a byte that means nothing, such as a date
            np.testing.assert_array_equal(again.kernel, head.kernel)
            assert (again.class_names, again.provenance) == (head.class_names, head.provenance)
    with path.open("wb") as file:
        np.save(file, head.kernel)
    with pytest.raises(ValueError, match="it does not start as an npz does"):
        ZeroShotHead.load(path)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("kernel.txt", "x")
    with pytest.raises(ValueError, match="not a zero-shot head"):
        ZeroShotHead.load(path)
    with pytest.raises(ValueError, match=r"no such file; got .*missing"):
        ZeroShotHead.load(tmp_path / "missing.npz")


def test_mistakes_are_named():
    for names, templates, size in (((), TEMPLATES, 1), (NAMES, (), 1), (NAMES, TEMPLATES, 0)):
        with pytest.raises(ValueError, match=r"needs classes, templates and a batch; got"):
            build_head(embed, 1.5, tokenizer, names, templates, batch_size=size)
    with pytest.raises(ValueError, match=r"logit_scale must be finite; got nan"):
        build_head(embed, float("nan"), tokenizer, NAMES, TEMPLATES)
    for bad in (0.0, np.nan):
        with pytest.raises(
            ValueError, match=r"zero or not finite; got 12 of 12; check the weights"
        ):
            build_head(lambda t, v=bad: v * embed(t), 1.5, tokenizer, NAMES, TEMPLATES)


def test_hash_of_a_file(tmp_path):
    (tmp_path / "empty").write_bytes(b"")
    assert file_hash(tmp_path / "empty").startswith("e3b0c44298fc1c14")


def test_logits_are_those_of_transformers():
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    tiny = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    tiny |= {"num_attention_heads": 2, "projection_dim": 12}
    text = {**tiny, "vocab_size": 128, "max_position_embeddings": CONTEXT, "eos_token_id": 127}
    torch.manual_seed(0)
    model = transformers.CLIPModel(
        transformers.CLIPConfig(
            text_config={**text, "bos_token_id": 0, "pad_token_id": 0},
            vision_config={**tiny, "image_size": 16, "patch_size": 8},
            projection_dim=12,
        )
    ).eval()

    def marked(texts):
        return tokenizer([f"{text}\x7f" for text in texts])

    def text_apply(tokens):
        with torch.no_grad():
            out = model.text_model(torch.tensor(tokens).long()).pooler_output
            return jnp.asarray(model.text_projection(out).numpy())

    names = ("cat", "dog", "zebra")
    scale = float(model.logit_scale.detach())
    head = build_head(text_apply, scale, marked, names, ("a photo of a {}.",), batch_size=2)
    pixels = torch.randn(4, 3, 16, 16)
    texts = [prompts(name, ("a photo of a {}.",))[0] for name in names]
    with torch.no_grad():
        want = model(torch.tensor(marked(texts)).long(), pixels).logits_per_image.numpy()
        feature = model.visual_projection(model.vision_model(pixels).pooler_output).numpy()
    got = feature / np.linalg.norm(feature, axis=1, keepdims=True) @ head.kernel
    assert np.ptp(want, axis=1).min() > 1e-3
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)
