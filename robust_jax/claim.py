"""A workdir belongs to one run at a time, and can be written."""

import contextlib
import os
import socket
from collections.abc import Iterator

from etils import epath


@contextlib.contextmanager
def of(workdir: epath.PathLike) -> Iterator[None]:
    """Makes a workdir, and keeps other runs out of it; the system ends the claim with the process.

    Remote workdirs are made, but not claimed; nor are those on a disk without locks, which is told.

    Raises:
      ValueError: when it cannot be written, or another run has it.
    """
    path = epath.Path(workdir)
    lock = path / "lock"
    if "://" in str(path):
        path.mkdir(parents=True, exist_ok=True)
        yield
        return
    import fcntl

    try:
        path.mkdir(parents=True, exist_ok=True)
        file = open(lock, "a+")  # noqa: SIM115  # held until the claim ends
    except OSError as error:
        raise ValueError(
            f"the workdir cannot be written; got {path} ({error.strerror}); use another "
            "--workdir, or correct its permissions"
        ) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise ValueError(
                f"another run uses this workdir; got {path}, which {file.read() or 'it'} holds; "
                "wait for it, stop it, or use another --workdir"
            ) from error
        except OSError as error:
            print(f"{path} is on a disk without locks ({error.strerror}): start no other run in it")
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield
