"""Checkpoints of a training run and of finished parameters, through Orbax."""

import hashlib
from types import TracebackType
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath


class Checkpoints:
    """The checkpoints of one training run: `state` (arrays) and `meta` (JSON) for each step.

    Use as a context manager: leaving it waits until what was saved is on disk.
    """

    def __init__(self, directory: epath.PathLike, keep: int = 2):
        self._manager = ocp.CheckpointManager(
            epath.Path(directory).absolute(),
            options=ocp.CheckpointManagerOptions(max_to_keep=keep, cleanup_tmp_directories=True),
            item_names=("state", "meta"),
        )

    def latest_step(self) -> int | None:
        """Returns the newest finished step, or None."""
        return self._manager.latest_step()

    def save(self, step: int, state: Any, meta: dict[str, Any]) -> None:
        """Saves in the background."""
        self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(meta)
            ),
        )

    def restore(self, step: int, like: Any) -> tuple[Any, dict[str, Any]]:
        """Returns (state, meta) of `step`, on the devices and in the dtypes of `like`."""
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        restored = self._manager.restore(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardRestore(abstract), meta=ocp.args.JsonRestore()
            ),
        )
        return restored["state"], restored["meta"]

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._manager.wait_until_finished()
        self._manager.close()


def save_tree(directory: epath.PathLike, tree: Any) -> None:
    """Writes a tree of arrays to a new directory; one that is there is replaced."""
    path = epath.Path(directory).absolute()
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(path, tree, force=True)


def load_tree(directory: epath.PathLike, like: Any) -> Any:
    """Reads a tree written by `save_tree` into the shapes, dtypes and shardings of `like`.

    Raises:
      ValueError: when nothing was saved there.
    """
    path = epath.Path(directory).absolute()
    if not path.exists():
        raise ValueError(f"no saved parameters; got {path}; run the stage that writes them first")
    with ocp.StandardCheckpointer() as checkpointer:
        return checkpointer.restore(path, jax.tree.map(ocp.utils.to_shape_dtype_struct, like))


def parameter_hash(tree: Any) -> str:
    """Returns a hash of every path and value of a tree of arrays."""
    found = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        found.update(jax.tree_util.keystr(path).encode())
        found.update(np.asarray(leaf).tobytes())
    return found.hexdigest()[:16]
