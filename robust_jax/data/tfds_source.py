"""A TensorFlow Datasets split with random access.

Sets stored as array_record are read record by record. Sets stored only as TFRecord have no random
access: their encoded images are read into memory once, if they fit.
"""

import difflib
from typing import Any

import ml_collections
import numpy as np
from etils import epath

from robust_jax.data.labels import to_labels
from robust_jax.data.sources import Source, fingerprint
from robust_jax.data.tfds_records import damage_told, read_all, read_labels

# Images of sets that are not on this machine, which only TFDS's download would tell.
_SIZES = {
    "imagenet2012": {"train": 1_281_167, "validation": 50_000},
    "cifar10": {"train": 50_000, "test": 10_000},
    "cifar100": {"train": 50_000, "test": 10_000},
    "food101": {"train": 75_750, "validation": 25_250},
    "oxford_flowers102": {"train": 1_020, "validation": 1_020, "test": 6_149},
}
_SIDE = 256  # px, of a picture of such a set where they differ


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
    if not builder.is_prepared():
        print(f"TFDS prepares {data.name} in {builder.data_dir}, once")
        builder.download_and_prepare(file_format="array_record")
    part = data[f"{split}_split"]
    info = _split(builder.info.splits, data, split)
    features = _features(tfds, builder)
    mark = fingerprint("tfds", builder.info.full_name, part, info.num_examples)
    encoded = {"image": tfds.decode.SkipDecoding()}
    try:
        with damage_told(builder):
            records = builder.as_data_source(split=part, decoders=encoded)
    except NotImplementedError:  # its files have no random access
        read, labels = read_all(tfds, builder, part, info)
    else:
        place = index_dir / f"labels_{mark}.json" if index_dir else None

        def read(i: int) -> bytes:
            with damage_told(builder):
                return records[i]["image"]

        labels = read_labels(builder, records, place)
    names = tuple(features["label"].names)
    # The labels tell the order of the records, which the way of storing may change.
    labels = to_labels(labels, len(names), f"{data.name} {part}")
    return Source(f"{data.name} {part}", names, labels, read, fingerprint(mark, labels))


def is_prepared(name: str, data_dir: str) -> bool:
    """Whether a dataset lies on this machine; nothing is downloaded.

    Args:
      name: as `data.name`.
      data_dir: of TFDS, or "" for its default.

    Raises:
      ValueError: for a dataset that TFDS does not know.
    """
    import tensorflow_datasets as tfds

    return _builder(tfds, name, data_dir or None).is_prepared()


def outline(data: ml_collections.ConfigDict, split: str) -> Source:
    """Returns an absent source for a split of a dataset that is not prepared.

    Its class names are those of TFDS without a download (numbers for CIFAR), its length is the
    published one, its labels are evenly spread, and its images black.

    Args:
      data: as in `load`.
      split: "train" or "val".

    Raises:
      ValueError: when the number of images is not known without the dataset.
    """
    import tensorflow_datasets as tfds

    builder, part = _builder(tfds, data.name, data.dir or None), data[f"{split}_split"]
    if builder.name not in _SIZES or data.classes or "shard" in part:
        raise ValueError(
            "how many images this is will be known when it is prepared; got "
            f"data.name={data.name!r}, data.{split}_split={part!r} and "
            f"data.classes={tuple(data.classes)}; prepare it first, with `tfds build {data.name}`"
        )
    count = _split(_published(tfds, builder), data, split).num_examples
    features = _features(tfds, builder)
    names = tuple(features["label"].names)
    height, width, _ = features["image"].shape
    black = np.zeros((height or _SIDE, width or _SIDE, 3), np.uint8)
    return Source(
        name=f"{data.name} {part}",
        class_names=names,
        labels=np.arange(count, dtype=np.int32) % len(names),
        read=lambda i: black,
        fingerprint=fingerprint("absent", builder.info.full_name, part, count),
        absent=True,
    )


def _published(tfds: Any, builder: Any) -> Any:
    """The splits of a dataset that is not prepared."""
    splits = []
    for name, count in _SIZES[builder.name].items():
        template = tfds.core.ShardedFileTemplate(
            data_dir=builder.data_dir,
            dataset_name=builder.name,
            split=name,
            filetype_suffix="array_record",
        )
        splits.append(
            tfds.core.SplitInfo(
                name=name, shard_lengths=[count], num_bytes=0, filename_template=template
            )
        )
    return tfds.core.SplitDict(splits)


def _split(splits: Any, data: ml_collections.ConfigDict, split: str) -> Any:
    part = data[f"{split}_split"]
    if not splits:
        raise ValueError(
            f"{data.name} is not whole; got no splits, which dataset_info.json tells; remove what "
            "was prepared, and prepare it again"
        )
    try:
        return splits[part]
    except (KeyError, ValueError) as error:
        raise ValueError(
            f"{data.name} has no such split; got data.{split}_split={part!r}; choose among "
            f"{', '.join(splits)}, or a part such as 'train[:90%]'"
        ) from error


def _features(tfds: Any, builder: Any) -> Any:
    features = builder.info.features
    if not (
        isinstance(features, tfds.features.FeaturesDict)
        and isinstance(dict(features.items()).get("image"), tfds.features.Image)
        and isinstance(dict(features.items()).get("label"), tfds.features.ClassLabel)
    ):
        raise ValueError(
            f"{builder.name} is not a set of labelled images; got the features "
            f"{', '.join(features)}; use one with an image `image` and a class `label`"
        )
    return features


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
    except Exception as error:  # its files describe it, and may hold anything
        raise ValueError(
            f"the description of {name} is damaged; got the error {error!s:.300}; remove what was "
            "prepared, and prepare it again"
        ) from error
    return builder
