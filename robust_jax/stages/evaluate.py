"""Stage `evaluate`: every method on clean and corrupted images, from the same forward passes."""

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from robust_jax import corruptions, sharding, writers
from robust_jax.data.pipeline import ordered_batches
from robust_jax.evals import classification, corruption
from robust_jax.evals.classification import EvalSet, Outputs
from robust_jax.method import calibration as calibration_lib
from robust_jax.method.selection import HEADS, SelectionConfig, mc_logits, predict
from robust_jax.models import normalise
from robust_jax.stages import results
from robust_jax.stages.baselines import TUNED
from robust_jax.stages.context import Context
from robust_jax.stages.networks import Networks

# Methods that route between heads: the trained student they use and what differs in its selection.
ROUTED: dict[str, tuple[str, dict[str, str]]] = {
    "ours": ("ours", {}),
    "ours_no_kd": ("ours_no_kd", {}),
    "ours_no_kld": ("ours", {"score": "uncertainty"}),
    "ours_no_umc": ("ours", {"score": "kl"}),
    "ours_max_logit": ("ours", {"score": "max_logit"}),
    "ours_gate": ("ours", {"score": "gate", "candidates": "clean_unclean"}),
}
NUM_EXAMPLES = 16


def run(context: Context) -> None:
    """Evaluates and writes results.jsonl and what the report's pictures need."""
    section = context.config.evaluate
    pairs = corruption.grid(section.corruptions, section.severities)
    images = EvalSet(context.val, context.ops("eval_ops"), section.max_images)
    arrays = load_arrays(context)
    function = answers(context, arrays)
    store = context.workdir / "evaluate" / "outputs"
    store.mkdir(parents=True, exist_ok=True)

    jobs: list[tuple[str, corruption.Transform | None]] = [("clean", None)]
    jobs += [(f"{n}-{s}", corruption.transform(n, s, context.config.seed)) for n, s in pairs]
    with writers.Progress("evaluate", len(jobs), unit="set") as progress:
        for name, transform in jobs:
            # Each file is written whole, so one that exists is finished.
            if not (store / f"{name}.npz").exists():
                outputs = classification.evaluate(
                    function,
                    arrays,
                    images,
                    batch_size=section.batch_size,
                    mesh=context.mesh,
                    transform=transform,
                )
                _save(store / f"{name}.npz", outputs)
            progress.advance()
    found = {name: dict(np.load(store / f"{name}.npz")) for name, _ in jobs}
    rows = results.rows(found, images.labels, context.config.seed)
    text = "".join(json.dumps(row, sort_keys=True) + "\n" for row in rows)
    (context.workdir / "results.jsonl").write_text(text)
    if "ours/head" in found["clean"]:
        _save_pictures(context, images, found, arrays)


def load_arrays(context: Context) -> dict[str, Any]:
    """Returns every array that evaluation reads: models, tuned tails and their calibrations."""
    wanted = [name for name in context.config.baselines.methods if name in TUNED]
    arrays: dict[str, Any] = {"student": context.variables("pretrain"), "tuned": {}}
    if "teacher" in context.config.baselines.methods:
        arrays["teacher"] = context.variables("teacher")
    arrays["tuned"]["ours"] = context.tuned("distill/ours", HEADS)
    for name in wanted:
        arrays["tuned"][name] = context.tuned(f"baselines/{name}", TUNED[name])
    arrays["calibration"] = calibrate(context, arrays)
    return arrays


def selection_config(networks: Networks, method: str) -> SelectionConfig:
    """Returns the selection options of a routed method."""
    section = networks.config.selection
    base = SelectionConfig(
        uncertainty=section.uncertainty,
        score=section.score,
        direction=section.direction,
        candidates=section.candidates,
    )
    return dataclasses.replace(base, **ROUTED[method][1])


def routed_methods(arrays: dict[str, Any]) -> list[str]:
    """Returns the routed methods whose student was trained."""
    return [method for method, (student, _) in ROUTED.items() if student in arrays["tuned"]]


def sampler(networks: Networks) -> Callable[[Any, Any, jax.Array], jax.Array]:
    """Returns (frozen, tuned, z) -> MC logits f32[h, s, b, k], from the run's fixed key."""
    student, count = networks.student(HEADS), networks.config.selection.num_samples
    key = jax.random.key(networks.config.seed)

    def sample(frozen: Any, tuned: Any, z: jax.Array) -> jax.Array:
        def tail(z: jax.Array, key: jax.Array) -> dict[str, jax.Array]:
            return student.tail(frozen, tuned, z, key, shared_masks=True)

        return mc_logits(tail, z, key, count)

    return sample


def answers(
    context: Context, arrays: dict[str, Any]
) -> Callable[[Any, jax.Array], dict[str, jax.Array]]:
    """Returns (arrays, images) -> what every method says; the trunk runs once."""
    student, sample = context.student(HEADS), sampler(context)
    methods = routed_methods(arrays)
    single = {
        n: context.student(h) for n, h in TUNED.items() if h != HEADS and n in arrays["tuned"]
    }

    def function(arrays: dict[str, Any], images: jax.Array) -> dict[str, jax.Array]:
        frozen = arrays["student"]
        z = student.trunk(frozen, images)
        out = {"original/label": student.original(frozen, z).argmax(-1)}
        if "teacher" in arrays:
            x = normalise(images, context.teacher_entry)
            said: Any = context.teacher_model.apply(arrays["teacher"], x)
            out["teacher/label"] = said.argmax(-1)
        for name, one in single.items():
            (logits,) = one.tail(frozen, arrays["tuned"][name], z).values()
            out[f"{name}/label"] = logits.argmax(-1)
        samples = {
            name: sample(frozen, tuned, z)
            for name, tuned in arrays["tuned"].items()
            if name not in single
        }
        for method in methods:
            logits = samples[ROUTED[method][0]]
            fitted = arrays["calibration"].get(method)
            chosen = predict(logits, selection_config(context, method), fitted, z)
            out |= {f"{method}/{k}": chosen[k] for k in ("label", "head", "routing_score")}
        for name, logits in samples.items():
            means = jax.nn.softmax(logits).mean(1)
            out |= {f"{name}/{h}_label": m.argmax(-1) for h, m in zip(HEADS, means, strict=True)}
        return out

    return function


def calibrate(context: Context, arrays: dict[str, Any]) -> dict[str, Any]:
    """Fits temperatures, thresholds and the gate on held-out clean and augmented images."""
    directory = context.workdir / "evaluate" / "calibration"
    methods = routed_methods(arrays)
    if not context.config.selection.calibrate:
        methods = [m for m in methods if selection_config(context, m).score == "gate"]
    student, sample = context.student(HEADS), sampler(context)
    size = -(-context.config.evaluate.batch_size // context.mesh.size) * context.mesh.size

    @jax.jit
    def outputs(arrays: Any, images: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        z = student.trunk(arrays["student"], images)
        return z, {
            name: sample(arrays["student"], arrays["tuned"][name], z)
            for name in {ROUTED[method][0] for method in methods}
        }

    found: dict[str, list[Any]] = {"clean": [], "aug": [], "label": []}
    for batch in ordered_batches(context.calibration_set(), batch_size=size):
        count = int(batch["mask"].sum())
        found["label"].append(batch["label"][:count])
        for view in ("clean", "aug"):
            placed = sharding.shard_batch({"image": batch[view]}, context.mesh)["image"]
            z, logits = jax.device_get(outputs(arrays, placed))
            found[view].append((z[:count], {k: v[:, :, :count] for k, v in logits.items()}))
    labels = np.concatenate(found["label"])

    fitted = {}
    directory.mkdir(parents=True, exist_ok=True)
    for method in methods:
        name = ROUTED[method][0]
        z, logits = {}, {}
        for view in ("clean", "aug"):
            z[view] = np.concatenate([part[0] for part in found[view]])
            logits[view] = np.concatenate([part[1][name] for part in found[view]], axis=2)
        fitted[method] = calibration_lib.calibrate(
            logits["clean"],
            labels,
            logits["aug"],
            labels,
            selection_config(context, method),
            z["clean"],
            z["aug"],
            context.config.seed,
        )
        (directory / f"{method}.json").write_text(fitted[method].to_json())
    return fitted


def _save(path: Any, outputs: Outputs) -> None:
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, **outputs)
    temporary.replace(path)


def _save_pictures(
    context: Context, images: EvalSet, found: dict[str, Outputs], arrays: dict[str, Any]
) -> None:
    shifted = [outputs["ours/routing_score"] for name, outputs in found.items() if name != "clean"]
    fitted = arrays["calibration"].get("ours")
    _save(
        context.workdir / "evaluate" / "routing.npz",
        {
            "clean": found["clean"]["ours/routing_score"],
            "shifted": np.concatenate(shifted) if shifted else np.empty(0, np.float32),
            "threshold": np.asarray(fitted.threshold if fitted else 0.0),
        },
    )
    names = list(found)
    pixels = np.concatenate([i for i, _ in images.batches(context.config.evaluate.batch_size)])
    picked = np.random.default_rng(context.config.seed).permutation(len(pixels))[:NUM_EXAMPLES]
    shown: dict[str, list[Any]] = {k: [] for k in ("images", "original", "ours", "head", "caption")}
    # Every fifth set and one more: all corruptions come in turn, at changing severities.
    for position, index in enumerate(picked):
        name = names[position * 6 % len(names)]
        kind, _, severity = name.partition("-")
        image, ids = pixels[index : index + 1], picked[position : position + 1]
        if severity:
            seed = context.config.seed
            image = corruptions.corrupt(image, kind, int(severity), ids=ids, seed=seed)
        shown["images"].append(image[0])
        for key, output in (("original", "original/label"), ("ours", "ours/label")):
            shown[key].append(found[name][output][index])
        shown["head"].append(found[name]["ours/head"][index])
        words = kind.replace("_", " ")
        shown["caption"].append(f"{words}, severity {severity}" if severity else words)
    stacked = {key: np.asarray(values) for key, values in shown.items()}
    _save(
        context.workdir / "evaluate" / "examples.npz",
        {**stacked, "labels": images.labels[picked]},
    )
