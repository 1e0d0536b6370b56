"""Being asked to stop (SIGTERM): training saves a checkpoint first, all else stops at once.

Whatever was begun goes on when the same command is run again, and the exit code says so.
"""

import contextlib
import signal
from collections.abc import Callable, Iterator
from typing import Any

from robust_jax import hosts

EXIT_CODE = 75  # EX_TEMPFAIL of sysexits.h: try again

_state = {"training": False, "asked": False}


def listen() -> None:
    """Takes over SIGTERM on one host; with several JAX has, and all stop behind the same step."""
    signal.signal(signal.SIGTERM, _handle)


def _handle(*_: Any) -> None:
    if not _state["training"]:
        raise SystemExit(EXIT_CODE)
    _state["asked"] = True


@contextlib.contextmanager
def between_steps() -> Iterator[Callable[[int], bool]]:
    """Lets a training loop end a step before it stops.

    Yields:
      Function of the number of steps done -> whether to save and stop. Every host calls it after
      the same steps.
    """
    _state.update(training=True, asked=False)
    try:
        yield _asked
    finally:
        _state["training"] = False


def _asked(step: int) -> bool:
    if hosts.count() > 1:
        from jax.experimental import multihost_utils

        return multihost_utils.reached_preemption_sync_point(step)
    return _state["asked"]
