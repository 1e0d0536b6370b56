"""What lies in folders of data, as it may be shown: links that lead out of them are refused."""

import os
from collections.abc import Iterator, Mapping

import numpy as np
from etils import epath

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp")

File = tuple[str, int, int]  # name, bytes, time of change


def shown(name: str | os.PathLike[str]) -> str:
    """A file name for a message: in quotes and escaped where it holds what does not print."""
    text = os.fspath(name)
    text = text if len(text) <= 300 else f"{text[:300]}... ({len(text)} characters)"
    return text if text.isprintable() else ascii(text)


def is_text(name: str) -> bool:
    """Whether a file name is UTF-8, so that it can be written."""
    return all(not 0xD800 <= ord(letter) <= 0xDFFF for letter in name)


def check_link(path: str | os.PathLike[str], root: str | os.PathLike[str]) -> None:
    """Checks where a local path leads that may be a symbolic link, or lie below one.

    Args:
      path: below `root`.
      root: what the user named, which may be a link itself.

    Raises:
      ValueError: where it leads out of the root, and where it leads nowhere.
    """
    if not os.path.lexists(path):  # or of no local file system, which has no links
        return
    place, real = os.path.realpath(root), os.path.realpath(path)
    if os.path.commonpath([place, real]) != place:
        raise ValueError(
            f"a link leads out of {shown(root)}; got {shown(path)} -> {shown(real)}; copy what it "
            "leads to, or give the directory where it lies"
        )
    if not os.path.exists(real):
        raise ValueError(
            f"a link leads nowhere; got {shown(path)} -> {shown(real)}; remove it, or put the "
            "file there"
        )


def subdirectories(directory: epath.Path, root: epath.Path) -> list[str]:
    """Returns the names of the directories in a directory, sorted, without those with a dot first.

    Args:
      directory: `root` or below it.
      root: for `check_link`.
    """
    names = []
    for path in directory.iterdir():
        if path.name[0] != ".":
            # A link to nowhere is no directory; it may have been a class.
            if os.path.islink(path) and (path.is_dir() or not path.exists()):
                check_link(path, root)
            if path.is_dir():
                names.append(path.name)
    return sorted(names)


def files(directory: epath.Path, root: epath.Path) -> tuple[list[File], list[str]]:
    """Returns the files in a directory and the names of what else is there, both sorted.

    Args:
      directory: `root` or below it.
      root: for `check_link`.
    """
    found: list[File] = []
    others: list[str] = []
    if os.path.isdir(directory):  # os.scandir is five times faster than epath
        with os.scandir(directory) as entries:
            for entry in entries:
                if entry.name[0] == ".":
                    continue
                if entry.is_symlink():
                    check_link(entry.path, root)
                if entry.is_file():
                    stat = entry.stat()
                    found.append((entry.name, stat.st_size, stat.st_mtime_ns))
                else:
                    others.append(entry.name)
        return sorted(found), sorted(others)
    for path in directory.iterdir():
        if path.name[0] != ".":
            stats = path.stat()
            if stats.is_directory:
                others.append(path.name)
            else:
                found.append((path.name, stats.length, int(stats.mtime or 0)))
    return sorted(found), sorted(others)


def by_class(
    directory: epath.Path,
    label_of: Mapping[str, int],
    root: epath.Path,
    extensions: tuple[str, ...] = EXTENSIONS,
) -> Iterator[tuple[str, int, list[File], list[str]]]:
    """Yields (name, label, files that end so, names of what else is there) of class directories.

    Args:
      directory: of the class directories.
      label_of: class directory -> label.
      root: for `check_link`.
      extensions: small letters; those of images.
    """
    for name, label in label_of.items():
        check_link(directory / name, root)
        inside, others = files(directory / name, root)
        chosen = [file for file in inside if file[0].lower().endswith(extensions)]
        others += [file for file, _, _ in inside if not file.lower().endswith(extensions)]
        yield name, label, chosen, others


def images(
    directory: epath.Path, label_of: Mapping[str, int], root: epath.Path
) -> tuple[list[File], np.ndarray]:
    """Returns the images of class directories, in order, and the label of each.

    Other files are counted and told.

    Args:
      directory: of the class directories.
      label_of: class directory -> label.
      root: for `check_link`.

    Returns:
      CLASS/NAME, bytes and time of change of n images, and int32[n].

    Raises:
      ValueError: for a class directory without images.
    """
    found, labels, left_out = [], [], []
    for name, label, chosen, others in by_class(directory, label_of, root):
        left_out += [f"{name}/{other}" for other in others]
        if not chosen:
            raise ValueError(
                f"no readable image in {shown(directory / name)}; got {len(others)} other files; "
                f"put {', '.join(EXTENSIONS)} files in it or remove it"
            )
        found += [(f"{name}/{file}", size, changed) for file, size, changed in chosen]
        labels += [label] * len(chosen)
    if left_out:
        print(
            f"{shown(directory)}: left out {len(left_out)} files that are not images, e.g. "
            f"{shown(left_out[0])}"
        )
    return found, np.array(labels, np.int32)
