"""What every stage of a run shares: its networks and its data."""

from typing import Any

import ml_collections
import numpy as np
from etils import epath

from robust_jax import config as config_lib
from robust_jax import sharding
from robust_jax.data import sources
from robust_jax.data.elements import Elements
from robust_jax.stages.networks import Networks
from robust_jax.state import TrainState
from robust_jax.train import Batches, StepFn, train


class Context(Networks):
    """A run: its config and everything that is derived from config and data alone."""

    def __init__(self, config: ml_collections.ConfigDict, workdir: epath.PathLike):
        """Loads the sources (images are read later) and checks the batch sizes.

        Raises:
          ValueError: for bad data, an unknown model, or batches that do not fit the devices.
        """
        index = epath.Path(workdir) / "data"
        train = sources.load(config.data, "train", index_dir=index)
        self.val = sources.load(config.data, "val", index_dir=index)
        super().__init__(config, workdir, train.class_names)
        for section in config_lib.TRAINED_SECTIONS:
            sharding.check_batch_size(
                config[section].batch_size, self.mesh, f"{section}.batch_size"
            )
        held_out = min(config.data.calibration_images, len(train) // 10)
        if held_out < 1:
            raise ValueError(
                f"too few training images; got {len(train)}; a run needs at least 10, a tenth of "
                "which calibrates the head selection"
            )
        order = np.random.default_rng((config.seed, 1)).permutation(len(train))
        self.calibration = train.subset(np.sort(order[:held_out]))
        self.train = train.subset(np.sort(order[held_out:]))
        self.data_fingerprint = config_lib.digest([train.fingerprint, self.val.fingerprint])

    def train_steps(
        self,
        name: str,
        step_fn: StepFn,
        state: TrainState,
        frozen: Any,
        batches: Batches,
        *,
        total_steps: int,
        batch_size: int,
    ) -> tuple[TrainState, dict[str, float]]:
        """Runs the training loop with this run's workdir, mesh and intervals."""
        return train(
            step_fn,
            state,
            frozen,
            batches,
            name=name,
            total_steps=total_steps,
            batch_size=batch_size,
            workdir=self.workdir,
            mesh=self.mesh,
            log_every_steps=self.config.train.log_every_steps,
            checkpoint_every_steps=self.config.train.checkpoint_every_steps,
        )

    def augmented_set(self) -> Elements:
        """Returns the fixed augmented set: pairs of views "clean" and "aug"."""
        section = self.config.augmented
        return Elements(
            source=self.train,
            ops=self.ops("train_ops"),
            views={"clean": "", "aug": self.ops("augment_ops")},
            seed=self.config.seed,
            replicas=section.replicas,
            fraction=section.fraction,
        )

    def calibration_set(self) -> Elements:
        """Returns the held-out images, each with one augmented view."""
        return Elements(
            source=self.calibration,
            ops=self.ops("eval_ops"),
            views={"clean": "", "aug": self.ops("augment_ops")},
            seed=self.config.seed + 1,
            replicas=1,
        )
