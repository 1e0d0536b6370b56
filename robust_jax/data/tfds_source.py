"""A TensorFlow Datasets split with random access.

Sets stored as array_record are read record by record. Sets stored only as TFRecord have no random
access: their encoded images are read into memory once, if they fit.
"""

import difflib
import os
from collections.abc import Callable
from typing import Any

import ml_collections
import numpy as np
import tqdm
from etils import epath

from robust_jax.data.sources import Source, fingerprint

_READ = 256  # records a call when all labels are read
_BAR_FROM = 2000  # records
_MEMORY_SHARE = 0.5  # of the memory of this machine that a TFRecord set may take


def load(
    data: ml_collections.ConfigDict, split: str, index_dir: epath.Path | None = None
) -> Source:
    """Loads a split of the dataset `data.name`, preparing it first where that was not done.

    Args:
      data: `config.data`; keys name, train_split, val_split, and dir (TFDS's data_dir, or empty
        for its default).
      split: "train" or "val".
      index_dir: where the labels are kept, so that a restart need not read the set for them.
    """
    import tensorflow_datasets as tfds

    builder = _builder(tfds, data.name, data.dir or None)
    part = data[f"{split}_split"]
    try:
        info = builder.info.splits[part]
    except (KeyError, ValueError) as error:
        raise ValueError(
            f"{data.name} has no such split; got data.{split}_split={part!r}; choose among "
            f"{', '.join(builder.info.splits)}, or a part such as 'train[:90%]'"
        ) from error
    features = builder.info.features
    if not (
        isinstance(features, tfds.features.FeaturesDict)
        and isinstance(dict(features.items()).get("image"), tfds.features.Image)
        and isinstance(dict(features.items()).get("label"), tfds.features.ClassLabel)
    ):
        raise ValueError(
            f"{data.name} is not a set of labelled images; got the features "
            f"{', '.join(features)}; use one with an image `image` and a class `label`"
        )
    mark = fingerprint("tfds", builder.info.full_name, part, info.num_examples)
    encoded = {"image": tfds.decode.SkipDecoding()}
    try:
        records = builder.as_data_source(split=part, decoders=encoded)
    except NotImplementedError:  # its files have no random access
        read, labels = _read_all(tfds, builder, part, info)
    else:
        read = lambda i: records[i]["image"]  # noqa: E731
        labels = _labels(records, index_dir / f"labels_{mark}.npy" if index_dir else None)
    names = tuple(features["label"].names)
    # The labels tell the order of the records, which the way of storing may change.
    return Source(f"{data.name} {part}", names, labels, read, fingerprint(mark, labels))


def _builder(tfds: Any, name: str, data_dir: str | None) -> Any:
    try:
        builder = tfds.builder(name, data_dir=data_dir)
    except (tfds.core.DatasetNotFoundError, ValueError) as error:
        near = difflib.get_close_matches(name, tfds.list_builders(), n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(
            f"TFDS has no such dataset; got data.name={name!r}; {hint}choose one of "
            "tensorflow.org/datasets/catalog, or set data.dir to where it was prepared"
        ) from error
    if not builder.is_prepared():
        print(f"TFDS prepares {name} in {builder.data_dir}, once")
        builder.download_and_prepare(file_format="array_record")
    return builder


def _labels(records: Any, index: epath.Path | None) -> np.ndarray:
    """Reads the label of every record, or takes them from the index."""
    if index and index.exists():
        with index.open("rb") as file:
            return np.load(file, allow_pickle=False)
    labels = np.empty(len(records), np.int32)
    with tqdm.tqdm(
        total=len(records), desc="reading labels", unit="image", disable=len(records) <= _BAR_FROM
    ) as bar:
        for start in range(0, len(records), _READ):
            numbers = list(range(start, min(start + _READ, len(records))))
            labels[numbers] = [record["label"] for record in records.__getitems__(numbers)]
            bar.update(len(numbers))
    if index:
        index.parent.mkdir(parents=True, exist_ok=True)
        partial = index.with_suffix(f".{os.getpid()}.tmp")
        with partial.open("wb") as file:
            np.save(file, labels)
        partial.replace(index)  # so that a stop in between leaves no half index
    return labels


def _read_all(
    tfds: Any, builder: Any, part: str, info: Any
) -> tuple[Callable[[int], bytes], np.ndarray]:
    """Reads the encoded images of a TFRecord set into memory."""
    usable = _MEMORY_SHARE * os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    # TFDS gives no size for a part of a split.
    examples = sum(whole.num_examples for whole in builder.info.splits.values())
    size = builder.info.dataset_size * info.num_examples / examples
    gib = 2**30
    if size > usable:
        raise ValueError(
            f"{builder.info.full_name} is stored as TFRecord, which has no random access, and is "
            f"too large to hold in memory; got {size / gib:.1f} GiB, at most "
            f"{usable / gib:.1f} GiB fit; prepare it with `tfds build --file_format=array_record`"
        )
    print(
        f"{builder.info.full_name} is stored as TFRecord, which has no random access: reading "
        f"{size / gib:.2f} GiB of {part} into memory"
    )
    stream = builder.as_dataset(
        split=part,
        decoders={"image": tfds.decode.SkipDecoding()},
        shuffle_files=False,
        read_config=tfds.ReadConfig(interleave_cycle_length=1),  # the order of the files
    )
    records = [(record["image"], record["label"]) for record in stream.as_numpy_iterator()]
    images = [image for image, _ in records]
    return images.__getitem__, np.array([label for _, label in records], np.int32)
