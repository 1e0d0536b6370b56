"""How the augmented view of an element is made: one of several ways, drawn from its seed.

Needs no TensorFlow. DeepAugment and Noise2Net enter as distorted copies of the images, made before
(`robust_jax.data.copies`); everything else is an ops string.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from robust_jax.data.copies import DEEPAUGMENT, NOISE2NET, kind_of

_FAR = [0, 0, 0, 1]
RECORD = -1  # instead of the number of a copy: the image itself


class Way(NamedTuple):
    """One way to make an augmented view.

    Attributes:
      kinds: of the distorted copies to start from, each as often; none for the image itself.
      ops: whether the augmentation ops follow.
    """

    kinds: tuple[str, ...]
    ops: bool


# The keys of `augmented.mixture` and `teacher.mixture`.
WAYS = {
    "clean": Way((), False),
    "augment_ops": Way((), True),
    "deepaugment": Way(DEEPAUGMENT, False),
    "noise2net": Way((NOISE2NET,), False),
    "chained": Way(DEEPAUGMENT, True),
}


@dataclasses.dataclass(frozen=True)
class Mixture:
    """Ways with the probabilities with which elements draw them.

    Attributes:
      weights: key of `WAYS` -> weight of at least 0; those that are absent have 0.
      copies: names of the distorted copies, in the order in which they are numbered.
    """

    weights: Mapping[str, float]
    copies: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if unknown := sorted(set(self.weights) - set(WAYS)):
            raise ValueError(f"unknown ways of a mixture; got {unknown}; use {', '.join(WAYS)}")
        weights = list(self.weights.values())
        if min(weights, default=0) < 0 or not 0 < sum(weights) < float("inf"):
            raise ValueError(
                f"a mixture needs weights of at least 0 and one above 0; got {dict(self.weights)}; "
                "set for instance augment_ops to 1"
            )
        for name in self.used:
            if WAYS[name].kinds and not self._copies_of(name):
                raise ValueError(
                    f"nothing to draw {name} from; got copies {list(self.copies)}; add "
                    f"{' or '.join(WAYS[name].kinds)} to distort.networks, or set the weight to 0"
                )

    @property
    def used(self) -> list[str]:
        """The ways that can be drawn."""
        return [name for name in WAYS if self.weights.get(name, 0) > 0]

    @property
    def needs_copies(self) -> bool:
        """Whether a way starts from a distorted copy."""
        return any(WAYS[name].kinds for name in self.used)

    @property
    def always_ops(self) -> bool:
        """Whether the ops follow in every way."""
        return all(WAYS[name].ops for name in self.used)

    def draw(self, seeds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Draws a way for each element, from nothing but its seed.

        Args:
          seeds: int32[b, 2], not negative.

        Returns:
          The number of the copy to start from, int32[b], or RECORD; and whether the ops follow,
          bool[b].
        """
        weights = np.array([self.weights[name] for name in self.used], np.float64)
        ends = np.cumsum(weights / weights.sum())
        starts = [self._copies_of(name) or [RECORD] for name in self.used]
        # Philox for its raw stream, which NumPy keeps stable over versions; the counter sets it
        # apart from the streams of `order`.
        chosen = np.empty((len(seeds), 2), np.uint64)
        for i, seed in enumerate(seeds):
            chosen[i] = np.random.Philox(key=seed.astype(np.uint64), counter=_FAR).random_raw(2)
        ways = np.searchsorted(ends[:-1], chosen[:, 0] / 2**64, side="right")
        copies = [
            starts[way][int(number) % len(starts[way])]
            for way, number in zip(ways, chosen[:, 1], strict=True)
        ]
        follow = np.array([WAYS[name].ops for name in self.used])
        return np.array(copies, np.int32), follow[ways]

    def _copies_of(self, way: str) -> list[int]:
        kinds = WAYS[way].kinds
        return [i for i, name in enumerate(self.copies) if kind_of(name) in kinds]

    def to_json(self) -> dict[str, Any]:
        """Returns what decides the draws, as plain values."""
        return {
            "weights": {name: self.weights[name] for name in self.used},
            "copies": list(self.copies) if self.needs_copies else [],
        }
