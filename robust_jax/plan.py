"""The plan of a run: what can be checked and told before anything is trained."""

import jax
import ml_collections
import numpy as np
from etils import epath

from robust_jax import config as config_lib
from robust_jax import optim
from robust_jax.data.elements import Elements
from robust_jax.data.pipeline import ordered_batches
from robust_jax.evals import corruption, perturbation
from robust_jax.method import budget
from robust_jax.stages import evaluate
from robust_jax.stages.context import Context


def make(
    config: ml_collections.ConfigDict,
    workdir: epath.PathLike,
    *,
    index_dir: epath.PathLike | None = None,
    dry_run: bool = False,
) -> Context:
    """Checks what only data and models can tell, prints the plan and returns the `Context`.

    A dry run fetches nothing, and tells what it could not check without. For the arguments see
    `Context`.
    """
    context = Context(config, workdir, index_dir=index_dir, dry_run=dry_run)
    if dry_run:
        _tell_absent(context)
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
    print(", ".join(_network(config, name) for name in ("student", "teacher")))
    print(
        f"data: {context.train.name}, {len(context.train):,} train, {len(context.calibration):,} "
        f"calibration and {len(context.val):,} evaluation images, "
        f"{len(context.class_names)} classes"
    )
    print(
        f"memory: frozen {frozen / 1e6:.1f} MB, tuned {tuned / 1e6:.2f} MB and its Adam moments "
        f"{2 * tuned / 1e6:.2f} MB, on {context.training_mesh.size} {jax.default_backend()} "
        "device(s)"
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


def _tell_absent(context: Context) -> None:
    """Tells what a plan is made of, and what of it is not on this machine."""
    data, section = context.config.data, context.config.evaluate
    if context.source.absent or context.val.absent:
        print(f"data: {data.name} is not prepared on this machine; its images were not checked")
    if absent := context.absent_weights:
        print(f"weights not on this machine and not checked: {', '.join(absent)}")
    if section.sets:
        print(f"benchmarks: {', '.join(section.sets)}")


def _network(config: ml_collections.ConfigDict, name: str) -> str:
    section = config[name]
    return f"{name}: {section.name} ({section.weights or 'trained here'})"


def _check_images(context: Context) -> None:
    """Makes the first images of every kind, and checks that they suit the models."""
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
