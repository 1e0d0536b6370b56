"""The examples that an epoch visits, and where each comes from; needs no TensorFlow."""

import dataclasses
from collections.abc import Mapping

import numpy as np

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
      seed: of the order, of the augmentation and of the subset.
      replicas: 0 for fresh randomness at every visit. R >= 1 for the fixed set of R * n pairs
        (record, replica) whose pixels are the same at every visit.
      fraction: of the fixed set that is kept, a random subset; (0, 1].
    """

    source: Source
    ops: str
    views: Mapping[str, str]
    seed: int
    replicas: int = 0
    fraction: float = 1.0

    def __post_init__(self) -> None:
        reserved = sorted(set(self.views) & set(_RESERVED))
        if not self.views or reserved:
            raise ValueError(
                f"views name the images of a batch; got {dict(self.views)}; give at least one "
                f"name, none of {', '.join(_RESERVED)}"
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

    def __len__(self) -> int:
        return round(self.fraction * self.whole)

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
