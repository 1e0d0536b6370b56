"""Stage `evaluate`: every method on clean and corrupted images, from the same forward passes."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from robust_jax import sharding, writers
from robust_jax.data.pipeline import ordered_batches
from robust_jax.evals import classification, corruption, perturbation
from robust_jax.evals.classification import EvalSet
from robust_jax.method.selection import HEADS, predict
from robust_jax.models import normalise
from robust_jax.stages import pictures, results, routing
from robust_jax.stages.baselines import TUNED
from robust_jax.stages.context import Context
from robust_jax.stages.routing import ROUTED

# Networks of the teacher's kind, and where they lie.
TEACHERS = {"teacher": "teacher", "teacher_clean": "baselines/teacher_clean"}


def run(context: Context) -> None:
    """Evaluates and writes results.jsonl and what the report's pictures need."""
    section = context.config.evaluate
    pairs = corruption.grid(section.corruptions, section.severities)
    sequences = perturbation.names(section.perturbations)
    images = EvalSet(context.val, context.ops("eval_ops"), section.max_images)
    arrays = load_arrays(context)
    methods = [method for method, (student, _) in ROUTED.items() if student in arrays["tuned"]]
    batches = _calibration_batches(context)

    def place(pixels: np.ndarray) -> jax.Array:
        return sharding.shard_batch({"image": pixels}, context.mesh)["image"]

    arrays["calibration"] = routing.calibrate(context, methods, batches, arrays, place)
    function = jax.jit(answers(context, arrays, methods))
    store = context.workdir / "evaluate" / "outputs"
    jobs: list[tuple[str, corruption.Transform | None]] = [("clean", None)]
    jobs += [(f"{n}-{s}", corruption.transform(n, s, context.config.seed)) for n, s in pairs]
    with writers.Progress("evaluate", len(jobs) + len(sequences), unit="set") as progress:
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
                writers.write_arrays(store / f"{name}.npz", outputs)
            progress.advance()
        for name in sequences:
            if not (store / f"flips-{name}.npz").exists():
                outputs = perturbation.labels(
                    function,
                    arrays,
                    images,
                    name,
                    batch_size=section.batch_size,
                    mesh=context.mesh,
                    seed=context.config.seed,
                )
                writers.write_arrays(store / f"flips-{name}.npz", outputs)
            progress.advance()
    found = {name: writers.read_arrays(store / f"{name}.npz") for name, _ in jobs}
    flips = {name: writers.read_arrays(store / f"flips-{name}.npz") for name in sequences}
    rows = results.rows(found, images.labels, context.config.seed)
    rows += results.flip_rows(flips, context.config.seed)
    text = "".join(json.dumps(row, sort_keys=True) + "\n" for row in rows)
    writers.write_text(context.workdir / "results.jsonl", text)
    pictures.save(context, images, found, arrays["calibration"].get("ours"))


def load_arrays(context: Context) -> dict[str, Any]:
    """Returns the arrays of every model that is evaluated."""
    wanted = context.config.baselines.methods
    arrays: dict[str, Any] = {"student": context.variables("pretrain"), "tuned": {}}
    for name, path in TEACHERS.items():
        if name in wanted:
            arrays[name] = context.variables(path)
    arrays["tuned"]["ours"] = context.tuned("distill/ours", HEADS)
    for name in wanted:
        if name in TUNED:
            arrays["tuned"][name] = context.tuned(f"baselines/{name}", TUNED[name])
    return arrays


def answers(
    context: Context, arrays: dict[str, Any], methods: list[str]
) -> Callable[[Any, jax.Array], dict[str, jax.Array]]:
    """Returns (arrays, images) -> what every method says; the trunk runs once."""
    student, sample = context.student(HEADS), routing.sampler(context)
    single = {
        name: context.student(heads)
        for name, heads in TUNED.items()
        if heads != HEADS and name in arrays["tuned"]
    }

    def function(arrays: dict[str, Any], images: jax.Array) -> dict[str, jax.Array]:
        frozen = arrays["student"]
        z = student.trunk(frozen, images)
        out = {"original/label": student.original(frozen, z).argmax(-1)}
        for name in TEACHERS:
            if name in arrays:
                x = normalise(images, context.teacher_entry)
                said: Any = context.teacher_model.apply(arrays[name], x)
                out[f"{name}/label"] = said.argmax(-1)
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
            chosen = predict(logits, routing.selection_config(context, method), fitted, z)
            out |= {f"{method}/{k}": chosen[k] for k in ("label", "head", "routing_score")}
        for name, logits in samples.items():
            means = jax.nn.softmax(logits).mean(1)
            out |= {f"{name}/{h}_label": m.argmax(-1) for h, m in zip(HEADS, means, strict=True)}
        return out

    return function


def _calibration_batches(context: Context) -> Iterator[tuple[dict[str, np.ndarray], int]]:
    size = -(-context.config.evaluate.batch_size // context.mesh.size) * context.mesh.size
    for batch in ordered_batches(context.calibration_set(), batch_size=size):
        yield batch, int(batch["mask"].sum())
