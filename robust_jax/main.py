"""The command line: `python -m robust_jax.main --config configs/X.py[:arg] --workdir DIR`."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import ml_collections
import numpy as np
from absl import app, flags, logging
from etils import epath
from ml_collections import config_flags

from robust_jax import config as config_lib
from robust_jax import validation

_CONFIG = config_flags.DEFINE_config_file("config", help_string="configs/X.py[:arg]")
_WORKDIR = flags.DEFINE_string("workdir", None, "Where results go; gs:// works.", required=True)
_RERUN = flags.DEFINE_multi_enum(
    "rerun", [], config_lib.STAGES, "Run this stage, and what depends on it, again."
)
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "Print the plan and stop.")
flags.mark_flag_as_required("config")


def main(argv: Sequence[str]) -> None:
    """Runs what the command line asks for."""
    if len(argv) > 1:
        raise ValueError(f"unexpected arguments; got {argv[1:]}; options begin with --")
    # Orbax tells a screenful about every file it touches.
    logging.set_verbosity(logging.WARNING)
    run(_CONFIG.value, _WORKDIR.value, rerun=_RERUN.value, dry_run=_DRY_RUN.value)


def run(
    config: ml_collections.ConfigDict,
    workdir: epath.PathLike,
    *,
    rerun: Sequence[str] = (),
    dry_run: bool = False,
) -> None:
    """Runs the stages of a config, from where an earlier run of the same workdir stopped.

    Args:
      config: made from `configs/base.py`.
      workdir: where results go.
      rerun: stages to run again, with what depends on them.
      dry_run: only print the plan; the workdir is not touched.

    Raises:
      ValueError: for a bad config or bad data, before anything is trained, and where the workdir
        holds results of another config.
    """
    validation.validate(config, config_lib.base())
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from robust_jax import sharding

    sharding.use_all_cores()
    if dry_run:
        with tempfile.TemporaryDirectory() as scratch:
            _plan(config, scratch)
        return
    import jax

    from robust_jax import stages, writers

    workdir = epath.Path(workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    jax.config.update("jax_compilation_cache_dir", str(workdir / "xla_cache"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    if jax.process_count() > 1:
        raise ValueError(
            f"this version runs on one host; got {jax.process_count()} processes; start one"
        )
    context = _plan(config, workdir)
    stages.check(workdir, config, context.data_fingerprint, rerun)
    for name in rerun:
        stages.clear(workdir, name)
    writers.write_json(workdir / "config.json", config_lib.flatten(config))
    writers.write_json(workdir / "dataset.json", {"classes": list(context.class_names)})
    writers.write_json(workdir / "networks.json", context.entries_as_json())
    writers.write_json(workdir / "versions.json", _versions())
    for name in config_lib.STAGES:
        if name not in config.stages:
            continue
        if stages.is_done(workdir, name):
            print(f"stage {name}: done before")
            continue
        print(f"stage {name}")
        stages.run(name, context)
    if "report" in config.stages:
        from robust_jax.stages import report

        report.show(workdir)


def _plan(config: ml_collections.ConfigDict, workdir: epath.PathLike) -> Any:
    """Checks what only data and models can tell, prints the plan and returns the `Context`."""
    import jax

    from robust_jax import optim
    from robust_jax.evals import corruption, perturbation
    from robust_jax.method import budget
    from robust_jax.stages import evaluate
    from robust_jax.stages.context import Context

    context = Context(config, workdir)
    # Later stages use these: a mistake must not wait until the earlier ones are trained.
    _check_images(context)
    corruption.grid(config.evaluate.corruptions, config.evaluate.severities)
    perturbation.names(config.evaluate.perturbations)
    evaluate.load_benchmarks(context)
    model = context.student_model
    shapes = context.shapes(model)
    print(budget.format_table(context.plan, model, shapes["params"]))
    frozen = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(shapes))
    tuned = 4 * context.plan.tuned_params
    print(
        f"data: {context.train.name}, {len(context.train):,} train, {len(context.calibration):,} "
        f"calibration and {len(context.val):,} evaluation images, "
        f"{len(context.class_names)} classes"
    )
    print(
        f"memory: frozen {frozen / 1e6:.1f} MB, tuned {tuned / 1e6:.2f} MB and its Adam moments "
        f"{2 * tuned / 1e6:.2f} MB, on {context.mesh.size} {jax.devices()[0].platform} device(s)"
    )
    elements, section = context.augmented_set(), config.augmented
    ways = ", ".join(f"{name} {weight:g}" for name, weight in section.mixture.items() if weight)
    print(
        f"augmented set: N' = {section.replicas} x {len(context.train):,} = {elements.whole:,} "
        f"elements, aN' = {len(elements):,} are used; mixture: {ways}"
    )
    if copies := context.copy_names:
        print(f"distort: {len(copies)} copies of {len(context.source):,} images")
    sizes = {"pretrain": len(context.train), "teacher": len(context.train)}
    student = config.student
    if student.weights and student.classifier != "finetune":
        del sizes["pretrain"]
        print(f"pretrain: {student.weights}, classifier: {student.classifier}")
    sizes["distill"] = len(elements)
    if {"full_finetune", "lp_ft"} & set(config.baselines.methods):
        sizes["finetune"] = len(context.train)
    for stage, size in sizes.items():
        section = config[stage]
        steps = config_lib.duration(section, "total", examples=size, label=stage)
        optim.make(section, steps)
        print(f"{stage}: {steps:,} steps of {section.batch_size}, {section.optimizer}")
    print("stages: " + ", ".join(s for s in config_lib.STAGES if s in config.stages))
    return context


def _check_images(context: Any) -> None:
    """Makes the first images of every kind, and checks that they suit the models."""
    from robust_jax.data.elements import Elements
    from robust_jax.data.pipeline import ordered_batches

    size = context.image_size
    views = {"train_ops": "", "augment_ops": context.ops("augment_ops")}
    training = Elements(context.train, context.ops("train_ops"), views, seed=context.config.seed)
    evaluated = Elements(context.val, context.ops("eval_ops"), {"eval_ops": ""}, seed=0)
    for elements in (training, evaluated):
        batch = next(ordered_batches(elements, batch_size=1, stop=1))
        for key in elements.views:
            image = batch[key][0]
            if image.shape != (size, size, 3) or image.dtype != np.uint8:
                raise ValueError(
                    f"data.{key} must make uint8 images of the run's size; got {image.dtype}"
                    f"{list(image.shape)} for image_size={size}; end it with resize({{size}}) or "
                    "a crop (the models normalise pixels themselves)"
                )


def _versions() -> dict[str, str]:
    found = {"python": sys.version.split()[0]}
    for name in ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "tensorflow-cpu", "numpy"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "absent"
    return {**found, "git_commit": _git_commit()}


def _git_commit() -> str:
    """Returns the commit that this code is of; "unknown" outside its own repository."""
    root = Path(__file__).parents[1]
    command = ["git", "-C", str(root), "rev-parse", "--show-toplevel", "HEAD"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split(
            "\n"
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return said[1] if Path(said[0]) == root else "unknown"


def parse_flags(argv: list[str]) -> list[str]:
    """Parses the command line, with unknown config keys explained before anything else."""
    config_lib.check_overrides(argv)
    return app.parse_flags_with_usage(argv)


def cli() -> None:
    """Runs `main` through absl."""
    app.run(main, flags_parser=parse_flags)


if __name__ == "__main__":
    cli()
