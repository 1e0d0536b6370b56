"""Builds a classifier from class names with a text tower, and keeps it in a file."""

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from etils import epath

from robust_jax import archives
from robust_jax.version import __version__
from robust_jax.writers import Progress, write_arrays
from robust_jax.zero_shot.prompts import prompts
from robust_jax.zero_shot.tokenizers import Tokenizer

FILE_KEYS = {"kernel", "class_names", "provenance", "sha256"}


@dataclasses.dataclass(frozen=True)
class ZeroShotHead:
    """A classifier by cosine similarity: logits = x / |x| @ kernel for an image embedding x.

    Attributes:
      kernel: f32[e, k], a column of length exp(logit_scale) for each class.
      class_names: the k classes as they were given.
      provenance: where it comes from: plain JSON values.
    """

    kernel: np.ndarray
    class_names: tuple[str, ...]
    provenance: dict[str, Any]

    def save(self, path: epath.PathLike) -> None:
        """Writes an npz file that holds its own checksum."""
        provenance = json.dumps(self.provenance, sort_keys=True, allow_nan=False)
        arrays = {
            "kernel": self.kernel,
            "class_names": np.array(self.class_names),
            "provenance": np.array(provenance),
            "sha256": np.array(_checksum(self.kernel, self.class_names, provenance)),
        }
        write_arrays(path, arrays)

    @classmethod
    def load(cls, path: epath.PathLike) -> "ZeroShotHead":
        """Reads a file written by `save`.

        Raises:
          ValueError: when it is missing, damaged or something else.
        """
        try:
            with epath.Path(path).open("rb") as file:
                arrays = archives.read_npz(file)
        except FileNotFoundError as error:
            raise ValueError(
                f"no such file; got {str(path)!r}; make it with `python -m robust_jax.zero_shot`"
            ) from error
        except (OSError, ValueError) as error:
            raise _damaged(path, str(error)) from error
        if arrays.keys() != FILE_KEYS:
            raise _damaged(path, f"it holds {', '.join(sorted(arrays)) or 'no named arrays'}")
        kernel, provenance = arrays["kernel"], str(arrays["provenance"])
        names = tuple(str(name) for name in np.atleast_1d(arrays["class_names"]))
        if kernel.dtype != np.float32 or kernel.ndim != 2 or kernel.shape[1] != len(names):
            raise _damaged(path, f"kernel {kernel.dtype}{list(kernel.shape)}, {len(names)} names")
        if str(arrays["sha256"]) != _checksum(kernel, names, provenance):
            raise _damaged(path, "its checksum differs")
        if not np.isfinite(kernel).all():
            raise _damaged(path, "its kernel is not finite")
        return cls(kernel, names, _provenance(path, provenance))


def build_head(
    text_apply: Callable[[np.ndarray], jax.Array],
    logit_scale: float,
    tokenizer: Tokenizer,
    class_names: Sequence[str],
    templates: Sequence[str],
    *,
    batch_size: int = 256,
    provenance: Mapping[str, Any] | None = None,
) -> ZeroShotHead:
    """Embeds every prompt of every class: the mean of unit embeddings, made a unit vector again.

    Args:
      text_apply: int32[b, n] to f32[b, e], the same b and n at each call; jit it yourself, with
        the parameters as an argument. n is that of the longest prompt, at most the tokenizer's.
      logit_scale: logarithm of the factor on the cosines.
      tokenizer: texts to int32[b, n] padded with zeros.
      class_names: k names; commas separate aliases, which count alike.
      templates: with `{}` where the name goes.
      batch_size: prompts at a time.
      provenance: more values to keep with the head, such as model and weights.
    """
    if not class_names or not templates or batch_size < 1:
        raise ValueError(
            f"a classifier needs classes, templates and a batch; got {len(class_names)} classes, "
            f"{len(templates)} templates and batch_size={batch_size}; use at least one of each"
        )
    if not math.isfinite(logit_scale):
        raise ValueError(f"logit_scale must be finite; got {logit_scale}; check the weights")
    by_class = [prompts(name, templates) for name in class_names]
    labels = np.repeat(np.arange(len(by_class)), [len(texts) for texts in by_class])
    tokens = tokenizer([text for texts in by_class for text in texts])
    # Nothing looks at the padding behind the longest prompt, so it need not be computed.
    tokens = tokens[:, : max(1, int(np.flatnonzero(tokens.any(axis=0))[-1]) + 1)]

    sums = np.zeros(0)
    batch_size = min(batch_size, len(tokens))
    with Progress("text embeddings", len(tokens), unit="prompt") as progress:
        for start in range(0, len(tokens), batch_size):
            batch = tokens[start : start + batch_size]
            count = len(batch)
            # One shape for all batches, so the tower is compiled once.
            batch = np.pad(batch, ((0, batch_size - count), (0, 0)), mode="edge")
            embeddings = _unit(np.asarray(text_apply(batch), np.float64)[:count])
            if not sums.size:
                sums = np.zeros((len(by_class), embeddings.shape[1]))
            np.add.at(sums, labels[start : start + count], embeddings)
            progress.advance(count)
    kernel = (math.exp(logit_scale) * _unit(sums)).T
    return ZeroShotHead(
        kernel=np.ascontiguousarray(kernel, np.float32),
        class_names=tuple(class_names),
        provenance={
            "templates": len(templates),
            "templates_sha256": text_hash(templates),
            "class_names_sha256": text_hash(class_names),
            "logit_scale": float(logit_scale),
            "versions": {"robust_jax": __version__, "jax": jax.__version__},
            **(provenance or {}),
        },
    )


def text_hash(lines: Iterable[str]) -> str:
    """SHA-256 of lines of text."""
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def file_hash(path: epath.PathLike) -> str:
    """SHA-256 of a file."""
    with epath.Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _unit(vectors: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not np.all(np.isfinite(lengths) & (lengths > 0)):
        raise ValueError(
            "the text tower gives embeddings that are zero or not finite; got "
            f"{int(np.sum(~(np.isfinite(lengths) & (lengths > 0))))} of {len(lengths)}; check the "
            "weights"
        )
    return vectors / lengths


def _checksum(kernel: np.ndarray, class_names: Sequence[str], provenance: str) -> str:
    digest = hashlib.sha256(np.ascontiguousarray(kernel, "<f4").tobytes())
    for text in (json.dumps([*kernel.shape, *class_names]), provenance):
        digest.update(text.encode())
    return digest.hexdigest()


def _provenance(path: epath.PathLike, text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _damaged(path, f"its provenance: {error}") from error
    if not isinstance(found, dict):
        raise _damaged(path, f"its provenance is a {type(found).__name__}")
    return found


def _damaged(path: epath.PathLike, what: str) -> ValueError:
    return ValueError(
        f"not a zero-shot head, or a damaged one ({what}); got {str(path)!r}; make it again with "
        "`python -m robust_jax.zero_shot`"
    )
