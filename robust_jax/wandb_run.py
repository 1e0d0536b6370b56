"""A Weights & Biases run beside a workdir (train.wandb; needs requirements-wandb.txt)."""

import contextlib
import importlib.util
import uuid
from collections.abc import Iterator, Mapping

import ml_collections
from etils import epath

from robust_jax import config as config_lib
from robust_jax import hosts, writers


def check(project: str) -> None:
    """Checks that a run can be opened, before anything is computed.

    Args:
      project: of `train.wandb`; "" for none.

    Raises:
      ValueError: when wandb is not installed.
    """
    if project and importlib.util.find_spec("wandb") is None:
        raise ValueError(
            f"train.wandb needs the package wandb, which is not installed; got {project!r}; "
            'pip install -r requirements-wandb.txt, or set train.wandb=""'
        )


@contextlib.contextmanager
def of(workdir: epath.Path, config: ml_collections.ConfigDict) -> Iterator[None]:
    """Keeps the run of a workdir open: the same one whenever the workdir is used again.

    `writers.Scalars` writes to it; call `check` before. Of several hosts the first alone has one.

    Raises:
      ValueError: when the service refuses, or cannot be reached.
    """
    project = config.train.wandb
    if not project or not hosts.is_first():
        yield
        return
    import wandb

    path = workdir / "wandb.json"
    known = writers.read_json(path) or {"id": uuid.uuid4().hex}
    writers.write_json(path, known)
    remote = "://" in str(workdir)
    try:
        run = wandb.init(
            project=project,
            id=known["id"],
            resume="allow",
            name=str(workdir),
            dir=None if remote else str(workdir),
            config=config_lib.flatten(config),
            allow_val_change=True,  # of keys that a workdir may change
        )
    except wandb.errors.Error as error:
        raise ValueError(
            f"Weights & Biases gives no run ({error}); got train.wandb={project!r}; run "
            "`wandb login`, set WANDB_MODE=offline and use `wandb sync` later, or leave it out"
        ) from error
    with run:
        yield


def tell(methods: Mapping[str, Mapping[str, object]]) -> None:
    """Puts a finished run's figures into the summary of the open run, if there is one.

    Args:
      methods: those of summary.json; of their entries single numbers are taken.
    """
    if (run := writers.wandb_run()) is not None:
        run.summary.update(
            {
                f"{method}/{key}": value
                for method, entry in methods.items()
                for key, value in entry.items()
                if isinstance(value, int | float)
            }
        )
