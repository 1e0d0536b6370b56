"""The classes of ImageNet-A, ImageNet-R and ObjectNet among the 1000 of an ImageNet classifier.

The 1000 ids and their order come from the data files of tensorflow_datasets, whose code is not
imported.
"""

import dataclasses
import functools
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np

from robust_jax.evals import subset_tables

IMAGENET_CLASSES = 1000
_WNIDS = "datasets/imagenet2012/labels.txt"


@dataclasses.dataclass(frozen=True, eq=False)
class Subset:
    """Classes of which a classifier with 1000 classes answers one.

    Attributes:
      name: for reports.
      class_names: m names.
      table: i32[m, g], the classifier's classes that mean each of them; a row with fewer than g
        repeats one.
    """

    name: str
    class_names: tuple[str, ...]
    table: np.ndarray

    def restrict(self, logits: Any) -> Any:
        """f[..., 1000] -> f[..., m]: the best logit of each class; NumPy and JAX arrays."""
        return logits[..., self.table].max(-1)

    @functools.cached_property
    def row(self) -> np.ndarray:
        """i32[1000]: which of the m classes each class of the classifier means, or -1."""
        row = np.full(IMAGENET_CLASSES, -1, np.int32)
        row[self.table] = np.arange(len(self.table))[:, None]
        return row


@functools.cache
def imagenet_wnids() -> tuple[str, ...]:
    """The WordNet ids of ImageNet's 1000 classes in the order of every common classifier.

    Raises:
      ValueError: where tensorflow_datasets is not installed.
    """
    package = importlib.util.find_spec("tensorflow_datasets")
    folders = list(package.submodule_search_locations or ()) if package else []
    for folder in folders:
        path = Path(folder) / _WNIDS
        if path.is_file():
            return tuple(path.read_text().split())
    raise ValueError(
        f"ImageNet's class ids are read from tensorflow_datasets; got no {_WNIDS} in "
        f"{', '.join(folders) or 'any installed package'}; run `pip install tensorflow-datasets`"
    )


@functools.cache
def imagenet_a() -> Subset:
    """The 200 classes of ImageNet-A."""
    return _of_ids("imagenet_a", subset_tables.IMAGENET_A)


@functools.cache
def imagenet_r() -> Subset:
    """The 200 classes of ImageNet-R."""
    return _of_ids("imagenet_r", subset_tables.IMAGENET_R)


@functools.cache
def objectnet() -> Subset:
    """The 113 classes of ObjectNet that ImageNet has too, by the names of ObjectNet's folders.

    One to three classes of ImageNet mean each. The best logit of a group answers for it; the best
    of all 125 lies in the same group, but for ties.
    """
    entries = (entry.split() for entry in subset_tables.OBJECTNET.split(","))
    groups = {name: [int(i) for i in ids] for name, *ids in entries}
    widest = max(map(len, groups.values()))
    table = [ids + ids[-1:] * (widest - len(ids)) for ids in groups.values()]
    return Subset("objectnet", tuple(groups), np.array(table, np.int32))


def _of_ids(name: str, numbers: str) -> Subset:
    ids, wnids = [int(number) for number in numbers.split()], imagenet_wnids()
    return Subset(name, tuple(wnids[i] for i in ids), np.array(ids, np.int32)[:, None])
