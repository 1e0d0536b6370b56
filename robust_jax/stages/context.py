"""What every stage of a run shares: config, data, models, the mesh, and where results lie."""

import functools
from typing import Any

import jax
import ml_collections
import numpy as np
from etils import epath

from robust_jax import checkpoint, models, sharding
from robust_jax import config as config_lib
from robust_jax.data import sources
from robust_jax.data.pipeline import Elements
from robust_jax.method import budget
from robust_jax.method.student import Student


class Context:
    """A run: its config and everything that is derived from config and data alone."""

    def __init__(self, config: ml_collections.ConfigDict, workdir: epath.PathLike):
        """Loads the sources (images are read later) and checks the batch sizes.

        Raises:
          ValueError: for bad data, an unknown model, or batches that do not fit the devices.
        """
        self.config = config
        self.workdir = epath.Path(workdir)
        self.mesh = sharding.make_mesh()
        for section in config_lib.TRAINED_SECTIONS:
            sharding.check_batch_size(
                config[section].batch_size, self.mesh, f"{section}.batch_size"
            )
        train = sources.load(config.data, "train", index_dir=self.workdir / "data")
        self.val = sources.load(config.data, "val", index_dir=self.workdir / "data")
        held_out = min(config.data.calibration_images, len(train) // 10)
        if held_out < 1:
            raise ValueError(
                f"too few training images; got {len(train)}; a run needs at least 10, a tenth of "
                "which calibrates the head selection"
            )
        order = np.random.default_rng((config.seed, 1)).permutation(len(train))
        self.calibration = train.subset(np.sort(order[:held_out]))
        self.train = train.subset(np.sort(order[held_out:]))
        self.class_names = train.class_names
        self.data_fingerprint = config_lib.digest([train.fingerprint, self.val.fingerprint])
        self.student_entry = models.entry(config.student.name)
        self.teacher_entry = models.entry(config.teacher.name)
        self.student_model = self._build(config.student.name, config.student.dtype)
        self.teacher_model = self._build(config.teacher.name, config.student.dtype)

    def _build(self, name: str, dtype: str) -> models.StagedModel:
        return models.build(
            name, len(self.class_names), image_size=self.config.data.image_size, dtype=dtype
        )

    def ops(self, key: str) -> str:
        """Returns one of the strings of `config.data` with `{size}` filled in."""
        return self.config.data[key].replace("{size}", str(self.config.data.image_size))

    @functools.cached_property
    def plan(self) -> budget.Plan:
        """What of the student is tuned."""
        method, params = self.config.method, self.shapes(self.student_model)["params"]
        total = sum(leaf.size for leaf in jax.tree.leaves(params))
        return budget.resolve(
            self.student_model,
            params,
            budget.target(method.tuned_params, self.config.student.name, total),
            num_classes=len(self.class_names),
            heads_share=method.heads_share,
            share=method.share,
        )

    def shapes(self, model: models.StagedModel) -> dict[str, Any]:
        """Returns the shapes of a model's variables; allocates nothing."""
        return jax.eval_shape(model.init, jax.random.key(0), model.example_input())

    def student(self, heads: tuple[str, ...]) -> Student:
        """Returns the student with some of the three heads."""
        return Student(
            model=self.student_model,
            entry=self.student_entry,
            plan=self.plan,
            num_classes=len(self.class_names),
            heads=heads,
            share=self.config.method.share,
            rate=self.config.method.dropout,
        )

    def augmented_set(self) -> Elements:
        """Returns the fixed augmented set: pairs of views "clean" and "aug"."""
        return self._pairs(
            self.train, self.config.augmented.replicas, self.config.augmented.fraction
        )

    def calibration_set(self) -> Elements:
        """Returns held-out images with one augmented view each."""
        return self._pairs(self.calibration, 1, 1.0)

    def _pairs(self, source: sources.Source, replicas: int, fraction: float) -> Elements:
        held_out = source is self.calibration
        return Elements(
            source=source,
            ops=self.ops("eval_ops" if held_out else "train_ops"),
            views={"clean": "", "aug": self.ops("augment_ops")},
            seed=self.config.seed + (1 if held_out else 0),
            replicas=replicas,
            fraction=fraction,
        )

    def variables(self, stage: str) -> dict[str, Any]:
        """Returns the trained variables of stage "pretrain" (the student) or "teacher"."""
        model = self.student_model if stage == "pretrain" else self.teacher_model
        return self.load(f"{stage}/variables", self.shapes(model))

    def save(self, path: str, tree: Any) -> None:
        """Stores a tree of arrays below the workdir."""
        checkpoint.save_tree(self.workdir / path, tree)

    def load(self, path: str, like: Any) -> Any:
        """Reads a stored tree onto every device of the mesh."""
        replicated = jax.sharding.NamedSharding(self.mesh, jax.sharding.PartitionSpec())
        like = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=replicated), like
        )
        return checkpoint.load_tree(self.workdir / path, like)
