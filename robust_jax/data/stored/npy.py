"""The .npy files of CIFAR-10-C, CIFAR-100-C and CIFAR-10-P, mapped into memory, not read whole.

CIFAR-C: one CORRUPTION.npy u8[5 n, h, w, 3], the images of severity 1 first, and labels.npy
int[5 n]; as published n is 10,000. CIFAR-P: one PERTURBATION.npy u8[n, f, h, w, 3].
"""

from collections.abc import Callable, Sequence

import numpy as np
from etils import epath

from robust_jax.config import nearest
from robust_jax.corruptions import SEVERITIES
from robust_jax.data import listing
from robust_jax.data.labels import to_labels
from robust_jax.data.sources import Source, file_mark, fingerprint

_LABELS = "labels"


def corrupted(
    root: epath.Path, name: str, severity: int, class_names: Sequence[str], kind: str
) -> Source:
    """Loads the images of a corruption at a severity.

    Args:
      root: local directory of the files.
      name: of the corruption.
      severity: 1 to 5.
      class_names: k names.
      kind: for messages.

    Raises:
      ValueError: for a missing file, for one of another length or form, and for a link that leads
        out of the root.
    """
    count = len(SEVERITIES)
    labels, images = _load(root, _LABELS, "label file"), _load(root, name, "corruption")
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"{root / _LABELS}.npy has the wrong form; got {_form(labels)}; it holds one whole "
            "number an image, int[n]"
        )
    if len(labels) % count or len(set(map(bytes, np.split(np.asarray(labels), count)))) > 1:
        raise ValueError(
            f"{root / _LABELS}.npy repeats the labels once a severity; got {len(labels)} labels "
            f"that are not {count} times the same; download it again"
        )
    _check_bytes(images, root / f"{name}.npy", "n, h, w, 3")
    if len(images) != len(labels):
        raise ValueError(
            f"{root / name}.npy has the wrong length; got {len(images)} images for {len(labels)} "
            f"labels; it holds {count} severities one after the other: download it again"
        )
    size = len(labels) // count
    part = images[(severity - 1) * size : severity * size]
    known, called = np.asarray(labels[:size]), f"{kind} {name} {severity}"
    return Source(
        name=called,
        class_names=tuple(class_names),
        labels=to_labels(known, len(class_names), called),
        read=lambda i: np.array(part[i]),
        fingerprint=fingerprint("npy", severity, known, *class_names, *mark(root, name)),
    )


def sequences(root: epath.Path, name: str) -> tuple[int, Callable[[int], np.ndarray]]:
    """Returns the number of sequences of a perturbation, and number -> frames u8[f, h, w, 3].

    Raises:
      ValueError: for a missing file, and for one of another form.
    """
    frames = _load(root, name, "perturbation")
    _check_bytes(frames, root / f"{name}.npy", "n, f, h, w, 3")
    return len(frames), lambda i: np.array(frames[i])


def mark(root: epath.Path, name: str) -> tuple[str, int, int]:
    """Returns what tells one version of NAME.npy from another: place, bytes, time of change."""
    return file_mark(root / f"{name}.npy")


def has(root: epath.Path, name: str) -> bool:
    """Whether a directory has NAME.npy."""
    return (root / f"{name}.npy").is_file()


def _load(root: epath.Path, name: str, what: str) -> np.ndarray:
    path = root / f"{name}.npy"
    listing.check_link(path, root)
    if not path.is_file():
        found = sorted(file.stem for file in root.iterdir() if file.suffix == ".npy")
        raise ValueError(
            f"{root} lacks the {what} {name}.npy; got {', '.join(found) or 'no .npy files'}; "
            f"download it whole{nearest(name, found)}"
        )
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # on a damaged header NumPy raises nearly anything
        raise ValueError(
            f"{path} cannot be read whole; got the error {error}; download it again"
        ) from error


def _check_bytes(array: np.ndarray, path: epath.Path, axes: str) -> None:
    if array.dtype != np.uint8 or array.ndim != len(axes.split(",")) or array.shape[-1] != 3:
        raise ValueError(
            f"{path} has the wrong form; got {_form(array)}; it holds bytes, u8[{axes}]"
        )


def _form(array: np.ndarray) -> str:
    return f"{array.dtype}{list(array.shape)}"
