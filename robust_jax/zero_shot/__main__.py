"""Makes a classifier from class names: `python -m robust_jax.zero_shot --help`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from robust_jax.models import build_text
from robust_jax.models.bert import Bert
from robust_jax.weights import load_text_tower, locate
from robust_jax.zero_shot.head import build_head, file_hash
from robust_jax.zero_shot.prompts import canonical, class_names, templates
from robust_jax.zero_shot.tokenizers import bert_tokenizer, clip_tokenizer


def main(argv: Sequence[str] | None = None) -> int:
    """Writes the file of a `ZeroShotHead`."""
    parser = argparse.ArgumentParser(prog="python -m robust_jax.zero_shot", description=__doc__)
    parser.add_argument("--model", required=True, help="a model with a text tower: clip_vit_b16")
    parser.add_argument("--weights", required=True, help="its file: path, hf:// or gs://")
    parser.add_argument("--classes", required=True, help="imagenet, or a file, one class a line")
    parser.add_argument(
        "--templates",
        default="openai_80",
        help="openai_80, simple_7, photo, none, or a file, one template a line (openai_80)",
    )
    parser.add_argument("--vocabulary", help="BERT's vocab.txt (LiT), or another one for CLIP")
    parser.add_argument("--batch_size", type=int, default=256, help="prompts at a time (256)")
    parser.add_argument("--output", required=True, help="the .npz to write")
    args = parser.parse_args(argv)

    names, prompt_templates = class_names(args.classes), templates(args.templates)
    tower = build_text(args.model)
    if isinstance(tower, Bert):
        tokenizer = bert_tokenizer(args.vocabulary, tower.context)
        names, prompt_templates = canonical(names, ","), canonical(prompt_templates, "{}")
    else:
        tokenizer = clip_tokenizer(args.vocabulary, tower.context)
    tower, variables = load_text_tower(args.model, args.weights)
    variables = jax.device_put(variables)
    apply = jax.jit(tower.apply)

    def text_apply(tokens: np.ndarray) -> jax.Array:
        return apply(variables, jnp.asarray(tokens))

    head = build_head(
        text_apply,
        float(variables["params"]["logit_scale"]),
        tokenizer,
        names,
        prompt_templates,
        batch_size=args.batch_size,
        provenance={
            "model": args.model,
            "weights": args.weights,
            "weights_sha256": file_hash(_weight_file(args.weights)),
            "template_set": args.templates,
        },
    )
    head.save(args.output)
    print(
        f"wrote {args.output}: {len(names)} classes, {len(prompt_templates)} templates, "
        f"kernel {list(head.kernel.shape)}"
    )
    return 0


def _weight_file(address: str) -> Path:
    path = locate.locate(address)
    return locate.main_file(path) or path if path.is_dir() else path


if __name__ == "__main__":
    sys.exit(main())
