"""Where the tail's training gets its batches from: the device, memory, the disk, or images."""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from robust_jax import hosts, memory, sharding, stages
from robust_jax.data import cached_batches
from robust_jax.data.cache import Block, FeatureCache
from robust_jax.stages import cache as cache_stage
from robust_jax.stages.context import Context
from robust_jax.state import TrainState
from robust_jax.train import Batches, StepFn

_AHEAD = 4  # batches that are read from the disk while others are trained on


@dataclasses.dataclass(frozen=True)
class Feed:
    """What a training loop is fed with.

    Attributes:
      batches: see `train.train`.
      frozen: arrays that the step finds beside those of the networks.
      adapt: makes a step of batches of features or images one of `batches`.
      mesh: the devices to train on.
      steps_per_call: see `train.train`.
      cached: whether features come from the cache, the teacher's answers included.
    """

    batches: Batches
    frozen: Mapping[str, Any]
    adapt: Callable[[StepFn], StepFn]
    mesh: Mesh
    steps_per_call: int
    cached: bool


def make(context: Context, path: str, *, taught: bool) -> Feed:
    """Returns what the augmented set is trained on from; the elements are the same everywhere.

    Args:
      context: of the run.
      path: of the training, for the message.
      taught: whether the teacher's answers are wanted.
    """
    elements, section = context.augmented_set(), context.config.train
    run = {"batch_size": context.config.distill.batch_size, **host_part()}
    if not stages.result(context.workdir, "cache")["used"]:
        from robust_jax.data.pipeline import train_batches

        def images(start: int, stop: int) -> Iterator[Block]:
            return train_batches(elements, start_step=start, num_steps=stop, **run)

        return Feed(images, {}, lambda step: step, context.training_mesh, 1, cached=False)

    cache = FeatureCache(context.workdir / "cache", cache_stage.fingerprint(context), len(elements))
    names = ("z_clean", "z_aug", "label", *(("teacher_clean", "teacher_aug") if taught else ()))
    gigabytes = cache.nbytes(names) / 1e9
    where, ahead, steps = "on disk", _AHEAD, 1
    frozen: dict[str, Any] = {}
    on_cpu = jax.default_backend() == "cpu"
    has_maps = cache.read(("z_clean",), slice(1))["z_clean"].ndim > 2
    mesh = context.training_mesh
    if on_cpu and not has_maps and hosts.count() == section.fsdp == 1:
        # The tail of one vector an image is little work: two devices, which wait for each other's
        # gradients, took 0.8 to 2.5 times as long as one.
        mesh = sharding.make_mesh(jax.devices()[:1])
    # CPU devices have one memory, and a copy each in it.
    copies = len(mesh.local_devices) if on_cpu else 1
    if copies * gigabytes <= section.cache_on_device_gigabytes:
        # XLA for CPUs is 30 times slower at convolutions that stand in a loop.
        if not (on_cpu and has_maps):
            steps = math.gcd(section.log_every_steps, section.checkpoint_every_steps)
        where, ahead = f"on the device, {steps} steps a call", 0
        frozen = {"cache": sharding.replicate(cache.load(names), mesh)}

        def read(rows: np.ndarray) -> Block:
            return {"row": rows.astype(np.int32)}

    elif gigabytes <= section.cache_in_memory_gigabytes:
        memory.check(
            round(gigabytes * 1e9),
            "the feature cache",
            "lower train.cache_in_memory_gigabytes: it is then read from the disk",
        )
        where, ahead, arrays = "in memory", 0, cache.load(names)

        def read(rows: np.ndarray) -> Block:
            return {name: values[rows] for name, values in arrays.items()}

    else:

        def read(rows: np.ndarray) -> Block:
            return cache.read(names, rows)

    print(f"{path}: {gigabytes:.3f} GB of features {where}")

    def features(start: int, stop: int) -> Iterator[Block]:
        return cached_batches.batches(
            read,
            len(elements),
            seed=elements.seed,
            start_step=start,
            num_steps=stop,
            ahead=ahead,
            **run,
        )

    adapt = gathered if frozen else lambda step: step
    return Feed(features, frozen, adapt, mesh, steps, cached=True)


def host_part() -> dict[str, int]:
    """Returns which part of each batch is this host's."""
    return {"process_index": hosts.index(), "process_count": hosts.count()}


def gathered(step_fn: StepFn) -> StepFn:
    """Returns the step of batches of rows of `frozen["cache"]`, which all devices hold whole."""

    def step(
        state: TrainState, frozen: Any, batch: Mapping[str, jax.Array]
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        found = {name: values[batch["row"]] for name, values in frozen["cache"].items()}
        return step_fn(state, frozen, found)

    return step
