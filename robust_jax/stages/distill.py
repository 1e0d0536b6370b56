"""Stage `distill`: tunes the three-head student with the robust teacher."""

import functools
from typing import Any

import jax

from robust_jax import config as config_lib
from robust_jax import optim, sharding
from robust_jax.method import distillation, losses
from robust_jax.method.selection import HEADS
from robust_jax.stages import feed
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
      kd: options of `method.kd`; the teacher is touched only when it teaches one of the heads.
    """
    section, student = context.config.distill, context.student(heads)
    examples = len(context.augmented_set())
    total = config_lib.duration(section, "total", examples=examples, label="distill")
    is_taught = any(losses.head_weight(kd, head) for head in heads)
    fed = feed.make(context, path, taught=is_taught)
    mesh, frozen = fed.mesh, {"student": context.frozen(fed.mesh), **fed.frozen}
    teacher = None
    if is_taught and not fed.cached:
        teacher = (context.teacher_model, context.teacher_entry)
        frozen["teacher"] = context.variables("teacher", mesh)
    optimizer = optim.make(section, total)
    tuned = sharding.create(
        student.init, mesh, jax.random.key(context.config.seed), frozen["student"]
    )
    create = functools.partial(TrainState.create, optimizer=optimizer)
    step = distillation.make_step(
        student,
        optimizer,
        kd,
        seed=context.config.seed,
        teacher=teacher,
        accum_steps=section.accum_steps,
        remat=section.remat,
    )
    state, times = context.train_steps(
        path,
        fed.adapt(step),
        sharding.create(create, mesh, tuned),
        frozen,
        fed.batches,
        section="distill",
        total_steps=total,
        mesh=mesh,
        steps_per_call=fed.steps_per_call,
    )
    context.save(f"{path}/tuned", state.params)
    return times
