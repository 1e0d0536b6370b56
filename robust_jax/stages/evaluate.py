"""Stage `evaluate`: every method on clean and corrupted images, from the same forward passes."""

import functools
from collections.abc import Iterator

import jax
import numpy as np

from robust_jax import hosts, sharding
from robust_jax.data.pipeline import ordered_batches
from robust_jax.evals import benchmarks, sets
from robust_jax.evals.benchmarks import StoredFrames, StoredImages
from robust_jax.stages import answers, pictures, results, routing
from robust_jax.stages.context import Context


def run(context: Context) -> None:
    """Evaluates and writes results.jsonl and what the report's pictures need."""
    section, seed = context.config.evaluate, context.config.seed
    choice = sets.Choice(
        section.corruptions,
        section.severities,
        section.perturbations,
        section.max_images,
        section.jpeg85,
        seed,
        section.max_sequences,
    )
    own = sets.own_sets(
        context.val,
        context.ops("eval_ops"),
        context.ops("evaluate.perturbation_ops"),
        choice,
        size=context.image_size,
    )
    stored = load_benchmarks(context)
    arrays = answers.load_arrays(context)
    methods = routing.routed_methods(context, arrays["tuned"])

    def place(pixels: np.ndarray) -> jax.Array:
        return sharding.shard_batch({"image": pixels}, context.mesh)["image"]

    arrays["calibration"] = routing.calibrate(
        context, methods, _calibration_batches(context), arrays, place
    )
    measured = sets.measure(
        [*own, *sets.stored_sets(stored, choice)],
        functools.partial(answers.answers, context, arrays),
        arrays,
        context.workdir / "evaluate" / "outputs",
        version="",  # the stage's results are removed where the run's arrays change
        batch_size=section.batch_size,
        mesh=context.mesh,
    )
    if not hosts.is_first():
        return
    results.write(context.workdir, results.rows(measured, seed))
    answered = [
        (one, found.outputs)
        for one, found in zip(own, measured, strict=False)  # those that are read come after
        if isinstance(one, sets.ImageSet)
    ]
    calibration = arrays["calibration"].get("ours")
    pictures.save(context.workdir / "evaluate", answered, calibration, seed)


def load_benchmarks(context: Context) -> list[StoredImages | StoredFrames]:
    """Loads `evaluate.sets`, in a dry run those on this machine; see `benchmarks.load`."""
    data, section = context.config.data, context.config.evaluate
    return benchmarks.load_all(
        section.sets,
        skip_absent=context.dry_run,
        class_names=context.class_names,
        eval_ops=context.ops("eval_ops"),
        size=context.image_size,
        corruptions=section.corruptions or ("all",),
        severities=section.severities,
        perturbations=section.perturbations or ("all",),
        data_dir=data.dir if data.source == "tfds" else "",
        index_dir=context.index_dir,
    )


def _calibration_batches(context: Context) -> Iterator[tuple[dict[str, np.ndarray], int]]:
    size = sharding.padded_size(context.config.evaluate.batch_size, context.mesh)
    for batch in ordered_batches(context.calibration_set(), batch_size=size):
        yield batch, int(batch["mask"].sum())
