"""How a finished run answers, from its workdir alone: restored once, a pure function after that."""

import dataclasses
from typing import Any

import jax
from etils import epath

from robust_jax.method.selection import HEADS, SelectionConfig, predict
from robust_jax.stages import routing
from robust_jax.stages.networks import Networks
from robust_jax.zero_shot.head import ZeroShotHead


@dataclasses.dataclass(frozen=True)
class Answering:
    """The student of a run and the choice between its heads.

    Attributes:
      networks: of the run, or of the same for other classes.
      arrays: frozen, tuned and the calibration (or None): what the functions below take first.
      selection: the options of the choice.
    """

    networks: Networks
    arrays: Any
    selection: SelectionConfig

    @classmethod
    def restore(
        cls, workdir: epath.PathLike, *, zero_shot_head: epath.PathLike | None = None
    ) -> "Answering":
        """Restores the student of a run.

        Args:
          workdir: of the run.
          zero_shot_head: file of another list of classes, for a student with a zero-shot classifier
            (see `robust_jax.zero_shot`).

        Raises:
          ValueError: when the directory holds no finished run, or the head does not fit.
        """
        workdir = epath.Path(workdir)
        networks = Networks.restore(workdir)
        selection = routing.selection_config(networks, "ours")
        stored = routing.calibration_path(networks, "ours")
        if networks.config.selection.calibrate and not stored.exists():
            raise ValueError(
                f"the head selection is not calibrated; got no {stored}; run the stage 'evaluate'"
            )
        calibration = routing.read_calibration(stored) if stored.exists() else None
        frozen, tuned = networks.frozen(), networks.tuned("distill/ours", HEADS)
        if zero_shot_head is not None:
            frozen["params"]["head"], names = _other_classes(networks, zero_shot_head)
            networks = networks.with_classes(names)
        return cls(networks, (frozen, tuned, calibration), selection)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the k classes."""
        return self.networks.class_names

    @property
    def key(self) -> jax.Array:
        """The run's own PRNG key, with which it was calibrated and evaluated."""
        return routing.fixed_key(self.networks)

    def observe(self, arrays: Any, images: jax.Array) -> dict[str, jax.Array]:
        """Returns what is computed once an image of uint8[b, s, s, 3], see `routing.observer`."""
        return routing.observer(self.networks)(arrays[0], images)

    def choose(
        self, arrays: Any, seen: dict[str, jax.Array], key: jax.Array
    ) -> dict[str, jax.Array]:
        """Returns the answers for what was observed, each row for itself.

        Args:
          arrays: `self.arrays`, wherever they lie.
          seen: of `observe`.
          key: of the dropout samples.

        Returns:
          label int32[b], probs f32[b, k] and head int32[b]; head_probs f32[b, h, k] and uncertainty
          f32[b, h] of each head, kl f32[b, c] of each candidate.
        """
        frozen, tuned, calibration = arrays
        logits = routing.sampler(self.networks)(frozen, tuned, seen["z"], key)
        said = predict(logits, self.selection, calibration, seen["statistics"])
        by_row = {n: said[n].swapaxes(0, 1) for n in ("head_probs", "uncertainty", "kl")}
        return {name: said[name] for name in ("label", "probs", "head")} | by_row

    def original(self, arrays: Any, images: jax.Array) -> jax.Array:
        """Returns what the model said before it was made robust: probabilities f32[b, k]."""
        student = self.networks.student(HEADS)
        z = student.trunk(arrays[0], images)
        return jax.nn.softmax(student.original(arrays[0], z), axis=-1)


def _other_classes(networks: Networks, path: epath.PathLike) -> tuple[Any, tuple[str, ...]]:
    """Returns the classifier in a file, and its classes."""
    head, width = ZeroShotHead.load(path), networks.student_model.feature_width
    if networks.student_model.head != "cosine" or len(head.kernel) != width:
        raise ValueError(
            f"the zero-shot head does not fit this student; got {list(head.kernel.shape)} in "
            f"{path} for a {networks.student_model.head} classifier of {width} features; use a "
            "run with student.classifier=zero_shot and a head from the same text tower"
        )
    return {"kernel": jax.numpy.asarray(head.kernel)}, head.class_names
