"""Zero-shot classification: a classifier made from class names by a text tower."""

from robust_jax.zero_shot.head import ZeroShotHead, build_head
from robust_jax.zero_shot.prompts import class_names, templates
from robust_jax.zero_shot.tokenizers import bert_tokenizer, clip_tokenizer

__all__ = [
    "ZeroShotHead",
    "bert_tokenizer",
    "build_head",
    "class_names",
    "clip_tokenizer",
    "templates",
]
