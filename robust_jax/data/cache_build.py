"""Filling a feature cache: blocks in order, spread over hosts, from where a build stopped."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from robust_jax import hosts, writers
from robust_jax.data.cache import Block, FeatureCache
from robust_jax.data.elements import Elements

Batches = Callable[[int, int], Iterator[tuple[int, Block]]]
Compute = Callable[[Block], tuple[Block, dict[str, float]]]


def in_order(elements: Elements, batch_size: int) -> Batches:
    """Returns (start, stop) -> (number of elements that count, batch) of those elements."""
    from robust_jax.data.pipeline import ordered_batches

    def batches(start: int, stop: int) -> Iterator[tuple[int, Block]]:
        for batch in ordered_batches(elements, batch_size=batch_size, start=start, stop=stop):
            yield int(batch["mask"].sum()), batch

    return batches


def build(
    cache: FeatureCache,
    batches: Batches,
    compute: Compute,
    name: str = "cache",
) -> None:
    """Computes what a cache lacks, this host's share of it, and waits for the other hosts.

    Args:
      cache: laid out.
      batches: see `in_order`.
      compute: batch -> (arrays to store, a row for each example of the batch; name -> seconds that
        are told apart).
      name: of the progress line.
    """
    block = cache.block
    starts = range(0, cache.num_elements, block)
    done = cache.finished()
    mine = hosts.share([start for start in starts if start not in done])
    hosts.wait(f"{name}: what is missing")  # before anybody writes
    sizes = {start: min(block, cache.num_elements - start) for start in starts}
    before = sum(sizes[start] for start in done) // hosts.count()
    total = before + sum(sizes[start] for start in mine)
    with writers.Progress(name, total, before, unit="element") as progress:
        for run in _runs(mine, block):
            _build_run(cache, run, sizes, batches, compute, progress)
    hosts.wait(f"{name}: built")


def _build_run(
    cache: FeatureCache,
    starts: Sequence[int],
    sizes: Mapping[int, int],
    batches: Batches,
    compute: Compute,
    progress: writers.Progress,
) -> None:
    """Computes blocks that follow each other."""
    waiting, began = list(starts), time.perf_counter()
    parts: list[Block] = []
    times: dict[str, float] = {}
    for count, batch in batches(starts[0], starts[-1] + sizes[starts[-1]]):
        rows, apart = compute(batch)
        parts.append({name: values[:count] for name, values in rows.items()})
        for key, value in apart.items():
            times[key] = times.get(key, 0.0) + value
        progress.advance(count)
        have = sum(len(next(iter(part.values()))) for part in parts)
        while waiting and have >= sizes[waiting[0]]:
            joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
            start, size = waiting[0], sizes[waiting[0]]
            now = time.perf_counter()
            # Hosts work side by side: each takes its part of the time of all.
            took = {n: v / hosts.count() for n, v in {**times, "seconds": now - began}.items()}
            cache.write(start, {name: values[:size] for name, values in joined.items()}, took)
            parts, have = [{name: values[size:] for name, values in joined.items()}], have - size
            waiting, began, times = waiting[1:], now, {}


def _runs(starts: Sequence[int], block: int) -> Iterator[list[int]]:
    """Yields blocks that follow each other together."""
    run: list[int] = []
    for start in starts:
        if run and start != run[-1] + block:
            yield run
            run = []
        run.append(start)
    if run:
        yield run
