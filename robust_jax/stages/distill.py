"""Stage `distill`: tunes the three-head student with the robust teacher."""

from collections.abc import Iterator
from typing import Any

import jax

from robust_jax import config as config_lib
from robust_jax import optim, stages
from robust_jax.data import cache as feature_cache
from robust_jax.method import distillation
from robust_jax.method.selection import HEADS
from robust_jax.stages import cache as cache_stage
from robust_jax.stages.context import Context
from robust_jax.state import TrainState


def run(context: Context) -> dict[str, Any]:
    """Tunes `ours`; returns its times."""
    return tune(context, "distill/ours", HEADS, context.config.method.kd)


def tune(context: Context, path: str, heads: tuple[str, ...], kd: Any) -> dict[str, Any]:
    """Tunes a student from the cache or from images, and stores it in `path/tuned`.

    Args:
      path: below the workdir.
      heads: the heads that it has.
      kd: options of `method.kd`; the teacher is touched only when its weight is above 0.
    """
    section, student = context.config.distill, context.student(heads)
    teacher = (context.teacher_model, context.teacher_entry) if kd["weight"] else None
    frozen = {"student": context.variables("pretrain")}
    elements = context.augmented_set()
    total = config_lib.duration(section, "total", examples=len(elements), label="distill")
    hosts = {"process_index": jax.process_index(), "process_count": jax.process_count()}
    cached = stages.result(context.workdir, "cache")["used"]
    if cached:
        arrays = _cached_arrays(context, with_teacher=teacher is not None)
        teacher = None  # its answers are among the arrays

        def batches(start: int, stop: int) -> Iterator[feature_cache.Block]:
            return feature_cache.batches(
                arrays,
                batch_size=section.batch_size,
                seed=elements.seed,
                start_step=start,
                num_steps=stop,
                **hosts,
            )

    else:
        from robust_jax.data.pipeline import train_batches

        if teacher is not None:
            frozen["teacher"] = context.variables("teacher")

        def batches(start: int, stop: int) -> Iterator[feature_cache.Block]:
            return train_batches(
                elements, batch_size=section.batch_size, start_step=start, num_steps=stop, **hosts
            )

    optimizer = optim.make(section, total)
    tuned = jax.jit(student.init)(jax.random.key(context.config.seed), frozen["student"])
    state, times = context.train_steps(
        path,
        distillation.make_step(student, optimizer, kd, seed=context.config.seed, teacher=teacher),
        TrainState.create(tuned, optimizer),
        frozen,
        batches,
        total_steps=total,
        batch_size=section.batch_size,
    )
    context.save(f"{path}/tuned", state.params)
    return times


def _cached_arrays(context: Context, with_teacher: bool) -> feature_cache.Block:
    taught = ("teacher_clean", "teacher_aug") if with_teacher else ()
    names = ("z_clean", "z_aug", "label", *taught)
    elements = context.augmented_set()
    return feature_cache.FeatureCache(
        context.workdir / "cache", cache_stage.fingerprint(context), len(elements)
    ).load(names)
