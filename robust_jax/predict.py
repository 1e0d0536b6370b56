"""Prediction with a robustified model: `robust_jax.load(DIR)`, `python -m robust_jax.predict`."""

import argparse
import dataclasses
import functools
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from etils import epath

from robust_jax.data.images import check_size, decode_image
from robust_jax.data.listing import shown
from robust_jax.method.selection import HEADS, predict
from robust_jax.stages import routing
from robust_jax.stages.networks import Networks
from robust_jax.zero_shot.head import ZeroShotHead

MAX_BATCH = 256


@dataclasses.dataclass(frozen=True)
class Prediction:
    """The answers for b images.

    Attributes:
      label: int32[b], indices into the class names.
      probs: f32[b, k], the mean over MC samples of the head that answered.
      head: int32[b], 0 clean, 1 unclean, 2 combined.
      uncertainty: f32[b, 3], of each head.
      kl: f32[b, c], of each candidate head.
    """

    label: np.ndarray
    probs: np.ndarray
    head: np.ndarray
    uncertainty: np.ndarray
    kl: np.ndarray


class RobustClassifier:
    """A finished run as a classifier of images of any size."""

    def __init__(self, workdir: epath.PathLike, *, zero_shot_head: epath.PathLike | None = None):
        """Restores the student of a run.

        Args:
          workdir: of the run.
          zero_shot_head: file of another list of classes, for a student with a zero-shot classifier
            (see `robust_jax.zero_shot`); nothing is trained again.

        Raises:
          ValueError: when the directory holds no finished run, or the head does not fit.
        """
        workdir = epath.Path(workdir)
        networks = Networks.restore(workdir)
        self.class_names = networks.class_names
        self._ops = networks.photograph_ops
        self._selection = routing.selection_config(networks, "ours")
        stored = workdir / "evaluate" / "calibration" / "ours.json"
        if networks.config.selection.calibrate and not stored.exists():
            raise ValueError(
                f"the head selection is not calibrated; got no {stored}; run the stage 'evaluate'"
            )
        calibration = routing.read_calibration(stored) if stored.exists() else None
        frozen, tuned = networks.frozen(), networks.tuned("distill/ours", HEADS)
        if zero_shot_head is not None:
            frozen["params"]["head"], self.class_names = _other_classes(networks, zero_shot_head)
            networks = networks.with_classes(self.class_names)
        # On the device once: every number of a calibration would be sent again with each batch.
        self._arrays = jax.device_put((frozen, tuned, calibration))
        student, sample = networks.student(HEADS), routing.sampler(networks)

        @jax.jit
        def answer(arrays: Any, images: jax.Array) -> dict[str, jax.Array]:
            frozen, tuned, calibration = arrays

            def choose(z: jax.Array) -> dict[str, jax.Array]:
                said = predict(sample(frozen, tuned, z), self._selection, calibration, z)
                by_row = {name: said[name].T for name in ("uncertainty", "kl")}
                return {name: said[name] for name in ("label", "probs", "head")} | by_row

            return routing.in_parts(choose, student.trunk(frozen, images), devices=1)

        self._answer = answer

    @functools.cached_property
    def _to_model(self) -> Callable[[np.ndarray], np.ndarray]:
        import tensorflow as tf

        from robust_jax.data import registry

        fn = registry.build(self._ops)
        anything = tf.TensorSpec((None, None, 3), tf.uint8)
        # One graph for all sizes, as in the evaluation: op by op Python takes milliseconds.
        graph = tf.function(
            lambda image: fn({"image": image}, tf.zeros(2, tf.int32))["image"], [anything]
        ).get_concrete_function()
        return lambda image: graph(tf.convert_to_tensor(image)).numpy()

    def predict(self, images: np.ndarray | Sequence[np.ndarray | bytes]) -> Prediction:
        """Classifies images.

        Args:
          images: uint8[b, h, w, 3], or a sequence of uint8[h, w, 3] or encoded files' bytes, of
            any sizes. The evaluation ops of the run bring them to the model's size.

        Returns:
          A `Prediction`; up to rounding, it does not depend on how the images are batched.

        Raises:
          ValueError: for what is no such image, which the message numbers.
        """
        if len(images) == 0:
            raise ValueError("no images; got an empty batch; give at least one")
        # One by one: of large images no more than one is in memory.
        pixels = [self.prepare(image, f"image {number}") for number, image in enumerate(images)]
        return self.answer(np.stack(pixels))

    def prepare(self, image: np.ndarray | bytes, name: str) -> np.ndarray:
        """Brings an image to the model's size, with the evaluation ops of the run.

        Args:
          image: uint8[h, w, 3], or an encoded file's bytes.
          name: for messages.

        Returns:
          uint8[size, size, 3].

        Raises:
          ValueError: for what is no such image, and by `images.check_size`.
        """
        try:
            pixels = decode_image(image) if isinstance(image, bytes) else image
            if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[-1] != 3:
                raise ValueError(
                    f"images must be uint8[h, w, 3]; got {pixels.dtype}{list(pixels.shape)}; give "
                    "RGB pixels from 0 to 255"
                )
            check_size(pixels.shape[1], pixels.shape[0])
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
        return self._to_model(pixels)

    def answer(self, pixels: np.ndarray) -> Prediction:
        """Classifies what `prepare` returned, uint8[b, size, size, 3]."""
        parts = [self._batch(pixels[i : i + MAX_BATCH]) for i in range(0, len(pixels), MAX_BATCH)]
        found = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        return Prediction(**found)

    def _batch(self, pixels: np.ndarray) -> dict[str, np.ndarray]:
        count = len(pixels)
        # A power of two, so that few shapes are compiled.
        padded = 1 << (count - 1).bit_length()
        filled = np.concatenate([pixels, np.repeat(pixels[-1:], padded - count, 0)])
        said = jax.device_get(self._answer(self._arrays, filled))
        return {name: values[:count] for name, values in said.items()}


def _other_classes(networks: Networks, path: epath.PathLike) -> tuple[Any, tuple[str, ...]]:
    """Returns the classifier in a file, and its classes."""
    head, width = ZeroShotHead.load(path), networks.student_model.feature_width
    if networks.student_model.head != "cosine" or len(head.kernel) != width:
        raise ValueError(
            f"the zero-shot head does not fit this student; got {list(head.kernel.shape)} in "
            f"{path} for a {networks.student_model.head} classifier of {width} features; use a "
            "run with student.classifier=zero_shot and a head from the same text tower"
        )
    return {"kernel": jax.numpy.asarray(head.kernel)}, head.class_names


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that is too long
        return False


def main(argv: Sequence[str] | None = None) -> int:
    """Prints one JSON line for each image file."""
    parser = argparse.ArgumentParser(prog="python -m robust_jax.predict", description=__doc__)
    parser.add_argument("workdir", help="the --workdir of a finished run")
    parser.add_argument("images", nargs="+", type=Path, help="image files")
    args = parser.parse_args(argv)
    for path in args.images:
        if not _is_file(path):
            raise ValueError(f"no such image file; got {shown(path)}; give files, not folders")
    classifier = RobustClassifier(args.workdir)
    for start in range(0, len(args.images), MAX_BATCH):
        paths = args.images[start : start + MAX_BATCH]
        pixels = [classifier.prepare(path.read_bytes(), shown(path)) for path in paths]
        said = classifier.answer(np.stack(pixels))
        for row, path in enumerate(paths):
            line = {
                "image": str(path),
                "label": int(said.label[row]),
                "class": classifier.class_names[said.label[row]],
                "prob": round(float(said.probs[row].max()), 6),
                "head": HEADS[said.head[row]],
                "uncertainty": [round(float(u), 6) for u in said.uncertainty[row]],
                "kl": [round(float(d), 6) for d in said.kl[row]],
            }
            print(json.dumps(line))
    return 0


if __name__ == "__main__":
    sys.exit(main())
