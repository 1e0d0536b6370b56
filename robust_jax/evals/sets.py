"""Sets of images or of sequences to be evaluated, and the pass over all of them."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from etils import epath
from jax.sharding import Mesh

from robust_jax import hosts, sharding, writers
from robust_jax.data.sources import Source, fingerprint
from robust_jax.evals import classification, corruption, perturbation
from robust_jax.evals.classification import EvalSet, Function, Outputs
from robust_jax.evals.stored_sets import StoredFrames, StoredImages
from robust_jax.evals.subsets import Subset

Where = dict[str, Any]


class Choice(NamedTuple):
    """What is made of images, and how many of them.

    Attributes:
      corruptions, severities: of `corruption.grid`.
      perturbations: of `perturbation.names`.
      max_images: of each set of images, of a fixed random order, or None for all.
      jpeg85: save corrupted images as JPEG of quality 85, as the published ones are.
      seed: of the corruptions and sequences.
      max_sequences: of each set of sequences; None for as many as images.
    """

    corruptions: Sequence[str]
    severities: Sequence[int]
    perturbations: Sequence[str]
    max_images: int | None = None
    jpeg85: bool = False
    seed: int = 0
    max_sequences: int | None = None

    @property
    def sequences(self) -> int | None:
        """How many sequences of each set, at most; None for all."""
        given = [n for n in (self.max_images, self.max_sequences) if n is not None]
        return min(given, default=None)


@dataclasses.dataclass(frozen=True)
class ImageSet:
    """Images, corrupted on the fly or not.

    Attributes:
      where: which set, as in `Measured`.
      images: after the evaluation ops.
      corrupt: (name, severity, seed, jpeg85) of `corruption.transform`, or None.
      subset: of the classes that may be answered; the labels count in it.
      kind: of a stored benchmark.
    """

    where: Where
    images: EvalSet
    corrupt: tuple[str, int, int, bool] | None = None
    subset: Subset | None = None
    kind: str = ""

    @property
    def labels(self) -> np.ndarray:
        """The labels int32[n]."""
        return self.images.labels

    @property
    def content(self) -> tuple[Any, ...]:
        """What determines the images."""
        return self.images.records.fingerprint, self.images.ops, self.corrupt

    def outputs(self, function: Function, arrays: Any, batch_size: int, mesh: Mesh) -> Outputs:
        """Applies a function to every image."""
        transform = corruption.transform(*self.corrupt) if self.corrupt else None
        found = classification.evaluate(
            function, arrays, self.images, batch_size=batch_size, mesh=mesh, transform=transform
        )
        # Only of frames it matters how all of the best answers move.
        return {key: values for key, values in found.items() if not key.endswith("/top5")}


@dataclasses.dataclass(frozen=True)
class FrameSet:
    """Sequences of frames.

    Attributes:
      where: which set, as in `Measured`.
      labels: int32[n].
      frames: batch size -> the sequences.
      content: what determines the frames.
      subset, kind: as in `ImageSet`.
    """

    where: Where
    labels: np.ndarray
    frames: Callable[[int], perturbation.Frames]
    content: tuple[Any, ...]
    subset: Subset | None = None
    kind: str = ""

    def outputs(self, function: Function, arrays: Any, batch_size: int, mesh: Mesh) -> Outputs:
        """Applies a function to every frame."""
        frames = self.frames(batch_size)
        return perturbation.evaluate(function, arrays, frames, batch_size=batch_size, mesh=mesh)


@dataclasses.dataclass(frozen=True)
class Measured:
    """What was answered on one set.

    Attributes:
      where: which set: "set" and, where it has them, "corruption" and "severity" or "perturbation".
      outputs: METHOD/X -> an array with a row for each image, or for each sequence.
      labels: int[n], the true labels.
      kind: of a stored benchmark, or "".
    """

    where: Where
    outputs: Outputs
    labels: np.ndarray
    kind: str = ""


def stored_sets(
    stored: Sequence[StoredImages | StoredFrames], choice: Choice
) -> list[ImageSet | FrameSet]:
    """Returns sets of `benchmarks.load` as they are evaluated."""
    found: list[ImageSet | FrameSet] = []
    for one in stored:
        if isinstance(one, StoredFrames):
            some = one.subset(classification.some(len(one), choice.sequences))
            content = (some.fingerprint,)
            found.append(FrameSet(one.where, some.labels, some.batches, content, kind=one.kind))
        else:
            images = EvalSet(one.source, one.ops, choice.max_images, keep=False)
            corrupt = (*one.corrupt, choice.seed, choice.jpeg85) if one.corrupt else None
            found.append(ImageSet(one.where, images, corrupt, one.subset, one.kind))
    return found


def own_sets(
    source: Source,
    ops: str,
    perturbation_ops: str,
    choice: Choice,
    *,
    size: int,
    subset: Subset | None = None,
) -> list[ImageSet | FrameSet]:
    """Returns the clean images of a source, and the -C and -P that are made of them.

    Args:
      source: labelled images.
      ops: evaluation ops.
      perturbation_ops: what the sequences are made of, at least `size` pixels each side.
      choice: what to make.
      size: side of the images that the models see.
      subset: of the classes that may be answered; the labels count in it.
    """
    images, seed = EvalSet(source, ops, choice.max_images), choice.seed
    found: list[ImageSet | FrameSet] = [ImageSet({"set": "clean"}, images, None, subset)]
    for name, severity in corruption.grid(choice.corruptions, choice.severities):
        where = {"set": "corruption", "corruption": name, "severity": severity}
        found.append(ImageSet(where, images, (name, severity, seed, choice.jpeg85), subset))
    larger = EvalSet(source, perturbation_ops, choice.sequences)
    for name in perturbation.names(choice.perturbations):
        frames = functools.partial(_generated, larger, name, size, seed)
        content = (larger.records.fingerprint, perturbation_ops, name, size, seed)
        where = {"set": "perturbation", "perturbation": name}
        found.append(FrameSet(where, larger.labels, frames, content, subset))
    return found


def _generated(
    images: EvalSet, name: str, crop: int, seed: int, batch_size: int
) -> perturbation.Frames:
    return perturbation.generated(images, name, crop=crop, seed=seed, batch_size=batch_size)


def measure(
    sets: Sequence[ImageSet | FrameSet],
    function_of: Callable[[Subset | None], Function],
    arrays: Any,
    store: epath.Path,
    *,
    version: str,
    batch_size: int,
    mesh: Mesh,
) -> list[Measured]:
    """Evaluates every set, or reads what an interrupted evaluation stored of it.

    Several hosts share the sets.

    Args:
      sets: what to evaluate.
      function_of: subset of the classes -> function; called once for each.
      arrays: of the functions.
      store: directory with a file for each finished set.
      version: of the functions and arrays; other files are not used.
      batch_size: images at a time.
      mesh: the devices.
    """
    function_of, arrays = functools.cache(function_of), sharding.place(arrays, mesh)
    # In turn, since those that follow each other are alike: sequences take the longest.
    mine = range(hosts.index(), len(sets), hosts.count())
    answered: dict[int, Outputs] = {}
    with writers.Progress("evaluate", len(mine), unit="set") as progress:
        for number in mine:
            one = sets[number]
            path, subset = store / _file_name(one.where), one.subset.name if one.subset else ""
            content = fingerprint(version, one.content, subset, one.labels)
            outputs = writers.read_arrays(path) if path.exists() else {}
            if str(outputs.pop("fingerprint", "")) != content:
                outputs = one.outputs(function_of(one.subset), arrays, batch_size, mesh)
                # Each file is written whole, so one that exists is finished.
                writers.write_arrays(path, {**outputs, "fingerprint": np.asarray(content)})
            answered[number] = outputs
            progress.advance()
    hosts.wait("evaluated")
    found = []
    for number, one in enumerate(sets):
        if number not in answered:
            answered[number] = writers.read_arrays(store / _file_name(one.where))
            del answered[number]["fingerprint"]
        found.append(Measured(one.where, answered[number], one.labels, one.kind))
    return found


def _file_name(where: Where) -> str:
    parts = {key: str(value) for key, value in where.items()}
    if parts["set"] == "perturbation":
        return f"flips-{parts['perturbation']}.npz"
    if parts["set"] == "corruption":
        del parts["set"]
    return "-".join(parts.values()) + ".npz"
