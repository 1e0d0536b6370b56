"""Being asked to stop (SIGTERM): training saves a checkpoint first, all else stops at once.

Whatever was begun goes on when the same command is run again, and the exit code says so.
"""

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

from robust_jax import hosts

EXIT_CODE = 75  # EX_TEMPFAIL of sysexits.h: try again

_state = {"training": False, "asked": False}


def listen() -> None:
    """Takes over SIGTERM; from `jax.distributed`, too, if called behind `hosts.connect`.

    JAX's own agreement on a step is not used: checkpoints disturb the numbers that it goes by.
    """
    signal.signal(signal.SIGTERM, _handle)


def _handle(*_: Any) -> None:
    if _state["training"]:
        _state["asked"] = True
    elif hosts.count() == 1:
        raise SystemExit(EXIT_CODE)
    else:  # an orderly exit would wait for the others
        sys.stdout.flush()
        os._exit(EXIT_CODE)


@contextlib.contextmanager
def saves_first() -> Iterator[None]:
    """Keeps a signal from what is within, which looks for it by `asked`, and exits behind it.

    Raises:
      SystemExit: behind what is within, when asked to stop.
    """
    _state["training"] = True
    try:
        yield
    finally:
        _state["training"] = False
    if _state["asked"]:
        raise SystemExit(EXIT_CODE)


def asked() -> bool:
    """Whether this or another host was asked to stop; all call it at the same steps."""
    if hosts.count() > 1:
        from jax.experimental import multihost_utils

        _state["asked"] = bool(multihost_utils.process_allgather(np.array(_state["asked"])).any())
    return _state["asked"]
