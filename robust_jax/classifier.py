"""A robustified model as a classifier of images of any size: `robust_jax.load(DIR)`."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from etils import epath

from robust_jax.data.images import check_size, decode_image
from robust_jax.stages import routing
from robust_jax.stages.answering import Answering

MAX_BATCH = 256


@dataclasses.dataclass(frozen=True)
class Prediction:
    """The answers for b images.

    Attributes:
      label: int32[b], indices into the class names.
      class_name: b names.
      probs: f32[b, k], the mean over MC samples of the head that answered.
      head: int32[b], 0 clean, 1 unclean, 2 combined.
      head_probs: f32[b, 3, k], the mean over MC samples of every head.
      uncertainty: f32[b, 3], of each head.
      kl: f32[b, c], of each candidate head.
    """

    label: np.ndarray
    class_name: tuple[str, ...]
    probs: np.ndarray
    head: np.ndarray
    head_probs: np.ndarray
    uncertainty: np.ndarray
    kl: np.ndarray


class RobustClassifier:
    """A finished run as a classifier of images of any size.

    Attributes:
      class_names: the names of the k classes.
      score: `selection.score` of the run, the rule by which a head comes to answer.
    """

    def __init__(self, workdir: epath.PathLike, *, zero_shot_head: epath.PathLike | None = None):
        """Restores the student of a run.

        Args:
          workdir: of the run.
          zero_shot_head: file of another list of classes, for a student with a zero-shot classifier
            (see `robust_jax.zero_shot`); nothing is trained again.

        Raises:
          ValueError: when the directory holds no finished run, or the head does not fit.
        """
        answering = Answering.restore(workdir, zero_shot_head=zero_shot_head)
        self.class_names, self.score = answering.class_names, answering.selection.score
        self._ops = answering.networks.photograph_ops
        # On the device once: every number of a calibration would be sent again with each batch.
        self._arrays = jax.device_put(answering.arrays)

        @jax.jit
        def answer(arrays: Any, images: jax.Array) -> dict[str, jax.Array]:
            def choose(seen: dict[str, jax.Array]) -> dict[str, jax.Array]:
                return answering.choose(arrays, seen, answering.key)

            return routing.in_parts(choose, answering.observe(arrays, images), devices=1)

        @jax.jit
        def original(arrays: Any, images: jax.Array) -> dict[str, jax.Array]:
            return {"probs": answering.original(arrays, images)}

        self._answer, self._original = answer, original

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
        found = self._in_batches(self._answer, pixels)
        names = tuple(self.class_names[label] for label in found["label"])
        return Prediction(class_name=names, **found)

    def original(self, pixels: np.ndarray) -> np.ndarray:
        """Returns what the model said before it was made robust.

        Args:
          pixels: of `prepare`, uint8[b, size, size, 3].

        Returns:
          Probabilities, f32[b, k].
        """
        return self._in_batches(self._original, pixels)["probs"]

    def _in_batches(self, fn: Callable[..., Any], pixels: np.ndarray) -> dict[str, np.ndarray]:
        parts = []
        for start in range(0, len(pixels), MAX_BATCH):
            part = pixels[start : start + MAX_BATCH]
            # A power of two, so that few shapes are compiled.
            missing = (1 << (len(part) - 1).bit_length()) - len(part)
            filled = np.concatenate([part, np.repeat(part[-1:], missing, 0)])
            said = jax.device_get(fn(self._arrays, filled))
            parts.append({name: values[: len(part)] for name, values in said.items()})
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
