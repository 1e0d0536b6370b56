"""The device mesh and how arrays lie on it."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec


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


def check_batch_size(batch_size: int, mesh: Mesh, name: str) -> None:
    """Raises a ValueError where a batch cannot be split evenly over the devices."""
    if batch_size % mesh.size:
        raise ValueError(
            f"{name} must be a multiple of the number of devices; got {batch_size} on "
            f"{mesh.size} devices; use {max(1, round(batch_size / mesh.size)) * mesh.size}"
        )
