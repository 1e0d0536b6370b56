"""The device mesh and how arrays lie on it."""

import math
import os
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

MAX_CPU_DEVICES = 8
MIN_SPLIT = 4096  # elements; moving smaller arrays costs more than a copy of them


def use_all_cores() -> None:
    """Makes JAX see a CPU as several devices; does nothing where XLA_FLAGS says how many.

    To be called before anything asks for JAX's devices.

    XLA runs most operations of a small network on one core. As two devices, two cores take 0.5 to
    0.6 of the time for a training step (ViT and ResNet of 2 million parameters, batch 128).
    """
    flag, flags = "--xla_force_host_platform_device_count", os.environ.get("XLA_FLAGS", "")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    # A power of two divides the usual batch sizes.
    devices = min(MAX_CPU_DEVICES, 1 << ((cores or 1).bit_length() - 1))
    if flag not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {flag}={devices}".strip()


def make_mesh(devices: Any = None, fsdp: int = 1) -> Mesh:
    """Returns the mesh `("data",)`, or `("data", "fsdp")`, over all (or the given) devices.

    Args:
      devices: those to use; all of all hosts if None.
      fsdp: how many neighbouring devices share one copy of large arrays; 1 gives each its own.

    Raises:
      ValueError: when `fsdp` does not divide the devices.
    """
    devices = jax.devices() if devices is None else devices
    # The devices of a host lie together, so that its part of a batch is one piece.
    ordered = np.asarray(sorted(devices, key=lambda device: (device.process_index, device.id)))
    if fsdp < 1 or len(ordered) % fsdp:
        raise ValueError(
            f"train.fsdp must divide the number of devices; got {fsdp} for {len(ordered)} "
            "devices; use a divisor, or 1 for a copy of every array on each device"
        )
    if fsdp == 1:
        return Mesh(ordered, ("data",))
    return Mesh(ordered.reshape(-1, fsdp), ("data", "fsdp"))


def infer(tree: Any, mesh: Mesh) -> Any:
    """Returns where each leaf of a tree of arrays or shapes lies; nothing is allocated.

    A large leaf is split over "fsdp" along its longest axis that can be; others have a copy on
    every device.
    """

    def of(leaf: Any) -> NamedSharding:
        parts = mesh.shape.get("fsdp", 1)
        shape = np.shape(leaf)
        axes = [i for i, length in enumerate(shape) if length % parts == 0]
        if parts == 1 or not axes or math.prod(shape) < MIN_SPLIT:
            return NamedSharding(mesh, PartitionSpec())
        longest = max(axes, key=lambda i: shape[i])
        return NamedSharding(mesh, PartitionSpec(*[None] * longest, "fsdp"))

    return jax.tree.map(of, tree)


def create(fn: Callable[..., Any], mesh: Mesh, *args: Any, **options: Any) -> Any:
    """Returns `fn(*args, **options)`, made where `infer` says and nowhere else before."""
    where = infer(jax.eval_shape(fn, *args, **options), mesh)
    return jax.jit(fn, out_shardings=where)(*args, **options)


def place(tree: Any, mesh: Mesh) -> Any:
    """Puts arrays where `infer` says; what lies on the mesh already, in whatever way, stays.

    With several hosts each has the same arrays, or they are spread over all devices already.
    """
    return jax.tree.map(_place, tree, infer(tree, mesh))


def replicate(tree: Any, mesh: Mesh) -> Any:
    """Puts a copy of every array on each device of a mesh; for the rest see `place`."""
    return jax.tree.map(lambda leaf: _place(leaf, NamedSharding(mesh, PartitionSpec())), tree)


def _place(leaf: Any, sharding: NamedSharding) -> jax.Array:
    if isinstance(leaf, jax.Array):
        lies = leaf.sharding
        if isinstance(lies, NamedSharding) and lies.mesh == sharding.mesh:
            return leaf
        if lies.is_equivalent_to(sharding, leaf.ndim):
            return leaf
        if not leaf.is_fully_addressable:
            return jax.device_put(leaf, sharding)
    if sharding.is_fully_addressable:
        return jax.device_put(leaf, sharding)
    values = np.asarray(leaf)
    return jax.make_array_from_callback(values.shape, sharding, lambda index: values[index])


def shard_batch(
    batch: Mapping[str, np.ndarray], mesh: Mesh, *, stacked: bool = False
) -> dict[str, jax.Array]:
    """Forms global arrays of this host's part of a batch, split over all devices.

    Args:
      batch: arrays [b, ...], or [s, b, ...] with `stacked`: the batches of s steps.
      mesh: the devices; b is a multiple of those of this host.
    """
    spec = PartitionSpec(None, mesh.axis_names) if stacked else PartitionSpec(mesh.axis_names)
    sharding = NamedSharding(mesh, spec)
    return {k: jax.make_array_from_process_local_data(sharding, v) for k, v in batch.items()}


def padded_size(batch_size: int, mesh: Mesh) -> int:
    """Returns the batch size rounded up to a multiple of the devices."""
    return -(-batch_size // mesh.size) * mesh.size


def check_batch_size(batch_size: int, mesh: Mesh, name: str) -> None:
    """Raises a ValueError where a batch cannot be split evenly over the devices."""
    if batch_size % mesh.size:
        raise ValueError(
            f"{name} must be a multiple of the number of devices; got {batch_size} on "
            f"{mesh.size} devices; use {max(1, round(batch_size / mesh.size)) * mesh.size}"
        )
