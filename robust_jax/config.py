"""Configs: arguments, validation before any device is touched, durations, hashes."""

import ast
import difflib
import hashlib
import json
import runpy
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_collections

STAGES = ("pretrain", "teacher", "cache", "distill", "baselines", "evaluate", "report")
METHODS = (
    "original",
    "teacher",
    "apt",
    "full_finetune",
    "wise_ft",
    "lp_ft",
    "ours",
    "ours_no_kd",
    "ours_no_kld",
    "ours_no_umc",
    "ours_max_logit",
    "ours_gate",
)
# Baselines that this version trains or derives; the other names of METHODS are reserved.
BASELINES = ("original", "teacher", "apt", "ours_no_kd")

# Allowed values of the keys that select by string.
CHOICES: dict[str, tuple[Any, ...]] = {
    "data.source": ("digits", "folder", "tfds", "arrays"),
    "teacher.loss": ("cross_entropy", "augmix_jsd"),
    "method.share": ("tail", "none"),
    "method.kd.weighting": ("none", "teacher_entropy"),
    "cache.use": ("auto", "true", "false"),
    "cache.dtype": ("bfloat16", "float32"),
    "selection.uncertainty": ("mutual_information", "variance", "predictive_entropy"),
    "selection.score": ("product", "sum", "uncertainty", "kl", "max_logit"),
    "selection.direction": ("combined_to_head", "head_to_combined"),
    "selection.candidates": ("clean_unclean", "all"),
}
OPTIMIZERS = ("adam", "adamw", "sgd")
SCHEDULES = ("cosine", "constant")
TRAINED_SECTIONS = ("pretrain", "teacher", "distill")


def parse_arg(arg: str | None, **spec: Any) -> ml_collections.ConfigDict:
    """Parses the text behind the colon of `--config file.py:arg`.

    Args:
      arg: comma-separated `name` (true), or `name=value`; None or "" takes every default.
      **spec: the known names with their defaults, whose types the values must have.

    Raises:
      ValueError: for a name that `spec` lacks or a value of another type.
    """
    parsed = dict(spec)
    for part in filter(None, (p.strip() for p in (arg or "").split(","))):
        name, has_value, text = part.partition("=")
        if name not in spec:
            raise ValueError(
                f"unknown config argument; got {name!r}; use one of {sorted(spec)}"
                + _nearest(name, spec)
            )
        value = ast.literal_eval(text) if has_value and not isinstance(spec[name], str) else text
        value = value if has_value else True
        if type(value) is not type(spec[name]):
            raise ValueError(
                f"config argument {name!r} must be a {type(spec[name]).__name__}; "
                f"got {part!r}; write {name}={spec[name]!r} for the default"
            )
        parsed[name] = value
    return ml_collections.ConfigDict(parsed)


def flatten(config: ml_collections.ConfigDict | Mapping[str, Any]) -> dict[str, Any]:
    """Flattens nested keys to dotted names; tuples stay values."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, ml_collections.ConfigDict | dict):
            flat.update({f"{key}.{k}": v for k, v in flatten(value).items()})
        else:
            flat[key] = list(value) if isinstance(value, tuple) else value
    return flat


def unflatten(flat: Mapping[str, Any]) -> ml_collections.ConfigDict:
    """Rebuilds a config from what `flatten` made of it."""
    nested: dict[str, Any] = {}
    for key, value in flat.items():
        *path, last = key.split(".")
        inner = nested
        for part in path:
            inner = inner.setdefault(part, {})
        inner[last] = tuple(value) if isinstance(value, list) else value
    return ml_collections.ConfigDict(nested)


def check_overrides(argv: Sequence[str], flag: str = "config") -> None:
    """Rejects `--config.a.b=...` whose key the config file does not have.

    Raises:
      ValueError: for a missing config file, or an unknown key, with the nearest known one.
    """
    path: str | None = None
    keys = []
    for position, text in enumerate(argv):
        name, has_value, value = text.lstrip("-").partition("=")
        if not text.startswith("-"):
            continue
        if name == flag:
            path = value if has_value else "".join(argv[position + 1 : position + 2])
        elif name.startswith(flag + "."):
            keys.append(name.removeprefix(flag + "."))
    if path is None:
        return
    known = set(flatten(load(path)))
    for key in keys:
        if key not in known:
            raise ValueError(
                f"unknown config key; got --{flag}.{key}; see configs/base.py for every key"
                + _nearest(key, known)
            )


def load(spec: str) -> ml_collections.ConfigDict:
    """Returns `get_config(arg)` of the file named by `path.py[:arg]`."""
    path, _, arg = spec.partition(":")
    file = Path(path)
    if not file.is_file():
        raise ValueError(
            f"config file not found; got {path!r}; give a path such as configs/quickstart.py"
        )
    allow_config_imports(spec)
    try:
        return runpy.run_path(str(file))["get_config"](arg)
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(
            f"config file {path!r} does not fit configs/base.py; got {error}; "
            "correct the name or the type"
        ) from error


def allow_config_imports(spec: str) -> None:
    """Lets a config file outside the working directory say `from configs import base`."""
    for folder in (Path(spec.partition(":")[0]).resolve().parent.parent, Path(__file__).parents[1]):
        if (folder / "configs" / "base.py").is_file() and str(folder) not in sys.path:
            sys.path.append(str(folder))


def validate(config: ml_collections.ConfigDict, base: ml_collections.ConfigDict) -> None:
    """Checks every key and value that can be checked without data or devices.

    Raises:
      ValueError: what is wrong, the value found, and what to do.
    """
    flat, known = flatten(config), flatten(base)
    for key in flat:
        if key not in known:
            raise ValueError(
                f"unknown config key; got {key!r}; see configs/base.py for every key"
                + _nearest(key, known)
            )
    for key in known:
        if key not in flat:
            raise ValueError(f"config key missing; got no {key!r}; start from configs/base.py")
    for key, choices in CHOICES.items():
        _check_choice(key, flat[key], choices)
    for section in TRAINED_SECTIONS:
        _check_choice(f"{section}.optimizer", flat[f"{section}.optimizer"], OPTIMIZERS)
        _check_choice(f"{section}.schedule", flat[f"{section}.schedule"], SCHEDULES)
        duration(config[section], "total", examples=1000, label=section)
        if flat[f"{section}.batch_size"] < 1:
            raise ValueError(
                f"{section}.batch_size must be at least 1; got {flat[f'{section}.batch_size']}; "
                f"set --config.{section}.batch_size"
            )
    for stage in config.stages:
        _check_choice("stages", stage, STAGES)
    for method in config.baselines.methods:
        _check_choice("baselines.methods", method, BASELINES)
    _check_range("augmented.fraction", flat["augmented.fraction"], 0.0, 1.0, open_low=True)
    _check_range("method.kd.weight", flat["method.kd.weight"], 0.0, 1.0)
    _check_range("method.dropout", flat["method.dropout"], 0.0, 0.9)
    for key in (
        "data.calibration_images",
        "data.image_size",
        "augmented.replicas",
        "selection.num_samples",
        "evaluate.batch_size",
    ):
        _check_range(key, flat[key], 1, float("inf"))


def duration(section: Any, name: str, *, examples: int, label: str) -> int:
    """Converts `<name>_{steps,epochs,examples}` of a section to steps.

    Args:
      section: holds the three keys and `batch_size`. Epochs count unless steps or examples are
        given too (the command line cannot take a default away).
      name: for example "total".
      examples: size of one epoch.
      label: the section's name, for messages.

    Raises:
      ValueError: when steps and examples are both given, or the result is below one step.
    """
    given = {
        key: section[key]
        for key in (f"{name}_steps", f"{name}_examples")
        if section[key] is not None
    }
    if len(given) > 1:
        raise ValueError(
            f"{label}: two durations; got {given}; set one of them, and leave the other out"
        )
    key, value = next(iter(given.items()), (f"{name}_epochs", section[f"{name}_epochs"]))
    batch = section["batch_size"]
    total = {"steps": value, "epochs": value * examples / batch, "examples": value / batch}
    steps = round(total[key.removeprefix(name + "_")])
    if steps < 1:
        raise ValueError(
            f"{label}.{key} comes to no step at all; got {value} with batch {batch} and "
            f"{examples} examples an epoch; raise it or lower {label}.batch_size"
        )
    return steps


def subset(config: ml_collections.ConfigDict, prefixes: Iterable[str]) -> dict[str, Any]:
    """Returns the flattened keys that begin with one of the dotted prefixes."""
    return {
        key: value
        for key, value in flatten(config).items()
        if any(key == p or key.startswith(p + ".") for p in prefixes)
    }


def digest(value: Any) -> str:
    """Returns a short stable hash of a JSON-able value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def _check_choice(key: str, value: Any, choices: Sequence[Any]) -> None:
    if value not in choices:
        raise ValueError(
            f"{key} has an unknown value; got {value!r}; use one of {list(choices)}"
            + _nearest(str(value), map(str, choices))
        )


def _check_range(key: str, value: float, low: float, high: float, open_low: bool = False) -> None:
    if not low <= value <= high or (open_low and value == low):
        raise ValueError(
            f"{key} is out of range; got {value}; use a value {'above' if open_low else 'from'} "
            f"{low} to {high}"
        )


def _nearest(name: str, known: Iterable[str]) -> str:
    match = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {match[0]!r}?" if match else ""
