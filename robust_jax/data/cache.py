"""The feature cache: what the frozen trunk says about the fixed augmented set, computed once.

Arrays are TensorStore zarr3. A block of elements is one file of each array; within it small chunks
of rows have a CRC-32C each, so that single rows are read without the rest of it. A manifest
fingerprints everything that determines the content. Hosts compute blocks side by side, and an
interrupted build computes what is missing.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorstore as ts
from etils import epath

from robust_jax import disk, hosts, writers
from robust_jax.config import differing

Block = dict[str, np.ndarray]
FORMAT = 2  # of the files
BLOCK_BYTES = 8 << 20  # of all arrays together
CHUNK_BYTES, ROWS = 64 << 10, 16  # of a chunk, at most
MIN_BLOCKS = 20  # an interrupted build loses a part like this at most


class FeatureCache:
    """A directory of arrays whose axis 0 counts the elements of the augmented set."""

    def __init__(
        self,
        directory: epath.PathLike,
        fingerprint: Mapping[str, Any],
        num_elements: int,
        remedy: str = "run with --rerun=cache, or use another workdir",
    ):
        """Opens or begins the cache in `directory`.

        Args:
          directory: of its files.
          fingerprint: plain values, everything that determines the content.
          num_elements: rows of each array.
          remedy: what errors advise.

        Raises:
          ValueError: when it holds a cache with another fingerprint; names the differing keys.
        """
        self.directory = epath.Path(directory)
        self.num_elements = num_elements
        self._remedy = remedy
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
                f"{remedy}"
            )
        self._stores: dict[str, Any] = {}
        self._is_whole = False

    def lay_out(self, example: Mapping[str, Any], batch_size: int) -> None:
        """Creates the arrays, where they are not there yet.

        Args:
          example: name -> array, or its shape and dtype, of some rows.
          batch_size: rows computed at once; a block has a multiple of them.
        """
        block = self.block
        if block is None:
            parts = max(MIN_BLOCKS, 4 * hosts.count())
            row_bytes = sum(_row_bytes(array) for array in example.values())
            most = min(BLOCK_BYTES // row_bytes, self.num_elements // parts)
            # Whole batches where they fit, so that a build that continues makes the same ones.
            batches = math.lcm(ROWS, batch_size)
            unit = batches if batches <= most else ROWS
            block = max(1, most // unit) * unit
            writers.write_json(self.directory / "layout.json", {"block": block})
        for name, array in example.items():
            self._store(name, _metadata(array, self.num_elements, block))

    @property
    def block(self) -> Any:
        """Elements of a block, of which the last may have fewer; None before `lay_out`."""
        layout = writers.read_json(self.directory / "layout.json")
        return layout and layout["block"]

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
        needed = sum(values.nbytes for values in block.values())
        with disk.writing(self.directory, f"elements from {start} of the feature cache", needed):
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
            raise self._unreadable(name, error) from error
        return found

    def nbytes(self, names: Sequence[str]) -> int:
        """Returns the bytes of some arrays in memory; for errors see `read`."""
        self._check_finished()
        total, name = 0, ""
        try:
            for name in names:
                total += self._store(name).size * self._store(name).dtype.numpy_dtype.itemsize
        except ValueError as error:
            raise self._unreadable(name, error) from error
        return total

    def _unreadable(self, name: str, error: Exception) -> ValueError:
        return ValueError(
            f"the feature cache in {self.directory} cannot be read; got a bad array {name!r} "
            f"({error}); {self._remedy}"
        )

    def _check_finished(self) -> None:
        if self._is_whole:
            return
        done, block = self.finished(), self.block
        sizes = [min(block, self.num_elements - start) for start in done]
        if sum(sizes) < self.num_elements:
            raise ValueError(
                f"the feature cache in {self.directory} is unfinished; got {sum(sizes)} of "
                f"{self.num_elements} elements; run the same command again"
            )
        self._is_whole = True

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


def _metadata(array: Any, num_elements: int, block: int) -> dict[str, Any]:
    endian = {"name": "bytes", "configuration": {"endian": "little"}}
    checked = [endian, {"name": "crc32c"}]
    rows = ROWS
    while rows > 1 and rows * _row_bytes(array) > CHUNK_BYTES:
        rows //= 2
    inner = {
        "chunk_shape": [rows, *array.shape[1:]],
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


def _row_bytes(array: Any) -> int:
    return math.prod(array.shape[1:]) * array.dtype.itemsize


def _kvstore(path: epath.Path) -> dict[str, str]:
    text = str(path)
    if text.startswith("gs://"):
        bucket, _, key = text.removeprefix("gs://").partition("/")
        return {"driver": "gcs", "bucket": bucket, "path": key + "/"}
    return {"driver": "file", "path": str(path.absolute()) + "/"}
