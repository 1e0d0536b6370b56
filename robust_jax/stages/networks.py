"""The networks of a run, from its config and class names alone: built, planned, restored."""

import functools
from typing import Any

import jax
import ml_collections
from etils import epath

from robust_jax import checkpoint, models, sharding
from robust_jax.method import budget
from robust_jax.method.student import Student


class Networks:
    """The student and the teacher of a run, and where their arrays lie."""

    def __init__(
        self,
        config: ml_collections.ConfigDict,
        workdir: epath.PathLike,
        class_names: tuple[str, ...],
    ):
        """Builds the models; allocates nothing.

        Raises:
          ValueError: for an unknown model, or images that do not fit it.
        """
        self.config = config
        self.workdir = epath.Path(workdir)
        self.class_names = class_names
        self.mesh = sharding.make_mesh()
        self.student_entry = models.entry(config.student.name)
        self.teacher_entry = models.entry(config.teacher.name)
        self.student_model = self._build(config.student.name, config.student.dtype)
        self.teacher_model = self._build(config.teacher.name, config.teacher.dtype)

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
        return _shapes(model)

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

    def variables(self, stage: str) -> dict[str, Any]:
        """Returns the trained variables of stage "pretrain" (the student) or "teacher"."""
        model = self.student_model if stage == "pretrain" else self.teacher_model
        return self.load(f"{stage}/variables", self.shapes(model))

    def tuned(self, path: str, heads: tuple[str, ...]) -> dict[str, Any]:
        """Returns the tuned parameters stored in `path/tuned`."""
        shapes = self.shapes(self.student_model)
        like = jax.eval_shape(self.student(heads).init, jax.random.key(0), shapes)
        return self.load(f"{path}/tuned", like)

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


@functools.lru_cache(maxsize=8)
def _shapes(model: models.StagedModel) -> dict[str, Any]:
    return jax.eval_shape(model.init, jax.random.key(0), model.example_input())
