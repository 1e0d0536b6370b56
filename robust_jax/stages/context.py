"""What every stage of a run shares: its networks and its data."""

import functools
from typing import Any

import ml_collections
import numpy as np
from etils import epath
from jax.sharding import Mesh

from robust_jax import checkpoint, hosts, memory, optim, sharding, stages
from robust_jax import config as config_lib
from robust_jax.data import leaks, sources
from robust_jax.data.copies import Copies, copy_names
from robust_jax.data.elements import Elements
from robust_jax.data.mixture import Mixture
from robust_jax.stages import knobs
from robust_jax.stages.networks import Networks
from robust_jax.state import TrainState
from robust_jax.train import Batches, StepFn, train

RESOLVED_OPS = ("train_ops", "augment_ops", "eval_ops", "distort.ops", "evaluate.perturbation_ops")


class Context(Networks):
    """A run: its config and everything that is derived from config and data alone."""

    def __init__(
        self,
        config: ml_collections.ConfigDict,
        workdir: epath.PathLike,
        *,
        index_dir: epath.PathLike | None = None,
        dry_run: bool = False,
    ):
        """Loads the sources (images are read later) and checks the batch sizes.

        Args:
          config: of the run.
          workdir: of the run.
          index_dir: keeps what is slow to find out about the data; in the workdir if None.
          dry_run: fetch and prepare nothing: sources may be absent; see `sources.load`.

        Raises:
          ValueError: for bad data, an unknown model, or batches that do not fit the devices.
        """
        self.index_dir = epath.Path(index_dir or epath.Path(workdir) / "data")
        # All of the training images: those that are trained on, and those held out.
        how = {"index_dir": self.index_dir, "prepare": not dry_run}
        self.source = sources.load(config.data, "train", **how)
        self.val = sources.load(config.data, "val", **how)
        self.shared_images = leaks.tell(self.source, self.val, self.index_dir)
        super().__init__(config, workdir, self.source.class_names, dry_run=dry_run)
        made = config.distort.dir or stages.is_done(self.workdir, "distort")
        if hosts.count() > 1 and config.distort.networks and not made:
            raise ValueError(
                f"distorted copies are made by one host; got {hosts.count()}; make them first with "
                "`python -m robust_jax.distort`, and give distort.dir"
            )
        self.training_mesh = sharding.make_mesh(fsdp=config.train.fsdp)
        for section in config_lib.TRAINED_SECTIONS:
            size, parts = config[section].batch_size, config[section].accum_steps
            if size % parts:
                raise ValueError(
                    f"{section}.accum_steps must divide {section}.batch_size; got {parts} and "
                    f"{size}; use a divisor"
                )
            name = f"{section}.batch_size" + (f" / {section}.accum_steps" if parts > 1 else "")
            sharding.check_batch_size(size // parts, self.training_mesh, name)
        count = len(self.source)
        held_out = min(config.data.calibration_images, count // 10)
        if held_out < config_lib.GATE_FOLDS:
            raise ValueError(
                f"too few training images; got {count}; a run needs at least "
                f"{10 * config_lib.GATE_FOLDS}, a tenth of which calibrates the head selection"
            )
        order = np.random.default_rng((config_lib.student_seed(config), 1)).permutation(count)
        self._parts = {
            "calibration": np.sort(order[:held_out]),
            "train": np.sort(order[held_out:]),
        }
        self.calibration = self.source.subset(self._parts["calibration"])
        self.train = self.source.subset(self._parts["train"])

    @functools.cached_property
    def resolved(self) -> dict[str, Any]:
        """What determines the results of stages beside the config, as plain values.

        Ops are filled in with what the student wants, and decide about the teacher, too.
        """
        filled = {f"resolved.{key}": self.ops(key) for key in RESOLVED_OPS}
        data = config_lib.digest([self.source.fingerprint, self.val.fingerprint])
        return {"data.fingerprint": data, "resolved.image_size": self.image_size, **filled}

    @functools.cached_property
    def all_copies(self) -> Copies:
        """Where the distorted copies of all training images lie, or will."""
        directory = self.config.distort.dir or self.workdir / "distort" / "copies"
        return Copies.of(directory, self.copy_names, self.source)

    @property
    def copy_names(self) -> tuple[str, ...]:
        """The names of the distorted copies."""
        return copy_names(self.config.distort.networks, self.config.distort.copies)

    def mixture(self, section: ml_collections.ConfigDict) -> Mixture:
        """Returns the mixture of a config section."""
        return Mixture(section.mixture.to_dict(), self.copy_names)

    def drawn(self, part: str, section: ml_collections.ConfigDict) -> dict[str, Any]:
        """Returns the mixture of a config section and the copies of a part of the training images.

        Args:
          part: "train" or "calibration".
          section: with a `mixture`.
        """
        mixture = self.mixture(section)
        copies = self.all_copies.subset(self._parts[part]) if mixture.needs_copies else None
        return {"mixture": mixture, "copies": copies}

    def train_steps(
        self,
        name: str,
        step_fn: StepFn,
        state: TrainState,
        frozen: Any,
        batches: Batches,
        *,
        section: str,
        total_steps: int,
        mesh: Mesh | None = None,
        steps_per_call: int = 1,
    ) -> tuple[TrainState, dict[str, float]]:
        """Runs the training loop with this run's workdir and intervals.

        Args:
          section: of the config, which describes the training; for the others see `train.train`.
          mesh: all devices if None.
        """
        chosen, mesh = self.config[section], mesh or self.training_mesh
        return train(
            step_fn,
            state,
            frozen,
            batches,
            name=name,
            total_steps=total_steps,
            batch_size=chosen.batch_size,
            workdir=self.workdir,
            mesh=mesh,
            steps_per_call=steps_per_call,
            log_every_steps=self.config.train.log_every_steps,
            checkpoint_every_steps=self.config.train.checkpoint_every_steps,
            learning_rate=optim.schedule(chosen, total_steps),
            max_faults=config_lib.tolerated_faults(self.config.train.on_nan),
            memory_knobs=knobs.of_training(self.config, section, mesh.size),
        )

    def network_bytes(self) -> dict[str, int]:
        """Returns the bytes of the networks' variables, by name."""
        models = {"the student": self.student_model, "the teacher": self.teacher_model}
        return {name: memory.nbytes(self.shapes(model)) for name, model in models.items()}

    def save(self, path: str, tree: Any) -> None:
        """Stores a tree of arrays below the workdir; every host calls this."""
        checkpoint.save_tree(self.workdir / path, sharding.place(tree, self.training_mesh))
        hosts.wait(path)

    def augmented_set(self) -> Elements:
        """Returns the fixed augmented set: pairs of views "clean" and "aug"."""
        section = self.config.augmented
        return Elements(
            source=self.train,
            ops=self.ops("train_ops"),
            views={"clean": ""},
            drawn={"aug": self.ops("augment_ops")},
            seed=self.config.seed,
            replicas=section.replicas,
            fraction=section.fraction,
            **self.drawn("train", section),
        )

    def calibration_set(self) -> Elements:
        """Returns the held-out images, each with one augmented view."""
        section = self.config[config_lib.calibrating_section(self.config)]
        return Elements(
            source=self.calibration,
            ops=self.ops("eval_ops"),
            views={"clean": ""},
            drawn={"aug": self.ops("augment_ops")},
            seed=self.config.seed + 1,
            replicas=1,
            **self.drawn("calibration", section),
        )
