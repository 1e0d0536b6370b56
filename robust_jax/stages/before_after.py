"""A network before robustifying and, of a run, after it: what transfer and its features start from.

Both share the stages before the tuned tail, so these run once for both. Other networks that the run
has trained may stand beside them.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from etils import epath

from robust_jax import config as config_lib
from robust_jax import models, stages, weights
from robust_jax.checkpoint import parameter_hash
from robust_jax.evals.classification import Function
from robust_jax.method.adapted import Adapted, robustified
from robust_jax.method.selection import HEADS
from robust_jax.models import ModelEntry
from robust_jax.stages.networks import STORED, Networks

BEFORE, AFTER = "original", "ours"
# What may stand beside: students trained whole, and one that is tuned as "ours" is.
WHOLE = tuple(
    path.rpartition("/")[2] for path, of in STORED.items() if of == "student" and path != "pretrain"
)
TUNED = ("ours_no_kd",)


@dataclasses.dataclass(frozen=True)
class BeforeAfter:
    """The networks "original" and, of a run, "ours" and what stands beside.

    Attributes:
      entry: their preprocessing.
      networks: by name; tuned ones have the tail and the adapter of one head, not its bottleneck.
      variables: by name, on the host.
      boundary: the first stage in which original and ours differ.
      dtype: of activations and products.
      ops: "train_ops" and "eval_ops" for these networks.
      origin: where they come from.
      fingerprint: what determines their answers, as plain values.
    """

    entry: ModelEntry
    networks: dict[str, Adapted]
    variables: dict[str, dict[str, Any]]
    boundary: str
    dtype: str
    ops: dict[str, str]
    origin: dict[str, str]
    fingerprint: dict[str, Any]

    @functools.cached_property
    def features(self) -> Function:
        """The jitted function (`variables`, batch) -> {name: the feature f32[b, d]}."""

        @jax.jit
        def function(variables: Any, batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
            x = models.normalise(batch["image"], self.entry)
            z = self.networks[BEFORE].apply(variables[BEFORE], x, stop=self.boundary)
            found: dict[str, jax.Array] = {}
            for name, network in self.networks.items():
                where = (x, None) if name in WHOLE else (z, self.boundary)
                feature = network.apply(variables[name], where[0], start=where[1], stop="head")
                found[name] = feature.astype("float32")
            return found

        return function

    def with_classes(self, name: str, count: int) -> Adapted:
        """Returns a network with a linear classifier of `count` classes."""
        network = self.networks[name]
        model = models.build(
            self.entry, count, image_size=network.model.image_size, dtype=self.dtype
        )
        return dataclasses.replace(network, model=model)


def of_run(
    workdir: epath.PathLike, head: str, views: Mapping[str, str], beside: Sequence[str] = ()
) -> BeforeAfter:
    """Returns the student of a run before and after.

    Args:
      workdir: of the run.
      head: whose tail counts as "ours".
      views: train_ops and eval_ops, as in `config.data`; those of the run suit its own data only.
      beside: some of `WHOLE` and `TUNED`, which the run has among its baselines.

    Raises:
      ValueError: when the directory holds no run, one of its stages has not finished, or there is
        no such head or baseline.
    """
    if head not in HEADS:
        raise ValueError(
            f"unknown head; got {head!r}; use one of {', '.join(HEADS)}"
            + config_lib.nearest(head, HEADS)
        )
    networks = Networks.restore(workdir)
    for stage in ("pretrain", "distill"):
        stages.result(networks.workdir, stage)
    student = networks.student(HEADS)
    stored = networks.variables("pretrain"), networks.tuned("distill/ours", HEADS)
    frozen, tuned = jax.device_get(stored)
    after, variables = robustified(student, frozen, tuned, head)
    adapted = {BEFORE: Adapted(student.model), AFTER: after}
    arrays = {BEFORE: frozen, AFTER: variables}
    for name in beside:
        if name not in (*WHOLE, *TUNED) or name not in networks.config.baselines.methods:
            raise ValueError(
                f"no such network to transfer; got {name!r}; name some of {(*WHOLE, *TUNED)} that "
                f"the run has: {tuple(networks.config.baselines.methods)}"
            )
        stages.result(networks.workdir, "baselines")
        path = f"baselines/{name}"
        if name in WHOLE:
            adapted[name], found = Adapted(student.model), networks.variables(path)
            arrays[name] = jax.device_get(found)
        else:
            tuned = jax.device_get(networks.tuned(path, HEADS))
            adapted[name], arrays[name] = robustified(student, frozen, tuned, head)
    return _make(
        networks,
        adapted,
        arrays,
        student.plan.boundary,
        views,
        {"workdir": str(workdir), "head": head},
    )


def of_weights(
    path: str, name: str, views: Mapping[str, str], *, out: epath.PathLike, image_size: int = 0
) -> BeforeAfter:
    """Returns the network of a weight file, with nothing after it.

    Args:
      path: of the weights; see `weights.find`.
      name: key of `models.MODELS`.
      views: as for `of_run`.
      out: where results go.
      image_size: side of the images; 0 for the network's own.

    Raises:
      ValueError: as `weights.find` and `Found.load`.
    """
    found = weights.find(path, name)
    config = config_lib.base()
    config.student.name, config.data.image_size = name, image_size
    entries = {"student": found.entry, "teacher": models.entry(config.teacher.name)}
    # A classifier of any classes: features come before it, and every dataset gets its own.
    networks = Networks(config, out, ("one", "other"), entries)
    variables, report = found.load(networks.student_model, classifier="new")
    print(f"{name}: {path} ({found.format}): {report}")
    before = {BEFORE: Adapted(networks.student_model)}
    origin = {"model": name, "weights": path}
    return _make(networks, before, {BEFORE: variables}, "head", views, origin)


def _make(
    networks: Networks,
    adapted: dict[str, Adapted],
    variables: dict[str, dict[str, Any]],
    boundary: str,
    views: Mapping[str, str],
    origin: dict[str, str],
) -> BeforeAfter:
    for key, text in views.items():
        networks.config.data[key] = text
    return BeforeAfter(
        entry=networks.student_entry,
        networks=adapted,
        variables=variables,
        boundary=boundary,
        dtype=networks.config.student.dtype,
        ops={key: networks.ops(key) for key in views},
        origin=origin,
        fingerprint={
            "image_size": networks.image_size,
            "network": repr(networks.student_model),
            "arrays": {name: parameter_hash(tree) for name, tree in variables.items()},
        },
    )
