"""Corrupted copies of an evaluation set, made on the fly from fixed seeds."""

from collections.abc import Callable

import numpy as np

from robust_jax import corruptions

Transform = Callable[[np.ndarray, np.ndarray], np.ndarray]


def grid(names: tuple[str, ...], severities: tuple[int, ...]) -> list[tuple[str, int]]:
    """Returns the (corruption, severity) pairs to evaluate; ("all",) is the 15 of ImageNet-C.

    Raises:
      ValueError: for an unknown name or severity.
    """
    names = corruptions.CORRUPTIONS if tuple(names) == ("all",) else tuple(names)
    unknown = [name for name in names if name not in corruptions.CORRUPTIONS]
    if unknown:
        raise ValueError(
            f"unknown corruptions in evaluate.corruptions; got {unknown}; use 'all' or some of "
            f"{list(corruptions.CORRUPTIONS)}"
        )
    wrong = [severity for severity in severities if severity not in corruptions.SEVERITIES]
    if wrong or not severities:
        raise ValueError(
            f"evaluate.severities must be whole numbers from 1 to 5; got {list(severities)}; "
            "use for example (1, 2, 3, 4, 5)"
        )
    return [(name, severity) for name in names for severity in sorted(set(severities))]


def transform(name: str, severity: int, seed: int) -> Transform:
    """Returns the function (images, ids) -> corrupted images."""
    return lambda images, ids: corruptions.corrupt(images, name, severity, ids=ids, seed=seed)
