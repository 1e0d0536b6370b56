"""Running out of memory: what there is, what is needed, and what to change, in order."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

GIB = 1 << 30


class OutOfMemory(MemoryError):
    """A device or the host has too little memory; the message says what wants how much."""


def nbytes(tree: Any) -> int:
    """Returns the bytes of all arrays of a tree, or of arrays of its shapes."""
    leaves = jax.tree.leaves(tree)
    return sum(np.prod(leaf.shape, dtype=int) * leaf.dtype.itemsize for leaf in leaves)


def temporary(program: Any) -> int:
    """Returns the bytes that a compiled program takes beside its arguments; 0 if unknown."""
    found = program.memory_analysis()
    return found.temp_size_in_bytes if found is not None else 0


def available() -> int | None:
    """Returns the bytes that this host can still give; None where nothing tells."""
    try:
        with open("/proc/meminfo") as file:
            lines = dict(line.split(":", 1) for line in file)
        free = int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None
    group = Path("/sys/fs/cgroup")  # a container's own limit
    try:
        limit = (group / "memory.max").read_text().strip()
        used = int((group / "memory.current").read_text())
    except (OSError, ValueError):
        return free
    return free if limit == "max" else max(0, min(free, int(limit) - used))


def check(needed: int, what: str, remedy: str) -> None:
    """Raises OutOfMemory where this host has less than `needed` bytes left for `what`."""
    free = available()
    if free is not None and needed > free:
        raise OutOfMemory(
            f"too little memory for {what}; got {free / GIB:.2f} GiB free of {needed / GIB:.2f} "
            f"GiB needed; {remedy}"
        )


@contextlib.contextmanager
def explained(name: str, parts: Mapping[str, int], knobs: Sequence[str]) -> Iterator[None]:
    """Says what wanted how much memory when it runs out within.

    Args:
      name: of what is running.
      parts: name -> bytes, estimated.
      knobs: what to change, the cheapest first.

    Raises:
      OutOfMemory: in place of JAX's and NumPy's own errors.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, OutOfMemory) or not _is_shortage(error):
            raise
        lines = [f"  {part}: {size / GIB:.3f} GiB" for part, size in parts.items()]
        lines += [f"  together: {sum(parts.values()) / GIB:.3f} GiB"]
        advice = [f"  {number}. {knob}" for number, knob in enumerate(knobs, 1)]
        said = "\n".join(
            [
                f"{name}: out of memory; got {str(error).splitlines()[0]:.200}; it needs about",
                *lines,
                *(["what helps, in this order:", *advice] if advice else []),
            ]
        )
        raise OutOfMemory(said) from error


def _is_shortage(error: BaseException) -> bool:
    if isinstance(error, jax.errors.JaxRuntimeError):
        return "RESOURCE_EXHAUSTED" in str(error) or "out of memory" in str(error).lower()
    return isinstance(error, MemoryError)
