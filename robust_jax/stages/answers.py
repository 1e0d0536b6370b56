"""What every method of a run answers to a batch of images; the trunk runs once for all of them."""

from typing import Any

import jax

from robust_jax.evals.answers import summarise
from robust_jax.evals.classification import Function
from robust_jax.evals.subsets import Subset
from robust_jax.method.calibration import Calibration
from robust_jax.method.selection import HEADS, predict
from robust_jax.models import ModelEntry, StagedModel, normalise
from robust_jax.stages import routing
from robust_jax.stages.baselines import TUNED
from robust_jax.stages.networks import STORED, Networks
from robust_jax.stages.routing import ROUTED

# Networks that are trained whole, beside `original`, and where they lie.
WHOLE = {path.rpartition("/")[2]: path for path in STORED if path != "pretrain"}


def load_arrays(networks: Networks) -> dict[str, Any]:
    """Returns the arrays of every method that a run evaluates, without calibrations."""
    wanted = networks.config.baselines.methods
    arrays: dict[str, Any] = {"student": networks.frozen(), "tuned": {}}
    for name, path in WHOLE.items():
        if name in wanted:
            arrays[name] = networks.variables(path)
    arrays["tuned"]["ours"] = networks.tuned("distill/ours", HEADS)
    for name in wanted:
        if name in TUNED:
            arrays["tuned"][name] = networks.tuned(f"baselines/{name}", TUNED[name])
    return arrays


def load_calibrations(networks: Networks, arrays: dict[str, Any]) -> dict[str, Calibration]:
    """Returns the calibrations that the stage `evaluate` stored."""
    return {
        method: routing.read_calibration(routing.calibration_path(networks, method))
        for method in routing.routed_methods(networks, arrays["tuned"])
        if routing.is_calibrated(networks, method)
    }


def answers(networks: Networks, arrays: dict[str, Any], subset: Subset | None = None) -> Function:
    """Returns the jitted function that gives METHOD/X for every method.

    X is what `summarise` keeps; of methods that choose a head also head i32[b], routing_score
    f32[b] and, of each tuned student, HEAD_label i32[b], what this head alone would say.

    Args:
      networks: of the run.
      arrays: of `load_arrays`, with the calibrations under "calibration".
      subset: of the classes that may be answered; labels then count in it.
    """
    student, sample = networks.student(HEADS), routing.sampler(networks)
    observe = routing.observer(networks)
    routed = routing.routed_methods(networks, arrays["tuned"])
    single = {
        name: networks.student(heads)
        for name, heads in TUNED.items()
        if heads != HEADS and name in arrays["tuned"]
    }

    def restrict(logits: jax.Array) -> jax.Array:
        return logits if subset is None else subset.restrict(logits)

    @jax.jit
    def function(arrays: dict[str, Any], batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
        frozen, images, labels = arrays["student"], batch["image"], batch["label"]
        seen = observe(frozen, images)
        z = seen["z"]
        logits = {"original": student.original(frozen, z)}
        for name in (n for n in WHOLE if n in arrays):
            model, entry = networks.network(STORED[WHOLE[name]])
            said: Any = model.apply(arrays[name], normalise(images, entry))
            logits[name] = said.astype("float32")
        for name, one in single.items():
            (logits[name],) = one.tail(frozen, arrays["tuned"][name], z).values()
        probs = {name: jax.nn.softmax(restrict(said)) for name, said in logits.items()}
        out = _summaries(probs, labels)

        def choose(rows: dict[str, jax.Array]) -> dict[str, jax.Array]:
            z = rows["z"]
            samples = {
                name: sample(frozen, tuned, z)
                for name, tuned in arrays["tuned"].items()
                if name not in single
            }
            found: dict[str, jax.Array] = {}
            probs: dict[str, jax.Array] = {}
            for method in routed:
                said, fitted = samples[ROUTED[method][0]], arrays["calibration"].get(method)
                config = routing.selection_config(networks, method)
                chosen = predict(said, config, fitted, rows["statistics"], restrict)
                probs[method] = chosen["probs"]
                found |= {f"{method}/{key}": chosen[key] for key in ("head", "routing_score")}
            for name, said in samples.items():
                means = jax.nn.softmax(restrict(said)).mean(1)
                labels = {f"{h}_label": m.argmax(-1) for h, m in zip(HEADS, means, strict=True)}
                found |= {f"{name}/{key}": value for key, value in labels.items()}
            return found | _summaries(probs, rows["label"])

        return out | routing.in_parts(choose, {**seen, "label": labels}, networks.mesh.size)

    return function


def plain_answers(model: StagedModel, entry: ModelEntry, subset: Subset | None = None) -> Function:
    """Returns the same for a network alone, whose variables are the arrays: original/X."""

    @jax.jit
    def function(variables: Any, batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
        logits: Any = model.apply(variables, normalise(batch["image"], entry))
        if subset is not None:
            logits = subset.restrict(logits)
        probs = jax.nn.softmax(logits.astype("float32"))
        return _summaries({"original": probs}, batch["label"])

    return function


def _summaries(probs: dict[str, jax.Array], labels: jax.Array) -> dict[str, jax.Array]:
    return {
        f"{method}/{key}": values
        for method, one in probs.items()
        for key, values in summarise(one, labels).items()
    }
