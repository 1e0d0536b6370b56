"""Reads the JSON files beside weights: what is used of them has the type that it should."""

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from robust_jax.weights import locate

_MAX_BYTES = 64 * 2**20  # the index of the largest models has a few


def read(directory: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns what config.json and preprocessor_config.json hold; {} for one that is not there.

    A folder of open_clip may hold transformers' files too; their keys differ.

    Raises:
      ValueError: when one is damaged, or says what cannot be.
    """
    config: dict[str, Any] = {}
    for name in (locate.CONFIG, locate.OPEN_CLIP_CONFIG):
        config |= _checked(read_object(directory / name), directory / name)
    path = directory / locate.PREPROCESSOR
    return config, _checked(read_object(path), path)


def read_object(path: Path, pairs_hook: Any = None) -> dict[str, Any]:
    """Returns the object in a JSON file; {} where there is no file.

    Args:
      path: local.
      pairs_hook: see `json.load`.
    """
    if not path.is_file():
        return {}
    try:
        if (size := path.stat().st_size) > _MAX_BYTES:
            raise ValueError(f"it has {size} bytes, more than {_MAX_BYTES}")
        content = json.loads(path.read_text("utf-8"), object_pairs_hook=pairs_hook)
        if not isinstance(content, dict):
            raise ValueError(f"it holds a {type(content).__name__}")
    except (ValueError, RecursionError, OSError) as error:
        raise ValueError(
            f"cannot read this JSON file ({error}); got {str(path)!r}; it must hold one object"
        ) from error
    return content


def is_number(value: Any, low: float = -math.inf, high: float = math.inf) -> bool:
    """Whether a JSON value is a number, low <= value <= high; infinity and NaN are none."""
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    return plain and abs(value) < 1e300 and low <= value <= high


def is_size(value: Any) -> bool:
    """Whether a JSON value can be a width, a count or the like."""
    return isinstance(value, int) and is_number(value, 1, 10**6)


def _three(low: float) -> Callable[[Any], bool]:
    return lambda value: (
        isinstance(value, list) and len(value) == 3 and all(is_number(v, low, 1e3) for v in value)
    )


def _labels(value: Any) -> bool:
    return isinstance(value, dict) and all(
        key.isascii() and key.isdecimal() and isinstance(label, str) and len(key) < 10
        for key, label in value.items()
    )


_SIZE = "a whole number from 1 to 1000000", is_size
_TRUTH = "true or false", lambda value: isinstance(value, bool)
_MEAN, _STD = ("three numbers", _three(-1e3)), ("three numbers above 0", _three(1e-6))
# What is used of these files, anywhere in the objects below: in words, and as a check.
_USED: Mapping[str, tuple[str, Callable[[Any], bool]]] = {
    "hidden_act": ("text", lambda value: isinstance(value, str)),
    "layer_norm_eps": ("a number from 0 to 1", lambda value: is_number(value, 0, 1)),
    "num_attention_heads": _SIZE,
    "window_size": _SIZE,
    "qkv_bias": _TRUTH,
    "downsample_in_bottleneck": _TRUTH,
    "downsample_in_first_stage": _TRUTH,
    "quick_gelu": _TRUTH,
    "id2label": ("an object of numbers and names", _labels),
    "resample": ("a whole number from 0 to 5", lambda v: isinstance(v, int) and 0 <= v <= 5),
    "image_mean": _MEAN,
    "image_std": _STD,
    "mean": _MEAN,
    "std": _STD,
}
_OBJECTS = ("vision_config", "text_config", "model_cfg", "vision_cfg", "preprocess_cfg")


def _checked(content: Mapping[str, Any], path: Path) -> dict[str, Any]:
    found = {}
    for key, value in content.items():
        if value is None and (key in _USED or key in _OBJECTS):
            continue  # as if it were left out
        if key in _OBJECTS and isinstance(value, dict):
            value = _checked(value, path)
        elif key in _OBJECTS or (key in _USED and not _USED[key][1](value)):
            wanted = _USED[key][0] if key in _USED else "an object"
            raise ValueError(
                f"a value that cannot be; got {key}={value!r:.80} in {str(path)!r}; it must be "
                f"{wanted}: download it again"
            )
        found[key] = value
    return found
