"""The feature cache: what the frozen trunk says about the fixed augmented set, computed once.

Arrays are chunked TensorStore (zarr3, CRC-32C on every chunk). A manifest fingerprints everything
that determines their content; an interrupted build continues behind its last finished block.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import tensorstore as ts
from etils import epath

from robust_jax import writers
from robust_jax.config import differing
from robust_jax.data.order import train_elements

Block = dict[str, np.ndarray]
CHUNK_BYTES = 4 << 20


class FeatureCache:
    """A directory of arrays whose axis 0 counts the elements of the augmented set."""

    def __init__(
        self, directory: epath.PathLike, fingerprint: Mapping[str, Any], num_elements: int
    ):
        """Opens or begins the cache in `directory`.

        Raises:
          ValueError: when it holds a cache with another fingerprint; names the differing keys.
        """
        self.directory = epath.Path(directory)
        self.num_elements = num_elements
        found = writers.read_json(self.directory / "manifest.json")
        wanted = dict(fingerprint)
        if found is None:
            writers.write_json(self.directory / "manifest.json", wanted)
        elif found != wanted:
            keys = differing(found, wanted)
            first = keys[0]
            raise ValueError(
                f"the feature cache in {self.directory} was built from something else; its {keys} "
                f"differ ({first}: cached {found.get(first)!r}, now {wanted.get(first)!r}); "
                "run with --rerun=cache, or use another workdir"
            )
        self._stores: dict[str, Any] = {}

    @property
    def progress(self) -> tuple[int, float]:
        """How many elements, from the first on, are stored, and the seconds that took."""
        done = writers.read_json(self.directory / "done.json")
        return (done["elements"], done["seconds"]) if done else (0, 0.0)

    def write(self, start: int, block: Block, seconds: float) -> None:
        """Stores the elements start .. start + n - 1; they count as done once all are on disk.

        Args:
          start: the first element.
          block: name -> array of n rows.
          seconds: spent on the cache so far, earlier sessions included.
        """
        for name, values in block.items():
            self._store(name, values)[start : start + len(values)].write(values).result()
        done = start + len(next(iter(block.values())))
        writers.write_json(self.directory / "done.json", {"elements": done, "seconds": seconds})

    def load(self, names: tuple[str, ...]) -> Block:
        """Reads whole arrays into memory.

        Raises:
          ValueError: when the build is unfinished, or a chunk is damaged or missing.
        """
        done, _ = self.progress
        if done < self.num_elements:
            raise ValueError(
                f"the feature cache in {self.directory} is unfinished; got {done} of "
                f"{self.num_elements} elements; run the cache stage again"
            )
        loaded = {}
        for name in names:
            try:
                loaded[name] = self._store(name)[...].read().result()
            except ValueError as error:
                raise ValueError(
                    f"the feature cache in {self.directory} cannot be read; got a bad array "
                    f"{name!r} ({error}); run with --rerun=cache"
                ) from error
        return loaded

    def _store(self, name: str, example: np.ndarray | None = None) -> Any:
        if name not in self._stores:
            spec: dict[str, Any] = {
                "driver": "zarr3",
                "kvstore": _kvstore(self.directory / name),
                # A chunk that vanished must be an error, not zeros.
                "fill_missing_data_reads": False,
                "store_data_equal_to_fill_value": True,
            }
            if example is not None:
                per_element = math.prod(example.shape[1:]) * example.dtype.itemsize
                rows = max(1, min(self.num_elements, CHUNK_BYTES // per_element))
                chunk = [rows, *example.shape[1:]]
                spec["metadata"] = {
                    "shape": [self.num_elements, *example.shape[1:]],
                    "data_type": str(example.dtype),
                    "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": chunk}},
                    "codecs": [
                        {"name": "bytes", "configuration": {"endian": "little"}},
                        {"name": "crc32c"},
                    ],
                }
            self._stores[name] = ts.open(spec, open=True, create=example is not None).result()
        return self._stores[name]


def build(
    cache: FeatureCache,
    blocks: Callable[[int], Iterator[tuple[int, Block]]],
    compute: Callable[[Block], Block],
    name: str = "cache",
) -> None:
    """Fills a cache behind what it holds already.

    Args:
      blocks: start -> (number of elements that count, batch) in element order.
      compute: batch -> arrays to store, one row for each example of the batch.
      name: of the progress line.
    """
    done, earlier = cache.progress
    if done >= cache.num_elements:
        return
    began = time.perf_counter()
    with writers.Progress(name, cache.num_elements, done, unit="element") as progress:
        for count, batch in blocks(done):
            rows = {name: values[:count] for name, values in compute(batch).items()}
            cache.write(done, rows, earlier + time.perf_counter() - began)
            done += count
            progress.advance(count)


def batches(
    arrays: Block,
    *,
    batch_size: int,
    seed: int,
    start_step: int,
    num_steps: int,
    process_index: int = 0,
    process_count: int = 1,
) -> Iterator[Block]:
    """Yields the rows that `pipeline.train_batches` would have made of the same elements.

    Args:
      arrays: equally long arrays, one row for each element of the augmented set.
      batch_size: of all hosts together.
      seed: of the order; that of the augmented set.
      start_step: first step; 0, or where a run resumes.
      num_steps: steps of the whole run.
      process_index: of this host.
      process_count: number of hosts.
    """
    size, local = len(next(iter(arrays.values()))), batch_size // process_count
    for step in range(start_step, num_steps):
        positions = step * batch_size + process_index * local + np.arange(local)
        rows = train_elements(positions, seed=seed, size=size)
        yield {name: values[rows] for name, values in arrays.items()}


def _kvstore(path: epath.Path) -> dict[str, str]:
    text = str(path)
    if text.startswith("gs://"):
        bucket, _, key = text.removeprefix("gs://").partition("/")
        return {"driver": "gcs", "bucket": bucket, "path": key + "/"}
    return {"driver": "file", "path": str(path.absolute()) + "/"}
