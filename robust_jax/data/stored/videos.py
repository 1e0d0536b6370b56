"""Perturbation sequences as files, one a sequence: ROOT/PERTURBATION/CLASS/NAME.mp4 or .npy.

ImageNet-P is published as .mp4, which OpenCV decodes; an .npy holds u8[f, h, w, 3].
"""

import importlib
import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from etils import epath

from robust_jax.data import listing, registry
from robust_jax.data.images import MAX_PIXELS

EXTENSIONS = (".mp4", ".npy")


def list_sequences(
    directory: epath.Path, labels: Mapping[str, int], root: epath.Path
) -> tuple[list[epath.Path], np.ndarray]:
    """Returns the files of all sequences of a perturbation and their labels i32[n].

    Args:
      directory: of the class directories.
      labels: class directory -> label.
      root: of the benchmark, which no link may lead out of.

    Raises:
      ValueError: for a class directory without sequences, and for a link that leads out of the
        root.
    """
    files: list[epath.Path] = []
    numbers: list[int] = []
    others: list[str] = []
    for name, label, chosen, rest in listing.by_class(directory, labels, root, EXTENSIONS):
        others += [f"{name}/{entry}" for entry in rest]
        if not chosen:
            raise ValueError(
                f"no sequence in {directory / name}; got {len(rest)} other files; put "
                f"{', '.join(EXTENSIONS)} files in it"
            )
        files += [directory / name / entry for entry, _, _ in chosen]
        numbers += [label] * len(chosen)
    if others:
        print(
            f"{directory}: left out {len(others)} files that are no sequences, e.g. "
            f"{listing.shown(others[0])}"
        )
    return files, np.array(numbers, np.int32)


def read_sequence(path: epath.Path) -> np.ndarray:
    """Reads the frames u8[f, h, w, 3] of a file, RGB.

    Raises:
      ValueError: for a file that does not decode, for a video with more than `MAX_PIXELS` pixels
        in all, and where OpenCV is needed and not installed.
    """
    if path.suffix.lower() == ".npy":
        return _read_npy(path)
    cv2, frames = _opencv(), []
    video = cv2.VideoCapture(os.fspath(path))
    while True:
        found, frame = video.read()
        if not found:
            break
        frames.append(frame[..., ::-1])  # OpenCV's order is BGR
        if len(frames) * frame.shape[0] * frame.shape[1] > MAX_PIXELS:
            raise ValueError(
                f"{path} is too long or too large; got more than {len(frames) - 1} frames of "
                f"{frame.shape[1]}x{frame.shape[0]} px, at most {MAX_PIXELS / 1e6:.0f} megapixels "
                "in all are read; cut it"
            )
    video.release()
    if not frames:
        raise ValueError(f"{path} is not a video; got no frame of it; download it again")
    return np.stack(frames)


def _read_npy(path: epath.Path) -> np.ndarray:
    try:
        # Mapped, so that a header that promises more than there is takes no memory.
        frames = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # on a damaged header NumPy raises nearly anything
        raise ValueError(
            f"{path} cannot be read whole; got the error {error}; download it again"
        ) from error
    return np.array(frames)


def checked(
    read: Callable[[int], np.ndarray], describe: Callable[[int], str], ops: str, size: int
) -> Callable[[int], np.ndarray]:
    """Returns a reader that brings frames to the size of a model and checks their form.

    Args:
      read: number -> frames u8[f, h, w, 3].
      describe: number -> what is read, for messages.
      ops: for frames of another size.
      size: side of the frames that come out.

    Returns:
      number -> frames u8[f, size, size, 3], f that of sequence 0.

    Raises:
      ValueError: there, for sequences of another length, and frames of another form.
    """
    resized = _on_frames(ops)

    def one(i: int) -> np.ndarray:
        frames = read(i)
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3:
            raise ValueError(
                f"{describe(i)} is no sequence of images; got {frames.dtype}"
                f"{list(frames.shape)}; it holds bytes, u8[f, h, w, 3]"
            )
        ready = frames if frames.shape[1:3] == (size, size) else resized(frames)
        if ready.shape[1:3] != (size, size):
            raise ValueError(
                f"{describe(i)} does not fit the model; got frames of {list(ready.shape[1:3])} "
                f"after {ops!r} for {size} px; end the evaluation ops with resize({size})"
            )
        return ready

    length = len(one(0))

    def read_checked(i: int) -> np.ndarray:
        frames = one(i)
        if len(frames) != length:
            raise ValueError(
                f"the sequences of a perturbation have one length; got {len(frames)} frames in "
                f"{describe(i)} and {length} in {describe(0)}; download the shorter one again"
            )
        return frames

    return read_checked


def _on_frames(ops: str) -> Callable[[np.ndarray], np.ndarray]:
    apply = registry.build(ops)

    @tf.function(reduce_retracing=True)
    def on_frames(frames: tf.Tensor) -> tf.Tensor:
        seed = tf.zeros(2, tf.int32)  # evaluation ops draw nothing
        return tf.map_fn(lambda frame: apply({"image": frame}, seed)["image"], frames)

    return lambda frames: on_frames(tf.constant(frames)).numpy()


def _opencv() -> Any:
    try:
        return importlib.import_module("cv2")
    except ImportError as error:
        raise ValueError(
            "OpenCV decodes the videos of ImageNet-P; got no module cv2; run "
            "`pip install opencv-python-headless`"
        ) from error
