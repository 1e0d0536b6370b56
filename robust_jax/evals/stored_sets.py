"""What is read from a stored benchmark, and what is asked of its reader."""

import concurrent.futures
import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
from etils import epath

from robust_jax.data.sources import Source, fingerprint
from robust_jax.evals import corruption
from robust_jax.evals.subsets import Subset

Where = dict[str, Any]

# What sets made of one's own images are called; stored benchmarks have other names.
OWN_SETS = ("clean", "corruption", "perturbation")
_SEQUENCES = 32  # in memory at a time


@dataclasses.dataclass(frozen=True, eq=False)
class StoredImages:
    """Labelled images of a benchmark.

    Attributes:
      where: "set" and, where it has them, "corruption" and "severity".
      source: labels count in the subset's classes, or in the classifier's where there is no subset.
      ops: evaluation ops; images of the model's size come out.
      subset: of the classes that may be answered.
      corrupt: (corruption, severity) to apply after the ops; None where the images are stored as
        they are to be seen.
      first: ops that come before all others, those of sequences too.
      kind: which benchmark it is, whatever it is called; see `benchmarks`.
    """

    where: Where
    source: Source
    ops: str
    subset: Subset | None = None
    corrupt: tuple[str, int] | None = None
    first: str = ""
    kind: str = ""
    unit: ClassVar = "image"

    def __len__(self) -> int:
        return len(self.source)


@dataclasses.dataclass(frozen=True, eq=False)
class StoredFrames:
    """Perturbation sequences of a benchmark.

    Attributes:
      where: "set" and "perturbation".
      labels: i32[n], of the classifier's classes; zeros where the benchmark has none.
      read: number -> frames u8[f, h, w, 3] of the model's size; called from several threads.
      fingerprint: hash of what determines the frames.
      kind: as in `StoredImages`.
    """

    where: Where
    labels: np.ndarray
    read: Callable[[int], np.ndarray]
    fingerprint: str
    kind: str = ""
    unit: ClassVar = "sequence"

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, numbers: np.ndarray) -> "StoredFrames":
        """Returns some of the sequences."""
        return dataclasses.replace(
            self,
            labels=self.labels[numbers],
            read=lambda i: self.read(int(numbers[i])),
            fingerprint=fingerprint(self.fingerprint, numbers),
        )

    def batches(self, batch_size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields (frames u8[b, f, h, w, 3], labels i32[b]) in order, b at most 32."""
        size = min(batch_size, _SEQUENCES)
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            for start in range(0, len(self), size):
                numbers = range(start, min(start + size, len(self)))
                yield np.stack(list(pool.map(self.read, numbers))), self.labels[numbers]


@dataclasses.dataclass(frozen=True)
class Request:
    """What is read, and for which classifier.

    Attributes:
      kind: of the benchmark.
      name: of the set in reports.
      path: of its directory; for tfds NAME[/CONFIG][:SPLIT].
      class_names: of the classifier, k names.
      eval_ops: of the model, for photographs as they are.
      size: side of the model's images.
      corruptions, severities: of `corruption.grid`.
      perturbations: of `perturbation.names`.
      data_dir: of TFDS, or "" for its default.
      index_dir: where what is slow to find out is kept.
    """

    kind: str
    name: str
    path: str
    class_names: tuple[str, ...]
    eval_ops: str
    size: int
    corruptions: Sequence[str]
    severities: Sequence[int]
    perturbations: Sequence[str]
    data_dir: str
    index_dir: epath.Path | None

    @property
    def grid(self) -> list[tuple[str, int]]:
        """The corruptions and severities to read.

        Raises:
          ValueError: for unknown ones, and where there is none.
        """
        pairs = corruption.grid(tuple(self.corruptions), tuple(self.severities))
        if not pairs:
            raise ValueError(
                f"{self.kind} has nothing to read; got no corruptions; set evaluate.corruptions"
            )
        return pairs

    def where(self, **fields: Any) -> Where:
        """The fields that tell a set from others."""
        return {"set": self.name, **fields}

    def stored_ops(self, side: int = 224) -> str:
        """Ops for images that are stored as a crop of `side` px, as those of ImageNet-C are."""
        crop = f"decode|central_crop({side})"
        return crop if self.size == side else f"{crop}|resize({self.size})"
