"""The overlap rule: what the robustness test measures is not trained on, unless it is allowed.

Imports no TensorFlow: configs are checked with it.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from robust_jax.config import nearest
from robust_jax.corruptions import CORRUPTIONS, EXTRA_CORRUPTIONS
from robust_jax.data import registry

# In terms of the corruptions: brightness, contrast, colour, and sharpness, which below 1 blurs.
_ENHANCEMENTS = ("brightness", "contrast", "saturate", "gaussian_blur")

# Op -> the corruptions it overlaps with; augmix only with all_ops=True.
OVERLAPS: Mapping[str, tuple[str, ...]] = {
    **{name: (name,) for name in (*CORRUPTIONS, *EXTRA_CORRUPTIONS)},
    "augmix": _ENHANCEMENTS,
    "randaugment": _ENHANCEMENTS,
}
_ALL_OPS_POSITION = 4  # of augmix's argument all_ops
_PLACEHOLDER = re.compile(r"\{\w+\}")


def check(ops: str, allowed: Sequence[str], key: str) -> None:
    """Checks that an ops string for training holds no overlapping op that is not allowed.

    Args:
      ops: of training, such as `"decode|augmix(severity=3)"`; may hold placeholders such as
        `{size}`. Names that are no ops are left for `registry.build` to find.
      allowed: names of OVERLAPS.
      key: of the config, for the message, such as `"data.train_ops"`.

    Raises:
      ValueError: for an overlapping op, and for an unknown name in `allowed`.
    """
    for name in allowed:
        if name not in OVERLAPS:
            raise ValueError(
                f"data.allowed_overlap has an unknown name; got {name!r}; use names among: "
                + ", ".join(OVERLAPS)
                + nearest(name, OVERLAPS)
            )
    calls = registry.parse(_PLACEHOLDER.sub("0", ops))
    found = {name: None for name, args, kwargs in calls if _overlaps(name, args, kwargs)}
    refused = [name for name in found if name not in allowed]
    if refused:
        what = " and ".join(f"{name} (overlaps with {_listed(OVERLAPS[name])})" for name in refused)
        raise ValueError(
            f"{key} trains on corruptions that the robustness test measures; got {what}; leave it "
            "out, or allow it, which makes the results incomparable with published ones, by "
            f"--config.data.allowed_overlap='{_as_tuple([*allowed, *refused])}'"
        )


def _overlaps(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    if name == "augmix":
        return any((*args[_ALL_OPS_POSITION:], kwargs.get("all_ops")))
    return name in OVERLAPS


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)


def _as_tuple(names: Sequence[str]) -> str:
    """Written with double quotes, for single quotes hold it together in a shell."""
    quoted = _listed(f'"{name}"' for name in names)
    return f"({quoted},)" if len(names) == 1 else f"({quoted})"
