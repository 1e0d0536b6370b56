"""The examples that an epoch visits, and where each comes from; needs no TensorFlow."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from robust_jax.data.copies import Copies
from robust_jax.data.mixture import RECORD, Mixture
from robust_jax.data.order import subset_elements
from robust_jax.data.sources import Source

_RESERVED = ("id", "element", "label", "mask")  # names that a batch has already


@dataclasses.dataclass(frozen=True)
class Elements:
    """The examples that one epoch visits: records, or fixed augmented versions of them.

    Attributes:
      source: where the records come from; n records.
      ops: makes the base image of an element, uint8[h, w, 3].
      views: output name -> ops that make it from the base image; "" for the base image itself.
      drawn: as `views`, but from what the mixture draws for the element: its image or a distorted
        copy, and only where the drawn way says so with the ops.
      seed: of the order, of the augmentation and of the subset.
      replicas: 0 for fresh randomness at every visit. R >= 1 for the fixed set of R * n pairs
        (record, replica) whose pixels are the same at every visit.
      fraction: of the fixed set that is kept, a random subset; (0, 1].
      mixture: of the drawn views; None for the element's image and the ops always.
      copies: that the mixture names, of the same records.
    """

    source: Source
    ops: str
    views: Mapping[str, str]
    seed: int
    replicas: int = 0
    fraction: float = 1.0
    drawn: Mapping[str, str] = dataclasses.field(default_factory=dict)
    mixture: Mixture | None = None
    copies: Copies | None = None

    def __post_init__(self) -> None:
        names = [*self.views, *self.drawn]
        if not names or len(set(names)) < len(names) or set(names) & set(_RESERVED):
            raise ValueError(
                f"views name the images of a batch; got {names}; give at least one name, each "
                f"once, none of {', '.join(_RESERVED)}"
            )
        if self.from_copies and (self.copies is None or len(self.copies.files) != len(self.source)):
            raise ValueError(
                f"the mixture draws distorted copies of each of the {len(self.source)} records; "
                f"got {'none' if self.copies is None else len(self.copies.files)}; pass copies of "
                "the same records"
            )
        if self.replicas < 0:
            raise ValueError(f"replicas is negative; got {self.replicas}; use 0 or more")
        if not 0 < self.fraction <= 1:
            raise ValueError(f"fraction is not in (0, 1]; got {self.fraction}; use e.g. 0.5")
        if self.replicas == 0 and self.fraction != 1:
            raise ValueError(
                f"a fraction needs a fixed augmented set; got fraction={self.fraction} with "
                "replicas=0; set replicas to 1 or more"
            )
        if not len(self):
            raise ValueError(
                f"no elements; got {len(self.source)} records, replicas={self.replicas}, "
                f"fraction={self.fraction}; use more records or a larger fraction"
            )

    @property
    def whole(self) -> int:
        """Number of elements before the fraction is taken."""
        return max(self.replicas, 1) * len(self.source)

    @property
    def from_copies(self) -> bool:
        """Whether some drawn views start from a distorted copy."""
        return bool(self.drawn) and self.mixture is not None and self.mixture.needs_copies

    @property
    def always_ops(self) -> bool:
        """Whether the ops of drawn views follow in every way."""
        return self.mixture is None or self.mixture.always_ops

    def __len__(self) -> int:
        return round(self.fraction * self.whole)

    def draw(self, seeds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns what `mixture` draws for the elements with these seeds, see `Mixture.draw`."""
        if self.mixture is None or (self.always_ops and not self.from_copies):
            return np.full(len(seeds), RECORD, np.int32), np.ones(len(seeds), bool)
        return self.mixture.draw(seeds)

    def to_json(self) -> dict[str, Any]:
        """Returns what determines every pixel and its order, as plain values."""
        found: dict[str, Any] = {
            "source": self.source.fingerprint,
            "ops": self.ops,
            "views": dict(self.views),
            "drawn": dict(self.drawn),
            "seed": self.seed,
            "replicas": self.replicas,
            "fraction": self.fraction,
            "elements": len(self),
            "mixture": self.mixture.to_json() if self.mixture else None,
        }
        if self.from_copies and self.copies is not None:
            found["copies"] = self.copies.fingerprint
        return found

    def address(self, elements: np.ndarray, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the records (int64[b]) and seeds (int32[b, 2]) of elements at run positions."""
        stream = elements
        if self.fraction < 1:
            stream = subset_elements(elements, seed=self.seed, size=self.whole)
        records = stream % len(self.source)
        if self.replicas == 0:
            stream = positions
        high, low = np.divmod(stream, 2**31)
        return records, np.stack([(self.seed + high) % 2**31, low], -1).astype(np.int32)
