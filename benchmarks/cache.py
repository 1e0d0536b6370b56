"""The whole job: a student made robust by the cache, against complete fine-tuning for as long.

`job_over_full_finetune` is the wall time of the stages `cache` and `distill` (build, compilation,
checkpoints and all epochs of the tail) over that of as many epochs of `full_finetune`, which are
extrapolated from the steady steps of a few measured ones, without compilation and checkpoints.
An epoch of the tail visits the augmented set, here larger than the images that fine-tuning visits.
`one_view` is fine-tuning by plain cross-entropy on one augmented view in place of three views and
the AugMix loss. `with_teacher` also counts the training of the teacher, extrapolated as well.

The four ways to feed the tail (its features on the device, in memory, on disk, or images, in
`streaming`) take turns; their ratios are of the milliseconds of a step.
`python benchmarks/cache.py [--json FILE] [--data DIR] [--student NAME] [--image-size SIDE]
[--epochs 100] [--finetune-epochs 1] [--teacher-epochs 1] [--batch 128] [--rounds 3] [--quick]`;
DIR holds train/CLASS/* and val/CLASS/*, without it the images are scikit-learn's digits.
"""

import contextlib
import dataclasses
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import measuring
import numpy as np
from absl import logging
from ml_collections import ConfigDict

from configs import folder, quickstart
from robust_jax import config as config_lib
from robust_jax import main as command
from robust_jax import stages

BEFORE = ("pretrain", "distort", "teacher")
# Way -> what it changes, and steps of a measurement.
WAYS: dict[str, tuple[dict[str, Any], int]] = {
    "device": ({"train.cache_on_device_gigabytes": 1e9}, 400),
    "memory": (
        {"train.cache_on_device_gigabytes": 0.0, "train.cache_in_memory_gigabytes": 1e9},
        400,
    ),
    "disk": (
        {"train.cache_on_device_gigabytes": 0.0, "train.cache_in_memory_gigabytes": 0.0},
        200,
    ),
    "streaming": ({"cache.use": "false", "train.log_every_steps": 2}, 8),
}
QUICK_STEPS = 6
LOG = 2  # steps between two looks at the clock in a training that is measured in part


@dataclasses.dataclass(frozen=True)
class Run:
    """A workdir, and what its runs have in common."""

    config: ConfigDict
    workdir: Path

    def stages(
        self, names: Sequence[str], changes: Mapping[str, Any] | None = None, **options: Any
    ) -> tuple[dict[str, float], Any]:
        """Runs stages; returns the wall seconds of each that ran, and the `Context`."""
        config = self.config.copy_and_resolve_references().unlock()
        config.update_from_flattened_dict({"stages": tuple(names), **(changes or {})})
        seconds, contexts, run = {}, [], stages.run

        def timed(name: str, context: Any) -> None:
            began = time.perf_counter()
            run(name, context)
            seconds[name] = time.perf_counter() - began
            contexts.append(context)

        with mock.patch.object(stages, "run", timed), contextlib.redirect_stdout(sys.stderr):
            command.run(config.lock(), self.workdir, **options)
        return seconds, contexts[-1]

    def result(self, stage: str) -> dict[str, Any]:
        """Returns what a finished stage reported."""
        return stages.result(self.workdir, stage)

    def step_seconds(self, training: str, batch: int) -> float:
        """Returns the time of a step, from the first metrics that were written to the last."""
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
        from tensorboard.util import tensor_util

        events = EventAccumulator(str(self.workdir / "tb" / training), size_guidance={"tensors": 0})
        events.Reload()
        took = {
            event.step: event.step * batch / float(tensor_util.make_ndarray(event.tensor_proto))
            for event in events.Tensors("images_per_second")
        }
        first, last = min(took), max(took)
        return (took[last] - took[first]) / (last - first)


def make_config(args: Namespace) -> ConfigDict:
    """The config of a user's run, but for a student that is hardly trained."""
    c = folder.get_config() if args.data else quickstart.digits()
    c.data.dir = args.data
    c.data.image_size = args.image_size
    c.student.name = args.student or c.student.name
    c.cache.use = "true"
    c.baselines.methods = ("full_finetune",)
    c.distill.batch_size = c.finetune.batch_size = c.teacher.batch_size = args.batch
    c.distill.total_epochs = float(args.epochs)
    c.pretrain.total_steps = 8
    if args.quick:
        c.augmented.replicas, c.augmented.fraction = 1, 0.2
        c.train.log_every_steps = c.train.checkpoint_every_steps = 2
    return c


def row(part: str, seconds: float, compiling: float, steps: int, each: float, batch: int) -> Any:
    """A row of the table: `seconds` in all and `each` of a step; caches get their size later."""
    return {
        "part": part,
        "seconds": seconds,
        "compile_seconds": compiling,
        "steps": steps,
        "ms_per_step": 1e3 * each,
        "examples_per_second": batch / each,
        "megabytes": 0.0,
    }


def short(args: Namespace, section: str, epochs: int) -> dict[str, Any]:
    """Changes by which only so many epochs of a training are measured."""
    if args.quick:
        return {f"{section}.total_steps": QUICK_STEPS}
    return {f"{section}.total_epochs": float(epochs)}


def job(run: Run, args: Namespace, known: Mapping[str, Any]) -> tuple[list[Any], Any]:
    """The rows of the teacher and of the stages `cache` and `distill`, and the `Context`."""
    took, context = run.stages(BEFORE, {**known, "train.log_every_steps": LOG})
    teacher, each = run.result("teacher"), run.step_seconds("teacher", args.batch)
    images = len(context.train)
    steps = config_lib.duration(run.config.teacher, "total", examples=images, label="teacher")
    seconds = took["teacher"] + (steps - teacher["steps"]) * each
    rows = [row("teacher", seconds, teacher["compile_seconds"], steps, each, args.batch)]

    took, context = run.stages(("cache", "distill"), known)
    cache, distill, pairs = run.result("cache"), run.result("distill"), context.augmented_set()
    steps = -(-len(pairs) // args.batch)
    each = cache["seconds"] / len(pairs) * args.batch
    rows.append(row("cache", took["cache"], cache["compile_seconds"], steps, each, args.batch))
    steps = config_lib.duration(run.config.distill, "total", examples=len(pairs), label="distill")
    each = run.step_seconds("distill/ours", args.batch)
    rows.append(row("tail", took["distill"], distill["compile_seconds"], steps, each, args.batch))
    for found in rows[1:]:
        found["megabytes"] = 1e3 * cache["gigabytes"]
    return rows, context


def ways(run: Run, args: Namespace, known: Mapping[str, Any]) -> list[Any]:
    """The rows of the ways to feed the tail; each has a workdir that takes over what it reads."""
    each: dict[str, list[float]] = {way: [] for way in WAYS}
    rows = []
    for round_ in range(args.rounds):
        for way, (changes, steps) in WAYS.items():
            own = Run(run.config, run.workdir.with_name(way))
            steps = QUICK_STEPS if args.quick else steps
            own.stages(
                (*BEFORE, "cache", "distill"),
                {**known, **changes, "distill.total_steps": steps},
                rerun=("distill",),
                shared=run.workdir,
                others=(run.workdir,),
            )
            each[way].append(own.step_seconds("distill/ours", args.batch))
            if round_ == args.rounds - 1:
                median, found = float(np.median(each[way])), own.result("distill")
                compiling = found["compile_seconds"]
                rows.append(row(way, steps * median, compiling, steps, median, args.batch))
                used = own.result("cache")
                rows[-1]["megabytes"] = 1e3 * used["gigabytes"] if used["used"] else 0.0
    return rows


def full(run: Run, args: Namespace, known: Mapping[str, Any], images: int) -> list[Any]:
    """The rows of complete fine-tuning by both losses, extrapolated."""
    rows = []
    for part, loss in (("full", run.config.finetune.loss), ("full, one view", "cross_entropy")):
        changes = short(args, "finetune", args.finetune_epochs)
        changes |= {"finetune.loss": loss, "train.log_every_steps": LOG}
        run.stages(("baselines",), {**known, **changes}, rerun=("baselines",))
        compiling = run.result("baselines")["full_finetune"]["compile_seconds"]
        each = run.step_seconds("baselines/full_finetune", args.batch)
        steps = round(args.epochs * images / args.batch)
        rows.append(row(part, steps * each, compiling, steps, each, args.batch))
    return rows


def title(run: Run, args: Namespace, context: Any) -> str:
    """What was measured, and what was not."""
    few = f"{QUICK_STEPS} steps" if args.quick else ""
    finetuned, taught = (
        few or f"{epochs} measured" for epochs in (args.finetune_epochs, args.teacher_epochs)
    )
    return (
        f"{run.config.student.name} on {context.train.name}: {len(context.train):,} images, "
        f"augmented set of {len(context.augmented_set()):,} pairs, batch {args.batch}\n"
        f"measured: the cache and {args.epochs} epochs of the tail; extrapolated: full "
        f"fine-tuning from {finetuned} to {args.epochs} epochs, the teacher from {taught} to "
        f"{run.config.teacher.total_epochs:g}"
    )


def main() -> None:
    """Measures, prints the table and writes the JSON."""
    args = measuring.arguments(
        __doc__,
        data="",
        student="",
        image_size=0,
        epochs=100,
        finetune_epochs=1,
        teacher_epochs=1,
        batch=128,
        rounds=3,
        quick=False,
    )
    if args.quick:
        args.batch, args.rounds = 32, 1
    logging.set_verbosity(logging.WARNING)  # Orbax tells a screenful about every file it touches
    with tempfile.TemporaryDirectory() as scratch:
        run = Run(make_config(args), Path(scratch) / "job")
        known = short(args, "teacher", args.teacher_epochs)
        rows, context = job(run, args, known)
        rows += ways(run, args, known)
        rows += full(run, args, known, len(context.train))
        said = title(run, args, context)
    seconds = {row["part"]: row["seconds"] for row in rows}
    ms = {row["part"]: row["ms_per_step"] for row in rows}
    ours = seconds["cache"] + seconds["tail"]
    ratios = {
        "job_over_full_finetune": ours / seconds["full"],
        "job_over_full_finetune_one_view": ours / seconds["full, one view"],
        "job_with_teacher_over_full_finetune": (ours + seconds["teacher"]) / seconds["full"],
        **{f"{way}_over_device": ms[way] / ms["device"] for way in WAYS if way != "device"},
    }
    measuring.finish(said, rows, ratios, args.json)


if __name__ == "__main__":
    main()
