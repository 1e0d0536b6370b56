"""The feature cache: what the frozen trunk says about the fixed augmented set, computed once.

Arrays are TensorStore zarr3. A block of elements is one file of each array; within it a few rows
make a chunk with a CRC-32C of its own, so that single rows are read without the rest. A manifest
fingerprints everything that determines the content. Hosts compute blocks side by side, and an
interrupted build computes what is missing.
"""

import functools
import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import tensorstore as ts
from etils import epath

from robust_jax import hosts, writers
from robust_jax.config import differing
from robust_jax.data.order import train_elements

Block = dict[str, np.ndarray]
FORMAT = 2  # of the files
BLOCK_BYTES = 8 << 20  # of all arrays together
ROWS = 16  # of a chunk
MIN_BLOCKS = 20  # an interrupted build loses a part like this at most


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
        wanted = {"format": FORMAT, **fingerprint}
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

    def lay_out(self, example: Mapping[str, Any], batch_size: int) -> None:
        """Creates the arrays, where they are not there yet.

        Args:
          example: name -> array, or its shape and dtype, of some rows.
          batch_size: rows computed at once; a block has a multiple of them.
        """
        if not (self.directory / "layout.json").exists():
            row_bytes = sum(math.prod(a.shape[1:]) * a.dtype.itemsize for a in example.values())
            parts = max(MIN_BLOCKS, 4 * hosts.count())
            most = min(BLOCK_BYTES // row_bytes, self.num_elements // parts)
            unit = math.lcm(ROWS, batch_size)
            block = max(1, most // unit) * unit
            for name, array in example.items():
                self._store(name, _metadata(array, self.num_elements, block))
            writers.write_json(self.directory / "layout.json", {"block": block})

    @functools.cached_property
    def block(self) -> int:
        """Elements of a block; the last may have fewer."""
        return writers.read_json(self.directory / "layout.json")["block"]

    def finished(self) -> dict[int, dict[str, float]]:
        """Returns the first element of every stored block, and the seconds that it took."""
        found: dict[int, dict[str, float]] = {}
        for path in self.directory.glob("done-*.json"):
            found |= {int(start): times for start, times in writers.read_json(path).items()}
        return found

    def seconds(self) -> dict[str, float]:
        """Returns what the stored blocks took together, by name."""
        total: dict[str, float] = {}
        for times in self.finished().values():
            for name, value in times.items():
                total[name] = total.get(name, 0.0) + value
        return total

    def write(self, start: int, block: Block, times: Mapping[str, float]) -> None:
        """Stores a block, which counts as done once all of it is on disk.

        Args:
          start: its first element, a multiple of `block`.
          block: name -> array of its rows.
          times: name -> seconds that it took.
        """
        futures = [
            self._store(name)[start : start + len(values)].write(values)
            for name, values in block.items()
        ]
        for future in futures:
            future.result()
        path = self.directory / f"done-{hosts.index()}.json"
        done = writers.read_json(path) or {}
        writers.write_json(path, {**done, str(start): dict(times)})

    def load(self, names: Sequence[str]) -> Block:
        """Reads whole arrays into memory; for errors see `read`."""
        return self.read(names, slice(None))

    def read(self, names: Sequence[str], rows: Any) -> Block:
        """Reads some rows of some arrays.

        Args:
          names: of the arrays.
          rows: int[b], or a slice.

        Raises:
          ValueError: when the build is unfinished, or a chunk is damaged or missing.
        """
        self._check_finished()
        found, name = {}, ""
        try:
            for name in names:
                found[name] = self._store(name)[rows].read()
            for name in names:
                found[name] = found[name].result()
        except ValueError as error:
            raise ValueError(
                f"the feature cache in {self.directory} cannot be read; got a bad array "
                f"{name!r} ({error}); run with --rerun=cache"
            ) from error
        return found

    def nbytes(self, names: Sequence[str]) -> int:
        """Returns the bytes of some arrays in memory."""
        return sum(self._store(n).size * self._store(n).dtype.numpy_dtype.itemsize for n in names)

    @functools.lru_cache(maxsize=1)  # noqa: B019, a cache lives as long as the run
    def _check_finished(self) -> None:
        done = len(self.finished()) * self.block if self.finished() else 0
        if done < self.num_elements:
            raise ValueError(
                f"the feature cache in {self.directory} is unfinished; got {done} of "
                f"{self.num_elements} elements; run the cache stage again"
            )

    def _store(self, name: str, metadata: Mapping[str, Any] | None = None) -> Any:
        if name not in self._stores:
            spec: dict[str, Any] = {
                "driver": "zarr3",
                "kvstore": _kvstore(self.directory / name),
                # A chunk that vanished must be an error, not zeros.
                "fill_missing_data_reads": False,
                "store_data_equal_to_fill_value": True,
            }
            if metadata is not None:
                spec["metadata"] = metadata
            self._stores[name] = ts.open(spec, open=True, create=metadata is not None).result()
        return self._stores[name]


def batches(
    read: Callable[[np.ndarray], Block],
    size: int,
    *,
    batch_size: int,
    seed: int,
    start_step: int,
    num_steps: int,
    ahead: int = 0,
    process_index: int = 0,
    process_count: int = 1,
) -> Iterator[Block]:
    """Yields this host's rows of the batches that `pipeline.train_batches` makes of the elements.

    Args:
      read: rows int[b] -> arrays of b rows.
      size: number of elements.
      batch_size: of all hosts together.
      seed: of the order; that of the augmented set.
      start_step: first step; 0, or where a run resumes.
      num_steps: steps of the whole run.
      ahead: batches that are read, in threads, before they are asked for.
      process_index: of this host.
      process_count: number of hosts.
    """
    local = batch_size // process_count

    def rows(step: int) -> np.ndarray:
        positions = step * batch_size + process_index * local + np.arange(local)
        return train_elements(positions, seed=seed, size=size)

    if not ahead:
        yield from (read(rows(step)) for step in range(start_step, num_steps))
        return
    with ThreadPoolExecutor(ahead) as pool:
        coming: deque[Future[Block]] = deque()
        for step in range(start_step, num_steps):
            coming.append(pool.submit(read, rows(step)))
            if len(coming) > ahead:
                yield coming.popleft().result()
        yield from (future.result() for future in coming)


def _metadata(array: Any, num_elements: int, block: int) -> dict[str, Any]:
    endian = {"name": "bytes", "configuration": {"endian": "little"}}
    checked = [endian, {"name": "crc32c"}]
    inner = {
        "chunk_shape": [ROWS, *array.shape[1:]],
        "codecs": checked,
        "index_codecs": checked,
        "index_location": "end",
    }
    return {
        "shape": [num_elements, *array.shape[1:]],
        "data_type": str(array.dtype),
        "chunk_grid": {
            "name": "regular",
            "configuration": {"chunk_shape": [block, *array.shape[1:]]},
        },
        "codecs": [{"name": "sharding_indexed", "configuration": inner}],
    }


def _kvstore(path: epath.Path) -> dict[str, str]:
    text = str(path)
    if text.startswith("gs://"):
        bucket, _, key = text.removeprefix("gs://").partition("/")
        return {"driver": "gcs", "bucket": bucket, "path": key + "/"}
    return {"driver": "file", "path": str(path.absolute()) + "/"}
