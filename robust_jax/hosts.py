"""Several hosts in one run: how they find each other, share work and wait for each other.

Training is one program over the devices of all hosts. Everything else is done by each host on its
own devices: either its share of the work, or the same work on every host. All hosts see the same
workdir; the first host alone marks stages as begun and finished, and prints.
"""

import contextlib
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from typing import TypeVar

from robust_jax import heartbeat

T = TypeVar("T")
# For hosts that are neither of a TPU pod nor of SLURM: where the first listens, how many there
# are, and which this is.
VARIABLES = ("ROBUST_JAX_COORDINATOR", "ROBUST_JAX_PROCESSES", "ROBUST_JAX_PROCESS")


def connect() -> None:
    """Joins the other hosts, or says that there are none; before anything asks for devices.

    Raises:
      ValueError: when only some of the variables are set, or JAX finds no cluster.
    """
    import jax

    found = {name: os.environ[name] for name in VARIABLES if name in os.environ}
    if not found:
        try:
            jax.distributed.initialize()
        except ValueError as error:
            raise ValueError(
                f"no other hosts; got --distributed outside a TPU pod or SLURM ({error}); set "
                f"{', '.join(VARIABLES)}, or leave --distributed out"
            ) from error
        return
    address, *numbers = (found.get(name, "") for name in VARIABLES)
    if ":" not in address or not all(number.isdecimal() for number in numbers):
        raise ValueError(
            f"hosts are told by {', '.join(VARIABLES)}; got {found}; set them to HOST:PORT of the "
            "first host, the number of hosts, and 0, 1, ... for each"
        )
    total, own = map(int, numbers)
    if own >= total:
        raise ValueError(
            f"{VARIABLES[2]} counts from 0; got {own} of {total} hosts; use 0 to {total - 1}"
        )
    jax.distributed.initialize(address, total, own)


def count() -> int:
    """Returns how many hosts there are; alone, it starts no devices to find out."""
    import jax

    return jax.process_count() if jax.distributed.is_initialized() else 1


def index() -> int:
    """Returns which of them this is, from 0."""
    import jax

    return jax.process_index() if jax.distributed.is_initialized() else 0


def is_first() -> bool:
    """Whether this host speaks for all."""
    return index() == 0


def share(items: Sequence[T]) -> Sequence[T]:
    """Returns this host's share of some work: a contiguous part, of about the same size."""
    return items[len(items) * index() // count() : len(items) * (index() + 1) // count()]


def wait(for_what: str) -> None:
    """Returns when every host has got here."""
    if count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(for_what)


@contextlib.contextmanager
def failing_at_once() -> Iterator[None]:
    """Ends this process at an error, which the others then notice; JAX would wait for them.

    Where the error is that another host is gone, it says which. The loss of the first host, which
    keeps them together, ends the others inside JAX, in whose words they are told before.
    """
    if not is_first():
        print(
            f"host {index()} of {count()}: if this ends with 'failed to send RPC to coordination "
            "service', host 0 is lost: see its log, and run the same command again on all hosts",
            file=sys.stderr,
            flush=True,
        )
    with heartbeat.watching(index(), count()) as watch:
        try:
            yield
        except Exception as error:
            traceback.print_exc()
            sys.stderr.flush()
            watch.explain(error)
            os._exit(1)


@contextlib.contextmanager
def one_speaker() -> Iterator[None]:
    """Silences what other hosts than the first print; errors go to stderr and are not."""
    if is_first():
        yield
        return
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        yield
