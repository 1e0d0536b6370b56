"""Sets of TensorFlow Datasets: tfds:NAME[/CONFIG][:SPLIT]."""

import dataclasses

import ml_collections
import numpy as np

from robust_jax.data.sources import Source, fingerprint
from robust_jax.evals import class_names, corruption, subsets
from robust_jax.evals.stored_sets import Request, StoredImages

# What TFDS calls the corruptions that go by another name there.
_CIFAR_NAMES = {"glass_blur": "frosted_glass_blur", "elastic_transform": "elastic"}
_CORRUPTED: dict[str, dict[str, str]] = {
    "imagenet2012_corrupted": {},
    "cifar10_corrupted": _CIFAR_NAMES,
}
# Where the evaluation images are not in `test`.
_SPLITS = {"imagenet2012": "validation", "imagenet2012_corrupted": "validation"}
_SUBSETS = {"imagenet_a": subsets.imagenet_a, "imagenet_r": subsets.imagenet_r}


def tfds_sets(request: Request) -> list[StoredImages]:
    """Loads a set; of a corrupted one without CONFIG, every corruption and severity asked for."""
    dataset, _, split = request.path.partition(":")
    name, _, config = dataset.partition("/")
    split = split or _SPLITS.get(name, "test")
    if name in _CORRUPTED:
        return _corrupted(request, name, config, split)
    if name in _SUBSETS:
        class_names.check_imagenet(request.class_names, name)
        subset = _SUBSETS[name]()
        loaded = _load(request, dataset, split)
        source = _relabelled(loaded, subset.row, subset.class_names)
        return [StoredImages(request.where(), source, request.eval_ops, subset)]
    source = _classified(request, _load(request, dataset, split))
    return [StoredImages(request.where(), source, request.eval_ops)]


def is_prepared(request: Request) -> bool:
    """Whether all that is asked for lies on this machine; nothing is downloaded.

    Raises:
      ValueError: for a set that TFDS does not know.
    """
    from robust_jax.data import tfds_source  # which imports TFDS

    dataset = request.path.partition(":")[0]
    name, _, config = dataset.partition("/")
    names = [dataset]
    if name in _CORRUPTED:
        names = [stored for _, _, stored in _pairs(request, name, config)]
    return all(tfds_source.is_prepared(one, request.data_dir) for one in names)


def _corrupted(request: Request, name: str, config: str, split: str) -> list[StoredImages]:
    if name == "cifar10_corrupted":  # whose classes are numbers in TFDS
        class_names.check_cifar(request.class_names, 10, name)
    ops = request.eval_ops if name == "cifar10_corrupted" else request.stored_ops()
    sets = []
    for ours, severity, stored in _pairs(request, name, config):
        loaded = _load(request, stored, split)
        where = request.where(corruption=ours, severity=severity)
        sets.append(StoredImages(where, _classified(request, loaded), ops))
    return sets


def _pairs(request: Request, name: str, config: str) -> list[tuple[str, int, str]]:
    """The corruptions and severities asked for, and what TFDS calls the set of each."""
    called, pairs = _CORRUPTED[name], request.grid
    if config:
        theirs, _, severity = config.rpartition("_")
        ours = {value: key for key, value in called.items()}.get(theirs, theirs)
        pairs = corruption.grid((ours,), (int(severity) if severity.isdecimal() else 0,))
    return [(one, level, f"{name}/{called.get(one, one)}_{level}") for one, level in pairs]


def _load(request: Request, name: str, split: str) -> Source:
    from robust_jax.data import tfds_source  # which imports TFDS

    data = ml_collections.ConfigDict(
        {"name": name, "dir": request.data_dir, "train_split": split, "val_split": split}
    )
    return tfds_source.load(data, "val", request.index_dir)


def _classified(request: Request, source: Source) -> Source:
    """The labels of a set as numbers of the classifier's classes."""
    ours, theirs = request.class_names, source.class_names
    numbered = tuple(str(k) for k in range(len(ours)))
    if theirs in (ours, numbered) or (ours == numbered and len(theirs) == len(ours)):
        return _relabelled(source, np.arange(len(ours), dtype=np.int32), ours)
    numbers = class_names.match(theirs, ours, source.name)
    return _relabelled(source, np.array(numbers, np.int32), ours)


def _relabelled(source: Source, table: np.ndarray, names: tuple[str, ...]) -> Source:
    labels = table[source.labels]
    if (labels < 0).any():
        other = source.class_names[source.labels[labels < 0][0]]
        raise ValueError(
            f"{source.name} has images of other classes; got {other}; use the whole set of 1000"
        )
    mark = fingerprint(source.fingerprint, labels, names)
    return dataclasses.replace(source, class_names=names, labels=labels, fingerprint=mark)
