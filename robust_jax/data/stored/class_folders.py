"""Class directories whose names are known beforehand, and the directories above them.

ROOT/CLASS/* of ImageNet-V2, -A, -R, -Sketch and ObjectNet; ROOT/CORRUPTION/SEVERITY/CLASS/* of
ImageNet-C and Tiny-ImageNet-C; ROOT/PERTURBATION/CLASS/* of ImageNet-P. Corruptions and
perturbations may lie one level down, as in ROOT/noise/gaussian_noise/1/CLASS/*.
"""

from collections.abc import Mapping, Sequence

from etils import epath

from robust_jax.config import nearest
from robust_jax.corruptions import SEVERITIES
from robust_jax.data import folder, listing

_SHOWN = 5


def check_directory(path: str, kind: str) -> epath.Path:
    """Returns the path of a benchmark's directory.

    Raises:
      ValueError: where it is not a directory.
    """
    if not path or not epath.Path(path).is_dir():
        raise ValueError(
            f"{kind} is not at this place; got {path!r}, which is not a directory; give "
            f"{kind}:PATH with the directory that was unpacked"
        )
    return epath.Path(path)


def label_folders(
    directory: epath.Path,
    labels: Mapping[str, int],
    kind: str,
    *,
    root: epath.Path,
    others: bool = False,
) -> dict[str, int]:
    """Checks that a directory has the class directories of a benchmark.

    Args:
      directory: of the class directories.
      labels: class directory -> label, all that there must be.
      kind: for messages.
      root: of the benchmark, which no link may lead out of.
      others: whether other class directories are counted and told, instead of an error.

    Returns:
      class directory -> label, in the order of `folder.class_directories`.

    Raises:
      ValueError: for missing or unknown class directories.
    """
    found = folder.class_directories(directory, root)
    unknown = [name for name in found if name not in labels]
    if missing := sorted(set(labels) - set(found)):
        raise ValueError(
            f"{kind} needs {len(labels)} class directories in {directory}; got none called "
            f"{_some(missing)}; download it whole, or give the directory above the classes "
            f"(there is {_some(found)})"
        )
    if unknown and not others:
        raise ValueError(
            f"{kind} has no such classes; got {_some(unknown)} in {directory}; check the path, or "
            "remove them"
        )
    if unknown:
        print(
            f"{directory}: {kind} uses {len(labels)} class directories; {len(unknown)} others are "
            f"not evaluated, e.g. {unknown[0]}"
        )
    return {name: labels[name] for name in found if name in labels}


def find_directory(root: epath.Path, name: str, what: str) -> epath.Path:
    """Returns ROOT/NAME, or ROOT/*/NAME.

    Args:
      root: of the benchmark.
      name: of a corruption or perturbation.
      what: "corruption" or "perturbation", for messages.

    Raises:
      ValueError: where there is none, and where a link leads out of the root.
    """
    above = listing.subdirectories(root, root)
    for parent in (root, *(root / part for part in above)):
        if (parent / name).is_dir():
            listing.check_link(parent / name, root)
            return parent / name
    raise ValueError(
        f"{root} lacks the {what} {name}; got the directories {_some(above)}; download it, or "
        f"leave it out of evaluate.{what}s{nearest(name, above)}"
    )


def severity_directory(directory: epath.Path, severity: int, root: epath.Path) -> epath.Path:
    """Returns CORRUPTION/SEVERITY.

    Args:
      directory: of the corruption.
      severity: 1 to 5.
      root: of the benchmark.

    Raises:
      ValueError: where it is missing, and for directories that are no severity.
    """
    found = listing.subdirectories(directory, root)
    if wrong := [name for name in found if name not in map(str, SEVERITIES)]:
        raise ValueError(
            f"severities are 1 to 5; got the directories {_some(wrong)} in {directory}; remove "
            "them, or give the directory above the corruptions"
        )
    if str(severity) not in found:
        raise ValueError(
            f"{directory} lacks severity {severity}; got {_some(found)}; download it, or leave it "
            "out of evaluate.severities"
        )
    return directory / str(severity)


def _some(names: Sequence[str]) -> str:
    more = f", ... ({len(names)} in all)" if len(names) > _SHOWN else ""
    return (", ".join(names[:_SHOWN]) or "none") + more
