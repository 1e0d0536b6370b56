"""The networks of a run, from its config and class names alone: built, planned, restored."""

import functools
import math
from typing import Any

import jax
import ml_collections
from etils import epath
from jax.sharding import Mesh

from robust_jax import checkpoint, config_types, models, sharding, weights, writers
from robust_jax import config as config_lib
from robust_jax.method import budget
from robust_jax.method.frozen import cast_frozen
from robust_jax.method.student import Student
from robust_jax.weights import native

RUN_FILES = ("config.json", "dataset.json", "networks.json")  # what makes a directory a run

# Where networks lie that are trained whole, and whose they are.
STORED = {
    "pretrain": "student",
    "teacher": "teacher",
    "baselines/teacher_clean": "teacher",
    "baselines/full_finetune": "student",
    "baselines/lp_ft": "student",
    "baselines/wise_ft": "student",
}


class Networks:
    """The student and the teacher of a run, and where their arrays lie."""

    def __init__(
        self,
        config: ml_collections.ConfigDict,
        workdir: epath.PathLike,
        class_names: tuple[str, ...],
        entries: dict[str, models.ModelEntry] | None = None,
        *,
        dry_run: bool = False,
    ):
        """Builds the models; allocates nothing.

        Args:
          config: of the run.
          workdir: of the run.
          class_names: of the data.
          entries: of "student" and "teacher", where a finished run is restored; they are looked up,
            or told by the weight files, if None.
          dry_run: fetch no weights: those that are not on this machine are taken to be as the
            model table says.

        Raises:
          ValueError: for an unknown model, images that do not fit it, or weights of another one.
        """
        self.config = config
        self.workdir = epath.Path(workdir)
        self.class_names = class_names
        self.dry_run = dry_run
        # Of this host: what is not training is done by each host on its own.
        shared = math.gcd(config.train.fsdp, jax.local_device_count())
        self.mesh = sharding.make_mesh(jax.local_devices(), shared)
        self.student_entry = entries["student"] if entries else self._entry(config.student)
        self.teacher_entry = entries["teacher"] if entries else self._entry(config.teacher)
        self.image_size: int = config.data.image_size or self.student_entry.input_size
        head = "cosine" if config.student.classifier == "zero_shot" else "linear"
        self.student_model = self._build(self.student_entry, config.student.dtype, head)
        self.teacher_model = self._build(self.teacher_entry, config.teacher.dtype, "linear")

    @classmethod
    def restore(cls, workdir: epath.PathLike) -> "Networks":
        """Returns the networks of a run that has begun, for one device.

        The files are not trusted: nothing in them is executed, and what they say is checked.

        Raises:
          ValueError: when the directory holds no run, or a damaged one.
        """
        path = epath.Path(workdir)
        flat, dataset, entries = (writers.read_json(path / name) for name in RUN_FILES)
        if flat is None or dataset is None or entries is None:
            raise ValueError(
                f"no run in this directory; got {path}; give the --workdir of a finished "
                "`python -m robust_jax.main`"
            )
        try:
            defaults = config_lib.flatten(config_lib.base())  # of keys that are newer than the run
            config_types.check(flat, defaults)
            classes = native.text_list(dataset["classes"])
            found = cls(
                config_lib.unflatten(defaults | flat),
                path,
                classes,
                {name: native.entry(entries[name]) for name in ("student", "teacher")},
            )
            found.plan  # noqa: B018  # which builds the student from what was read
        # What a network does with fields that do not fit it depends on the field.
        except Exception as error:
            raise ValueError(
                f"a run whose files say what cannot be ({error!r:.300}); got {path}; put back its "
                f"{', '.join(RUN_FILES)}"
            ) from error
        found.mesh = sharding.make_mesh(jax.local_devices()[:1])  # batches are small
        return found

    def with_classes(self, class_names: tuple[str, ...]) -> "Networks":
        """Returns the same networks for other classes; only a cosine classifier can take them."""
        entries = {"student": self.student_entry, "teacher": self.teacher_entry}
        found = Networks(self.config, self.workdir, class_names, entries)
        found.mesh = self.mesh
        return found

    def _entry(self, section: ml_collections.ConfigDict) -> models.ModelEntry:
        if section.weights and not (self.dry_run and weights.is_elsewhere(section.weights)):
            return weights.find(section.weights, section.name).entry
        return models.entry(section.name)

    def _build(self, entry: models.ModelEntry, dtype: str, head: str) -> models.StagedModel:
        count = len(self.class_names)
        return models.build(entry, count, image_size=self.image_size, dtype=dtype, head=head)

    @property
    def absent_weights(self) -> tuple[str, ...]:
        """The weights of student and teacher that are not on this machine."""
        given = (self.config.student.weights, self.config.teacher.weights)
        return tuple(address for address in given if address and weights.is_elsewhere(address))

    def entries_as_json(self) -> dict[str, Any]:
        """Returns the entries of student and teacher as plain values."""
        entries = {"student": self.student_entry, "teacher": self.teacher_entry}
        return {name: models.entry_to_json(entry) for name, entry in entries.items()}

    @property
    def photograph_ops(self) -> str:
        """The evaluation ops for images of any size, on which those of a run need not be."""
        return f"{self.ops('eval_ops')}|resize({self.image_size})"

    def ops(self, key: str) -> str:
        """Returns an ops string of `config.data`, or of another section as "distort.ops".

        Its placeholders are filled in.
        """
        section, _, name = key.rpartition(".")
        return fill_in(self.config[section or "data"][name], self.student_entry, self.image_size)

    @functools.cached_property
    def plan(self) -> budget.Plan:
        """What of the student is tuned."""
        method, params = self.config.method, self.shapes(self.student_model)["params"]
        total = sum(leaf.size for leaf in jax.tree.leaves(params))
        total += models.text_parameter_count(self.config.student.name)
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

    def network(self, name: str) -> tuple[models.StagedModel, models.ModelEntry]:
        """Returns the "student" or the "teacher" and what is known of it."""
        if name == "student":
            return self.student_model, self.student_entry
        return self.teacher_model, self.teacher_entry

    def variables(self, path: str, mesh: Mesh | None = None) -> dict[str, Any]:
        """Returns the trained variables in `path/variables`, of the network that `STORED` names."""
        model, _ = self.network(STORED[path])
        return self.load(f"{path}/variables", self.shapes(model), mesh)

    def frozen(self, mesh: Mesh | None = None) -> dict[str, Any]:
        """Returns the original student's variables as methods that freeze it store them."""
        like = cast_frozen(self.shapes(self.student_model), self.config.method.frozen_dtype)
        return self.load("pretrain/variables", like, mesh)

    def tuned(self, path: str, heads: tuple[str, ...]) -> dict[str, Any]:
        """Returns the tuned parameters stored in `path/tuned`."""
        shapes = self.shapes(self.student_model)
        like = jax.eval_shape(self.student(heads).init, jax.random.key(0), shapes)
        return self.load(f"{path}/tuned", like)

    def load(self, path: str, like: Any, mesh: Mesh | None = None) -> Any:
        """Reads a stored tree onto the devices of a mesh, this host's if None."""
        placed = jax.tree.map(
            lambda leaf, where: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where),
            like,
            sharding.infer(like, mesh or self.mesh),
        )
        return checkpoint.load_tree(self.workdir / path, placed)


_shapes = functools.lru_cache(maxsize=8)(models.shapes)


def fill_in(ops: str, entry: models.ModelEntry, image_size: int) -> str:
    """Returns an ops string with its placeholders replaced by what a model wants.

    Args:
      ops: may hold {size}, {pad}, {resize} and {interpolation}, see configs/base.py.
      entry: of the model.
      image_size: side of its images.
    """
    values = {
        "size": image_size,
        "pad": image_size // 8,
        "resize": entry.shorter_side(image_size),
        "interpolation": entry.interpolation,
    }
    for placeholder, value in values.items():
        ops = ops.replace(f"{{{placeholder}}}", str(value))
    return ops
