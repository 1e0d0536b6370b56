"""Stage `cache`: runs trunk and teacher over the augmented set once, where that pays."""

import time
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp

from robust_jax import config as config_lib
from robust_jax import costs, sharding
from robust_jax.checkpoint import parameter_hash
from robust_jax.data.cache import Block, FeatureCache, build
from robust_jax.method import distillation
from robust_jax.method.selection import HEADS
from robust_jax.stages.context import Context


def run(context: Context) -> dict[str, Any]:
    """Builds the cache, or decides to stream; returns the decision and its figures.

    The teacher's part is told apart, for methods that have none. Where the cache is not used, the
    trial that decided costs nothing that a method needs.
    """
    from robust_jax.data.pipeline import ordered_batches

    elements, section = context.augmented_set(), context.config.distill
    student, size = context.student(HEADS), section.batch_size
    frozen = sharding.replicate(load_frozen(context), context.mesh)
    teacher = (context.teacher_model, context.teacher_entry)
    dtype = jnp.dtype(context.config.cache.dtype)

    @jax.jit
    def trunk(frozen: Any, batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
        found = distillation.features(student, frozen, batch, None)
        return {k: v.astype(dtype) for k, v in found.items()}

    @jax.jit
    def ask(frozen: Any, batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
        return distillation.answers(teacher, frozen["teacher"], batch)

    def views(batch: Block) -> dict[str, jax.Array]:
        found = {name: batch[name] for name in ("clean", "aug")}
        return sharding.shard_batch(found, context.mesh)

    def blocks(start: int) -> Iterator[tuple[int, Block]]:
        for batch in ordered_batches(elements, batch_size=size, start=start):
            yield int(batch["mask"].sum()), batch

    trial = blocks(0)
    _, first = next(trial)
    compiled, compile_seconds = [], []
    for program in (trunk, ask):
        began = time.perf_counter()
        compiled.append(program.lower(frozen, views(first)).compile())
        compile_seconds.append(time.perf_counter() - began)
    asking = 0.0  # seconds of the last block

    def compute_block(batch: Block) -> Block:
        nonlocal asking
        placed = views(batch)
        found = jax.device_get(compiled[0](frozen, placed))
        began = time.perf_counter()
        found |= jax.device_get(compiled[1](frozen, placed))
        asking = time.perf_counter() - began
        return {**found, "label": batch["label"]}

    example = compute_block(first)
    began = time.perf_counter()
    count, batch = next(trial, (0, None))
    if batch is None:  # the set is one batch
        count, batch = next(blocks(0))
    compute_block(batch)
    per_element = (time.perf_counter() - began) / count
    steps = config_lib.duration(section, "total", examples=len(elements), label="distill")
    row_bytes = sum(v.nbytes for v in example.values()) / size
    gigabytes = row_bytes * len(elements) / 1e9
    passes = steps * size / len(elements)
    use, why = decide(context.config.cache, gigabytes, passes)
    print(
        f"cache: {'built' if use else 'not built'}, {why}: {gigabytes:.3f} GB and about "
        f"{per_element * len(elements):.0f} s once, against about "
        f"{per_element * steps * size:.0f} s when streaming {passes:.1f} passes"
    )
    if not use:
        nothing = {"seconds": 0.0, "compile_seconds": 0.0, "flops": 0.0}
        return {"used": False, **nothing, "teacher": nothing}
    cache = FeatureCache(context.workdir / "cache", fingerprint(context), len(elements))
    spent = context.workdir / "cache" / "spent.json"
    if cache.progress[0] < len(elements):
        costs.spend(spent, compile_trunk=compile_seconds[0], compile_teacher=compile_seconds[1])

    def store_block(batch: Block) -> Block:
        rows = compute_block(batch)
        costs.spend(spent, teacher=asking)
        return rows

    build(cache, blocks, store_block)
    took = dict.fromkeys(("compile_trunk", "compile_teacher", "teacher"), 0.0) | costs.spent(spent)
    calls = -(-len(elements) // size)
    counted = [costs.flops(calls, program, frozen, views(first)) for program in (trunk, ask)]
    return {
        "used": True,
        "seconds": cache.progress[1],
        "compile_seconds": took["compile_trunk"] + took["compile_teacher"],
        **costs.added(*counted),
        "teacher": {
            "seconds": took["teacher"],
            "compile_seconds": took["compile_teacher"],
            **counted[1],
        },
        "gigabytes": gigabytes,
    }


def decide(section: Any, gigabytes: float, passes: float) -> tuple[bool, str]:
    """Returns whether to cache, and why."""
    if section.use != "auto":
        return section.use == "true", f"cache.use={section.use}"
    if gigabytes > section.max_gigabytes:
        return False, f"it would exceed cache.max_gigabytes={section.max_gigabytes}"
    if passes <= 1:
        return False, "training visits no element twice"
    return True, "training visits each element more than once"


def fingerprint(context: Context) -> dict[str, Any]:
    """Returns what determines the content of the cache."""
    return {
        **context.augmented_set().to_json(),
        "student": parameter_hash(context.variables("pretrain")),
        "teacher": parameter_hash(context.variables("teacher")),
        "models": [
            context.config.student.name,
            context.config.student.dtype,
            context.config.teacher.name,
            context.config.teacher.dtype,
        ],
        "boundary": context.plan.boundary,
        "dtype": context.config.cache.dtype,
    }


def load_frozen(context: Context) -> dict[str, Any]:
    """Returns the frozen arrays of the three-head step."""
    return {"student": context.variables("pretrain"), "teacher": context.variables("teacher")}
