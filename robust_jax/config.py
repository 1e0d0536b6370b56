"""Configs: arguments, files, overrides, durations, hashes; see `validation` for the values."""

import ast
import difflib
import hashlib
import json
import os
import runpy
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_collections

# In the order in which they run.
STAGES = ("pretrain", "distort", "teacher", "cache", "distill", "baselines", "evaluate", "report")
# Sections of what is trained for a duration.
TRAINED_SECTIONS = ("pretrain", "teacher", "distill", "finetune")
# Images that are held out at least: the folds of the cross-validation of `gate.fit_gate`.
GATE_FOLDS = 3
_LONG = 100  # characters of a name: to compare longer ones takes long, too


def calibrating_section(config: ml_collections.ConfigDict) -> str:
    """Returns whose mixture the images that calibrate are made by: "selection" or "augmented"."""
    return "selection" if any(config.selection.mixture.values()) else "augmented"


def student_seed(config: ml_collections.ConfigDict) -> int:
    """Returns the seed of the held-out images, the student and the distorted copies."""
    return config.seed if config.student_seed is None else config.student_seed


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
                + nearest(name, spec)
            )
        value = _literal(text, type(spec[name])) if has_value else True
        if type(value) is not type(spec[name]):
            raise ValueError(
                f"config argument {name!r} must be a {type(spec[name]).__name__}; "
                f"got {part!r}; write {name}={spec[name]!r} for the default"
            )
        parsed[name] = value
    return ml_collections.ConfigDict(parsed)


def _literal(text: str, kind: type) -> Any:
    """Reads a Python literal, or leaves the text as it is."""
    try:
        return text if kind is str else ast.literal_eval(text)
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        return text


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
                + nearest(key, known)
            )


def load(spec: str) -> ml_collections.ConfigDict:
    """Returns `get_config(arg)` of the file named by `path.py[:arg]`."""
    path, _, arg = spec.partition(":")
    file = Path(path)
    if not os.path.isfile(file):  # also for what no file can be called
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


def base() -> ml_collections.ConfigDict:
    """Returns the config with every key at its default."""
    return load(str(Path(__file__).parents[1] / "configs" / "base.py"))


def allow_config_imports(spec: str) -> None:
    """Lets a config file outside the working directory say `from configs import base`."""
    for folder in (Path(spec.partition(":")[0]).resolve().parent.parent, Path(__file__).parents[1]):
        if (folder / "configs" / "base.py").is_file() and str(folder) not in sys.path:
            sys.path.append(str(folder))


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
    amount = total[key.removeprefix(name + "_")]
    if not amount < 2**63:
        raise ValueError(
            f"{label}.{key} comes to steps without end; got {value} with batch {batch} and "
            f"{examples} examples an epoch; lower it"
        )
    steps = round(amount)
    if steps < 1:
        raise ValueError(
            f"{label}.{key} comes to no step at all; got {value} with batch {batch} and "
            f"{examples} examples an epoch; raise it or lower {label}.batch_size"
        )
    return steps


def tolerated_faults(on_nan: Any) -> int:
    """Returns how many steps may be passed over by `train.on_nan`: "stop" or "skip:K".

    Raises:
      ValueError: for anything else.
    """
    word, _, count = str(on_nan).partition(":")
    if on_nan == "stop":
        return 0
    if word != "skip" or not count.isdecimal() or len(count) > 9 or not int(count):
        raise ValueError(
            f"train.on_nan says what happens when a loss is not finite; got {on_nan!r}; use "
            "'stop', or 'skip:K' to pass over K steps at most"
        )
    return int(count)


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


def differing(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Returns the keys whose values differ, or that one side lacks, in order."""
    return sorted(k for k in found.keys() | wanted.keys() if found.get(k) != wanted.get(k))


def nearest(name: str, known: Iterable[str]) -> str:
    """Returns the end of a message, "; did you mean ...?", or "" when nothing is near."""
    match = difflib.get_close_matches(str(name)[:_LONG], list(known), n=1, cutoff=0.5)
    return f"; did you mean {match[0]!r}?" if match else ""
