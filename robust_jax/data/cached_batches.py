"""Batches of a feature cache, in the order in which training from images visits the elements."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from robust_jax.data.cache import Block
from robust_jax.data.order import train_elements


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
