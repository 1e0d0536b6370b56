"""Tokenizers of the text towers: CLIP's byte-level BPE and BERT's WordPiece, as LiT uses it."""

import gzip
import html
import importlib
import re
import unicodedata
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from robust_jax.zero_shot.installed import installed_file

Tokenizer = Callable[[Sequence[str]], np.ndarray]

CLIP_CONTEXT = 77
CLIP_VOCABULARY = "bpe_simple_vocab_16e6.txt.gz"
# The file lists 262,145 merges; Radford et al. 2021 use as many as make 49,152 entries with the 256
# bytes, once plain and once as the end of a word, and count the two special tokens among them.
CLIP_MERGES = 49152 - 256 - 2
CLIP_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"
LIT_CONTEXT = 16


def clip_tokenizer(vocabulary: str | None = None, context: int = CLIP_CONTEXT) -> Tokenizer:
    """CLIP's tokenizer: texts to int32[b, 77], start and end marked, padded with zeros.

    Args:
      vocabulary: path of `bpe_simple_vocab_16e6.txt.gz`; by default that of an installed
        open_clip_torch or clip-anytorch.
      context: number of tokens; a text that needs more is a ValueError.
    """
    library = _library("tokenizers")
    fix_text = _library("ftfy").fix_text
    if vocabulary is None:
        path = installed_file(CLIP_VOCABULARY, ("open_clip_torch", "clip-anytorch"))
    else:
        path = Path(vocabulary)
    merges = _read_merges(path)
    characters = _byte_characters()
    words = [*characters, *(f"{c}</w>" for c in characters), *map("".join, merges)]
    start, end = len(words), len(words) + 1
    # Special tokens are no part of the vocabulary here, so a text that spells one is plain text.
    bpe = library.Tokenizer(
        library.models.BPE(
            {word: i for i, word in enumerate(words)}, merges, end_of_word_suffix="</w>"
        )
    )
    split = library.pre_tokenizers.Split(library.Regex(CLIP_PATTERN), "removed", invert=True)
    to_bytes = library.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    bpe.pre_tokenizer = library.pre_tokenizers.Sequence([split, to_bytes])

    def clean(text: str) -> str:
        text = html.unescape(html.unescape(fix_text(text))).strip()
        return re.sub(r"\s+", " ", text).strip().lower()

    def tokenize(texts: Sequence[str]) -> np.ndarray:
        encoded = bpe.encode_batch([clean(text) for text in _checked(texts)])
        rows = [[start, *entry.ids, end] for entry in encoded]
        for text, row in zip(texts, rows, strict=True):
            if len(row) > context:
                raise ValueError(
                    f"a text needs more than the {context} tokens of the tower; got {len(row)} for "
                    f"{text!r}; shorten it"
                )
        return _padded(rows, context)

    return tokenize


def bert_tokenizer(vocabulary: str | None, context: int = LIT_CONTEXT) -> Tokenizer:
    """BERT's uncased tokenizer as in LiT: texts to int32[b, context], [CLS] first and no [SEP].

    Like LiT's it cuts a text after `context` tokens, and pads with zeros.

    Args:
      vocabulary: path of BERT's `vocab.txt`, which LiT's releases have as `LiT-B16B.txt`.
      context: number of tokens; 16 in LiT.
    """
    library = _library("tokenizers")
    if vocabulary is None:
        raise ValueError(
            "BERT's tokenizer needs its vocabulary; got none; give the path of the vocab.txt of "
            "BERT uncased (LiT-B16B.txt beside LiT's weights)"
        )
    words = _read_words(Path(vocabulary))
    start = words["[CLS]"]
    wordpiece = library.Tokenizer(library.models.WordPiece(words, unk_token="[UNK]"))
    wordpiece.normalizer = library.normalizers.BertNormalizer(lowercase=True)
    wordpiece.pre_tokenizer = library.pre_tokenizers.BertPreTokenizer()

    def fold(text: str) -> str:
        # LiT's tokenizer (tensorflow_text) folds case by NFKC, which BERT's own does not.
        return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())

    def tokenize(texts: Sequence[str]) -> np.ndarray:
        folded = [fold(text) for text in _checked(texts)]
        encoded = wordpiece.encode_batch(folded, add_special_tokens=False)
        return _padded([[start, *entry.ids][:context] for entry in encoded], context)

    return tokenize


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ValueError(
            f"zero-shot classification needs the package {name}; got {error}; run "
            "`pip install -r requirements-zero-shot.txt`"
        ) from error


def _checked(texts: Sequence[str]) -> Sequence[str]:
    if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"texts must be a sequence of str; got {texts!r:.80}; pass a list")
    return texts


def _padded(rows: Sequence[Sequence[int]], context: int) -> np.ndarray:
    tokens = np.zeros((len(rows), context), np.int32)
    for into, row in zip(tokens, rows, strict=True):
        into[: len(row)] = row
    return tokens


def _byte_characters() -> list[str]:
    """The characters that stand for the 256 bytes in GPT-2's BPE, in the vocabulary's order."""
    visible = [chr(b) for span in ((33, 127), (161, 173), (174, 256)) for b in range(*span)]
    return visible + [chr(256 + i) for i in range(256 - len(visible))]


def _read_merges(path: Path) -> list[tuple[str, str]]:
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            lines = file.read().split("\n")
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise ValueError(
            f"cannot read CLIP's vocabulary ({error}); got {str(path)!r}; give the path of "
            f"{CLIP_VOCABULARY}"
        ) from error
    merges = [tuple(line.split()) for line in lines[1 : CLIP_MERGES + 1]]
    if len(merges) < CLIP_MERGES or any(len(merge) != 2 for merge in merges):
        raise ValueError(
            f"not CLIP's vocabulary; got {str(path)!r} with {len(merges)} merges, not "
            f"{CLIP_MERGES} pairs; give the path of {CLIP_VOCABULARY}"
        )
    return merges  # type: ignore[return-value]


def _read_words(path: Path) -> dict[str, int]:
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(
            f"cannot read BERT's vocabulary ({error}); got {str(path)!r}; give the path of its "
            "vocab.txt, one word a line"
        ) from error
    words = {line.rstrip("\r"): i for i, line in enumerate(lines) if i < len(lines) - 1 or line}
    if lines[0].rstrip("\r") != "[PAD]" or not {"[CLS]", "[UNK]"} <= words.keys():
        raise ValueError(
            f"not a vocabulary of BERT; got {str(path)!r}, which lacks [PAD] in its first line, "
            "[CLS] or [UNK]; give the vocab.txt of BERT uncased"
        )
    return words
