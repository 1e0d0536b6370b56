"""Signs of life between hosts: one that is lost is named, and the others end within a minute.

Without them a host whose neighbour died says "connection closed", or waits.
"""

import contextlib
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

BEAT = 2.0  # seconds between two signs of a host
SILENT = 60.0  # seconds without one: it is lost
SUSPECT = 10.0  # the same, where something has failed already
_KEY = "robust_jax/beat/"


class Watch:
    """Gives this host's signs of life, and looks at those of the others."""

    def __init__(self, index: int, count: int):
        self._index, self._count = index, count
        self._me = f"{socket.gethostname()}, process {os.getpid()}"
        self._names: dict[int, str] = {}
        self._signs: dict[int, str] = {}
        self._seen = dict.fromkeys(range(count), time.monotonic())

    def run(self) -> None:
        """Beats while the hosts are connected, and ends this process when another is lost."""
        beats = 0
        while _client() is not None:
            time.sleep(BEAT)
            beats += 1
            self.beat(beats)
            if lost := self.silent(SILENT):
                self._say(lost, SILENT)
                os._exit(1)

    def beat(self, number: int) -> None:
        """Gives one sign, and reads those of the others; the first host keeps them for all."""
        try:
            client = _client()
            client.key_value_set(f"{_KEY}{self._index}", f"{number}|{self._me}", True)
            for key, value in client.key_value_dir_get(_KEY):
                host = int(key.rpartition("/")[2])
                if self._signs.get(host) != value:
                    self._signs[host], self._seen[host] = value, time.monotonic()
                    self._names[host] = value.partition("|")[2]
            self._seen[0] = time.monotonic()
        except Exception:  # of the service of the first host, if that is gone
            now = time.monotonic()
            self._seen |= {host: now for host in self._seen if host != 0}

    def silent(self, seconds: float) -> list[int]:
        """Returns the other hosts that gave no sign for so long."""
        now = time.monotonic()
        return [h for h, seen in self._seen.items() if h != self._index and now - seen > seconds]

    def explain(self, error: BaseException) -> None:
        """Waits until it shows whether an error came of the loss of another host, and says so."""
        if type(error).__name__ not in ("JaxRuntimeError", "XlaRuntimeError"):
            return
        end = time.monotonic() + SUSPECT + 3 * BEAT
        while time.monotonic() < end:
            if lost := self.silent(SUSPECT):
                self._say(lost, SUSPECT)
                return
            time.sleep(BEAT / 4)

    def _say(self, lost: list[int], seconds: float) -> None:
        names = [f"host {h} of {self._count} ({self._names.get(h, 'never heard')})" for h in lost]
        print(
            f"{' and '.join(names)} is lost: no sign of life for {seconds:.0f} s; got the end of "
            f"host {self._index}, too; see the log of the lost one, and run the same command again "
            "on all hosts: it goes on from the last checkpoint",
            file=sys.stderr,
            flush=True,
        )


def _client() -> Any:
    from jax._src import distributed  # where Orbax, too, finds the service of the hosts

    return distributed.global_state.client


@contextlib.contextmanager
def watching(index: int, count: int) -> Iterator[Watch]:
    """Watches the other hosts until the process ends, or until what is within fails."""
    watch = Watch(index, count)
    if count > 1:
        threading.Thread(target=watch.run, daemon=True, name="heartbeat").start()
    yield watch
