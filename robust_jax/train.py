"""The training loop. It knows batches, steps and checkpoints, and no method."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from etils import epath
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from robust_jax import checkpoint, costs, hosts, memory, preemption, sharding, writers
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
    learning_rate: Callable[[int], Any],
    steps_per_call: int = 1,
    max_faults: int = 0,
    memory_knobs: Sequence[str] = (),
) -> tuple[TrainState, dict[str, float]]:
    """Runs steps up to `total_steps`, from the newest checkpoint where there is one.

    Args:
      step_fn: pure function (state, frozen, batch) -> (state, scalar metrics) of
        `TrainState.update`, with a "loss".
      state: the state before step 0; its buffers are donated.
      frozen: read-only arrays of `step_fn`; never saved or returned.
      batches: (start_step, stop_step) -> this host's part of those batches; a pure function, so
        that a resumed run sees the batches that an uninterrupted one would have seen.
      name: names the run's directory in `workdir`, its metrics and its progress line.
      batch_size: examples a step over all hosts, for the rate.
      mesh: all devices of all hosts; arrays lie on it as `sharding.infer` says.
      log_every_steps: metrics are also written at each checkpoint and at the last step.
      learning_rate: of a step, counted from 0; to tell.
      steps_per_call: steps that the devices take without asking the host, in a `lax.scan`; it
        divides both intervals. For small steps, which would take longer to start than to run.
      max_faults: steps, of all, that may have a loss or a gradient that is not finite. They are
        passed over and told. One more stops the run.
      memory_knobs: what to change where the devices have too little memory, see `memory`.

    Returns:
      The final state and {"seconds", "compile_seconds", "flops", "loss"}: time in steps and in
      compiling, summed over interruptions up to their last checkpoints, and the operations of all
      `total_steps` (see `costs.flops`).

    Raises:
      FloatingPointError: when too many steps were not finite; the last good checkpoint is kept.
      OutOfMemory: with what needs how much.
      SystemExit: when asked to stop, behind a checkpoint of the last step; see `preemption`.
    """
    sharding.check_batch_size(batch_size, mesh, f"{name}: the batch size")
    if log_every_steps % steps_per_call or checkpoint_every_steps % steps_per_call:
        raise ValueError(
            f"{name}: steps_per_call must divide the intervals; got {steps_per_call} for "
            f"{log_every_steps} (log) and {checkpoint_every_steps} (checkpoint); use a divisor"
        )
    directory = epath.Path(workdir) / name / "checkpoints"
    state, frozen = sharding.place((state, frozen), mesh)
    with (
        preemption.saves_first(),  # the last to end, when the checkpoint is on disk
        checkpoint.Checkpoints(directory) as checkpoints,
        writers.Scalars(workdir, name, hosts.is_first()) as scalars,
    ):
        start, meta = 0, {"seconds": 0.0, "compile_seconds": 0.0, "loss": 0.0}
        if (found := checkpoints.restore_newest(state)) is not None:
            start, state, meta = found
            print(f"{name}: resumed at step {start} of {total_steps}")
        run = jitted(step_fn, state, mesh, steps_per_call)
        compiled: dict[int, Any] = {}
        waiting: tuple[int, dict[str, jax.Array]] | None = None  # metrics that are not read yet
        watched = _Faults(name, learning_rate, state, max_faults)
        parts = {
            "parameters and optimizer state": _local_bytes(state),
            "arrays that are not trained": _local_bytes(frozen),
        }
        began, earlier = time.perf_counter(), meta["seconds"]
        with (
            writers.Progress(name, total_steps, start) as progress,
            memory.explained(name, parts, memory_knobs),
        ):

            def note(at: int, metrics: dict[str, jax.Array]) -> None:
                numbers = jax.device_get(metrics)
                watched.check(numbers.pop("faults"), numbers)
                numbers = {k: float(v) for k, v in numbers.items() if math.isfinite(v)}
                rate = (at - start) * batch_size / (time.perf_counter() - began)
                numbers["learning_rate"] = float(learning_rate(at - 1))
                scalars.write(at, {**numbers, "images_per_second": rate})
                meta["loss"] = numbers.get("loss", meta["loss"])
                progress.advance(0, **{"loss": meta["loss"], "img/s": rate})

            for step, group in _groups(batches(start, total_steps), start, steps_per_call):
                placed = _placed(group, mesh, steps_per_call)
                if len(group) not in compiled:
                    prepared = time.perf_counter()
                    parts["the batch"] = _local_bytes(placed)
                    if not compiled:
                        one = _placed(group[:1], mesh, 1)
                        meta |= costs.flops(total_steps, step_fn, state, frozen, one)
                    counted = time.perf_counter()
                    program = run.lower(state, frozen, placed).compile()
                    meta["compile_seconds"] += time.perf_counter() - counted
                    parts["activations and gradients"] = memory.temporary(program)
                    compiled[len(group)] = program
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


class _Faults:
    """Tells steps that were not finite, and stops the run when they are too many."""

    def __init__(
        self, name: str, learning_rate: Callable[[int], Any], state: TrainState, allowed: int
    ):
        self._name, self._rate, self._allowed = name, learning_rate, allowed
        self._state, self._told = jax.eval_shape(lambda: state), int(state.faults[0])

    def check(self, faults: np.ndarray, metrics: Mapping[str, Any]) -> None:
        """Reads `TrainState.faults`, which says nothing about the step of `metrics`."""
        count, first, tensor = map(int, faults)
        if count <= self._told:
            return
        what = self._state.watched(metrics)[tensor]
        said = (
            f"got a {what} that is not finite at step {first}, at the learning rate "
            f"{float(self._rate(first - 1)):.3g}"
        )
        if count > self._allowed:
            also = f", and {count - 1} more such steps" if count > 1 and self._allowed else ""
            raise FloatingPointError(
                f"{self._name}: the training diverged; {said}{also}; lower the learning rate, or "
                f"tolerate such steps with --config.train.on_nan=skip:{max(10, 2 * count)}; the "
                "last checkpoint is from before"
            )
        print(f"{self._name}: {count} step(s) passed over of {self._allowed} allowed; {said}")
        self._told = count


def _local_bytes(tree: Any) -> int:
    """The bytes that arrays take on each device."""
    leaves = jax.tree.leaves(tree)
    shapes = [leaf.sharding.shard_shape(leaf.shape) for leaf in leaves]
    return sum(math.prod(s) * leaf.dtype.itemsize for s, leaf in zip(shapes, leaves, strict=True))


def jitted(step_fn: StepFn, state: TrainState, mesh: Mesh, steps_per_call: int) -> Any:
    """Returns the jitted (state, frozen, batch or batches) -> (state, metrics of the last step).

    The state's faults are among the metrics.
    """

    def single(state: TrainState, frozen: Any, batch: Any) -> tuple[TrainState, Any]:
        found, metrics = step_fn(state, frozen, batch)
        return found, {**metrics, "faults": found.faults}

    def many(state: TrainState, frozen: Any, batches: Any) -> tuple[TrainState, Any]:
        found, metrics = jax.lax.scan(lambda now, b: single(now, frozen, b), state, batches)
        return found, {name: values[-1] for name, values in metrics.items()}

    everywhere = NamedSharding(mesh, PartitionSpec())
    return jax.jit(
        single if steps_per_call == 1 else many,
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
