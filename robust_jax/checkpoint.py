"""Checkpoints of a training run and of finished parameters, through Orbax.

Every tree is stored with a checksum of each array: what comes back is what was saved, or an error.
"""

import hashlib
from collections.abc import Callable
from types import TracebackType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from robust_jax import disk, hosts, memory

_UNSIGNED = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}


class Checkpoints:
    """The checkpoints of one training run: `state` (arrays) and `meta` (JSON) for each step.

    Use as a context manager: leaving it waits until what was saved is on disk.
    """

    def __init__(self, directory: epath.PathLike, keep: int = 2):
        self._directory = epath.Path(directory).absolute()
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, cleanup_tmp_directories=True)
        self._manager = ocp.CheckpointManager(
            self._directory, options=options, item_names=("state", "meta", "checksums")
        )

    def latest_step(self) -> int | None:
        """Returns the newest finished step, or None."""
        return self._manager.latest_step()

    def save(self, step: int, state: Any, meta: dict[str, Any]) -> None:
        """Saves in the background.

        Raises:
          DiskFull: when there is no space for it, or was none for the one before.
        """
        with disk.writing(self._directory, f"the checkpoint of step {step}", memory.nbytes(state)):
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(state),
                    meta=ocp.args.JsonSave(meta),
                    checksums=ocp.args.JsonSave(checksums(state)),
                ),
            )

    def restore(self, step: int, like: Any) -> tuple[Any, dict[str, Any]]:
        """Returns (state, meta) of `step`, on the devices and in the dtypes of `like`.

        Raises:
          ValueError: when it is damaged.
        """

        def read(**items: Any) -> Any:
            return self._manager.restore(step, args=ocp.args.Composite(**items))

        what = f"the checkpoint of step {step}"
        found = _checked(read, like, "state", what, self._directory, meta=ocp.args.JsonRestore())
        return found["state"], found["meta"]

    def restore_newest(self, like: Any) -> tuple[int, Any, dict[str, Any]] | None:
        """Returns (step, state, meta) of the newest checkpoint that is whole; None without any.

        Damaged ones are told and removed; by one host alone, several may not see the same damage.

        Raises:
          ValueError: when all are damaged, or the newest is and there are several hosts.
        """
        steps, damaged = sorted(self._manager.all_steps(), reverse=True), []
        for step in steps:
            try:
                state, meta = self.restore(step, like)
            except ValueError as error:
                if step == steps[-1] or hosts.count() > 1:
                    raise
                print(f"{error}; going back to the one before")
                damaged.append(step)
                continue
            for newer in damaged:  # not before: where none can be read, none is lost
                self._manager.delete(newer)
            return step, state, meta
        return None

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with disk.writing(self._directory, "a checkpoint"):
            try:
                self._manager.wait_until_finished()
            except Exception:
                if error is None:  # else it is told already
                    raise
            finally:
                self._manager.close()


def save_tree(directory: epath.PathLike, tree: Any) -> None:
    """Writes a tree of arrays to a new directory; one that is there is replaced.

    Raises:
      DiskFull: when there is no space for it.
    """
    path = epath.Path(directory).absolute()
    with disk.writing(path, path.name, memory.nbytes(tree)), _checkpointer() as checkpointer:
        checkpointer.save(
            path,
            ocp.args.Composite(
                tree=ocp.args.StandardSave(tree), checksums=ocp.args.JsonSave(checksums(tree))
            ),
            force=True,
        )


def load_tree(directory: epath.PathLike, like: Any) -> Any:
    """Reads a tree written by `save_tree` into the shapes, dtypes and shardings of `like`.

    Raises:
      ValueError: when nothing was saved there, or it is damaged.
    """
    path = epath.Path(directory).absolute()
    if not path.exists():
        raise ValueError(f"no saved parameters; got {path}; run the stage that writes them first")

    def read(**items: Any) -> Any:
        with _checkpointer() as checkpointer:
            return checkpointer.restore(path, ocp.args.Composite(**items))

    return _checked(read, like, "tree", "a saved tree", path)["tree"]


def _checkpointer() -> ocp.Checkpointer:
    return ocp.Checkpointer(ocp.CompositeCheckpointHandler())


def _checked(
    read: Callable[..., Any], like: Any, item: str, what: str, directory: epath.Path, **others: Any
) -> Any:
    """Reads items, and compares the checksums of one with those that were stored beside it.

    Args:
      read: names and arguments of items -> them.
      like: shapes, dtypes and shardings of the item; what was stored in another dtype is cast.
      item: its name.
      what: it is, for messages.
      directory: where it lies.
      others: items that are read with it.
    """
    remedy = "remove it and run the command that made it again"
    try:
        stored = read(checksums=ocp.args.JsonRestore())["checksums"]
        abstract = jax.tree_util.tree_map_with_path(
            lambda path, leaf: _as_stored(leaf, stored.get(_name(path))), like
        )
        found = dict(read(**{item: ocp.args.StandardRestore(abstract)}, **others).items())
    except Exception as error:  # of a damaged file anything
        if isinstance(error, MemoryError):
            raise
        said = " ".join(str(error).split())
        raise ValueError(
            f"{what} cannot be read; got {directory} ({type(error).__name__}: {said:.300}); "
            f"{remedy}"
        ) from error
    now = checksums(found[item])
    if damaged := sorted(name for name in now if stored.get(name) != now[name]):
        raise ValueError(
            f"{what} is damaged; got another checksum of {', '.join(damaged[:5])} in "
            f"{directory}; {remedy}"
        )
    found[item] = jax.tree.map(lambda leaf, as_: leaf.astype(as_.dtype), found[item], like)
    return found


def _as_stored(leaf: Any, stored: list[Any] | None) -> Any:
    """Returns the shape and sharding of a leaf, in the dtype in which it was stored."""
    wanted = ocp.utils.to_shape_dtype_struct(leaf)
    if stored is None:
        return wanted
    dtype = jnp.dtype(stored[0])
    return jax.ShapeDtypeStruct(wanted.shape, dtype, sharding=wanted.sharding)


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def checksums(tree: Any) -> dict[str, list[Any]]:
    """Returns the dtype and a checksum of each array of a tree, by its path.

    It is computed where the array lies, and does not depend on how it is spread: the sum of its
    elements' bits times odd numbers, modulo 2^32. An array of which one element changed, in
    whatever bits, has another one.
    """
    leaves = {_name(p): jnp.asarray(x) for p, x in jax.tree_util.tree_leaves_with_path(tree)}
    # Read one by one: with many programs that add over devices at once, XLA's CPU devices run out
    # of threads and wait for each other for ever.
    return {name: [str(leaf.dtype), int(_checksum(leaf))] for name, leaf in leaves.items()}


@jax.jit
def _checksum(leaf: jax.Array) -> jax.Array:
    whole = leaf.astype(jnp.uint8) if leaf.dtype == bool else leaf
    kind = _UNSIGNED[min(whole.dtype.itemsize, 4)]  # one of 8 bytes gets another axis
    bits = jax.lax.bitcast_convert_type(whole, kind).astype(jnp.uint32)
    weight, stride = jnp.ones((), jnp.uint32), 2
    for axis in reversed(range(bits.ndim)):
        place = jax.lax.broadcasted_iota(jnp.uint32, bits.shape, axis)
        weight = weight + place * jnp.uint32(stride % 2**32)
        stride *= bits.shape[axis]
    return jnp.sum(bits * weight, dtype=jnp.uint32)


def parameter_hash(tree: Any) -> str:
    """Returns a hash of every path and value of a tree of arrays."""
    found = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        found.update(jax.tree_util.keystr(path).encode())
        found.update(np.asarray(leaf).tobytes())
    return found.hexdigest()[:16]
