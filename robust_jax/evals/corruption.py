"""Corrupted copies of an evaluation set, made on the fly from fixed seeds."""

from collections.abc import Callable, Sequence

import numpy as np

from robust_jax import corruptions
from robust_jax.config import nearest

Transform = Callable[[np.ndarray, np.ndarray], np.ndarray]
GROUPS = {"all": corruptions.CORRUPTIONS, "extra": corruptions.EXTRA_CORRUPTIONS}


def grid(names: Sequence[str], severities: Sequence[int]) -> list[tuple[str, int]]:
    """Returns the (corruption, severity) pairs to evaluate, each once.

    Args:
      names: of corruptions; "all" is the 15 of ImageNet-C, "extra" the four kept for validation.
      severities: of 1 to 5.

    Raises:
      ValueError: for an unknown name or severity.
    """
    known = [name for group in GROUPS.values() for name in group]
    chosen: dict[str, None] = {}
    for name in names:
        if name not in GROUPS and name not in known:
            raise ValueError(
                f"unknown corruption; got {name!r}; use {', '.join(GROUPS)} or some of "
                f"{', '.join(known)}{nearest(name, known)}"
            )
        chosen |= dict.fromkeys(GROUPS.get(name, (name,)))
    wrong = [severity for severity in severities if severity not in corruptions.SEVERITIES]
    if wrong or not severities:
        raise ValueError(
            f"severities must be whole numbers from 1 to 5; got {list(severities)}; "
            "use for example (1, 2, 3, 4, 5)"
        )
    return [(name, severity) for name in chosen for severity in sorted(set(severities))]


def transform(name: str, severity: int, seed: int, jpeg85: bool = False) -> Transform:
    """Returns the function (images, ids) -> corrupted images; see `corruptions.corrupt`."""
    return lambda images, ids: corruptions.corrupt(
        images, name, severity, ids=ids, seed=seed, jpeg85=jpeg85
    )
