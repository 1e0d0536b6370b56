"""Finds data files of installed distributions without importing any code of them."""

import importlib.metadata
from collections.abc import Iterable
from pathlib import Path

INSTALL = "pip install --no-deps open_clip_torch"


def installed_file(name: str, distributions: Iterable[str]) -> Path:
    """The path of a file called `name` in the first of the distributions that has one.

    Raises:
      ValueError: when none is installed.
    """
    distributions = list(distributions)
    for distribution in distributions:
        try:
            files = importlib.metadata.files(distribution) or ()
        except importlib.metadata.PackageNotFoundError:
            continue
        for file in files:
            path = Path(str(file.locate()))
            if file.name == name and path.is_file():
                return path
    raise ValueError(
        f"{name} is not on this machine; got none of {', '.join(distributions)} installed; "
        f"run `{INSTALL}`, or give the path of the file"
    )
