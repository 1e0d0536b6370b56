"""A small disk for tests, which a test can fill."""

import contextlib
import os
import subprocess
import sys

import pytest


@contextlib.contextmanager
def small_disk(directory, megabytes):
    """Mounts a disk of so many megabytes on a directory; skips where that is not allowed."""
    directory.mkdir()
    size = f"size={round(megabytes * 1e6)}"
    if not sys.platform.startswith("linux") or os.geteuid():
        pytest.skip("only the superuser of a Linux machine can mount a small disk")
    found = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", size, "tmpfs", directory], capture_output=True, text=True
    )
    if found.returncode:
        pytest.skip(f"no small disk: {found.stderr.strip()}")
    try:
        yield directory
    finally:
        subprocess.run(["umount", "--lazy", directory], check=True)


def fill(directory, leave):
    """Fills a disk up to `leave` bytes, and returns the file that does."""
    stats = os.statvfs(directory)
    path = directory / "filler"
    with open(path, "wb") as file:
        file.write(bytes(max(0, stats.f_bavail * stats.f_frsize - leave)))
    return path
