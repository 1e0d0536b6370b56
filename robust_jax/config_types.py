"""The types of config values: those of the defaults in configs/base.py."""

import math
from collections.abc import Callable, Mapping
from typing import Any

_MOST = 2**63  # whole numbers are below it, so that everything can count with them
_DEEPEST = 6  # of the tables of a sweep
_NUMBERS = ("evaluate.severities", "sweep.seeds")  # lists of whole numbers
_FRACTIONS = ("method.kd.clean_weight",)  # numbers that may be left out and need not be whole
_TABLES = ("sweep.runs", "sweep.transfer", "sweep.columns", "sweep.cells", "sweep.figures")


def check(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """Checks that every value has the type of its default.

    Args:
      values: of a flattened config; keys without a default are left alone.
      defaults: of the flattened `configs/base.py`; None takes a whole number, those of
        `_FRACTIONS` any number, or None.

    Raises:
      ValueError: which key has another type, its value, and what it takes.
    """
    for key, value in values.items():
        if key in defaults:
            words, fits = _rule(key, defaults[key])
            if not fits(value):
                raise ValueError(f"{key} has another type; got {_shown(value)}; use {words}")


def _rule(key: str, default: Any) -> tuple[str, Callable[[Any], bool]]:
    """Returns what a key takes, in words and as a check."""
    if key in _NUMBERS:
        return "a list of whole numbers", _listed(_is_whole)
    if key in _TABLES:
        return "nested lists of text and numbers", _listed(_is_plain)
    if isinstance(default, list | tuple):
        return "a list of text", _listed(_is_text)
    if key in _FRACTIONS:
        return "a number, or leave it out", lambda value: value is None or _is_number(value)
    if default is None:
        return "a whole number, or leave it out", lambda value: value is None or _is_whole(value)
    if isinstance(default, bool):
        return "True or False", lambda value: isinstance(value, bool)
    if isinstance(default, int):
        return "a whole number", _is_whole
    if isinstance(default, float):
        return "a number", _is_number
    return "text", _is_text


def _listed(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list | tuple) and all(map(fits, value))


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and "\0" not in value


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < _MOST


def _is_number(value: Any) -> bool:
    return _is_whole(value) or (isinstance(value, float) and math.isfinite(value))


def _is_plain(value: Any, depth: int = 1) -> bool:
    if isinstance(value, list | tuple):
        return depth < _DEEPEST and all(_is_plain(part, depth + 1) for part in value)
    return value is None or isinstance(value, bool) or _is_text(value) or _is_number(value)


def _shown(value: Any) -> str:
    try:
        text = repr(value)
    except Exception as error:  # of whatever object it is, or of an endless number
        text = f"a value that cannot be shown ({type(error).__name__})"
    return f"{text[:80]} ({type(value).__name__})"
