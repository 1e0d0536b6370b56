"""Where numbers go: TensorBoard, Weights & Biases, a live progress line, JSON files."""

import importlib.util
import io
import json
import sys
import uuid
from collections.abc import Mapping
from typing import Any

import numpy as np
import tqdm
from etils import epath

from robust_jax import archives, disk, hosts


class Progress:
    """A live line for a loop: done, rate, ETA and the latest numbers.

    Use as a context manager. On a terminal the line is redrawn in place; in a log file a new
    line is printed at most every ten seconds. Of several hosts the first alone shows it.
    """

    def __init__(self, what: str, total: int, start: int = 0, unit: str = "step"):
        self._bar = tqdm.tqdm(
            total=total,
            initial=start,
            desc=what,
            unit=unit,
            file=sys.stderr,
            dynamic_ncols=True,
            mininterval=0.5 if sys.stderr.isatty() else 10.0,
            smoothing=0.1,
            disable=not hosts.is_first(),
        )

    def advance(self, count: int = 1, **numbers: float) -> None:
        """Counts `count` more units as done; `numbers` replace those shown."""
        if numbers:
            self._bar.set_postfix({k: f"{v:.4g}" for k, v in numbers.items()}, refresh=False)
        self._bar.update(count)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()


def wandb_run() -> Any:
    """Returns the Weights & Biases run that is open in this process, or None."""
    module = sys.modules.get("wandb")  # not imported where no run was asked for
    return getattr(module, "run", None)


class Scalars:
    """A training's numbers: TensorBoard events in `workdir`/tb/`name`, and to an open W&B run.

    Process 0 alone writes. Use as a context manager: leaving it writes everything out.
    """

    def __init__(self, workdir: epath.PathLike, name: str, is_main_process: bool = True):
        self._writer = self._wandb = None
        self._name = name
        if not is_main_process:
            return
        if (run := wandb_run()) is not None:
            self._wandb = run
            run.define_metric(f"{name}/step", hidden=True)
            run.define_metric(f"{name}/*", step_metric=f"{name}/step")
        if importlib.util.find_spec("tensorflow") is None:
            print(
                "TensorBoard events are not written: TensorFlow is not installed; "
                "numbers still go to the progress line and the JSON files"
            )
            return
        from clu import metric_writers

        self._writer = metric_writers.SummaryWriter(str(epath.Path(workdir) / "tb" / name))

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        """Writes the numbers of one step."""
        if self._writer is not None:
            self._writer.write_scalars(step, numbers)
        if self._wandb is not None:
            named = {f"{self._name}/{key}": value for key, value in numbers.items()}
            self._wandb.log({**named, f"{self._name}/step": step})

    def __enter__(self) -> "Scalars":
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer is not None:
            self._writer.flush()
            self._writer.close()


def write_bytes(path: epath.PathLike, data: bytes) -> None:
    """Writes a file so that a reader sees the old one or the new one, never a half of it.

    Raises:
      DiskFull: when there is no space for it.
    """
    path = epath.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Of its own name: several hosts may write the same file.
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}.tmp")
    with disk.writing(path.parent, path.name, len(data)):
        try:
            temporary.write_bytes(data)
            temporary.replace(path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise


def write_text(path: epath.PathLike, text: str) -> None:
    """Writes text as `write_bytes` does."""
    write_bytes(path, text.encode())


def write_json(path: epath.PathLike, value: Any) -> None:
    """Writes JSON as `write_bytes` does."""
    write_text(path, json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n")


def write_arrays(path: epath.PathLike, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes an npz file as `write_bytes` does."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    write_bytes(path, buffer.getvalue())


def read_json(path: epath.PathLike) -> Any:
    """Returns the value stored by `write_json`, or None when there is no such file.

    Raises:
      ValueError: when the file is damaged.
    """
    path = epath.Path(path)
    if not path.exists():
        return None
    try:
        return json.loads(path.read_bytes().decode(), parse_constant=_no_constant)
    except (ValueError, RecursionError, OSError) as error:
        raise ValueError(
            f"cannot read this JSON file ({error}); got {path}; it is damaged: put back a copy of "
            "it, or remove it and run again what wrote it"
        ) from error


def _no_constant(name: str) -> None:
    raise ValueError(f"{name}, which is never written")


def read_arrays(path: epath.PathLike) -> dict[str, np.ndarray]:
    """Returns the arrays stored by `write_arrays`; nothing in the file is executed.

    Raises:
      ValueError: when the file is damaged, or not an npz of plain arrays.
    """
    try:
        with epath.Path(path).open("rb") as file:
            return archives.read_npz(file)
    except ValueError as error:
        raise ValueError(
            f"cannot read this npz file ({error}); got {path}; it is damaged, or has objects, "
            "which can hold code: remove it and run again what wrote it"
        ) from error
