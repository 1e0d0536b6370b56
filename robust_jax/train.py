"""The training loop. It knows batches, steps and checkpoints, and no method."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from etils import epath
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from robust_jax import checkpoint, costs, hosts, preemption, sharding, writers
from robust_jax.state import TrainState

StepFn = Callable[
    [TrainState, Any, Mapping[str, jax.Array]], tuple[TrainState, dict[str, jax.Array]]
]
Batch = dict[str, np.ndarray]
Batches = Callable[[int, int], Iterator[Batch]]


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
    steps_per_call: int = 1,
) -> tuple[TrainState, dict[str, float]]:
    """Runs steps up to `total_steps`, from the newest checkpoint where there is one.

    Args:
      step_fn: pure function (state, frozen, batch) -> (state, scalar metrics), with a "loss".
      state: the state before step 0; its buffers are donated.
      frozen: read-only arrays of `step_fn`; never saved or returned.
      batches: (start_step, stop_step) -> this host's part of those batches; a pure function, so
        that a resumed run sees the batches that an uninterrupted one would have seen.
      name: names the run's directory in `workdir`, its metrics and its progress line.
      batch_size: examples a step over all hosts, for the rate.
      mesh: all devices of all hosts; arrays lie on it as `sharding.infer` says.
      log_every_steps: metrics are also written at each checkpoint and at the last step.
      steps_per_call: steps that the devices take without asking the host, in a `lax.scan`; it
        divides both intervals. For small steps, which would take longer to start than to run.

    Returns:
      The final state and {"seconds", "compile_seconds", "flops", "loss"}: time in steps and in
      compiling, summed over interruptions up to their last checkpoints, and the operations of all
      `total_steps` (see `costs.flops`).

    Raises:
      FloatingPointError: when a metric is not finite; the last good checkpoint is kept.
      SystemExit: when asked to stop, behind a checkpoint of the last step; see `preemption`.
    """
    sharding.check_batch_size(batch_size, mesh, f"{name}: the batch size")
    if log_every_steps % steps_per_call or checkpoint_every_steps % steps_per_call:
        raise ValueError(
            f"{name}: steps_per_call must divide the intervals; got {steps_per_call} for "
            f"{log_every_steps} (log) and {checkpoint_every_steps} (checkpoint); use a divisor"
        )
    directory = epath.Path(workdir) / name / "checkpoints"
    events = epath.Path(workdir) / "tb" / name
    state, frozen = sharding.place((state, frozen), mesh)
    with (
        preemption.saves_first(),  # the last to end, when the checkpoint is on disk
        checkpoint.Checkpoints(directory) as checkpoints,
        writers.Scalars(events, hosts.is_first()) as scalars,
    ):
        start, meta = 0, {"seconds": 0.0, "compile_seconds": 0.0, "loss": 0.0}
        if (latest := checkpoints.latest_step()) is not None:
            state, meta = checkpoints.restore(latest, state)
            start = latest
            print(f"{name}: resumed at step {start} of {total_steps}")
        run = jitted(step_fn, state, mesh, steps_per_call)
        compiled: dict[int, Any] = {}
        waiting: tuple[int, dict[str, jax.Array]] | None = None  # metrics that are not read yet
        began, earlier = time.perf_counter(), meta["seconds"]
        with writers.Progress(name, total_steps, start) as progress:

            def note(at: int, metrics: dict[str, jax.Array]) -> None:
                numbers = {k: float(v) for k, v in jax.device_get(metrics).items()}
                rate = (at - start) * batch_size / (time.perf_counter() - began)
                if wrong := {k: v for k, v in numbers.items() if not math.isfinite(v)}:
                    raise FloatingPointError(
                        f"{name}: the training diverged; got {wrong} by step {at}; lower "
                        f"{name}'s learning rate; the last good checkpoint is kept"
                    )
                scalars.write(at, {**numbers, "images_per_second": rate})
                meta["loss"] = numbers["loss"]
                progress.advance(0, **{"loss": numbers["loss"], "img/s": rate})

            for step, group in _groups(batches(start, total_steps), start, steps_per_call):
                placed = _placed(group, mesh, steps_per_call)
                if len(group) not in compiled:
                    prepared = time.perf_counter()
                    if not compiled:
                        one = _placed(group[:1], mesh, 1)
                        meta |= costs.flops(total_steps, step_fn, state, frozen, one)
                    counted = time.perf_counter()
                    compiled[len(group)] = run.lower(state, frozen, placed).compile()
                    meta["compile_seconds"] += time.perf_counter() - counted
                    began += time.perf_counter() - prepared
                state, metrics = compiled[len(group)](state, frozen, placed)
                if waiting:  # read now, the devices have the next steps to do
                    note(*waiting)
                    waiting = None
                progress.advance(len(group))
                logging = step % log_every_steps == 0
                # Hosts must ask each other, and wait for it: not behind every step.
                stopping = (logging or hosts.count() == 1) and preemption.asked()
                saving = step % checkpoint_every_steps == 0 or step == total_steps or stopping
                if saving:
                    note(step, metrics)
                    meta["seconds"] = earlier + time.perf_counter() - began
                    checkpoints.save(step, state, dict(meta))
                elif logging:
                    waiting = step, metrics
                if stopping:
                    print(f"{name}: asked to stop; saved step {step} of {total_steps}")
                    break
    return state, meta


def jitted(step_fn: StepFn, state: TrainState, mesh: Mesh, steps_per_call: int) -> Any:
    """Returns the jitted (state, frozen, batch or batches) -> (state, metrics of the last step)."""

    def many(state: TrainState, frozen: Any, batches: Any) -> tuple[TrainState, Any]:
        found, metrics = jax.lax.scan(lambda now, b: step_fn(now, frozen, b), state, batches)
        return found, {name: values[-1] for name, values in metrics.items()}

    everywhere = NamedSharding(mesh, PartitionSpec())
    return jax.jit(
        step_fn if steps_per_call == 1 else many,
        donate_argnums=0,
        out_shardings=(jax.tree.map(lambda leaf: leaf.sharding, state), everywhere),
    )


def _groups(
    batches: Iterator[Batch], start: int, steps_per_call: int
) -> Iterator[tuple[int, list[Batch]]]:
    """Yields (steps done after it, batches of one call); calls end at multiples of their length.

    So a resumed run makes the same calls, and with them the same rounding, as one that was not
    interrupted.
    """
    group: list[Batch] = []
    step = start
    for step, batch in enumerate(batches, start + 1):
        group.append(batch)
        if step % steps_per_call == 0:
            yield step, group
            group = []
    if group:
        yield step, group


def _placed(group: list[Batch], mesh: Mesh, steps_per_call: int) -> dict[str, jax.Array]:
    if steps_per_call == 1:
        return sharding.shard_batch(group[0], mesh)
    stacked = {name: np.stack([batch[name] for batch in group]) for name in group[0]}
    return sharding.shard_batch(stacked, mesh, stacked=True)
