"""The device mesh and how arrays lie on it."""

import os
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

MAX_CPU_DEVICES = 8


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


def make_mesh(devices: Any = None) -> Mesh:
    """Returns the mesh `("data",)` over all (or the given) devices."""
    devices = jax.devices() if devices is None else devices
    return Mesh(np.asarray(devices), ("data",))


def replicate(tree: Any, mesh: Mesh) -> Any:
    """Puts a copy of every leaf on every device; what lies so already is not copied."""
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def shard_batch(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Forms global arrays, split along axis 0, of this host's part of a batch."""
    sharding = NamedSharding(mesh, PartitionSpec("data"))
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
