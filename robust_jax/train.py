"""The training loop. It knows batches, steps and checkpoints, and no method."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from etils import epath
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from robust_jax import checkpoint, costs, sharding, writers
from robust_jax.state import TrainState

StepFn = Callable[
    [TrainState, Any, Mapping[str, jax.Array]], tuple[TrainState, dict[str, jax.Array]]
]
Batches = Callable[[int, int], Iterator[dict[str, np.ndarray]]]


def train(
    step_fn: StepFn,
    state: TrainState,
    frozen: Any,
    batches: Batches,
    *,
    name: str,
    total_steps: int,
    batch_size: int,
    workdir: epath.PathLike,
    mesh: Mesh,
    log_every_steps: int,
    checkpoint_every_steps: int,
) -> tuple[TrainState, dict[str, float]]:
    """Runs steps up to `total_steps`, from the newest checkpoint where there is one.

    Args:
      step_fn: pure function (state, frozen, batch) -> (state, scalar metrics), with a "loss".
      state: the state before step 0; its buffers are donated.
      frozen: read-only arrays of `step_fn`; never copied, saved or returned.
      batches: (start_step, stop_step) -> this host's part of those batches; a pure function, so
        that a resumed run sees the batches that an uninterrupted one would have seen.
      name: names the run's directory in `workdir`, its metrics and its progress line.
      batch_size: examples a step over all hosts, for the rate.
      log_every_steps: metrics are also written at each checkpoint and at the last step.

    Returns:
      The final state and {"seconds", "compile_seconds", "flops", "loss"}: time in steps and in
      compiling, summed over interruptions up to their last checkpoints, and the operations of all
      `total_steps` (see `costs.flops`).

    Raises:
      FloatingPointError: when a metric is not finite; the last good checkpoint is kept.
    """
    sharding.check_batch_size(batch_size, mesh, f"{name}: the batch size")
    directory = epath.Path(workdir) / name / "checkpoints"
    events = epath.Path(workdir) / "tb" / name
    replicated = NamedSharding(mesh, PartitionSpec())
    jitted = jax.jit(step_fn, donate_argnums=0, out_shardings=replicated)
    state, frozen = sharding.replicate((state, frozen), mesh)
    with (
        checkpoint.Checkpoints(directory) as checkpoints,
        writers.Scalars(events, jax.process_index() == 0) as scalars,
    ):
        start, meta = 0, {"seconds": 0.0, "compile_seconds": 0.0, "loss": 0.0}
        if (latest := checkpoints.latest_step()) is not None:
            state, meta = checkpoints.restore(latest, state)
            start = latest
            print(f"{name}: resumed at step {start} of {total_steps}")
        began, earlier = time.perf_counter(), meta["seconds"]
        with writers.Progress(name, total_steps, start) as progress:
            for step, batch in enumerate(batches(start, total_steps), start + 1):
                placed = sharding.shard_batch(batch, mesh)
                if step == start + 1:
                    prepared = time.perf_counter()
                    compiled = jitted.lower(state, frozen, placed).compile()
                    meta["compile_seconds"] += time.perf_counter() - prepared
                    meta |= costs.flops(total_steps, step_fn, state, frozen, placed)
                    began += time.perf_counter() - prepared
                state, metrics = compiled(state, frozen, placed)
                numbers: dict[str, float] = {}
                saving = step % checkpoint_every_steps == 0 or step == total_steps
                if saving or step % log_every_steps == 0:
                    numbers = {k: float(v) for k, v in metrics.items()}
                    rate = (step - start) * batch_size / (time.perf_counter() - began)
                    if wrong := {k: v for k, v in numbers.items() if not math.isfinite(v)}:
                        raise FloatingPointError(
                            f"{name}: the training diverged; got {wrong} by step {step}; lower "
                            f"{name}'s learning rate; the last good checkpoint is kept"
                        )
                    scalars.write(step, {**numbers, "images_per_second": rate})
                    numbers = {"loss": numbers["loss"], "img/s": rate}
                    meta["loss"] = numbers["loss"]
                progress.advance(1, **numbers)
                if saving:
                    meta["seconds"] = earlier + time.perf_counter() - began
                    checkpoints.save(step, state, dict(meta))
    return state, meta
