"""Reads the records of a prepared TFDS split, and tells of damaged files."""

import contextlib
import os
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tqdm
from etils import epath

from robust_jax.data import index

_READ = 256  # records a call when all labels are read
_BAR_FROM = 2000  # records
_MEMORY_SHARE = 0.5  # of the memory of this machine that a TFRecord set may take


@contextlib.contextmanager
def damage_told(builder: Any) -> Iterator[None]:
    """Tells of damaged files, on which TensorFlow and array_record raise nearly anything."""
    try:
        yield
    except (MemoryError, NotImplementedError):
        raise
    except Exception as error:
        # Without the names of TensorFlow's own nodes and ops.
        said = re.sub(r"\{\{.*?\}\} ?| ?\[Op:.*", "", str(error), flags=re.DOTALL)
        raise ValueError(
            f"{builder.info.full_name} is damaged; got the error {said:.300} in "
            f"{builder.data_dir}; remove this directory and prepare the set again"
        ) from error


def read_labels(builder: Any, records: Any, place: epath.Path | None) -> np.ndarray:
    """Reads the label of every record, or takes them from the index."""
    known = index.kept(place) if place else None
    if known is not None and len(known) == len(records):
        return np.array(known, np.int64)
    labels = np.empty(len(records), np.int64)
    few = len(records) <= _BAR_FROM
    with (
        damage_told(builder),
        tqdm.tqdm(total=len(records), desc="reading labels", unit="image", disable=few) as bar,
    ):
        for start in range(0, len(records), _READ):
            numbers = list(range(start, min(start + _READ, len(records))))
            labels[numbers] = [record["label"] for record in records.__getitems__(numbers)]
            bar.update(len(numbers))
    if place:
        index.keep(place, labels.tolist())
    return labels


def read_all(
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
    with damage_told(builder):
        records = [(record["image"], record["label"]) for record in stream.as_numpy_iterator()]
    images = [image for image, _ in records]
    return images.__getitem__, np.array([label for _, label in records], np.int64)
